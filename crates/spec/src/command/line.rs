//! Splitting a line into words by the rules of POSIX, and noticing when that is not enough.

use std::collections::BTreeMap;

use super::CommandError;

/// A line after splitting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    Words(Vec<Word>),
    /// The line uses operators, globs, command substitution, assignments or what only a shell has built in.
    NeedsShell,
}

/// A word and what it is put together from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text { text: String, quoted: bool },
    Variable { name: String, quoted: bool },
}

/// What the first word of a command means to `sh` and to no program: reserved words and special built-ins.
/// `echo`, `test` and the like are programs too and stay out.
const SHELL_WORDS: [&str; 44] = [
    "!", "{", "}", "case", "do", "done", "elif", "else", "esac", "fi", "for", "if", "in", "then", "until",
    "while", ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export",
    "fg", "function", "hash", "jobs", "read", "readonly", "return", "set", "shift", "source", "times",
    "trap", "ulimit", "umask", "unset", "wait",
];

impl Word {
    /// Whether it is empty whatever the variables hold: `""`.
    pub(super) fn is_always_empty(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text { text, .. } if text.is_empty()))
    }

    fn push(&mut self, c: char, quoted: bool) {
        if let Some(Part::Text { text, quoted: last }) = self.parts.last_mut()
            && *last == quoted
        {
            text.push(c);
        } else {
            self.parts.push(Part::Text { text: c.into(), quoted });
        }
    }

    /// Notes that quotation marks stood here, so that the word exists even when there is nothing in them.
    fn quoted_here(&mut self) {
        self.parts.push(Part::Text { text: String::new(), quoted: true });
    }

    /// Whether, as the first word, it says something to a shell: `if`, `exec`, `A=1`.
    fn speaks_to_a_shell(&self) -> bool {
        let Some(Part::Text { text, quoted: false }) = self.parts.first() else {
            return false;
        };
        let assigns = text.split_once('=').is_some_and(|(name, _)| is_variable(name));
        assigns || (self.parts.len() == 1 && SHELL_WORDS.contains(&text.as_str()))
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(starts_variable) && name.chars().all(continues_variable)
}

fn starts_variable(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_variable(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Splits `line`, which holds no NUL.
pub(super) fn split(line: &str) -> Result<Split, CommandError> {
    let mut scan = Scan { chars: without_continuations(line), at: 0, word: None, words: Vec::new() };
    Ok(if scan.run()? { Split::Words(scan.words) } else { Split::NeedsShell })
}

/// The characters of `line` without each backslash and newline that continue it. They go before anything else is looked
/// at (XCU 2.2.1): even the name of a variable goes on behind them.
fn without_continuations(line: &str) -> Vec<char> {
    let (mut single, mut double) = (false, false);
    let mut kept = Vec::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '\\' if !single => {
                if chars.next_if_eq(&'\n').is_some() {
                    continue;
                }
                kept.push(c);
                // What is escaped neither quotes nor escapes.
                kept.extend(chars.next());
                continue;
            }
            _ => {}
        }
        kept.push(c);
    }
    kept
}

struct Scan {
    chars: Vec<char>,
    at: usize,
    word: Option<Word>,
    words: Vec<Word>,
}

