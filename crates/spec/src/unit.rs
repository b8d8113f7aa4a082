//! Units: points in time and spans of it, in milliseconds, as the journal keeps them; amounts of bytes.

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

/// An amount of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// The units of amounts, as Kubernetes writes them: each is 1,024 of the one before.
const AMOUNTS: [(&str, u64); 4] = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*unit);
        match AMOUNTS.iter().rev().find(fits) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Why a text is not an amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of bytes")]
pub struct InvalidAmount(String);

impl FromStr for Bytes {
    type Err = InvalidAmount;
    /// Takes a whole number with a unit: `256Mi`, `10Gi`; without one it is bytes.
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let bad = || InvalidAmount(text.chars().take(40).collect());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, name) = text.split_at(digits);
        let unit = match name {
            "" => 1,
            name => AMOUNTS.iter().find(|(known, _)| *known == name).ok_or_else(bad)?.1,
        };
        let number: u64 = number.parse().ok().ok_or_else(bad)?;
        number.checked_mul(unit).map(Self).ok_or_else(bad)
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
    fn amounts_are_read() {
        for (text, expected) in [("1Ki", 1_024), ("256Mi", 256 << 20), ("10Gi", 10 << 30), ("7", 7), ("0", 0)]
        {
            assert_eq!(text.parse(), Ok(Bytes(expected)), "{text}");
            assert_eq!(Bytes(expected).to_string(), text);
        }
        for bad in ["", "Mi", "10GB", "10G", "1.5Gi", "-1", "1 Gi", "99999999999999999999", "99999999999Ti"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_comes_back_from_its_text(amount: u64) {
            prop_assert_eq!(Bytes(amount).to_string().parse(), Ok(Bytes(amount)));
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
