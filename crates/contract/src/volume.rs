//! The volumes of an app.

use berth_spec::{InstanceId, ProcessName, SnapshotName, VolumeName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::release::Failure;

/// An app's volumes in the order of their names: those that the release that serves has, and those that are left of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// What is being done with one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<VolumeWork>,
    /// What was last done with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked: Option<VolumeWork>,
    /// Whether volumes are kept to their sizes here. Nothing from a platform that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<VolumeSizes>,
}

/// Whether the file system keeps volumes to the sizes that berth.toml gives them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeSizes {
    /// Whether it does. A single volume may not be kept to its size all the same: see `enforced` of it.
    pub enforced: bool,
    /// Why it does not, when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Something that is done with a volume while nobody writes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeWork {
    /// The volume.
    #[schema(value_type = String, example = "data")]
    pub volume: VolumeName,
    /// The snapshot.
    #[schema(value_type = String, example = "20261127T171530Z")]
    pub snapshot: SnapshotName,
    /// What is done.
    pub what: VolumeDeed,
    /// Why it was not done, when it is over and was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What is done with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeDeed {
    /// A snapshot of it is taken.
    Snapshot,
    /// It becomes what a snapshot has.
    Restore,
}

/// The snapshots of a volume, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// A volume as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its name: the moment, in UTC.
    #[schema(value_type = String, example = "20261127T171530Z")]
    pub name: SnapshotName,
    /// How many bytes its files take; of those that share blocks with the volume or with another snapshot the disk has fewer.
    pub used: u64,
    /// How many files, links and directories are in it.
    pub entries: u64,
}

/// Brings a snapshot back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreVolume {
    /// The snapshot.
    #[schema(value_type = String, example = "20261127T171530Z")]
    pub snapshot: SnapshotName,
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
    /// Whether the file system keeps it from holding more. It does not where `sizes` of the list says so, and not yet where the volume holds more
    /// already or nothing was started with it since.
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
