//! What is wrong in a file that a person wrote: where, what, and what to write instead.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The most problems reported at once: beyond it the reader fixes and asks again.
const REPORTED_MAX: usize = 50;
/// The most characters of a line shown around a problem.
const CONTEXT_MAX: usize = 120;

/// One problem in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The file's name: `berth.toml`, `Procfile`.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The line itself, cut to 120 characters from its start.
    pub context: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead, when something is known to fit.
    pub instead: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, context, what, instead } = self;
        write!(f, "{file}:{line}:{column}: {what}")?;
        if !context.trim().is_empty() {
            let number = line.to_string();
            write!(f, "\n  {number} | {context}")?;
            let before = usize::try_from(*column).unwrap_or(usize::MAX).saturating_sub(1);
            if before <= context.chars().count() {
                // A tab stays a tab, so that the mark stands under its character at any width.
                let blank: String =
                    context.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                write!(f, "\n  {} | {blank}^", " ".repeat(number.len()))?;
            }
        }
        if let Some(instead) = instead {
            write!(f, "\n  {instead}")?;
        }
        Ok(())
    }
}

/// All that is wrong in the files of an app, in the order of the text. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A wrong value, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) instead: Option<String>,
}

impl Wrong {
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), instead: None }
    }

    pub(crate) fn instead(self, instead: impl fmt::Display) -> Self {
        Self { instead: Some(instead.to_string()), ..self }
    }
}

/// Collects the problems of one file.
#[derive(Debug)]
pub(crate) struct Collector<'t> {
    file: &'t str,
    text: &'t str,
    /// Whether a problem shows its line.
    shows: bool,
    found: Vec<(usize, Problem)>,
}

impl<'t> Collector<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, shows: true, found: Vec::new() }
    }

    /// Shows no lines: they may hold secrets.
    pub(crate) fn without_context(self) -> Self {
        Self { shows: false, ..self }
    }

    /// Notes that what stands at `span` (in bytes) is wrong.
    pub(crate) fn note(&mut self, span: &Range<usize>, wrong: Wrong) {
        if self.found.len() >= REPORTED_MAX {
            return;
        }
        let before = upto(self.text, span.start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = if self.shows { self.text.get(line_start..).unwrap_or_default() } else { "" };
        let problem = Problem {
            file: self.file.to_owned(),
            line: count(before.bytes().filter(|byte| *byte == b'\n').count()),
            column: count(before.get(line_start..).unwrap_or_default().chars().count()),
            context: rest.lines().next().unwrap_or_default().chars().take(CONTEXT_MAX).collect(),
            what: wrong.what,
            instead: wrong.instead,
        };
        self.found.push((span.start, problem));
    }

    /// The problems in the order of the text, none twice.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(at, _)| *at);
        self.found.dedup();
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// `text` up to byte `at`, or to the character that `at` cuts through.
fn upto(text: &str, at: usize) -> &str {
    text.get(..text.floor_char_boundary(at)).unwrap_or(text)
}

/// A line or column number from how many come before it.
fn count(before: usize) -> u32 {
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

/// The one of `known` that `given` most likely was meant to be: few edits away for its length.
pub(crate) fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let given: Vec<char> = given.chars().take(40).flat_map(char::to_lowercase).collect();
    known
        .into_iter()
        .map(|name| (edits(&given, &name.chars().collect::<Vec<_>>()), name))
        .filter(|(edits, name)| *edits <= (name.len() / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// The Levenshtein distance, where swapping two neighbours counts one.
fn edits(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut least = (above[j] + usize::from(a != b)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_and_marks_it() {
        let text = "a = 1\n\tö = \"ü\" # x\n";
        let mut collector = Collector::new("berth.toml", text);
        let at = text.find("\"ü\"").unwrap();
        collector.note(&(at..at + 4), Wrong::new("no umlauts").instead("write `ue`"));
        let problems = Problems(collector.into_problems());
        assert_eq!(
            problems.to_string(),
            "berth.toml:2:6: no umlauts\n  2 | \tö = \"ü\" # x\n    | \t    ^\n  write `ue`"
        );
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["release_command", "strategy", "timeout", "warm"];
        assert_eq!(nearest("release-comand", known), Some("release_command"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("WARM", known), Some("warm"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("", known), None);
    }
}
