//! Whether requests get to an app.

use berth_spec::Gate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Opens or closes an app to requests; makes no release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GateChange {
    /// `open`; `paused`, requests wait at edge for half a minute at most; or `maintenance`, edge answers them with 503.
    #[schema(value_type = String, example = "maintenance")]
    pub gate: Gate,
}

/// How the gate is after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GateChanged {
    /// As in [`GateChange`].
    #[schema(value_type = String, example = "maintenance")]
    pub gate: Gate,
    /// Whether edge goes by it already; else it does so in a moment.
    pub applied: bool,
}
