//! The signs by which a rule knows that it fits: conditions as data, evaluated and put into words here.

use std::fmt;

use super::NothingFits;
use super::view::{Facts, View, join, means};

/// A condition on a tree and on what is known of it.
#[derive(Debug)]
pub(super) enum Sign {
    /// Always fits.
    Always,
    /// There is a file that the pattern means.
    File(&'static str),
    /// The same at the root of the tree, where that is not the app's folder.
    Root(&'static str),
    /// A file that the pattern means has this in its text, white space and kinds of quotation marks aside.
    Says(&'static str, &'static str),
    /// It is among the dependencies.
    Depends(&'static str),
    /// It is among the dependencies in a major version before this one.
    Before(&'static str, u64),
    /// The script of this name has this in its text.
    Script(&'static str, &'static str),
    /// The package manager is asked for by name in a version from this major one on.
    Pinned(&'static str, u64),
    /// This is known of the app.
    Known(&'static str),
    /// All of these.
    All(&'static [Self]),
    /// One of these.
    Any(&'static [Self]),
    /// Not this.
    Not(&'static Self),
}

impl Sign {
    /// What was seen, as words, when it fits; the words are empty where there is nothing to show.
    pub(super) fn seen(&self, view: &View<'_>, facts: &Facts) -> Result<Option<String>, NothingFits> {
        Ok(match self {
            Self::Always => Some(String::new()),
            Self::File(pattern) => view.find(&join(&facts.dir, pattern)).map(str::to_owned),
            Self::Root(pattern) => view.find(pattern).map(str::to_owned),
            Self::Says(pattern, text) => says(view, &join(&facts.dir, pattern), text)?,
            Self::Depends(name) => {
                facts.dependencies.contains_key(*name).then(|| format!("{name} in the dependencies"))
            }
            Self::Before(name, major) => facts
                .dependencies
                .get(*name)
                .filter(|version| first_number(version).is_some_and(|number| number < *major))
                .map(|_| format!("{name} before version {major} in the dependencies")),
            Self::Script(name, text) => facts
                .scripts
                .get(*name)
                .filter(|script| script.contains(text))
                .map(|_| format!("`{text}` in the script {name}")),
            Self::Pinned(name, major) => facts
                .pin
                .as_ref()
                .filter(|(pinned, version)| {
                    pinned == name && first_number(version).is_none_or(|number| number >= *major)
                })
                .map(|(pinned, version)| {
                    format!("packageManager of package.json is {pinned} {version}").trim_end().to_owned()
                }),
            Self::Known(name) => facts.values.get(name).map(|value| value.seen.clone()),
            Self::All(signs) => {
                let mut all: Vec<String> = Vec::new();
                for sign in *signs {
                    match sign.seen(view, facts)? {
                        None => return Ok(None),
                        Some(seen) if seen.is_empty() || all.contains(&seen) => {}
                        Some(seen) => all.push(seen),
                    }
                }
                Some(all.join(" and "))
            }
            Self::Any(signs) => {
                for sign in *signs {
                    if let Some(seen) = sign.seen(view, facts)? {
                        return Ok(Some(seen));
                    }
                }
                None
            }
            Self::Not(sign) => sign.seen(view, facts)?.is_none().then(String::new),
        })
    }

    /// The files of which one is enough, the usual ones first; those that need more beside them are left out.
    pub(super) fn files(&self) -> Vec<&'static str> {
        match self {
            Self::File(pattern) => vec![*pattern],
            Self::Any(signs) => signs.iter().flat_map(Self::files).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it fits.
    pub(super) fn fits(&self, view: &View<'_>, facts: &Facts) -> Result<bool, NothingFits> {
        self.seen(view, facts).map(|seen| seen.is_some())
    }
}

/// The most files of one pattern whose text is read.
const READ_MAX: usize = 32;

fn says(view: &View<'_>, pattern: &str, text: &str) -> Result<Option<String>, NothingFits> {
    for path in view.paths().filter(|path| means(pattern, path)).take(READ_MAX) {
        let found = view.text(path)?.unwrap_or_default();
        if squeezed(&found).contains(&squeezed(text)) {
            return Ok(Some(format!("`{text}` in {path}")));
        }
    }
    Ok(None)
}

/// `text` without white space and with one kind of quotation mark.
fn squeezed(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if matches!(c, '"' | '`') { '\'' } else { c })
        .collect()
}

/// The first number in a version: 3 in `^3.1`.
fn first_number(version: &str) -> Option<u64> {
    version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

/// The condition as the table in the documentation has it.
impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, signs: &[Self], word: &str| {
            for (index, sign) in signs.iter().enumerate() {
                if index > 0 {
                    f.write_str(word)?;
                }
                match sign {
                    Self::All(_) | Self::Any(_) if signs.len() > 1 => write!(f, "({sign})")?,
                    _ => write!(f, "{sign}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Always => f.write_str("anything else"),
            Self::File(pattern) | Self::Root(pattern) => write!(f, "`{pattern}`"),
            Self::Says(pattern, text) => write!(f, "`{text}` in `{pattern}`"),
            Self::Depends(name) => write!(f, "`{name}` among the dependencies"),
            Self::Before(name, major) => write!(f, "`{name}` before {major} among the dependencies"),
            Self::Script(name, text) => write!(f, "`{text}` in the script `{name}`"),
            Self::Pinned(name, 0) => write!(f, "`packageManager` is {name}"),
            Self::Pinned(name, major) => write!(f, "`packageManager` is {name} {major} or later"),
            Self::Known(name) => write!(f, "its {}", name.replace('_', " ")),
            Self::All(signs) => joined(f, signs, " and "),
            Self::Any(signs) => joined(f, signs, " or "),
            Self::Not(sign) => write!(f, "not {sign}"),
        }
    }
}
