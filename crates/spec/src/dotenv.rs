//! Variables in a file: `.env` as people keep it, and what `heroku config -s` and `berth config list --shell` print.
//!
//! A line is `NAME=VALUE`, with or without `export` before it. `'...'` is taken as it stands, in `"..."` a backslash
//! escapes (`\n`, `\r`, `\t`, and itself, quotation marks, `$`); both may hold newlines, and pieces that touch are one value, as a
//! shell has it. Without quotation marks the value ends at the line's end or before ` #`. Nothing is expanded: `$A` are two characters,
//! except where the file is one of a compose file ([`Dotenv::of_compose`]).

use std::collections::BTreeMap;

use crate::interpolation::interpolated;
use crate::manifest::ENV_VALUE_MAX;
use crate::name::{EnvName, RESERVED_ENV};
use crate::problem::{Collector, Problems, Wrong};

/// The name that such a file usually has.
pub const FILE_NAME: &str = ".env";
/// The longest text that is read, in bytes.
pub const DOTENV_MAX: usize = 256 * 1024;

/// What a file of variables says.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Dotenv {
    /// The variables.
    pub variables: BTreeMap<EnvName, String>,
    /// Variables that Berth sets itself, in the order of the file; what the file gives them does not count.
    pub reserved: Vec<String>,
    /// What the file gives those all the same, for the values that name them.
    set_apart: BTreeMap<String, String>,
}

/// What stands around a file of variables of a compose file.
#[derive(Clone, Copy)]
pub struct Around<'v> {
    /// What goes before what the file says.
    pub over: &'v dyn Fn(&str) -> Option<String>,
    /// What holds where the file says nothing above: the files before it.
    pub under: &'v dyn Fn(&str) -> Option<String>,
    /// Whether a value is refused that names a variable which nobody sets. Else it is left as it stands: what is in a file beside may be for others.
    pub strict: bool,
}

/// Shows the names alone: the values may be secrets.
impl std::fmt::Debug for Dotenv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).entries(&self.reserved).finish()
    }
}

impl Dotenv {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// All its [`Problems`] at once. They show no value: a line that is wrong may hold half a secret.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        Self::read(file, text, None)
    }

    /// Reads the text of `file` as Compose does: variables stand for what is said `around` it and above, except in `'...'`; a line that is a
    /// name alone has the value that is known, or is none; of a name that is given twice the last one counts, and a value may begin with `#`.
    ///
    /// # Errors
    /// As for [`Dotenv::parse`]; a variable that nothing is known of may be one.
    pub fn of_compose(file: &str, text: &str, around: Around<'_>) -> Result<Self, Problems> {
        Self::read(file, text, Some(around))
    }

    /// Reads a file of Compose's `format: raw`: what stands behind `=` is the value to the line's end.
    #[must_use]
    pub fn raw(text: &str) -> BTreeMap<EnvName, String> {
        let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        pairs.filter_map(|(name, value)| Some((EnvName::new(bare(name)).ok()?, value.to_owned()))).collect()
    }

    /// What the file says of a name, of a reserved one too.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let variable = || self.variables.iter().find(|(it, _)| it.as_str() == name).map(|(_, value)| value);
        self.set_apart.get(name).or_else(variable).map(String::as_str)
    }

    fn read(file: &str, text: &str, around: Option<Around<'_>>) -> Result<Self, Problems> {
        let mut problems = Collector::new(file, text).without_context();
        let mut read = Self::default();
        if text.len() > DOTENV_MAX {
            let wrong = Wrong::new(format!("the file is longer than {} KiB", DOTENV_MAX / 1024));
            problems.note(&(0..0), wrong);
        } else {
            let at = if text.starts_with('\u{feff}') { 3 } else { 0 };
            let mut lines = Lines { text, at, around };
            while let Some(start) = lines.next_start() {
                if let Err((at, wrong)) = lines.variable(&mut read, start) {
                    problems.note(&(at..at), wrong);
                }
            }
        }
        let problems = problems.into_problems();
        if problems.is_empty() { Ok(read) } else { Err(Problems(problems)) }
    }
}

