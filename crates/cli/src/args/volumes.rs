//! `volumes`.

use berth_spec::VolumeName;
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
    /// Remove a volume that no release has any more, with all that is in it
    Remove {
        /// The volume
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::volumes))]
        name: VolumeName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
}
