//! How an app's requests are shared between two of its releases.

use berth_spec::ReleaseNumber;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Gives a release its share; makes no release, and stays until somebody says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficSet {
    /// The release that is being rolled out, the one that serves, or the one before while it is kept warm.
    #[schema(value_type = u64, example = 43)]
    pub release: ReleaseNumber,
    /// How many of a hundred requests go to it; the other one has the rest.
    #[schema(maximum = 100, example = 10)]
    pub percent: u8,
}

/// How requests are shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// The shares, that of the release that serves last. One of 100 where requests are not shared; none before anything serves.
    pub shares: Vec<TrafficShare>,
    /// What is being rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What was seen of the two releases so far, a sentence each; nothing where requests are not shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The share of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficShare {
    /// Which.
    #[schema(value_type = u64, example = 43)]
    pub release: ReleaseNumber,
    /// How many of a hundred requests go to it.
    pub percent: u8,
    /// How many of its instances get them.
    pub instances: u32,
}

/// A release that is being rolled out in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Which.
    #[schema(value_type = u64, example = 43)]
    pub release: ReleaseNumber,
    /// The shares that it gets one after the other, in percent.
    pub steps: Vec<u8>,
    /// How long each takes, in milliseconds.
    pub interval_ms: u64,
    /// Whether somebody set its share, so that it stays until it is promoted or aborted. Worse than the one before it is taken back even so.
    pub held: bool,
}

/// How requests are shared after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficChanged {
    /// As they are shared now.
    pub traffic: Traffic,
    /// Whether edge goes by it already; else it does so in a moment.
    pub applied: bool,
}
