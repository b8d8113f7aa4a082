//! One-off commands as events tell of them: what they run for, and how they end.

use std::collections::BTreeSet;

use berth_spec::{CronName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Exit, RunNumber};

/// What a command of a cron entry runs for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronRun {
    /// The entry of the release that it runs in.
    pub entry: CronName,
    /// When it was due; none when somebody asked for it.
    pub due: Option<Timestamp>,
    /// How many moments before that were missed and are not made up for.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub missed: u64,
    /// The runs of the entry that are ended before it begins.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub replaces: BTreeSet<RunNumber>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nought(number: &u64) -> bool {
    *number == 0
}

/// Why a cron entry that was due was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CronSkip {
    /// The platform did not run at its time, and it was too late to make up for it.
    TooLate,
    /// It had not ended since an earlier time.
    StillRunning {
        /// The run.
        run: RunNumber,
    },
    /// As many of its runs as there may be had not ended.
    TooMany,
}

/// Whether somebody is connected to a one-off command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunMode {
    /// Somebody is, and it ends with that.
    Attached {
        /// By a terminal.
        terminal: bool,
    },
    /// Nobody is: it goes on by itself.
    Detached,
}

/// How a one-off command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Its exit, if it ran and that was seen.
    pub exit: Option<Exit>,
    /// Why the platform ended it or did not run it; nothing when it simply ended.
    pub why: Option<RunStop>,
    /// The last lines of its log when it failed and nobody watched, or why it could not be started.
    #[serde(default)]
    pub detail: Vec<String>,
}

impl RunEnd {
    /// One of which no exit was seen.
    #[must_use]
    pub fn stopped(why: RunStop) -> Self {
        Self { exit: None, why: Some(why), detail: Vec::new() }
    }
}

/// Why the platform ended a one-off command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStop {
    /// Nobody is connected to it any more.
    Unattended,
    /// Its time was over.
    TimeOver,
    /// The app goes.
    Destroyed,
    /// The platform was shut down.
    PlatformDown,
    /// It could not be started.
    NotStarted,
    /// Its shim died, was killed, or the machine was started again.
    Lost,
    /// Its cron entry was due again, and a new one takes its place.
    Replaced,
}
