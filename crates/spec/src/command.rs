//! Commands: what a process runs, as an array or a line, without a shell wherever none is needed.
//!
//! No string of a tenant reaches a shell of ours. A line is split here by the rules of POSIX (XCU 2.2, 2.6.5)
//! with `$VAR` expanded when it starts, exactly as `sh` would do with it; a line that needs more of a shell
//! than that becomes [`Command::Shell`] and runs as `sh -c` as the tenant's own user, inside its build or
//! instance and nowhere else.

mod line;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use self::line::{Split, Word};

/// The longest line or array, in bytes.
pub const COMMAND_MAX: usize = 16 * 1024;
/// The longest command after its variables are expanded, in bytes; well below what `execve` takes.
const EXPANDED_MAX: usize = 1024 * 1024;

/// What a process runs.
///
/// The line is kept as it was written: it is split again when it starts, against the instance's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Stored")]
pub enum Command {
    /// An array: started as it is, nothing is split or expanded.
    Argv(Vec<String>),
    /// A line that needs no shell: split by POSIX rules, `$VAR` and `${VAR}` expanded.
    Line(String),
    /// A line that needs a shell: `sh -c` as the tenant's own user.
    Shell(String),
    /// No program of the tenant's: Berth serves the files below `root`, a directory of the artifact.
    StaticSite {
        /// Relative to the artifact; `.` is the artifact itself.
        root: RelativeDir,
        /// Whether paths that look like pages and are none get `index.html`, whose scripts know them: a single-page app.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        single_page: bool,
    },
}

/// Why something is not a command, or cannot be started as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is nothing to run.
    #[error("the command is empty")]
    Empty,
    /// It is longer than [`COMMAND_MAX`], or than 1 MiB once its variables are expanded.
    #[error("the command is longer than {0} bytes")]
    TooLong(usize),
    /// No argument of a program can hold a NUL byte.
    #[error("the command holds a NUL byte")]
    Nul,
    /// `-x` is an option, not a program; as `argv[0]` it would also make a shell a login shell.
    #[error("the command starts with {0:?}, which is no program")]
    Dash(char),
    /// A quotation mark is never closed.
    #[error("the {mark} at character {column} is never closed")]
    Unclosed {
        /// The quotation mark.
        mark: char,
        /// Where it stands in the line, from 1.
        column: usize,
    },
    /// The line ends in a backslash, which has nothing to escape.
    #[error("the command ends in a backslash")]
    TrailingBackslash,
    /// A static site has no program; Berth serves it itself.
    #[error("a static site has no program of its own")]
    StaticSite,
    /// The root of a static site is not a directory below the artifact.
    #[error("the root of a static site is not usable")]
    Root(#[from] InvalidDir),
}

impl Command {
    /// A command from a line as people write it.
    ///
    /// White space around it is dropped. A newline inside quotation marks is kept, elsewhere it needs a shell.
    ///
    /// # Errors
    /// [`CommandError`] says why no process could be started from it.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        check_text(text)?;
        match line::split(text)? {
            Split::Words(words) => {
                if words.first().is_none_or(Word::is_always_empty) {
                    return Err(CommandError::Empty);
                }
                Ok(Self::Line(text.to_owned()))
            }
            Split::NeedsShell if text.starts_with('+') => Err(CommandError::Dash('+')),
            Split::NeedsShell => Ok(Self::Shell(text.to_owned())),
        }
    }

    /// A command from an array: the program, then its arguments.
    ///
    /// # Errors
    /// [`CommandError`] says why no process could be started from it.
    pub fn from_argv(argv: Vec<String>) -> Result<Self, CommandError> {
        check_argv(&argv, COMMAND_MAX)?;
        Ok(Self::Argv(argv))
    }

    /// The argument vector to start, with variables taken from `env`; one that is not set expands to nothing.
    ///
    /// # Errors
    /// [`CommandError::Empty`] and the like when nothing startable is left after expansion;
    /// [`CommandError::StaticSite`] for a static site.
    pub fn argv(&self, env: &BTreeMap<String, String>) -> Result<Vec<String>, CommandError> {
        match self {
            Self::Argv(argv) => Ok(argv.clone()),
            Self::Shell(line) => Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]),
            Self::StaticSite { .. } => Err(CommandError::StaticSite),
            Self::Line(text) => {
                let Split::Words(words) = line::split(text)? else {
                    // Only a hand-made value gets here; `parse` and deserialising keep the two apart.
                    return Self::Shell(text.clone()).argv(env);
                };
                let argv = line::expand(&words, env, EXPANDED_MAX)?;
                check_argv(&argv, EXPANDED_MAX)?;
                Ok(argv)
            }
        }
    }
}

