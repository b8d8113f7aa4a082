//! The words after a command: flags, options with a value, and what is left over.
//!
//! By hand, because every `cargo xtask` compiles this crate first and an argument parser would be most of that.

use std::fmt;

/// The words not yet taken.
#[derive(Debug)]
pub(crate) struct Args {
    words: Vec<String>,
}

/// The command was called wrongly; ends with status 2 and the usage line.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl Args {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        Self { words: words.collect() }
    }

    /// Takes the flag `name` and says whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes `name VALUE` or `name=VALUE`.
    ///
    /// # Errors
    /// The value is missing.
    pub(crate) fn option(&mut self, name: &str) -> Result<Option<String>, UsageError> {
        let with_equals =
            |word: &str| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).is_some();
        let Some(at) = self.words.iter().position(|word| word == name || with_equals(word)) else {
            return Ok(None);
        };
        let word = self.words.remove(at);
        if let Some((_, value)) = word.split_once('=') {
            return Ok(Some(value.to_owned()));
        }
        if at < self.words.len() {
            return Ok(Some(self.words.remove(at)));
        }
        Err(UsageError(format!("{name} needs a value")))
    }

    /// Takes the next word that is not an option.
    pub(crate) fn word(&mut self) -> Option<String> {
        let at = self.words.iter().position(|word| !word.starts_with('-'))?;
        Some(self.words.remove(at))
    }

    /// Everything not yet taken, to be handed on to another program.
    pub(crate) fn rest(self) -> Vec<String> {
        self.words
    }

    /// Checks that every word was understood.
    ///
    /// # Errors
    /// A word is left.
    pub(crate) fn finish(self) -> Result<(), UsageError> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(UsageError(format!("`{word}` is not understood here"))),
        }
    }
}

impl UsageError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_options_and_words_are_taken_in_any_order() {
        let mut args = args("--json out.json deploy --quick");
        assert!(args.flag("--quick"));
        assert!(!args.flag("--quick"));
        assert_eq!(args.option("--json").unwrap().as_deref(), Some("out.json"));
        assert_eq!(args.word().as_deref(), Some("deploy"));
        args.finish().unwrap();
    }

    #[test]
    fn an_option_may_be_written_with_an_equals_sign() {
        assert_eq!(args("--deploys=7").option("--deploys").unwrap().as_deref(), Some("7"));
    }

    #[test]
    fn what_is_missing_or_left_over_is_an_error() {
        assert!(args("--json").option("--json").is_err());
        assert_eq!(args("--what").finish().unwrap_err().to_string(), "`--what` is not understood here");
    }
}
