//! `volumes`.

use berth_spec::{SnapshotName, VolumeName};
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use super::OfApp;
use crate::completion;

/// `berth volumes`
#[derive(Debug, Clone, Args)]
pub struct VolumesArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<VolumesAction>,
    /// Whose volumes, when they are listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the volumes.
#[derive(Debug, Clone, Subcommand)]
pub enum VolumesAction {
    /// List the volumes: what each takes, where it is and which instances have it
    List(OfApp),
    /// Take a snapshot of a volume, whose instances stand still or are stopped meanwhile
    Snapshot {
        /// The volume
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::volumes))]
        name: VolumeName,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// List the snapshots of a volume, the oldest first
    Snapshots {
        /// The volume [default: the only one]
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::volumes))]
        name: Option<VolumeName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// Have a volume be as a snapshot has it; its instances are stopped meanwhile
    Restore {
        /// The volume
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::volumes))]
        name: VolumeName,
        /// The snapshot, as `berth volumes snapshots` lists it
        #[arg(value_name = "SNAPSHOT")]
        snapshot: SnapshotName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// Remove a volume that no release has any more with its snapshots, or one snapshot
    Remove {
        /// The volume
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::volumes))]
        name: VolumeName,
        /// The snapshot, when it alone is to go
        #[arg(value_name = "SNAPSHOT")]
        snapshot: Option<SnapshotName>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
}