/// The command as people read it, in lists and in logs.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argv(argv) => write!(f, "{argv:?}"),
            Self::Line(line) | Self::Shell(line) => f.write_str(line),
            Self::StaticSite { root, single_page: false } => write!(f, "static files in {root}"),
            Self::StaticSite { root, single_page: true } => {
                write!(f, "static files in {root}, as a single page")
            }
        }
    }
}

fn check_text(text: &str) -> Result<(), CommandError> {
    match text.chars().next() {
        None => Err(CommandError::Empty),
        _ if text.len() > COMMAND_MAX => Err(CommandError::TooLong(COMMAND_MAX)),
        _ if text.contains('\0') => Err(CommandError::Nul),
        Some('-') => Err(CommandError::Dash('-')),
        Some(_) => Ok(()),
    }
}

fn check_argv(argv: &[String], max: usize) -> Result<(), CommandError> {
    let program = argv.first().filter(|program| !program.is_empty()).ok_or(CommandError::Empty)?;
    if program.starts_with('-') {
        return Err(CommandError::Dash('-'));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(CommandError::Nul);
    }
    if argv.iter().map(|argument| argument.len() + 1).sum::<usize>() > max {
        return Err(CommandError::TooLong(max));
    }
    Ok(())
}

/// A command as it is stored, before it is checked again.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Stored {
    Argv(Vec<String>),
    Line(String),
    Shell(String),
    StaticSite {
        root: RelativeDir,
        #[serde(default)]
        single_page: bool,
    },
}

impl TryFrom<Stored> for Command {
    type Error = CommandError;
    fn try_from(stored: Stored) -> Result<Self, CommandError> {
        match stored {
            Stored::Argv(argv) => Self::from_argv(argv),
            Stored::Line(line) => Self::parse(&line),
            Stored::Shell(line) => {
                check_text(&line)?;
                Ok(Self::Shell(line))
            }
            Stored::StaticSite { root, single_page } => Ok(Self::StaticSite { root, single_page }),
        }
    }
}

/// A directory below another one: `.`, `public`, `web/dist`. Never absolute, never `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativeDir(String);

/// Why a text is not a directory below another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a path below the app's directory: it must be relative, without `..`, `\\` or control characters, of at most 1,024 bytes"
)]
pub struct InvalidDir(String);

impl RelativeDir {
    /// The directory itself.
    #[must_use]
    pub fn here() -> Self {
        Self(".".to_owned())
    }

    /// Checks `text`; `./dist/` is taken for `dist`.
    ///
    /// # Errors
    /// [`InvalidDir`] when it could name anything outside.
    pub fn new(text: &str) -> Result<Self, InvalidDir> {
        let bad = || InvalidDir(text.chars().take(80).collect());
        if text.is_empty()
            || text.starts_with('/')
            || text.len() > 1024
            || text.chars().any(|c| c == '\\' || c.is_control())
        {
            return Err(bad());
        }
        let segments: Vec<&str> =
            text.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
        if segments.contains(&"..") {
            return Err(bad());
        }
        Ok(if segments.is_empty() { Self::here() } else { Self(segments.join("/")) })
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelativeDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelativeDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for RelativeDir {
    type Error = InvalidDir;
    fn try_from(text: String) -> Result<Self, InvalidDir> {
        Self::new(&text)
    }
}

impl From<RelativeDir> for String {
    fn from(dir: RelativeDir) -> Self {
        dir.0
    }
}

#[cfg(test)]
mod tests;
