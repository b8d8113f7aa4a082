//! `[resources.NAME]`: how much of the machine an instance of a process may take.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::read::{Section, expected, of_process, text};
use crate::name::{ProcessName, RELEASE_COMMAND_PROCESS, RUN_PROCESS};
use crate::problem::Wrong;
use crate::unit::Bytes;

/// The least memory, in bytes: less does not hold a runtime's first page tables and its stack.
const MEMORY_MIN: Bytes = Bytes(8 << 20);
/// The most memory, and the most of `/tmp`.
const BYTES_MAX: Bytes = Bytes(64 << 40);
/// The least of `/tmp`.
const TMP_MIN: Bytes = Bytes(64 << 10);
/// The least speed of a disk, in bytes per second: with less a program does not come off it in a minute.
const SPEED_MIN: Bytes = Bytes(64 << 10);
/// The least of processes and threads: a shell and what it starts.
const PROCESSES_MIN: u64 = 4;
/// The most that Linux numbers.
const PROCESSES_MAX: u64 = 4_194_304;
/// The most processors that Linux knows of.
const CPU_MAX: f64 = 8_192.0;
/// The least share of one: a control group's time is given out in pieces of a thousandth of a second.
const CPU_MIN: f64 = 0.01;

/// How much of the machine an instance may take; `None` for no limit, or the backend's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes of `/tmp`, or of what is written to an image's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmp: Option<u64>,
    /// Bytes per second that are read from the platform's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read: Option<u64>,
    /// Bytes per second that are written to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_write: Option<u64>,
}

