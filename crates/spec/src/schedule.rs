//! Schedules: the five fields of a crontab, when they are due in a time zone, and the same in words.
//!
//! The form is that of POSIX (crontab, IEEE Std 1003.1) with what every cron understands beside it: steps, names of months and days, and
//! the words from `@yearly` to `@hourly`. All of it is arithmetic: nothing here knows what time it is.

mod field;
mod moments;
mod words;
mod zone;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::field::FieldError;
use self::field::{Field, Set};
pub use self::zone::{InvalidZone, Zone};

/// The longest schedule that is read, in bytes; the longest that makes sense lists all sixty minutes.
const SCHEDULE_MAX: usize = 400;

/// The words that stand for five fields.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// How many days a month has at most.
const DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// When something is due, to the minute.
///
/// Where both the day of the month and the day of the week are given, one of them is enough, as POSIX has it; a field that is `*` gives
/// nothing. It is kept as it was written, and read again wherever it comes from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    /// From 0 for Sunday; 7 is 0 too.
    weekdays: Set,
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// It has not five fields.
    #[error(
        "a schedule has five fields, for minute, hour, day of the month, month and day of the week; this one has {0}"
    )]
    Fields(usize),
    /// No such word.
    #[error("{0:?} is no schedule that has a name")]
    Word(String),
    /// One field is wrong.
    #[error("{field} {text:?} {error}")]
    Field {
        /// What the field is for.
        field: &'static str,
        /// How it was written.
        text: String,
        /// What is wrong with it.
        error: FieldError,
    },
    /// No year has such a day.
    #[error("no month that it names has such a day, so it would never be due")]
    Never,
    /// It is longer than any that makes sense.
    #[error("the schedule is longer than {SCHEDULE_MAX} bytes")]
    TooLong,
}

impl InvalidSchedule {
    /// What to write instead, where that is known.
    #[must_use]
    pub fn instead(&self) -> &'static str {
        match self {
            Self::Fields(6 | 7) => {
                "leave out the seconds or the year: write \"0 3 * * *\" for every day at 03:00"
            }
            Self::Word(word) if word == "@reboot" => {
                "what has to run before a release serves is `release_command` below `[deploy]`"
            }
            Self::Word(_) => "write @hourly, @daily, @weekly, @monthly, @yearly, or five fields",
            Self::Fields(_) | Self::Field { .. } | Self::Never | Self::TooLong => {
                "write it like \"0 3 * * *\" for every day at 03:00, or \"*/15 9-17 * * mon-fri\""
            }
        }
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let text = text.trim();
        if text.len() > SCHEDULE_MAX {
            return Err(InvalidSchedule::TooLong);
        }
        let word = text.starts_with('@').then(|| text.to_ascii_lowercase());
        let fields = match &word {
            None => text,
            Some(word) => WORDS
                .iter()
                .find(|(known, _)| known == word)
                .map(|(_, fields)| *fields)
                .ok_or_else(|| InvalidSchedule::Word(word.chars().take(40).collect()))?,
        };
        let words: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = words[..] else {
            return Err(InvalidSchedule::Fields(words.len()));
        };
        let schedule = Self {
            text: word.unwrap_or_else(|| words.join(" ")),
            minutes: Field::MINUTE.read(minutes)?,
            hours: Field::HOUR.read(hours)?,
            days: Field::DAY.read(days)?,
            months: Field::MONTH.read(months)?,
            weekdays: Field::WEEKDAY.read(weekdays)?,
        };
        if schedule.is_possible() { Ok(schedule) } else { Err(InvalidSchedule::Never) }
    }
}

impl Schedule {
    /// Whether there is such a day. What is due by the day of the week is due in any month.
    fn is_possible(&self) -> bool {
        let by_weekday = !self.weekdays.is_any();
        let longest = self.months.iter().filter_map(|month| DAYS.get(usize::from(month) - 1)).max();
        by_weekday || self.days.iter().next().zip(longest).is_some_and(|(first, longest)| first <= *longest)
    }

    /// The schedule as it was written, with one blank between its fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Schedule {
    type Error = InvalidSchedule;
    fn try_from(text: String) -> Result<Self, InvalidSchedule> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests;
