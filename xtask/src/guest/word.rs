//! What the guest says to whoever booted it: lines of JSON on a serial line that nothing else writes to.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Word {
    /// It is up. Its kernel, and the controllers of its control groups.
    Begin { kernel: String, controllers: String },
    /// A suite begins; these are its tests.
    Suite { name: String, tests: Vec<String> },
    /// A test is over.
    Test { suite: String, name: String, result: TestResult, seconds: f64 },
    /// Something worth reading.
    Note { text: String },
    /// It could not go on.
    Broken { why: String },
    /// All suites are over.
    End,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TestResult {
    Passed,
    /// It failed; the end of what it wrote.
    Failed(String),
    /// It ended well and said that it had not tried; what it said.
    Untried(String),
}

impl Word {
    pub(crate) fn line(&self) -> Result<String> {
        serde_json::to_string(self).context("a word has a form")
    }

    /// Reads a line; a terminal may have put a carriage return at its end.
    ///
    /// # Errors
    /// It is no word.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line.trim_end())
            .with_context(|| format!("the guest says nothing that is known: {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_from_their_lines_and_nothing_else_is_one() {
        let failed = TestResult::Failed("line\nline".to_owned());
        let test =
            Word::Test { suite: "a".to_owned(), name: "b::c".to_owned(), result: failed, seconds: 1.5 };
        for word in [test, Word::End, Word::Suite { name: "a".to_owned(), tests: vec!["b".to_owned()] }] {
            let line = word.line().unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(Word::parse(&format!("{line}\r\n")).unwrap(), word);
        }
        for line in ["", "ok", "{\"word\":\"fine\"}", "{\"word\":\"note\",\"text\":\"a\",\"more\":1}"] {
            assert!(Word::parse(line).is_err(), "{line}");
        }
    }
}
