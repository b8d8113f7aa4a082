//! The volumes of an app.

use berth_spec::{InstanceId, ProcessName, VolumeName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An app's volumes in the order of their names: those that the release that serves has, and those that are left of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// The volumes.
    pub volumes: Vec<Volume>,
}

/// A directory that outlives releases and instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// What it is called.
    #[schema(value_type = String, example = "data")]
    pub name: VolumeName,
    /// Where instances of the release that serves find it; none when that release does not have it.
    #[schema(example = "/data")]
    pub path: Option<String>,
    /// The processes that have it; none for all of them.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub processes: Vec<ProcessName>,
    /// How many bytes it may hold, when berth.toml says.
    pub size: Option<u64>,
    /// Whether the file system keeps it from holding more.
    #[serde(default)]
    pub enforced: bool,
    /// How many bytes it takes on the disk; none before its first instance, and where it cannot be gone through.
    pub used: Option<u64>,
    /// How many files, links and directories are in it.
    pub entries: Option<u64>,
    /// Why it cannot be gone through, when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The instances that have it now.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub instances: Vec<InstanceId>,
    /// Where it is on the platform's machine.
    pub place: String,
}

/// What goes with an app that is destroyed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DestroyQuery {
    /// Whether its volumes go too; they stay when not given.
    #[serde(default)]
    pub volumes: bool,
}
