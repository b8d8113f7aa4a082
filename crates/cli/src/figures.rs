//! Points in time, spans, sizes and numbers as people read them.

use berth_spec::{Millis, Timestamp};

/// How long ago `then` was: `3m ago`. A point in the future, after a jump of the clock say, is `now`.
#[must_use]
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    let span = now - then;
    if span.0 < 1_000 { "now".to_owned() } else { format!("{} ago", coarse(span)) }
}

/// A span by its largest unit: `45s`, `3m`, `2h`, `9d`.
#[must_use]
pub fn coarse(span: Millis) -> String {
    let seconds = span.0 / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long something took: `42ms`, `12.3s`, `2m05s`.
#[must_use]
pub fn took(span: Millis) -> String {
    match span.0 {
        ms @ 0..1_000 => format!("{ms}ms"),
        0..60_000 => format!("{}.{}s", span.0 / 1_000, span.0 % 1_000 / 100),
        ms => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// The point in UTC as RFC 3339 writes it, with milliseconds.
#[must_use]
pub fn exact(at: Timestamp) -> String {
    let (days, in_day) = (at.0 / 86_400_000, at.0 % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", in_day % 1_000)
}

/// The time of day in UTC: `04:03:02`.
#[must_use]
pub fn clock_time(at: Timestamp) -> String {
    exact(at).chars().skip(11).take(8).collect()
}

/// `1 piece`, `2 pieces`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// A number of bytes: `12 bytes`, `34.5 kB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => counted(bytes, "byte"),
    }
}

/// A number of bytes in the units that berth.toml has sizes in: `12 bytes`, `34.5 KiB`, `10 MiB`.
#[must_use]
pub fn binary_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        // A part of a unit is less than 2^40 bytes.
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => counted(bytes, "byte"),
    }
}

/// `text` in lines of at most `width` columns, broken between words; a longer word stays whole.
#[must_use]
pub fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The Gregorian date of a day counted from 1970-01-01; Howard Hinnant's `civil_from_days` without its negative half.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_exact() {
        assert_eq!(exact(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(exact(Timestamp(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(exact(Timestamp(1_795_233_785_042)), "2026-11-21T04:03:05.042Z");
        assert_eq!(clock_time(Timestamp(1_795_233_785_042)), "04:03:05");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (counted(1, "entry"), counted(2, "entry")),
            ("1 entry".to_owned(), "2 entries".to_owned())
        );
        assert_eq!((size(12), size(34_560)), ("12 bytes".to_owned(), "34.5 kB".to_owned()));
        assert_eq!(size(2_000_000_000), "2.0 GB");
        assert_eq!((binary_size(12), binary_size(34_560)), ("12 bytes".to_owned(), "33.7 KiB".to_owned()));
        assert_eq!(
            (binary_size(10 << 20), binary_size((2 << 30) + 1)),
            ("10 MiB".to_owned(), "2.0 GiB".to_owned())
        );
        assert_eq!(binary_size(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", None), ["one two three"]);
        assert_eq!(wrapped("one two three", Some(7)), ["one two", "three"]);
        assert_eq!(wrapped("a-long-word b", Some(4)), ["a-long-word", "b"]);
        assert_eq!(wrapped("", Some(4)), [""]);
    }

    #[test]
    fn spans_are_coarse() {
        let now = Timestamp(1_000_000_000);
        for (before, text) in [
            (0, "now"),
            (45_000, "45s ago"),
            (200_000, "3m ago"),
            (7_300_000, "2h ago"),
            (900_000_000, "10d ago"),
        ] {
            assert_eq!(ago(now, Timestamp(now.0 - before)), text);
        }
        assert_eq!(ago(now, Timestamp(now.0 + 5_000)), "now");
        assert_eq!((took(Millis(812)), took(Millis(125_000))), ("812ms".to_owned(), "2m05s".to_owned()));
    }
}