impl Resources {
    /// The keys that berth.toml has for it, with their values as TOML.
    pub(super) fn written(&self) -> Vec<(String, String)> {
        let bytes = |bytes: u64| format!("\"{}\"", Bytes(bytes));
        let keys = [
            ("cpu", self.cpu_millis.map(|millis| (f64::from(millis) / 1_000.0).to_string())),
            ("memory", self.memory.map(bytes)),
            ("processes", self.processes.map(|count| count.to_string())),
            ("tmp", self.tmp.map(bytes)),
            ("disk_read", self.disk_read.map(bytes)),
            ("disk_write", self.disk_write.map(bytes)),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

pub(super) fn read(
    section: &mut Section<'_, '_, '_>,
    processes: &BTreeSet<ProcessName>,
) -> BTreeMap<ProcessName, Resources> {
    let mut all = BTreeMap::new();
    for (key, value) in section.table_at("resources").into_iter().flatten() {
        let name = key.get_ref().as_ref();
        let known = name_of(name, processes);
        let name = section.note(key.span(), known);
        let Some(table) = value.get_ref().as_table() else {
            let wrong = expected("a table", value.get_ref());
            section
                .problems
                .note(&value.span(), wrong.instead("write `[resources.web]` on a line of its own"));
            continue;
        };
        let one = resources(&mut Section::new(section.problems, table, &keys::RESOURCES));
        all.extend(name.map(|name| (name, one)));
    }
    all
}

/// The process of that name. Where no file names one the builder will, and any will do.
fn name_of(name: &str, processes: &BTreeSet<ProcessName>) -> Result<ProcessName, Wrong> {
    if name == "release" {
        let wrong = Wrong::new("`release` is not a process here");
        return Err(wrong.instead(format!("write `[resources.{RELEASE_COMMAND_PROCESS}]`")));
    }
    if [RELEASE_COMMAND_PROCESS, RUN_PROCESS].contains(&name) {
        return ProcessName::new(name).map_err(Wrong::new);
    }
    of_process(name, processes, "have these resources")
}

fn resources(section: &mut Section<'_, '_, '_>) -> Resources {
    Resources {
        memory: section.get("memory", bytes(MEMORY_MIN)),
        cpu_millis: section.get("cpu", cpu),
        processes: section.get("processes", |value| {
            let number = value.as_integer().ok_or_else(|| expected("a number", value))?;
            let number = u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(0);
            if (PROCESSES_MIN..=PROCESSES_MAX).contains(&number) {
                return Ok(number);
            }
            Err(Wrong::new(format!("that is not within {PROCESSES_MIN} to {PROCESSES_MAX}")))
        }),
        tmp: section.get("tmp", bytes(TMP_MIN)),
        disk_read: section.get("disk_read", bytes(SPEED_MIN)),
        disk_write: section.get("disk_write", bytes(SPEED_MIN)),
    }
}

fn bytes(least: Bytes) -> impl Fn(&DeValue<'_>) -> Result<u64, Wrong> {
    move |value| {
        let hint = "write it like \"256Mi\" or \"2Gi\"";
        if let Some(number) = value.as_integer() {
            return Err(expected("a size", value).instead(format!("write \"{}Mi\"", number.as_str())));
        }
        let given: Bytes = text(value)?.parse().map_err(|bad| Wrong::new(bad).instead(hint))?;
        if given < least || given > BYTES_MAX {
            return Err(Wrong::new(format!("{given} is not within {least} to {BYTES_MAX}")));
        }
        Ok(given.0)
    }
}

/// Processors, as thousandths of one.
fn cpu(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let hint = "write a number of processors, like 0.5 or 2";
    let number = match value {
        DeValue::Integer(number) => number.as_str().parse().ok(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        other => return Err(expected("a number", other).instead(hint)),
    };
    let within = number.filter(|number| (CPU_MIN..=CPU_MAX).contains(number));
    let processors = within
        .ok_or_else(|| Wrong::new(format!("that is not within {CPU_MIN} to {CPU_MAX}")).instead(hint))?;
    // Within 10 and 8,192,000.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let millis = (processors * 1_000.0).round() as u32;
    Ok(millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn complaints(text: &str) -> Vec<String> {
        let problems = Manifest::parse(text).unwrap_err().0;
        let told =
            |it: crate::Problem| format!("{}: {} ({})", it.line, it.what, it.instead.unwrap_or_default());
        problems.into_iter().map(told).collect()
    }

    #[test]
    fn limits_are_read_and_written() {
        let text = "[processes]\nweb = \"./serve\"\n[resources.web]\ncpu = 0.5\nmemory = \"256Mi\"\nprocesses = 200\n\
            tmp = \"1G\"\ndisk_write = \"20Mi\"\n[resources.run]\ncpu = 2\n[resources.release-command]\nmemory = \"1.5Gi\"\n";
        let manifest = Manifest::parse(text).unwrap();
        let of = |name: &str| manifest.resources[&ProcessName::new(name).unwrap()];
        let web = Resources {
            memory: Some(256 << 20),
            cpu_millis: Some(500),
            processes: Some(200),
            tmp: Some(1_000_000_000),
            disk_read: None,
            disk_write: Some(20 << 20),
        };
        assert_eq!(of("web"), web);
        assert_eq!(of("run").cpu_millis, Some(2_000));
        assert_eq!(of("release-command").memory, Some(3 << 29));
        assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
        let none = Manifest::parse("[resources.web]\n").unwrap();
        assert_eq!(none.resources.len(), 1, "a builder may yet find a process of that name");
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let text = "[processes]\nweb = \"./serve\"\n[resources.wep]\n[resources.release]\n[resources.web]\ncpu = 0\n\
            memory = \"1m\"\nprocesses = 1\ntmp = 64\n";
        assert_eq!(
            complaints(text),
            [
                "3: there is no process `wep` that could have these resources (did you mean `web`?)",
                "4: `release` is not a process here (write `[resources.release-command]`)",
                "6: that is not within 0.01 to 8192 (write a number of processors, like 0.5 or 2)",
                "7: \"1m\" is not a size (write it like \"256Mi\" or \"2Gi\")",
                "8: that is not within 4 to 4194304 ()",
                "9: expected a size, found integer (write \"64Mi\")",
            ]
        );
        assert_eq!(
            complaints("[resources.web]\nmemory = \"1Mi\"\n"),
            ["2: 1Mi is not within 8Mi to 64Ti ()"]
        );
        let procfile = Manifest::read(Some("[resources.worker]\n"), Some("web: ./serve\n")).unwrap_err();
        let what = "there is no process `worker` that could have these resources";
        assert_eq!((procfile.0.len(), procfile.0[0].what.as_str()), (1, what));
    }
}
