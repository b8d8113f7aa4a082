//! Documents of other platforms as one kind of value, whatever they are written in, and how pieces are taken out of it.

use berth_spec::{Command, CommandError, Millis, Problems};
use serde_json::{Map, Value};

use super::problem;

/// A table of a document.
pub(super) type Table = Map<String, Value>;

pub(super) fn json(file: &str, text: &str) -> Result<Table, Problems> {
    let read = serde_json::from_str(text).map_err(|bad| {
        // serde_json ends its message with the place, which is told apart.
        let what = bad.to_string();
        let what = what.split(" at line ").next().unwrap_or_default().to_owned();
        problem(file, text, (bad.line().max(1), bad.column().max(1)), what)
    })?;
    table(file, text, read)
}

pub(super) fn toml(file: &str, text: &str) -> Result<Table, Problems> {
    let read = toml::from_str(text).map_err(|bad: toml::de::Error| {
        problem(file, text, place(text, bad.span().map_or(0, |span| span.start)), bad.message())
    })?;
    table(file, text, read)
}

pub(super) fn yaml(file: &str, text: &str) -> Result<Table, Problems> {
    let read = serde_saphyr::from_str(text).map_err(|bad| unreadable(file, text, &bad))?;
    table(file, text, read)
}

/// What is no YAML, with its place.
pub(crate) fn unreadable(file: &str, text: &str, bad: &serde_saphyr::Error) -> Problems {
    let at = bad.location().map_or((1, 1), |at| (as_index(at.line()), as_index(at.column())));
    // Its first line says what; the others draw what is drawn here, too.
    let what = bad.without_snippet().to_string();
    let what = what.lines().next().unwrap_or_default();
    let what = what.split(" at line ").next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what).to_owned();
    problem(file, text, (at.0.max(1), at.1.max(1)), what)
}

fn as_index(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

fn table(file: &str, text: &str, read: Value) -> Result<Table, Problems> {
    match read {
        Value::Object(table) => Ok(table),
        _ => Err(problem(file, text, (1, 1), "the file is not a table of keys and values")),
    }
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..text.floor_char_boundary(at)).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// A plain value as text; none for tables, lists and nothing.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text or a list of texts; anything else counts as none.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().filter_map(plain).collect(),
        other => plain(other).into_iter().collect(),
    }
}

/// A whole number, also one that is written as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A span: text with units, or a number of seconds.
pub(super) fn span(value: &Value) -> Option<Millis> {
    match value {
        Value::String(text) => text.parse().ok().or_else(|| seconds(text.trim().parse().ok()?)),
        other => seconds(other.as_u64()?),
    }
}

fn seconds(number: u64) -> Option<Millis> {
    number.checked_mul(1_000).map(Millis)
}

/// A command: a line, or a list of arguments.
pub(super) fn command(value: &Value) -> Result<Command, CommandError> {
    match value {
        Value::Array(_) => Command::from_argv(texts(value)),
        other => Command::parse(&plain(other).unwrap_or_default()),
    }
}

/// The tables in a list of tables; a single table counts as a list of one.
pub(super) fn tables(value: &Value) -> Vec<&Table> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_object).collect(),
        other => other.as_object().into_iter().collect(),
    }
}