/// `NAME=VALUE` as [`Dotenv::parse`] and every POSIX shell read it back.
#[must_use]
pub fn line(name: &EnvName, value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+,-".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        format!("{name}={value}")
    } else {
        format!("{name}='{}'", value.replace('\'', r"'\''"))
    }
}

/// Where the reader stands in the text.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    /// What variables in values stand for; they are two characters where nobody says.
    around: Option<Around<'t>>,
}

/// What is wrong, and where.
type Misread = (usize, Wrong);

impl<'t> Lines<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(skipped).len();
    }

    fn skip_line(&mut self) {
        self.skip(|c| c != '\n');
    }

    /// The first character of the next line that says something.
    fn next_start(&mut self) -> Option<usize> {
        loop {
            self.skip(char::is_whitespace);
            match self.peek()? {
                '#' => self.skip_line(),
                _ => return Some(self.at),
            }
        }
    }

    fn variable(&mut self, read: &mut Dotenv, start: usize) -> Result<(), Misread> {
        let line = self.rest().lines().next().unwrap_or_default();
        let Some((left, _)) = line.split_once('=') else {
            self.skip_line();
            if let Some(around) = self.around {
                let name = bare(line);
                if RESERVED_ENV.contains(&name) {
                    read.reserved.push(name.to_owned());
                    return Ok(());
                }
                if let Ok(name) = EnvName::new(name) {
                    let known = (around.over)(name.as_str()).or_else(|| (around.under)(name.as_str()));
                    return known.map_or(Ok(()), |value| self.insert(read, name, value, (start, start)));
                }
            }
            let wrong = Wrong::new("not of the form NAME=VALUE");
            return Err((
                start,
                wrong.instead(
                    "write a line like `LOG_LEVEL=info`; a value of several lines stands in quotation marks",
                ),
            ));
        };
        self.at += left.len() + 1;
        let value_at = self.at;
        let value = self.value(read)?;
        let name = bare(left);
        if RESERVED_ENV.contains(&name) {
            read.reserved.push(name.to_owned());
            read.set_apart.insert(name.to_owned(), value);
            return Ok(());
        }
        // What stands there may be the second line of a secret, so it is not repeated.
        let name = EnvName::new(name).map_err(|_bad| {
            let wrong = Wrong::new("what stands before `=` is no variable's name");
            (start, wrong.instead("a name holds letters, digits and _, and does not start with a digit"))
        })?;
        self.insert(read, name, value, (start, value_at))
    }

    fn value(&mut self, read: &Dotenv) -> Result<String, Misread> {
        self.skip(|c| c == ' ' || c == '\t');
        let value_at = self.at;
        if !matches!(self.peek(), Some('\'' | '"')) {
            let line = self.rest().lines().next().unwrap_or_default();
            self.skip_line();
            // A comment begins after white space: `a#b` is a value.
            let end = line.char_indices().find(|(at, c)| {
                let before = line.get(..*at).unwrap_or_default();
                let begins = before.is_empty() && self.around.is_none();
                *c == '#' && (begins || before.ends_with([' ', '\t']))
            });
            let value = line.get(..end.map_or(line.len(), |(at, _)| at)).unwrap_or_default();
            return self.expanded(read, value.trim(), value_at);
        }
        let mut value = String::new();
        while let Some(mark @ ('\'' | '"' | '\\')) = self.peek() {
            match mark {
                '\\' => self.escaped(&mut value),
                '\'' => self.quoted(mark, &mut value)?,
                _ => {
                    let mut piece = String::new();
                    self.quoted(mark, &mut piece)?;
                    value.push_str(&self.expanded(read, &piece, value_at)?);
                }
            }
        }
        self.skip(|c| c == ' ' || c == '\t' || c == '\r');
        let after = self.at;
        let ends = matches!(self.peek(), None | Some('\n' | '#'));
        self.skip_line();
        if ends { Ok(value) } else { Err((after, Wrong::new("text follows the closing quotation mark"))) }
    }

    /// The text with its variables put in, where they are.
    fn expanded(&self, read: &Dotenv, text: &str, at: usize) -> Result<String, Misread> {
        let Some(Around { over, under, strict }) = self.around else { return Ok(text.to_owned()) };
        let known =
            |name: &str| over(name).or_else(|| read.get(name).map(str::to_owned)).or_else(|| under(name));
        match interpolated(text, &known) {
            Ok(text) => Ok(text),
            Err(_why) if !strict => Ok(text.replace("$$", "$")),
            // What is wrong is not repeated: behind the `$` may be half a secret.
            Err(_why) => {
                let wrong = Wrong::new("a `$` of the value names no variable that is set");
                Err((at, wrong.instead("set it in the environment or in .env; a `$` that stands for itself is written `$$`, or stands in '...'")))
            }
        }
    }

    /// A backslash outside quotation marks, between two pieces: `'it'\''s'`.
    fn escaped(&mut self, value: &mut String) {
        self.at += 1;
        if let Some(c) = self.peek() {
            value.push(c);
            self.at += c.len_utf8();
        }
    }

    fn quoted(&mut self, mark: char, value: &mut String) -> Result<(), Misread> {
        let opened = self.at;
        self.at += 1;
        loop {
            let Some(c) = self.peek() else {
                return Err((opened, Wrong::new(format!("the {mark} is never closed"))));
            };
            self.at += c.len_utf8();
            match (mark, c) {
                _ if c == mark => return Ok(()),
                ('"', '\\') => self.escape(value),
                _ => value.push(c),
            }
        }
    }

    /// A backslash within `"..."`.
    fn escape(&mut self, value: &mut String) {
        let Some(c) = self.peek() else { return };
        self.at += c.len_utf8();
        match c {
            'n' => value.push('\n'),
            'r' => value.push('\r'),
            't' => value.push('\t'),
            // Where variables are put in, this one is none.
            '$' if self.around.is_some() => value.push_str("$$"),
            '"' | '\'' | '\\' | '$' | '`' => value.push(c),
            // A line that goes on.
            '\n' => {}
            _ => value.extend(['\\', c]),
        }
    }

    fn insert(
        &self,
        read: &mut Dotenv,
        name: EnvName,
        value: String,
        (start, value_at): (usize, usize),
    ) -> Result<(), Misread> {
        if value.contains('\0') {
            return Err((value_at, Wrong::new(format!("the value of {name} holds a NUL byte"))));
        }
        if value.len() > ENV_VALUE_MAX {
            let what = format!("the value of {name} is longer than {} KiB", ENV_VALUE_MAX / 1024);
            return Err((value_at, Wrong::new(what)));
        }
        let twice = Wrong::new(format!("{name} is given twice"));
        match read.variables.insert(name, value) {
            Some(_) if self.around.is_none() => Err((start, twice)),
            Some(_) | None => Ok(()),
        }
    }
}

