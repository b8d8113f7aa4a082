//! A refusal as RFC 9457 wants it, with what to do next.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::code::Code;

/// Why a request was refused or failed: `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The page that explains the code, as a relative reference below the documentation.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "docs/errors/app_not_found.md")]
    pub page: Cow<'static, str>,
    /// What the code means, the same for every occurrence.
    #[schema(value_type = String)]
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, a sentence without the final full stop.
    pub detail: String,
    /// The request it happened to: its correlation id, which stands in the platform's log too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The error code, for programs.
    #[schema(value_type = String, example = "app_not_found")]
    pub code: Code,
    /// What to do about it, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Where in a file of the source the errors are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<SourceError>,
}

/// An error at a place in a file of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceError {
    /// The file: `berth.toml`, `Procfile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong there.
    pub message: String,
    /// The line itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What to write instead, when something is known to fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

impl Problem {
    /// A problem of this code; `detail` says what happened this time.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            page: Cow::Borrowed(code.page()),
            title: Cow::Borrowed(code.title()),
            status: code.http_status(),
            detail: detail.into(),
            instance: None,
            code,
            next: None,
            errors: Vec::new(),
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same with the request's correlation id.
    #[must_use]
    pub fn of_request(mut self, correlation: impl Into<String>) -> Self {
        self.instance = Some(correlation.into());
        self
    }

    /// The same with the places in the source that are wrong.
    #[must_use]
    pub fn at(mut self, errors: Vec<SourceError>) -> Self {
        self.errors = errors;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_written_as_the_rfc_says() {
        let problem = Problem::new(Code::AppNotFound, "there is no app shop in default/default")
            .next("`berth apps` lists the apps");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "docs/errors/app_not_found.md",
                "title": "There is no such app",
                "status": 404,
                "detail": "there is no app shop in default/default",
                "code": "app_not_found",
                "next": "`berth apps` lists the apps",
            })
        );
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }
}
