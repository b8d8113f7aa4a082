//! docs/api.md is true: every example is sent in its order, and every operation of the API is among them.

use std::collections::BTreeSet;
use std::path::Path;

use berth_acceptance::{Api, Options, Platform};
use serde_json::Value;

/// A request of the page and the answer that stands below it.
struct Example {
    method: String,
    path: String,
    body: String,
    /// `json`, `events` or `tar`.
    form: String,
    status: u16,
    answer: String,
}

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(path).expect("a file of the repository")
}

/// The fenced blocks of a page: what follows the fence, and the lines.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 1 {
            let (head, lines) = part.split_once('\n').expect("a fence ends its line");
            blocks.push((head.trim().to_owned(), lines.trim_end().to_owned()));
        }
    }
    blocks
}

fn examples(page: &str) -> Vec<Example> {
    let all = blocks(page);
    let pairs = all.iter().zip(all.iter().skip(1)).filter(|((head, _), _)| head == "http");
    let example = |((_, request), (head, answer)): (&(String, String), &(String, String))| {
        let (line, body) = request.split_once('\n').unwrap_or((request, ""));
        let (method, path) = line.split_once(' ').expect("METHOD PATH");
        let (form, status) = head.split_once(' ').expect("an answer follows every request, with its status");
        Example {
            method: method.to_owned(),
            path: path.to_owned(),
            body: body.to_owned(),
            form: form.to_owned(),
            status: status.parse().expect("a status"),
            answer: answer.clone(),
        }
    };
    pairs.map(example).collect()
}

/// What stands on the page is in the answer: the fields, the kinds of their values, and at least as much of a list.
fn holds(real: &Value, shown: &Value, at: &str) -> Result<(), String> {
    match (real, shown) {
        (Value::Object(real), Value::Object(shown)) => shown.iter().try_for_each(|(key, value)| {
            let real = real.get(key).ok_or_else(|| format!("{at}.{key} is not in the answer"))?;
            holds(real, value, &format!("{at}.{key}"))
        }),
        (Value::Array(real), Value::Array(shown)) => match (real.first(), shown.first()) {
            (_, None) => Ok(()),
            (Some(real), Some(shown)) => holds(real, shown, &format!("{at}[0]")),
            (None, Some(_)) => Err(format!("{at} is empty")),
        },
        // What is none in one life has a value in another.
        (Value::Null, _) | (_, Value::Null) => Ok(()),
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        (real, shown) => Err(format!("{at} is {real}, on the page {shown}")),
    }
}

/// The last event of a stream, as it came; a body in chunks still has their lengths between the lines.
fn last_event(text: &str) -> Option<Value> {
    text.lines().rev().find_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
}

#[test]
fn every_example_of_the_api_works() {
    let page = repository("docs/api.md");
    let mut platform = Platform::start(Options::default());
    let api = Api::of(&platform);
    let examples = examples(&page);
    assert!(examples.len() >= 30, "only {} examples were found", examples.len());
    for example in &examples {
        let Example { method, path, body, form, status, answer } = example;
        let reply = api.ask(method, path, body.as_bytes());
        if form == "tar" {
            assert_eq!(reply.status, *status, "{method} {path}");
            continue;
        }
        let text = reply.text();
        assert_eq!(reply.status, *status, "{method} {path}: {text}");
        let (real, shown) = if form == "events" {
            (last_event(&text), last_event(answer))
        } else {
            (Some(reply.json()), serde_json::from_str(answer).ok())
        };
        let Some(shown) = shown else { continue };
        let real = real.unwrap_or_else(|| panic!("{method} {path}: no event in {text}"));
        holds(&real, &shown, "answer").unwrap_or_else(|why| panic!("{method} {path}: {why}: {text}"));
        if form == "events" {
            assert_eq!(real["stage"], shown["stage"], "{method} {path}: {text}");
        }
    }
    assert_eq!(platform.wait(), Some(0), "the last example stops the platform");
}

#[test]
fn every_operation_has_its_example() {
    let shown: BTreeSet<(String, String)> = examples(&repository("docs/api.md"))
        .into_iter()
        .map(|it| (it.method.to_lowercase(), it.path.split('?').next().unwrap_or_default().to_owned()))
        .collect();
    let document: Value = serde_json::from_str(&repository("contracts/openapi.json")).expect("JSON");
    let mut missing = Vec::new();
    for (template, methods) in document["paths"].as_object().expect("paths") {
        let segments: Vec<&str> = template.split('/').collect();
        let fits = |path: &str| {
            let path: Vec<&str> = path.split('/').collect();
            path.len() == segments.len()
                && segments.iter().zip(&path).all(|(segment, it)| segment.starts_with('{') || segment == it)
        };
        for method in methods.as_object().expect("methods").keys() {
            if !shown.iter().any(|(known, path)| known == method && fits(path)) {
                missing.push(format!("{method} {template}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/api.md has no example of {missing:?}");
}