/// The name in what stands before `=`, as it is written.
fn bare(left: &str) -> &str {
    left.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(left).trim()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> String {
        let read = Dotenv::parse(".env", text).unwrap();
        read.variables["A"].clone()
    }

    #[test]
    fn what_people_keep_is_read() {
        for (text, expected) in [
            ("A=b", "b"),
            ("export A = b c  # why\r\n", "b c"),
            ("A=a#b", "a#b"),
            ("A=# nothing", ""),
            ("A=", ""),
            ("\u{feff}# head\n\n  A='$HOME \\n'", "$HOME \\n"),
            (r#"A="one\ntwo \$x \"q\" \d" # why"#, "one\ntwo $x \"q\" \\d"),
            (
                "A='-----BEGIN-----\nabc=\n# no comment\n-----END-----'\nB=2",
                "-----BEGIN-----\nabc=\n# no comment\n-----END-----",
            ),
            (r"A='it'\''s'", "it's"),
            (r#"A="a"'b'"#, "ab"),
            ("A=${B}/c", "${B}/c"),
            ("A=postgres://u:p@h/d?x=y", "postgres://u:p@h/d?x=y"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        let read = Dotenv::parse(".env", "PORT=3000\nA=1\n").unwrap();
        assert_eq!((read.reserved, read.variables.len()), (vec!["PORT".to_owned()], 1));
    }

    #[test]
    fn every_mistake_has_its_line_and_shows_no_value() {
        let text = "A=1\nhunter2\nB-C=hunter2\nA=hunter2\nD='hunter2' x\nE=\"hunter2\n";
        let problems = Dotenv::parse("prod.env", text).unwrap_err().to_string();
        assert!(!problems.contains("hunter2"), "{problems}");
        for line in [
            "prod.env:2:1: not of the form NAME=VALUE",
            "prod.env:3:1: what stands before `=` is no variable's name",
            "prod.env:4:1: A is given twice",
            "prod.env:5:13: text follows",
            "prod.env:6:3: the \" is never closed",
        ] {
            assert!(problems.contains(line), "{problems}");
        }
    }

    #[test]
    fn variables_are_put_in_where_compose_does() {
        let variable = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "A" => Some("outer".to_owned()),
            _ => None,
        };
        let text = "URL=postgres://${HOST}/${NAME:-shop} # $why\nCOPY=\"$URL \\$HOST $$HOST\"'$HOST'\nQ='${NONE}'\nTHRICE=$A\nHOST\nPORT\nNOWHERE\nexport A\n";
        let nothing = |_: &str| None;
        let strict = Around { over: &variable, under: &nothing, strict: true };
        let read = Dotenv::of_compose("web.env", text, strict).unwrap();
        let read: Vec<(&str, &str)> =
            read.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("A", "outer"),
            ("COPY", "postgres://db/shop $HOST $HOST$HOST"),
            ("HOST", "db"),
            ("Q", "${NONE}"),
            ("THRICE", "outer"),
            ("URL", "postgres://db/shop"),
        ];
        assert_eq!(read, expected);
        for bad in ["A=pa$hunter2", "A=\"${hunter2/}\"", "A=1\nhunter2 hunter2"] {
            let problems = Dotenv::of_compose("web.env", bad, strict).unwrap_err().to_string();
            assert!(problems.contains("web.env:") && !problems.contains("hunter2"), "{problems}");
        }
    }

    #[test]
    fn a_file_as_frameworks_make_it_is_taken_as_compose_takes_it() {
        let nothing = |_: &str| None;
        let under = |name: &str| (name == "SHARED").then(|| "before".to_owned());
        let around = Around { over: &nothing, under: &under, strict: false };
        let text = "APP_NAME=Laravel\nMAIL_FROM_NAME=\"${APP_NAME}\"\nPORT=3000\nURL=http://localhost:${PORT}\n\
            COLOR=#fff\nX=1\nX=2\nY=$SHARED\nSHARED=here\nZ=${SHARED}\nPASSWORD=a$b$$c\n";
        let read = Dotenv::of_compose(".env", text, around).unwrap();
        for (name, value) in [
            ("APP_NAME", "Laravel"),
            ("MAIL_FROM_NAME", "Laravel"),
            ("PORT", "3000"),
            ("URL", "http://localhost:3000"),
            ("COLOR", "#fff"),
            ("X", "2"),
            ("Y", "before"),
            ("Z", "here"),
            ("PASSWORD", "a$b$c"),
        ] {
            assert_eq!(read.get(name), Some(value), "{name}");
        }
        assert!(!read.variables.keys().any(|name| name.as_str() == "PORT"));
        let raw = Dotenv::raw("# no\nA=\"$x\" # y\n\nB='z'\n");
        let raw: Vec<_> = raw.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(raw, [("A", "\"$x\" # y"), ("B", "'z'")]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::btree_map("[A-Z]{2,6}", "[^\0]{0,40}|[^\0]{0,20}['\"\\\\\n# $]{0,9}", 0..5)) {
            let mut text = String::new();
            let mut expected = BTreeMap::new();
            for (name, value) in values {
                let Ok(name) = EnvName::new(&name) else { continue };
                text.push_str(&line(&name, &value));
                text.push('\n');
                expected.insert(name, value);
            }
            prop_assert_eq!(Dotenv::parse(".env", &text).map(|read| read.variables), Ok(expected));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), rough in "([A-Z]{0,2}=?[ '\"\\\\#a\n\r]{0,5}){0,9}") {
            drop(Dotenv::parse(".env", &text));
            drop(Dotenv::parse(".env", &rough));
            let around = Around { over: &|_| None, under: &|_| None, strict: true };
            drop(Dotenv::of_compose(".env", &rough, around));
            drop(Dotenv::raw(&text));
        }
    }
}
