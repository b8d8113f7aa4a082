//! `[[http.rate_limit]]`: how often somebody may ask the app for something.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::http_route::{HttpMethod, methods};
use super::keys;
use super::read::{DAY, SECOND, Section, array, expected, span, text};
use super::request_limits::count;
use crate::problem::Wrong;
use crate::unit::Millis;

/// The most rules of one app: each is looked at for every request, and remembers thousands of clients.
const RULES_MAX: usize = 10;

/// One rule. A routing snapshot says it too, so that unknown fields are no mistake here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// So many requests are let through in every `per`.
    pub requests: u32,
    /// See `requests`.
    pub per: Millis,
    /// So many of them may come at once.
    pub burst: u32,
    /// Whose requests are counted together.
    pub by: Principal,
    /// What it is about: this path and those below it; everything when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPrefix>,
    /// And these methods; every one when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<HttpMethod>,
}

super::checked_text! {
    /// Whose requests are counted together: those of a client's address, `ip`, or those with the same value of a header, `header:x-api-key`,
    /// or of a cookie, `cookie:session`.
    Principal, principal, InvalidPrincipal("{0:?} is not a principal");
    /// A path that is written in only one way: nothing in it is encoded, empty, `.` or `..`.
    PathPrefix, path_prefix, InvalidPathPrefix("{0:?} is not a plain path");
}

impl Principal {
    /// The header, in lower case; `None` for the address.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        self.as_str().strip_prefix("header:")
    }

    /// The name of the cookie; `None` for anything else.
    #[must_use]
    pub fn cookie(&self) -> Option<&str> {
        self.as_str().strip_prefix("cookie:")
    }
}

fn principal(text: &str) -> Option<String> {
    if text == "ip" {
        return Some(text.to_owned());
    }
    let (kind, name) = text.split_once(':')?;
    let dotted = kind == "cookie";
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| is_part(byte) || (dotted && byte == b'.'))
        && matches!(kind, "header" | "cookie");
    // The names of headers are the same in any case; those of cookies are not.
    fits.then(|| if dotted { text.to_owned() } else { text.to_ascii_lowercase() })
}

fn path_prefix(text: &str) -> Option<String> {
    let fits = text.starts_with('/')
        && text.len() <= 1_024
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#\\".contains(&byte))
        && !text.contains("//")
        && !text.split('/').any(|segment| segment == "." || segment == "..");
    fits.then(|| text.to_owned())
}

pub(super) fn rate_limits(section: &mut Section<'_, '_, '_>) -> Vec<RateLimit> {
    let mut rules = Vec::new();
    for (index, value) in
        array(section, "rate_limit", "an array of tables: `[[http.rate_limit]]`").iter().enumerate()
    {
        if index >= RULES_MAX {
            let wrong = Wrong::new(format!("an app has at most {RULES_MAX} rate limits"));
            section.problems.note(&value.span(), wrong);
            break;
        }
        let Some(table) = value.get_ref().as_table() else {
            section.problems.note(&value.span(), expected("a table", value.get_ref()));
            continue;
        };
        rules.extend(rule(&mut Section::new(section.problems, table, &keys::RATE_LIMIT), &value.span()));
    }
    rules
}

fn rule(section: &mut Section<'_, '_, '_>, at: &Range<usize>) -> Option<RateLimit> {
    let requests = section.get("requests", count);
    let per = section.get("per", span(SECOND, DAY));
    let by = section.get("by", |value| {
        let hint = "write \"ip\", a header as in \"header:X-Api-Key\" or a cookie as in \"cookie:session\"";
        text(value)?.parse().map_err(|bad: InvalidPrincipal| Wrong::new(bad).instead(hint))
    });
    let path = section.get("path", |value| {
        let hint = "write a path like \"/login\", as the app knows it";
        text(value)?.parse().map_err(|bad: InvalidPathPrefix| Wrong::new(bad).instead(hint))
    });
    let methods = methods(section);
    let burst = section.get("burst", count);
    for (key, example) in [("requests", "requests = 100"), ("per", "per = \"1m\""), ("by", "by = \"ip\"")] {
        if section.table.get(key).is_none() {
            let wrong = Wrong::new(format!("`http.rate_limit` has no `{key}`"));
            section.problems.note(at, wrong.instead(format!("write {example}")));
        }
    }
    let requests = requests?;
    Some(RateLimit { requests, per: per?, burst: burst.unwrap_or(requests), by: by?, path, methods })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn rules_are_read_and_written() {
        let text = "[[http.rate_limit]]\nrequests = 100\nper = \"1m\"\nby = \"ip\"\n\
            [[http.rate_limit]]\nrequests = 5\nper = \"1m\"\nburst = 2\nby = \"header:X-Api-Key\"\npath = \"/login\"\n\
            [[http.rate_limit]]\nrequests = 9\nper = \"1m\"\nby = \"cookie:Session.id\"\nmethods = [\"POST\"]\n";
        let manifest = Manifest::parse(text).unwrap();
        let rules = &manifest.http.rate_limits;
        assert_eq!((rules.len(), rules[0].burst, &rules[0].path), (3, 100, &None));
        assert_eq!((rules[2].by.cookie(), rules[2].methods[0].as_str()), (Some("Session.id"), "POST"));
        assert_eq!((rules[1].burst, rules[1].by.header()), (2, Some("x-api-key")));
        assert_eq!(rules[1].path.as_ref().map(PathPrefix::as_str), Some("/login"));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
        assert!(!serde_json::to_string(&Manifest::default()).unwrap().contains("rate_limit"));
    }

    #[test]
    fn rules_that_bound_nothing_are_refused() {
        let good = [("requests", "5"), ("per", "\"1m\""), ("by", "\"ip\"")];
        let with = |key: &str, value: &str| {
            let others = good.iter().filter(|(other, _)| *other != key);
            let lines: String = others.map(|(key, value)| format!("{key} = {value}\n")).collect();
            Manifest::parse(&format!("[[http.rate_limit]]\n{lines}{value}\n"))
        };
        assert!(with("", "").is_ok());
        for (key, value, what) in [
            ("requests", "", "`http.rate_limit` has no `requests`"),
            ("per", "", "`http.rate_limit` has no `per`"),
            ("by", "", "`http.rate_limit` has no `by`"),
            ("requests", "requests = 0", "that is not within 1 to 1000000"),
            ("per", "per = \"1ms\"", "is not within 1s to 24h"),
            ("by", "by = \"user\"", "\"user\" is not a principal"),
            ("by", "by = \"header:a b\"", "is not a principal"),
            ("by", "by = \"cookie:\"", "is not a principal"),
            ("by", "by = \"cookie:a;b\"", "is not a principal"),
            ("", "methods = [\"post\"]", "write \"POST\""),
            ("", "path = \"login\"", "is not a plain path"),
            ("", "path = \"/a/../b\"", "is not a plain path"),
            ("", "path = \"/%6cogin\"", "is not a plain path"),
            ("", "burst = \"a\"", "expected a number of requests"),
        ] {
            let told = with(key, value).unwrap_err().to_string();
            assert!(told.contains(what), "{told}");
        }
        let many = "[[http.rate_limit]]\nrequests = 5\nper = \"1m\"\nby = \"ip\"\n".repeat(11);
        assert!(Manifest::parse(&many).unwrap_err().to_string().contains("at most 10 rate limits"));
    }
}
