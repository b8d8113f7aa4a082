//! Why the shares of releases change.

use serde::{Deserialize, Serialize};

/// Why requests are shared in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShiftWhy {
    /// The next step of the rollout.
    Step,
    /// Somebody wants it so, and has it stay so.
    Asked,
    /// Somebody wants the rollout to end well at once.
    Promoted,
}
