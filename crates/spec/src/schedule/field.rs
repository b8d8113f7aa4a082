//! One field of a schedule: a list of numbers, names, ranges and steps.

use super::InvalidSchedule;

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// The names of its values, from the least on.
    names: &'static [&'static str],
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Not a number, a name or `*`.
    #[error("is neither a number, a name, a range, a step nor *")]
    Form,
    /// Not within the field's bounds.
    #[error("is not within {0} to {1}")]
    Bounds(u8, u8),
    /// A range that ends before it begins.
    #[error("has a range that ends before it begins")]
    Backwards,
    /// A step of nought, or one that leads beyond the field at once.
    #[error("has a step that is not within 1 to {0}")]
    Step(u8),
    /// What other schedulers add and cron has not.
    #[error("has {0:?}, which cron has not")]
    Foreign(char),
}

/// Numbers below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    bits: u64,
    /// Whether the field is `*`, or `*/1`, which is the same.
    any: bool,
}

impl Set {
    pub(super) fn has(self, number: u8) -> bool {
        number < 64 && self.bits & (1 << number) != 0
    }

    pub(super) fn is_any(self) -> bool {
        self.any
    }

    /// From the least.
    pub(super) fn iter(self) -> impl DoubleEndedIterator<Item = u8> {
        (0..64).filter(move |number| self.has(*number))
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Field {
    pub(super) const MINUTE: Self = Self { name: "the minute", least: 0, most: 59, names: &[] };
    pub(super) const HOUR: Self = Self { name: "the hour", least: 0, most: 23, names: &[] };
    pub(super) const DAY: Self = Self { name: "the day of the month", least: 1, most: 31, names: &[] };
    pub(super) const MONTH: Self = Self { name: "the month", least: 1, most: 12, names: &MONTHS };
    pub(super) const WEEKDAY: Self =
        Self { name: "the day of the week", least: 0, most: 7, names: &WEEKDAYS };

    /// Reads the field.
    pub(super) fn read(self, text: &str) -> Result<Set, InvalidSchedule> {
        let wrong =
            |error| InvalidSchedule::Field { field: self.name, text: text.chars().take(40).collect(), error };
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.part(part).map_err(wrong)?;
        }
        if self.most == 7 && bits & (1 << 7) != 0 {
            bits = (bits | 1) & !(1 << 7);
        }
        Ok(Set { bits, any: matches!(text, "*" | "*/1") })
    }

    /// `*`, `5`, `mon`, `1-5`, each with or without `/2`. A number with a step goes on to the field's end, as everywhere but in POSIX, which
    /// has no steps.
    fn part(self, part: &str) -> Result<u64, FieldError> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step)),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.least, if self.most == 7 { 6 } else { self.most }),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            None => {
                let only = self.number(range)?;
                (only, if step.is_some() { self.most.max(only) } else { only })
            }
        };
        // From Friday to Sunday is a range; the other way round of the week is written with 7.
        let last = if self.most == 7 && last == 0 && first > 0 { 7 } else { last };
        if last < first {
            return Err(FieldError::Backwards);
        }
        let step = match step {
            None => 1,
            Some(step) => digits(step)
                .filter(|step| (1..=self.most).contains(step))
                .ok_or(FieldError::Step(self.most))?,
        };
        Ok((first..=last).step_by(usize::from(step)).fold(0, |bits, number| bits | (1 << number)))
    }

    fn number(self, text: &str) -> Result<u8, FieldError> {
        let lower = text.to_ascii_lowercase();
        if let Some(place) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.least + u8::try_from(place).unwrap_or(0));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let foreign = text.chars().find(|c| "LW#?H".contains(*c));
            return Err(foreign.map_or(FieldError::Form, FieldError::Foreign));
        }
        let number = digits(text).filter(|number| (self.least..=self.most).contains(number));
        number.ok_or(FieldError::Bounds(self.least, self.most))
    }
}

/// A number without a sign, which the standard library would take.
fn digits(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
