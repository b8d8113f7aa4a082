//! The messages between control and edge: frames of a 4-byte little-endian length and that many bytes of JSON.

use berth_spec::{AppId, InstanceId};
use serde::{Deserialize, Serialize};

use crate::snapshot::{Generation, Snapshot};

/// The protocol that this version speaks. Both sides say it first; a peer that says another one is refused.
pub const PROTOCOL: u32 = 1;
/// The longest frame: a snapshot of 100,000 apps stays below it.
pub const FRAME_MAX: u32 = 64 << 20;

/// What control tells edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToEdge {
    /// The first frame.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
    },
    /// Serve by this from now on. It is durable already.
    Snapshot(Snapshot),
}

/// What edge tells control. After it connected it repeats everything that is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum FromEdge {
    /// The first frame.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
        /// The process id of edge, to be compared with the socket's peer credentials.
        pid: u32,
    },
    /// Every thread of edge serves by this generation.
    Applied {
        /// Which.
        generation: Generation,
    },
    /// Nothing of edge's is in flight to this instance, no pooled connection to it is open, and as of `generation`
    /// (applied) nothing new will be.
    Drained {
        /// Which instance.
        instance: InstanceId,
        /// The generation in which it is not routed.
        generation: Generation,
    },
    /// The instance's health, sent when it changes.
    Health {
        /// Which instance.
        instance: InstanceId,
        /// What edge makes of it.
        health: Health,
        /// The last answers, newest last, at most five, as a person would read them.
        evidence: Vec<String>,
    },
    /// What passed in the last second, by app.
    Counts {
        /// One entry for each app that had requests.
        apps: Vec<AppCounts>,
    },
}

/// What edge makes of an instance's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Never answered a probe well since edge knows it.
    Unready,
    /// The last probes were answered well.
    Ready,
    /// Was ready once and now fails its probes.
    Failing,
}

/// An app's requests within one second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppCounts {
    /// Which app.
    pub app: AppId,
    /// Requests answered, by status class: 1xx to 5xx at 0 to 4.
    pub by_class: [u64; 5],
    /// Requests that edge could not hand to any instance.
    pub unserved: u64,
}
