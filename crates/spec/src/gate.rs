//! Whether requests get to an app.

use serde::{Deserialize, Serialize};

/// What becomes of requests for an app, whatever runs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// They go to its instances.
    #[default]
    Open,
    /// They wait at edge, half a minute at most, for the gate to be opened.
    Paused,
    /// They are answered by edge: the app is under maintenance.
    Maintenance,
}

impl Gate {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Maintenance => "maintenance",
        }
    }

    /// Whether requests go on to instances.
    #[must_use]
    // By reference, as `skip_serializing_if` asks it.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}
