//! `[[http.route]]`: how long requests for a part of the app may take, and how many of them there are at a time.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::rate_limit::{InvalidPathPrefix, PathPrefix};
use super::read::{HOUR, Section, array, expected, span, text};
use super::request_limits::count;
use crate::problem::Wrong;
use crate::unit::Millis;

/// The most rules of one app: a request is compared with each of them.
const ROUTES_MAX: usize = 50;
/// The most methods of one rule: more than there are in use.
const METHODS_MAX: usize = 16;

/// One rule. A routing snapshot says it too, so that unknown fields are no mistake here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRoute {
    /// What it is about: this path and those below it, where no other rule has a longer one.
    pub path: PathPrefix,
    /// And these methods; every one when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<HttpMethod>,
    /// How long an instance may take to begin its answer, in place of what holds for the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Millis>,
    /// So many requests there are at a time, to all instances together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

super::checked_text! {
    /// A method of HTTP, as it is sent: `GET`.
    HttpMethod, method, InvalidHttpMethod("{0:?} is not a method");
}

fn method(text: &str) -> Option<String> {
    let fits = (1..=20).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        && text != "CONNECT";
    fits.then(|| text.to_owned())
}

pub(super) fn routes(section: &mut Section<'_, '_, '_>) -> Vec<HttpRoute> {
    let mut routes: Vec<HttpRoute> = Vec::new();
    for (index, value) in array(section, "route", "an array of tables: `[[http.route]]`").iter().enumerate() {
        if index >= ROUTES_MAX {
            let wrong = Wrong::new(format!("an app has at most {ROUTES_MAX} routes"));
            section.problems.note(&value.span(), wrong);
            break;
        }
        let Some(table) = value.get_ref().as_table() else {
            section.problems.note(&value.span(), expected("a table", value.get_ref()));
            continue;
        };
        let read = route(&mut Section::new(section.problems, table, &keys::HTTP_ROUTE), &value.span());
        let Some(route) = read else { continue };
        if routes.iter().any(|other| overlap(other, &route)) {
            let wrong = Wrong::new(format!("another route is about {} and the same method", route.path));
            section.problems.note(&value.span(), wrong.instead("say both in one, or give each its methods"));
        }
        routes.push(route);
    }
    routes
}

fn route(section: &mut Section<'_, '_, '_>, at: &Range<usize>) -> Option<HttpRoute> {
    let path = section.get("path", |value| {
        let hint = "write a path like \"/reports\", as the app knows it";
        text(value)?.parse().map_err(|bad: InvalidPathPrefix| Wrong::new(bad).instead(hint))
    });
    let methods = methods(section);
    let request_timeout = section.get("request_timeout", span(Millis(100), HOUR));
    let concurrency = section.get("concurrency", count);
    if section.table.get("path").is_none() {
        let wrong = Wrong::new("`http.route` has no `path`");
        section.problems.note(at, wrong.instead("write path = \"/reports\""));
    }
    if section.table.get("request_timeout").is_none() && section.table.get("concurrency").is_none() {
        let wrong = Wrong::new("a route says how long requests may take, or how many there are at a time");
        section.problems.note(at, wrong.instead("write request_timeout = \"1m\" or concurrency = 4"));
    }
    Some(HttpRoute { path: path?, methods, request_timeout, concurrency })
}

/// The methods that a rule is about, in an order of their own; each once.
pub(super) fn methods(section: &mut Section<'_, '_, '_>) -> Vec<HttpMethod> {
    let mut methods: Vec<HttpMethod> = Vec::new();
    for (index, value) in array(section, "methods", "an array of methods").iter().enumerate() {
        if index >= METHODS_MAX {
            let wrong = Wrong::new(format!("a rule has at most {METHODS_MAX} methods"));
            section.problems.note(&value.span(), wrong);
            break;
        }
        let read = |value: &DeValue<'_>| {
            let text = text(value)?;
            text.parse().map_err(|bad: InvalidHttpMethod| {
                Wrong::new(bad).instead(format!("write {:?}", text.to_ascii_uppercase()))
            })
        };
        methods.extend(section.note(value.span(), read(value.get_ref())));
    }
    methods.sort();
    methods.dedup();
    methods
}

/// Whether a request may be one for both, of which neither is about more.
fn overlap(one: &HttpRoute, other: &HttpRoute) -> bool {
    let plain = |route: &HttpRoute| route.path.as_str().trim_end_matches('/').to_ascii_lowercase();
    let same = one.methods.iter().any(|method| other.methods.contains(method));
    plain(one) == plain(other) && (same || (one.methods.is_empty() && other.methods.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn routes_are_read_and_written() {
        let text = "[[http.route]]\npath = \"/reports\"\nrequest_timeout = \"5m\"\nconcurrency = 4\n\
            [[http.route]]\npath = \"/reports\"\nmethods = [\"POST\", \"DELETE\", \"POST\"]\nconcurrency = 1\n";
        let manifest = Manifest::parse(text).unwrap();
        let routes = &manifest.http.routes;
        assert_eq!((routes[0].request_timeout, routes[0].concurrency), (Some(Millis(300_000)), Some(4)));
        let methods: Vec<&str> = routes[1].methods.iter().map(HttpMethod::as_str).collect();
        assert_eq!((methods, routes[1].request_timeout), (vec!["DELETE", "POST"], None));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
        assert!(!serde_json::to_string(&Manifest::default()).unwrap().contains("route"));
    }

    #[test]
    fn routes_that_say_nothing_or_contradict_each_other_are_refused() {
        let told = |lines: &str| match Manifest::parse(lines) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        };
        let good = "[[http.route]]\npath = \"/a\"\nconcurrency = 1\n";
        assert_eq!(told(good), "");
        for (lines, what) in [
            ("concurrency = 1", "`http.route` has no `path`"),
            ("path = \"/a\"", "a route says how long requests may take, or how many"),
            ("path = \"a\"\nconcurrency = 1", "is not a plain path"),
            ("path = \"/a\"\nconcurrency = 0", "that is not within 1 to 1000000"),
            ("path = \"/a\"\nrequest_timeout = \"0s\"", "is not within 100ms to 1h"),
            ("path = \"/a\"\nconcurrency = 1\nmethods = [\"get\"]", "write \"GET\""),
            ("path = \"/a\"\nconcurrency = 1\nmethods = [\"CONNECT\"]", "is not a method"),
            ("path = \"/a\"\nconcurrency = 1\nmethods = \"GET\"", "expected an array of methods"),
            ("path = \"/a\"\nconcurrency = 1\nrate = 4", "unknown key `http.route.rate`"),
        ] {
            let told = told(&format!("[[http.route]]\n{lines}\n"));
            assert!(told.contains(what), "{told}");
        }
        assert!(told(&format!("{good}{good}")).contains("another route is about /a"));
        let slash = good.replace("/a", "/A/");
        assert!(told(&format!("{good}{slash}")).contains("another route is about /A/"));
        let get = format!("{good}methods = [\"GET\"]\n");
        assert_eq!(told(&format!("{good}{get}")), "", "the one with methods is about more");
        assert!(told(&format!("{get}{get}")).contains("another route is about /a"));
        let post = format!("{good}methods = [\"POST\"]\n");
        assert_eq!(told(&format!("{get}{post}")), "");
        let many: String = (0..51)
            .map(|number| format!("[[http.route]]\npath = \"/{number}\"\nconcurrency = 1\n"))
            .collect();
        assert!(told(&many).contains("at most 50 routes"));
    }
}
