//! `[[cron]]`: what an app runs by a schedule.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys;
use super::read::{DAY, SECOND, Section, array, command, expected, one_of, span, text};
use crate::command::Command;
use crate::name::CronName;
use crate::problem::Wrong;
use crate::schedule::{Schedule, Zone};
use crate::unit::Millis;

/// The most entries of one app.
pub const CRON_MAX: usize = 50;
/// How long a command may run when nothing is said, and the most: what a one-off command may.
const TIMEOUT_MAX: Millis = DAY;
/// The longest time that a missed command may be made up for: a month, for what is due once in a month.
const CATCH_UP_MAX: Millis = Millis::from_secs(31 * 86_400);
/// The longest name that is made of a command.
const NAME_MAX: usize = 40;

/// A command that runs by a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronEntry {
    /// When.
    pub schedule: Schedule,
    /// By the clocks of which place.
    #[serde(default)]
    pub timezone: Zone,
    /// What.
    pub command: Command,
    /// What happens when it is due and has not ended since the last time.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// How long it may run.
    pub timeout: Millis,
    /// How late it may still start when the platform did not run at its time.
    pub catch_up: Millis,
}

impl CronEntry {
    /// An entry as it is when nothing but this is said.
    #[must_use]
    pub fn new(schedule: Schedule, command: Command) -> Self {
        Self {
            schedule,
            timezone: Zone::default(),
            command,
            concurrency: Concurrency::default(),
            timeout: TIMEOUT_MAX,
            catch_up: Millis::from_secs(3_600),
        }
    }
}

/// What happens when a command is due and has not ended since the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Concurrency {
    /// It is left out this time.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The one that runs is ended first.
    Replace,
}

impl Concurrency {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 3] =
        [("forbid", Self::Forbid), ("allow", Self::Allow), ("replace", Self::Replace)];

    /// The name that berth.toml has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, it)| *it == self).map_or("forbid", |(name, _)| name)
    }
}

/// A name for an entry that has none: the words of its command, with a number behind them where another has them too.
#[must_use]
pub fn made_name<T>(command: &Command, taken: &BTreeMap<CronName, T>) -> CronName {
    let words = match command {
        Command::Argv(words) => words.join(" "),
        Command::Line(line) | Command::Shell(line) => line.clone(),
        Command::StaticSite { .. } => String::new(),
    };
    let mut name = String::new();
    for c in words.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' => name.push(c),
            '0'..='9' if !name.is_empty() => name.push(c),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    // Room for a number.
    name.truncate(NAME_MAX - 3);
    let base = match name.trim_end_matches('-') {
        "" => "entry",
        some => some,
    };
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let free = [base.to_owned()].into_iter().chain(numbered).find(|name| !taken.contains_key(name.as_str()));
    free.and_then(|name| CronName::new(&name).ok()).expect("it is made of letters that a name may have")
}

pub(super) fn read(section: &mut Section<'_, '_, '_>) -> BTreeMap<CronName, CronEntry> {
    let tables = array(section, "cron", "an array of tables: `[[cron]]`");
    let mut entries = BTreeMap::new();
    let mut nameless = Vec::new();
    for (index, value) in tables.iter().enumerate() {
        if index >= CRON_MAX {
            let wrong = Wrong::new(format!("an app has at most {CRON_MAX} cron entries"));
            section.problems.note(&value.span(), wrong);
            break;
        }
        let Some(table) = value.get_ref().as_table() else {
            section.problems.note(&value.span(), expected("a table", value.get_ref()));
            continue;
        };
        let mut one = Section::new(section.problems, table, &keys::CRON);
        let named = one.table.get("name").map(|name| name.span());
        let name = one.get("name", |value| CronName::new(text(value)?).map_err(Wrong::new));
        let Some(entry) = entry(&mut one, &value.span()) else { continue };
        match (name, named) {
            (Some(name), Some(at)) => {
                if let Some(other) = entries.insert(name.clone(), entry) {
                    let wrong = Wrong::new(format!("there is a cron entry {name} already"));
                    section.problems.note(&at, wrong.instead("give each a name of its own"));
                    entries.insert(name, other);
                }
            }
            // A name that is wrong was noted.
            (None, Some(_)) => {}
            (_, None) => nameless.push(entry),
        }
    }
    // After those that have one, so that a name which is given is never taken by one that is made.
    for entry in nameless {
        entries.insert(made_name(&entry.command, &entries), entry);
    }
    entries
}

fn entry(section: &mut Section<'_, '_, '_>, at: &Range<usize>) -> Option<CronEntry> {
    let schedule = section.get("schedule", schedule);
    let command = section.get("command", command);
    for (key, example) in [("schedule", "schedule = \"@daily\""), ("command", "command = \"bin/nightly\"")] {
        if section.table.get(key).is_none() {
            let wrong = Wrong::new(format!("`cron` has no `{key}`")).instead(format!("write {example}"));
            section.problems.note(at, wrong);
        }
    }
    let timezone = section.get("timezone", |value| {
        text(value)?.parse().map_err(|bad| {
            Wrong::new(bad).instead("write its name as in \"Europe/Berlin\", or leave it out for UTC")
        })
    });
    let concurrency = section.get("concurrency", one_of(&Concurrency::NAMED));
    let timeout = section.get("timeout", span(SECOND, TIMEOUT_MAX));
    let catch_up = section.get("catch_up", span(Millis(0), CATCH_UP_MAX));
    let default = CronEntry::new(schedule?, command?);
    Some(CronEntry {
        timezone: timezone.unwrap_or_default(),
        concurrency: concurrency.unwrap_or_default(),
        timeout: timeout.unwrap_or(default.timeout),
        catch_up: catch_up.unwrap_or(default.catch_up),
        ..default
    })
}

fn schedule(value: &DeValue<'_>) -> Result<Schedule, Wrong> {
    text(value)?.parse().map_err(|bad: crate::schedule::InvalidSchedule| {
        let instead = bad.instead();
        Wrong::new(bad).instead(instead)
    })
}
