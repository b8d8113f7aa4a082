//! SPDX licence expressions: `MIT OR (Apache-2.0 AND BSD-3-Clause)`, and the old `MIT/Apache-2.0` for "or".

use anyhow::{Result, bail};

/// A parsed expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// One licence, with its exception where it has one: `Apache-2.0 WITH LLVM-exception`.
    Licence(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    /// # Errors
    /// The text is no expression.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let mut words = Words { words: spaced.split_whitespace().collect(), at: 0 };
        let expression = words.any(0)?;
        match words.peek() {
            None => Ok(expression),
            Some(word) => bail!("`{word}` is one too many"),
        }
    }

    /// Whether the licences that `is_allowed` accepts are enough.
    pub(super) fn holds(&self, is_allowed: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Licence(name) => is_allowed(name),
            Self::All(parts) => parts.iter().all(|part| part.holds(is_allowed)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(is_allowed)),
        }
    }
}

struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

/// Parentheses deeper than this are no licence but an attack on the stack.
const DEEPEST: usize = 32;

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some(word);
        self.at += usize::from(is_next);
        is_next
    }

    /// OR binds weaker than AND.
    fn any(&mut self, depth: usize) -> Result<Expression> {
        let mut parts = vec![self.all(depth)?];
        while self.take("OR") {
            parts.push(self.all(depth)?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expression> {
        let mut parts = vec![self.licence(depth)?];
        while self.take("AND") {
            parts.push(self.licence(depth)?);
        }
        Ok(one_or(parts, Expression::All))
    }

    fn licence(&mut self, depth: usize) -> Result<Expression> {
        if self.take("(") {
            if depth == DEEPEST {
                bail!("more than {DEEPEST} parentheses inside one another");
            }
            let inner = self.any(depth + 1)?;
            if !self.take(")") {
                bail!("a parenthesis is not closed");
            }
            return Ok(inner);
        }
        let name = self.name()?;
        if self.take("WITH") {
            return Ok(Expression::Licence(format!("{name} WITH {}", self.name()?)));
        }
        Ok(Expression::Licence(name.to_owned()))
    }

    fn name(&mut self) -> Result<&'a str> {
        match self.peek() {
            Some(word) if !["OR", "AND", "WITH", "(", ")"].contains(&word) => {
                self.at += 1;
                Ok(word)
            }
            other => bail!("a licence is expected, not {}", other.unwrap_or("the end")),
        }
    }
}

fn one_or(mut parts: Vec<Expression>, many: impl Fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        Expression::parse(text)
            .unwrap()
            .holds(&|name| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name))
    }

    #[test]
    fn or_needs_one_and_and_needs_all() {
        assert!(holds("MIT"));
        assert!(holds("GPL-3.0 OR MIT"));
        assert!(holds("GPL-3.0/MIT"));
        assert!(holds("MIT AND ISC"));
        assert!(!holds("MIT AND GPL-3.0"));
        assert!(holds("GPL-3.0 AND X OR MIT"));
        assert!(!holds("GPL-3.0 AND (X OR MIT)"));
        assert!(holds("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
        assert!(!holds("Apache-2.0"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "AND", "MIT WITH", &"(".repeat(100)] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }
}
