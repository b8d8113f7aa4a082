//! `cron`.

use berth_spec::CronName;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use super::OfApp;
use crate::completion;

/// `berth cron`
#[derive(Debug, Clone, Args)]
pub struct CronArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<CronAction>,
    /// Whose entries, when they are listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the cron entries.
#[derive(Debug, Clone, Subcommand)]
pub enum CronAction {
    /// List the entries: when each runs, how it last ended and when it is due next
    List(OfApp),
    /// Run an entry's command at once, in the release that serves
    Run {
        /// The entry
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::cron_entries))]
        name: CronName,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// Show what became of the entries, the newest first
    History {
        /// The entry [default: all of them]
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::cron_entries))]
        name: Option<CronName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
}
