//! Time zones by their names in the IANA database, which is in the binary: a machine may have none, or an old one.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// The longest name that is looked for.
const NAME_MAX: usize = 64;

/// A time zone by its name. One that was kept by another version and is not known to this one is taken as it is: what the journal holds
/// is never refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zone(String);

/// No such time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone {0:?}")]
pub struct InvalidZone(String);

impl Default for Zone {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl Zone {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the one that is meant where none is given.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        self.0 == "UTC"
    }

    /// The rules; none when this version does not know the name.
    pub(super) fn rules(&self) -> Option<TimeZone> {
        if self.is_utc() { Some(TimeZone::UTC) } else { TimeZone::get(&self.0).ok() }
    }
}

impl FromStr for Zone {
    type Err = InvalidZone;
    fn from_str(text: &str) -> Result<Self, InvalidZone> {
        let unknown = || InvalidZone(text.chars().take(NAME_MAX).collect());
        if text.len() > NAME_MAX {
            return Err(unknown());
        }
        let found = TimeZone::get(text).map_err(|_unknown| unknown())?;
        let name = found.iana_name().ok_or_else(unknown)?;
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