impl Scan {
    /// Whether the whole line could be split without a shell.
    fn run(&mut self) -> Result<bool, CommandError> {
        while let Some(c) = self.take() {
            let fits = match c {
                ' ' | '\t' => self.end_word(),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '\\' => self.escaped()?,
                '$' => self.variable(false),
                '&' | '|' | ';' | '<' | '>' | '(' | ')' | '`' | '*' | '?' | '[' | '\n' => false,
                '#' | '~' if self.word.is_none() => false,
                _ => {
                    self.word().push(c, false);
                    true
                }
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(self.end_word())
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += 1;
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert_default()
    }

    /// Ends the word, if there is one. False when it is the first and speaks to a shell.
    fn end_word(&mut self) -> bool {
        let Some(word) = self.word.take() else {
            return true;
        };
        let fits = !(self.words.is_empty() && word.speaks_to_a_shell());
        self.words.push(word);
        fits
    }

    fn single_quoted(&mut self) -> Result<bool, CommandError> {
        let column = self.at;
        self.word().quoted_here();
        loop {
            match self.take() {
                None => return Err(CommandError::Unclosed { mark: '\'', column }),
                Some('\'') => return Ok(true),
                Some(c) => self.word().push(c, true),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<bool, CommandError> {
        let column = self.at;
        self.word().quoted_here();
        loop {
            match self.take() {
                None => return Err(CommandError::Unclosed { mark: '"', column }),
                Some('"') => return Ok(true),
                Some('`') => return Ok(false),
                Some('$') => {
                    if !self.variable(true) {
                        return Ok(false);
                    }
                }
                Some('\\') => match self.peek() {
                    Some(c @ ('$' | '`' | '"' | '\\')) => {
                        self.at += 1;
                        self.word().push(c, true);
                    }
                    _ => self.word().push('\\', true),
                },
                Some(c) => self.word().push(c, true),
            }
        }
    }

    fn escaped(&mut self) -> Result<bool, CommandError> {
        match self.take() {
            None => return Err(CommandError::TrailingBackslash),
            Some(c) => self.word().push(c, true),
        }
        Ok(true)
    }

    /// What follows a `$`. False when it is more than a plain variable.
    fn variable(&mut self, quoted: bool) -> bool {
        match self.peek() {
            Some('{') => {
                let close = self.chars.iter().skip(self.at).position(|c| *c == '}');
                let name: String = match close {
                    Some(length) => self.chars.iter().skip(self.at + 1).take(length - 1).collect(),
                    None => return false,
                };
                if !is_variable(&name) {
                    return false;
                }
                self.at += name.len() + 2;
                self.word().parts.push(Part::Variable { name, quoted });
                true
            }
            Some(c) if starts_variable(c) => {
                let name: String =
                    self.chars.iter().skip(self.at).take_while(|c| continues_variable(**c)).collect();
                self.at += name.len();
                self.word().parts.push(Part::Variable { name, quoted });
                true
            }
            // `$1`, `$?`, `$(`; and `$'`, which the shells read differently.
            Some('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!' | '(') => false,
            Some('\'' | '"') if !quoted => false,
            _ => {
                self.word().push('$', quoted);
                true
            }
        }
    }
}

/// Expands `words` as `sh` does: a variable outside quotation marks is split at white space, and a word that
/// comes to nothing without them is dropped. File names are never expanded.
pub(super) fn expand(
    words: &[Word],
    env: &BTreeMap<String, String>,
    max: usize,
) -> Result<Vec<String>, CommandError> {
    let mut fields = Vec::new();
    let mut size = 0;
    for word in words {
        let mut field: Option<String> = None;
        for part in &word.parts {
            match part {
                Part::Text { text, .. } => field.get_or_insert_default().push_str(text),
                Part::Variable { name, quoted } => {
                    let value = env.get(name).map_or("", String::as_str);
                    // Checked before the value is copied, so that 16 KiB of `$A` cannot take a gigabyte.
                    size += value.len();
                    if size > max {
                        return Err(CommandError::TooLong(max));
                    }
                    if *quoted {
                        field.get_or_insert_default().push_str(value);
                    } else {
                        split_value(value, &mut field, &mut fields);
                    }
                }
            }
        }
        fields.extend(field);
    }
    Ok(fields)
}

fn split_value(value: &str, field: &mut Option<String>, fields: &mut Vec<String>) {
    let blank = [' ', '\t', '\n'];
    if value.starts_with(blank) {
        fields.extend(field.take());
    }
    let mut pieces = value.split(blank).filter(|piece| !piece.is_empty()).peekable();
    while let Some(piece) = pieces.next() {
        field.get_or_insert_default().push_str(piece);
        if pieces.peek().is_some() {
            fields.extend(field.take());
        }
    }
    if value.ends_with(blank) {
        fields.extend(field.take());
    }
}
