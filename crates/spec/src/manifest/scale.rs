//! `[scale.web]`: whether the web process stands still while nobody asks for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::read::{DAY, SECOND, Section, expected, span};
use crate::name::ProcessName;
use crate::problem::Wrong;
use crate::unit::Millis;

/// The longest that an app may go without a request before it sleeps, and the longest that it may stand still before it is stopped.
const LONGEST: Millis = Millis(30 * DAY.0);

/// A process that scales to nothing by itself: `min = 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// How long nobody asks for it before it sleeps.
    pub idle_after: Millis,
    /// How long its instances stand still, keeping their memory, before they are stopped. Nought stops them at once.
    pub stop_after: Millis,
}

impl Default for Sleep {
    fn default() -> Self {
        Self { idle_after: Millis::from_secs(600), stop_after: Millis::from_secs(4 * 3_600) }
    }
}

impl Sleep {
    /// The keys that berth.toml has for it, with their values as TOML.
    pub(super) fn written(self) -> Vec<(String, String)> {
        let default = Self::default();
        let mut keys = vec![("min".to_owned(), "0".to_owned())];
        for (key, value, usual) in [
            ("idle_after", self.idle_after, default.idle_after),
            ("stop_after", self.stop_after, default.stop_after),
        ] {
            if value != usual {
                keys.push((key.to_owned(), format!("\"{value}\"")));
            }
        }
        keys
    }
}

pub(super) fn read(section: &mut Section<'_, '_, '_>) -> BTreeMap<ProcessName, Sleep> {
    let mut all = BTreeMap::new();
    for (key, value) in section.table_at("scale").into_iter().flatten() {
        let name = section.note(key.span(), name_of(key.get_ref()));
        let Some(table) = value.get_ref().as_table() else {
            let wrong = expected("a table", value.get_ref());
            section.problems.note(&value.span(), wrong.instead("write `[scale.web]` on a line of its own"));
            continue;
        };
        let has_least = table.get("min").is_some();
        let one = sleep(&mut Section::new(section.problems, table, &keys::SCALE));
        if !has_least {
            let wrong = Wrong::new("`scale` has no `min`");
            section.problems.note(&value.span(), wrong.instead(HOW_MANY));
        }
        all.extend(name.map(|name| (name, one)));
    }
    all
}

const HOW_MANY: &str =
    "write min = 0 for an app that sleeps; how many instances run otherwise `berth scale web=2` says";

/// Only what requests come to can be woken by one.
fn name_of(name: &str) -> Result<ProcessName, Wrong> {
    let process = ProcessName::new(name).map_err(Wrong::new)?;
    if process.is_web() {
        return Ok(process);
    }
    let wrong = Wrong::new(format!("nothing would wake the process `{process}`: requests go to web alone"));
    Err(wrong.instead("write `[scale.web]`"))
}

fn sleep(section: &mut Section<'_, '_, '_>) -> Sleep {
    let default = Sleep::default();
    section.get("min", least);
    Sleep {
        idle_after: section.get("idle_after", span(SECOND, LONGEST)).unwrap_or(default.idle_after),
        stop_after: section.get("stop_after", span(Millis(0), LONGEST)).unwrap_or(default.stop_after),
    }
}

fn least(value: &DeValue<'_>) -> Result<(), Wrong> {
    let number = value.as_integer().ok_or_else(|| expected("a number", value))?;
    match u32::from_str_radix(number.as_str(), number.radix()) {
        Ok(0) => Ok(()),
        Ok(_) => {
            Err(Wrong::new("a `min` above 0 is not available in this version of Berth").instead(HOW_MANY))
        }
        Err(_) => Err(Wrong::new("that is no number of instances").instead(HOW_MANY)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;

    fn read(text: &str) -> Result<Option<Sleep>, Vec<String>> {
        let manifest = Manifest::parse(text)
            .map_err(|problems| problems.0.iter().map(|it| it.what.clone()).collect::<Vec<String>>())?;
        Ok(manifest.sleep().copied())
    }

    #[test]
    fn an_app_sleeps_by_what_its_web_process_says() {
        assert_eq!(read("[scale.web]\nmin = 0"), Ok(Some(Sleep::default())));
        let own = read("[scale.web]\nmin = 0\nidle_after = \"1s\"\nstop_after = \"0s\"").unwrap().unwrap();
        assert_eq!((own.idle_after, own.stop_after), (Millis(1_000), Millis(0)));
        assert_eq!(read(""), Ok(None));
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        for (text, what) in [
            ("[scale.web]\nmin = 0\nmax = 10", "`scale.NAME.max` is not available"),
            ("[scale.web]\nmin = 0\npredict = \"on\"", "`scale.NAME.predict` is not available"),
            ("[scale.web]\nmin = 1", "a `min` above 0 is not available"),
            ("[scale.worker]\nmin = 0", "nothing would wake the process `worker`"),
            ("[scale.web]\nidle_after = \"5m\"", "`scale` has no `min`"),
            ("[scale.web]\nmin = 0\nidle_after = \"500ms\"", "500ms is not within 1s to 720h"),
            ("[scale]\nweb = 2", "expected a table, found integer"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.iter().any(|it| it.contains(what)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for text in
            ["[scale.web]\nmin = 0", "[scale.web]\nmin = 0\nidle_after = \"90s\"\nstop_after = \"0s\""]
        {
            let manifest = Manifest::parse(text).unwrap();
            let written = manifest.write(&[], &[]);
            assert_eq!(Manifest::parse(&written).unwrap(), manifest, "{written}");
        }
    }
}
