//! When a schedule is due: civil time in a time zone, turned into moments that pass once.
//!
//! Twice a year most zones leave out an hour or have one twice. A schedule that names hours is about the clock on the wall: what is due in an
//! hour that is left out is due when that hour would have begun and another begins instead, and in an hour that comes twice it is due the first
//! time. One whose hour is `*` is about how much time passes: it is due in every minute that there is, in both of the two hours, and in
//! none that there is not. That is what cron(8) of Debian does.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp as Moment, ToSpan as _};

use super::{Schedule, Zone};
use crate::unit::Timestamp;

/// How many days are looked through: from one 29 February to the next there may be eight years.
const DAYS_MAX: u32 = 8 * 366 + 2;
/// By how much a clock on the wall is set back at most, in hours: two in Antarctica. As far as this its order is not that of time.
const SET_BACK: i32 = 3;

impl Schedule {
    /// The first moment after `after` at which it is due in `zone`. None when there is none before the end of the year 9999, or the zone is
    /// not known.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let rules = zone.rules()?;
        let from = civil(after, &rules)?.checked_sub(disorder(after, &rules).hours()).ok()?;
        let mut best = Best { found: None, better: std::cmp::min, hours_since: 0 };
        let mut day = from.date();
        for _ in 0..DAYS_MAX {
            let begin = if day == from.date() { from.hour() } else { 0 };
            for hour in self.hours_of(day).filter(|hour| *hour >= begin) {
                best.offer(self.moments_of(day.at(hour, 0, 0, 0), &rules).filter(|it| *it > after));
                if best.stands(self.hours.is_any(), &rules) {
                    return best.found;
                }
            }
            day = match day.tomorrow() {
                Ok(next) => next,
                Err(_end_of_time) => break,
            };
        }
        best.found
    }

    /// The last moment up to `until`, and `until` itself, at which it is due in `zone`.
    #[must_use]
    pub fn last_until(&self, until: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let rules = zone.rules()?;
        let from = civil(until, &rules)?.checked_add(disorder(until, &rules).hours()).ok()?;
        let mut best = Best { found: None, better: std::cmp::max, hours_since: 0 };
        let mut day = from.date();
        for _ in 0..DAYS_MAX {
            let begin = if day == from.date() { from.hour() } else { 23 };
            for hour in self.hours_of(day).rev().filter(|hour| *hour <= begin) {
                best.offer(self.moments_of(day.at(hour, 0, 0, 0), &rules).filter(|it| *it <= until));
                if best.stands(self.hours.is_any(), &rules) {
                    return best.found;
                }
            }
            day = match day.yesterday() {
                Ok(before) => before,
                Err(_beginning) => break,
            };
        }
        best.found
    }

    /// At how many moments after `after` and up to `until` it is due in `zone`, counted up to `most`.
    #[must_use]
    pub fn count_between(&self, after: Timestamp, until: Timestamp, zone: &Zone, most: usize) -> usize {
        let rules = zone.rules();
        let first = rules.as_ref().and_then(|rules| civil(after, rules)?.date().yesterday().ok());
        let (Some(rules), Some(first)) = (rules, first) else { return 0 };
        let Some(last) = civil(until, &rules).and_then(|until| until.date().tomorrow().ok()) else {
            return 0;
        };
        let days = first.series(1.day()).take_while(|day| *day <= last);
        let moments = days.flat_map(|day| {
            let all: BTreeSet<Timestamp> =
                self.hours_of(day).flat_map(|hour| self.moments_of(day.at(hour, 0, 0, 0), &rules)).collect();
            all.into_iter().filter(|it| *it > after && *it <= until)
        });
        moments.take(most).count()
    }

    /// The hours of a day in which it is due.
    fn hours_of(&self, day: Date) -> impl DoubleEndedIterator<Item = i8> {
        let hours = self.hours;
        let due = self.is_due_on(day);
        (0..24).filter(move |hour| due && u8::try_from(*hour).is_ok_and(|hour| hours.has(hour)))
    }

    /// Whether it is due on that day at all.
    fn is_due_on(&self, day: Date) -> bool {
        let number = |of: i8| u8::try_from(of).unwrap_or(u8::MAX);
        let of_month = self.days.has(number(day.day()));
        let of_week = self.weekdays.has(number(day.weekday().to_sunday_zero_offset()));
        self.months.has(number(day.month()))
            && match (self.days.is_any(), self.weekdays.is_any()) {
                (false, false) => of_month || of_week,
                (true, false) => of_week,
                (_, true) => of_month,
            }
    }

    /// The moments of the hour that begins at `hour`, in no order.
    fn moments_of(&self, hour: DateTime, rules: &TimeZone) -> impl Iterator<Item = Timestamp> {
        let mut moments = Vec::new();
        for minute in self.minutes.iter().filter_map(|minute| i8::try_from(minute).ok()) {
            self.resolve(hour.date().at(hour.hour(), minute, 0, 0), rules, &mut moments);
        }
        moments.into_iter()
    }

    fn resolve(&self, civil: DateTime, rules: &TimeZone, moments: &mut Vec<Timestamp>) {
        let passes = self.hours.is_any();
        let ambiguous = rules.to_ambiguous_timestamp(civil);
        let (first, second) = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => (offset.to_timestamp(civil), None),
            AmbiguousOffset::Fold { before, after } => {
                (before.to_timestamp(civil), passes.then(|| after.to_timestamp(civil)))
            }
            AmbiguousOffset::Gap { .. } if passes => return,
            AmbiguousOffset::Gap { after, .. } => {
                // Read by the offset that comes it lies before the change; the next change is the one that leaves it out.
                let Ok(before) = after.to_timestamp(civil) else { return };
                let Some(change) = rules.following(before).next() else { return };
                (Ok(change.timestamp()), None)
            }
        };
        let found = [Some(first), second].into_iter().flatten().flatten();
        moments.extend(found.filter_map(|at| u64::try_from(at.as_millisecond()).ok()).map(Timestamp));
    }
}

/// What was found so far; the order of the clock on the wall is not that of time, so that it may be found too early.
struct Best {
    found: Option<Timestamp>,
    better: fn(Timestamp, Timestamp) -> Timestamp,
    hours_since: i32,
}

impl Best {
    fn offer(&mut self, moments: impl Iterator<Item = Timestamp>) {
        self.hours_since += i32::from(self.found.is_some());
        self.found = self.found.into_iter().chain(moments).reduce(self.better);
    }

    /// Whether nothing better can come.
    fn stands(&self, comes_twice: bool, rules: &TimeZone) -> bool {
        self.found.is_some_and(|found| !comes_twice || self.hours_since >= disorder(found, rules))
    }
}

/// By how many hours around a moment the order of the clock on the wall may differ from that of time: not at all, where it is not changed.
fn disorder(at: Timestamp, rules: &TimeZone) -> i32 {
    const NEAR: u64 = 24 * 3_600_000;
    let instant = |at: u64| Moment::from_millisecond(i64::try_from(at).ok()?).ok();
    let (Some(before), Some(after)) =
        (instant(at.0.saturating_sub(NEAR)), instant(at.0.saturating_add(NEAR)))
    else {
        return SET_BACK;
    };
    let changes = rules.following(before).next().is_some_and(|change| change.timestamp() <= after);
    if changes { SET_BACK } else { 0 }
}

fn civil(at: Timestamp, rules: &TimeZone) -> Option<DateTime> {
    let instant = Moment::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    Some(rules.to_datetime(instant))
}
