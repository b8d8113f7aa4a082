//! `[healthcheck.NAME]`: a command that says by its status whether an instance of a process is well.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::read::{HOUR, Section, command, expected, of_process, span};
use super::write::{command as written_command, text};
use crate::command::Command;
use crate::name::ProcessName;
use crate::problem::Wrong;
use crate::unit::Millis;

/// The least time of anything here: a command takes a few milliseconds to start.
const LEAST: Millis = Millis(100);
/// The most failures in a row that may be asked for.
const RETRIES_MAX: u32 = 1_000;

/// What a manifest says of a process's health check. What it leaves open is the image's, and where that has no check either Docker's:
/// every 30 s, for 30 s at most, three failures in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// Whether there is none, whatever the image says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
    /// What is run. The image's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// From the end of one to the beginning of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
    /// How long one may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// How long from the start on a failure does not count, unless one has passed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Millis>,
    /// From one to the next as long as none has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Millis>,
    /// How many must fail in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

impl Healthcheck {
    /// The keys that berth.toml has for it, with their values as TOML.
    pub(super) fn written(&self) -> Vec<(String, String)> {
        let span = |span: Millis| text(&span.to_string());
        let keys = [
            ("disable", self.disable.then(|| "true".to_owned())),
            ("command", self.command.as_ref().map(written_command)),
            ("interval", self.interval.map(span)),
            ("timeout", self.timeout.map(span)),
            ("start_period", self.start_period.map(span)),
            ("start_interval", self.start_interval.map(span)),
            ("retries", self.retries.map(|count| count.to_string())),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

pub(super) fn read(
    section: &mut Section<'_, '_, '_>,
    processes: &BTreeSet<ProcessName>,
    is_image: bool,
) -> BTreeMap<ProcessName, Healthcheck> {
    let mut all = BTreeMap::new();
    for (key, value) in section.table_at("healthcheck").into_iter().flatten() {
        let known = of_process(key.get_ref(), processes, "have this check");
        let name = section.note(key.span(), known);
        let Some(table) = value.get_ref().as_table() else {
            let wrong = expected("a table", value.get_ref());
            section
                .problems
                .note(&value.span(), wrong.instead("write `[healthcheck.web]` on a line of its own"));
            continue;
        };
        let one = healthcheck(&mut Section::new(section.problems, table, &keys::HEALTHCHECK));
        if let Some(wrong) = contradiction(&one, is_image) {
            section.problems.note(&value.span(), wrong);
        }
        all.extend(name.map(|name| (name, one)));
    }
    all
}

fn healthcheck(section: &mut Section<'_, '_, '_>) -> Healthcheck {
    Healthcheck {
        disable: section
            .get("disable", |value| value.as_bool().ok_or_else(|| expected("true or false", value)))
            .unwrap_or_default(),
        command: section.get("command", command),
        interval: section.get("interval", span(LEAST, HOUR)),
        timeout: section.get("timeout", span(LEAST, HOUR)),
        start_period: section.get("start_period", span(Millis(0), HOUR)),
        start_interval: section.get("start_interval", span(LEAST, HOUR)),
        retries: section.get("retries", retries),
    }
}

fn retries(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let number = value.as_integer().ok_or_else(|| expected("a number", value))?;
    let number = u32::from_str_radix(number.as_str(), number.radix()).unwrap_or(0);
    if (1..=RETRIES_MAX).contains(&number) {
        return Ok(number);
    }
    Err(Wrong::new(format!("that is not within 1 to {RETRIES_MAX}")))
}

/// What it says against itself, or leaves out that nobody else says.
fn contradiction(check: &Healthcheck, is_image: bool) -> Option<Wrong> {
    let disabled = Healthcheck { disable: true, ..Healthcheck::default() };
    if check.disable {
        let wrong = || Wrong::new("a check that is disabled has no other keys");
        return (*check != disabled).then(wrong);
    }
    if check.command.is_none() && !is_image {
        let wrong = Wrong::new("`healthcheck` has no `command`");
        return Some(wrong.instead("write command = [\"./check\"]; only an image may have one of its own"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let problems = Manifest::parse(text).unwrap_err().0;
        problems.into_iter().map(|it| format!("{}: {}", it.line, it.what)).collect()
    }

    #[test]
    fn a_check_is_a_command_with_its_times() {
        let text = "[processes]\nweb = \"./serve\"\nworker = \"./work\"\n[healthcheck.worker]\ncommand = \"test -e /tmp/ok\"\n\
            interval = \"5s\"\ntimeout = \"2s\"\nstart_period = \"1m\"\nstart_interval = \"500ms\"\nretries = 5\n";
        let manifest = Manifest::parse(text).unwrap();
        let worker = ProcessName::new("worker").unwrap();
        let check = &manifest.healthcheck[&worker];
        assert_eq!(check.command, Some(Command::parse("test -e /tmp/ok").unwrap()));
        assert_eq!((check.interval, check.retries), (Some(Millis(5_000)), Some(5)));
        let written = manifest.write(&[], &[]);
        assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
    }

    #[test]
    fn of_an_image_it_may_be_switched_off_or_be_asked_at_other_times() {
        for text in [
            "[build]\nimage = \"db\"\n[healthcheck.web]\ndisable = true\n",
            "[build]\nimage = \"db\"\n[healthcheck.web]\ninterval = \"2s\"\n",
            "[build]\ndockerfile = \"Dockerfile\"\n[healthcheck.web]\nretries = 1\n",
        ] {
            let manifest = Manifest::parse(text).unwrap();
            let written = manifest.write(&[], &[]);
            assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        for (text, what) in [
            ("[healthcheck.web]\ninterval = \"2s\"\n", "1: `healthcheck` has no `command`"),
            (
                "[healthcheck.web]\ncommand = \"x\"\ndisable = true\n",
                "1: a check that is disabled has no other keys",
            ),
            ("[healthcheck.web]\ncommand = \"x\"\nretries = 0\n", "3: that is not within 1 to 1000"),
            ("[healthcheck.web]\ncommand = \"x\"\ninterval = \"1ms\"\n", "3: 1ms is not within 100ms to 1h"),
            (
                "[processes]\nweb = \"x\"\n[healthcheck.wep]\ncommand = \"x\"\n",
                "3: there is no process `wep` that could have this check",
            ),
            (
                "[healthcheck.run]\ncommand = \"x\"\n",
                "1: there is no process `run` that could have this check",
            ),
            ("[healthcheck]\nweb = \"x\"\n", "2: expected a table, found string"),
            (
                "[healthcheck.web]\ncommand = \"x\"\ndisable = \"yes\"\n",
                "3: expected true or false, found string",
            ),
        ] {
            let all = complaints(text);
            assert!(all.iter().any(|it| it == what), "{text}: {all:?}");
        }
    }
}
