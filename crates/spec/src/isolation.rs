//! What stands between an app and the rest of its machine, from least to most.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A level of isolation. Each has what the one below it has, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A process like any other; as root one of a user of its app's own.
    Plain,
    /// No way to gain privileges, few system calls (seccomp), and only its own files (Landlock).
    Confined,
    /// Namespaces of its own for users, files, processes, messages, names and control groups: it sees a root of its own and
    /// nobody else's processes.
    Namespaces,
    /// All that, made by root: a user of its own for every app, and limits on memory, processor time and processes.
    Full,
}

impl Isolation {
    /// All of them, from least to most, with their names.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("plain", Self::Plain),
        ("confined", Self::Confined),
        ("namespaces", Self::Namespaces),
        ("full", Self::Full),
    ];

    /// Its name, as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, level)| *level == self).map_or("plain", |(name, _)| name)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no level of isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no level of isolation: there are plain, confined, namespaces and full")]
pub struct UnknownIsolation(String);

impl FromStr for Isolation {
    type Err = UnknownIsolation;
    fn from_str(text: &str) -> Result<Self, UnknownIsolation> {
        let found = Self::NAMED.iter().find(|(name, _)| *name == text);
        found.map(|(_, level)| *level).ok_or_else(|| UnknownIsolation(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_name_and_they_are_in_order() {
        for (name, level) in Isolation::NAMED {
            assert_eq!((level.name(), name.parse()), (name, Ok(level)));
        }
        assert!(Isolation::NAMED.is_sorted_by_key(|(_, level)| *level));
        assert!("root".parse::<Isolation>().is_err());
    }
}
