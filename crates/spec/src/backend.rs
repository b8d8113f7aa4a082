//! What instances run in.

use std::fmt;
use std::str::FromStr;

/// Who makes the surroundings of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// Berth itself.
    #[default]
    Native,
    /// Docker, for machines where somebody insists.
    Docker,
}

impl Backend {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 2] = [("native", Self::Native), ("docker", Self::Docker)];

    /// Its name, as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, backend)| *backend == self).map_or("native", |(name, _)| name)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no backend: there are native and docker")]
pub struct UnknownBackend(String);

impl FromStr for Backend {
    type Err = UnknownBackend;
    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        let found = Self::NAMED.iter().find(|(name, _)| *name == text);
        found.map(|(_, backend)| *backend).ok_or_else(|| UnknownBackend(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_a_name() {
        for (name, backend) in Backend::NAMED {
            assert_eq!((backend.name(), name.parse()), (name, Ok(backend)));
        }
        assert!("podman".parse::<Backend>().is_err());
    }
}
