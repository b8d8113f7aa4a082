//! `[http.concurrency]`: how many requests an instance of the web process gets at a time.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::read::{Section, expected};
use crate::problem::Wrong;

/// The most that a limit can be: more than one machine has connections for.
const CONCURRENCY_MAX: u32 = 1_000_000;

/// How many requests one instance gets at a time. A routing snapshot says it too, so that unknown fields are no mistake here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestConcurrency {
    /// From so many on other instances are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_limit: Option<u32>,
    /// At so many it gets no more; further requests wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_limit: Option<u32>,
}

impl RequestConcurrency {
    /// Whether it sets no limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.soft_limit.is_none() && self.hard_limit.is_none()
    }
}

pub(super) fn concurrency(section: &mut Section<'_, '_, '_>) -> RequestConcurrency {
    let soft_limit = section.get("soft_limit", count);
    let hard_limit = section.get("hard_limit", count);
    if let (Some(soft), Some(hard)) = (soft_limit, hard_limit)
        && soft > hard
        && let Some((key, _)) = section.table.get_key_value("soft_limit")
    {
        let wrong =
            Wrong::new(format!("a soft limit of {soft} is never reached below a hard limit of {hard}"));
        section.problems.note(&key.span(), wrong.instead(format!("write soft_limit = {hard}, or less")));
    }
    RequestConcurrency { soft_limit, hard_limit }
}

pub(super) fn count(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let number = value.as_integer().ok_or_else(|| expected("a number of requests", value))?;
    let number = u32::from_str_radix(number.as_str(), number.radix()).unwrap_or(0);
    if (1..=CONCURRENCY_MAX).contains(&number) {
        return Ok(number);
    }
    Err(Wrong::new(format!("that is not within 1 to {CONCURRENCY_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn limits_on_concurrency_are_read_and_written() {
        let manifest = Manifest::parse("[http.concurrency]\nsoft_limit = 200\nhard_limit = 250\n").unwrap();
        let wanted = RequestConcurrency { soft_limit: Some(200), hard_limit: Some(250) };
        assert_eq!(manifest.http.concurrency, wanted);
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
        let none = serde_json::to_string(&Manifest::default()).unwrap();
        assert!(!none.contains("concurrency"), "the version before reads what sets no limit");
    }

    #[test]
    fn a_timeout_is_read_and_written() {
        let manifest = Manifest::parse("[http]\nrequest_timeout = \"30s\"\n").unwrap();
        assert_eq!(manifest.http.request_timeout, Some(crate::Millis::from_secs(30)));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        assert!(!serde_json::to_string(&Manifest::default()).unwrap().contains("request_timeout"));
        assert!(Manifest::parse("[http]\nrequest_timeout = \"0s\"\n").is_err());
    }

    #[test]
    fn limits_that_cannot_be_meant_are_refused() {
        let complaint = |text: &str| Manifest::parse(text).unwrap_err().to_string();
        for (keys, what) in [
            ("soft_limit = 0", "that is not within 1 to 1000000"),
            ("hard_limit = 2000000", "that is not within 1 to 1000000"),
            ("hard_limit = \"many\"", "expected a number of requests, found string"),
            ("soft_limit = 9\nhard_limit = 3", "a soft limit of 9 is never reached below a hard limit of 3"),
            ("type = \"requests\"", "unknown key `http.concurrency.type`"),
        ] {
            let told = complaint(&format!("[http.concurrency]\n{keys}\n"));
            assert!(told.contains(what), "{told}");
        }
        assert!(complaint("[http]\nconcurrency = 5\n").contains("write `[http.concurrency]`"));
    }
}
