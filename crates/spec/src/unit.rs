//! Units: points in time and spans of it, in milliseconds, as the journal keeps them; sizes in bytes.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, as the wall clock said.
///
/// The wall clock may jump. What must not jump (deadlines, backoff) is measured with a monotonic clock instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// A span of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// `seconds` seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// The span as the standard library's.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// Why a text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of time")]
pub struct InvalidSpan(String);

impl FromStr for Millis {
    type Err = InvalidSpan;
    /// Takes whole numbers with units, the greatest first, none twice: `10m`, `1h30m`, `250ms`, `7d`.
    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        const UNITS: [(&str, u64); 5] =
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let bad = || InvalidSpan(text.chars().take(40).collect());
        let (mut rest, mut units, mut total) = (text, &UNITS[..], 0_u64);
        while !rest.is_empty() || units.len() == UNITS.len() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
            let number: u64 = number.parse().ok().ok_or_else(bad)?;
            let span = number.checked_mul(units[place].1).ok_or_else(bad)?;
            total = total.checked_add(span).ok_or_else(bad)?;
            (rest, units) = (tail, &units[place + 1..]);
        }
        Ok(Self(total))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }
}

impl Sub<Timestamp> for Timestamp {
    type Output = Millis;
    /// The span since `earlier`, nought when the clock jumped back.
    fn sub(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// What a letter behind a number multiplies it by, the greatest first: powers of 1,024, then those of 1,000.
const SIZES: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, times)| self.0 != 0 && self.0.is_multiple_of(*times)) {
            Some((unit, times)) => write!(f, "{}{unit}", self.0 / times),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size")]
pub struct InvalidSize(String);

impl FromStr for Bytes {
    type Err = InvalidSize;
    /// Takes a number with a unit of Kubernetes' quantities, and those of others whose meaning is beyond doubt: `256Mi`, `1.5Gi`, `512M`,
    /// `64KiB`, `2GB`, `4096`. Not `512m`, which is megabytes to Docker and thousandths of a byte to Kubernetes.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let bad = || InvalidSize(text.chars().take(40).collect());
        let letters = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(letters);
        let unit = unit.strip_suffix('B').unwrap_or(unit);
        let unit = if unit == "k" { "K" } else { unit };
        let times = match SIZES.iter().find(|(name, _)| *name == unit) {
            Some((_, times)) => *times,
            None if unit.is_empty() => 1,
            None => return Err(bad()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        // As many as the largest number has: the arithmetic below stays within its bounds.
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(bad());
        }
        let scale = 10_u128.pow(u32::try_from(part.len()).map_err(|_long| bad())?);
        let parsed = |text: &str| text.parse::<u128>().map_err(|_no_number| bad());
        let times = u128::from(times);
        let total = parsed(whole)? * times + parsed(part)?.checked_mul(times).ok_or_else(bad)? / scale;
        u64::try_from(total).map(Self).map_err(|_too_large| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read() {
        let table =
            [("10m", 600_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("1d2h3m4s5ms", 93_784_005)];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(Millis(expected)), "{text}");
        }
        for bad in [
            "",
            "10",
            "m",
            "1.5h",
            "-1s",
            "1m1h",
            "1s1s",
            "@daily",
            "1 s",
            "1S",
            "1w",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        let table = [
            ("256Mi", 256 << 20),
            ("1.5Gi", 3 << 29),
            ("64KiB", 64 << 10),
            ("2GB", 2_000_000_000),
            ("10k", 10_000),
            ("4096", 4096),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(Bytes(expected)), "{text}");
        }
        for bad in
            ["", "Mi", "512m", "1.Gi", ".5Gi", "-1Mi", "1 Mi", "1mb", "1e3", "99999999999999999Ti", "١Mi"]
        {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(
            [Bytes(3 << 29), Bytes(1_500), Bytes(0)].map(|it| it.to_string()),
            ["1536Mi", "1500", "0"]
        );
    }

    proptest! {
        #[test]
        fn a_size_comes_back_from_its_text(size: u64) {
            prop_assert_eq!(Bytes(size).to_string().parse(), Ok(Bytes(size)));
        }

        #[test]
        fn any_text_is_a_size_or_an_error(text in any::<String>()) {
            drop(text.parse::<Bytes>());
        }

        #[test]
        fn a_span_comes_back_from_its_text(span: u64) {
            prop_assert_eq!(Millis(span).to_string().parse(), Ok(Millis(span)));
        }

        #[test]
        fn any_text_is_a_span_or_an_error(text in any::<String>()) {
            drop(text.parse::<Millis>());
        }
    }
}
