//! What an app runs by a schedule.

use berth_spec::{CronName, InstanceId, ReleaseNumber, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cron entries of the release that serves, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CronList {
    /// The release that they belong to; none before the first that serves.
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
    /// Whether every process of the app is scaled to nothing: nothing runs by a schedule then.
    pub stopped: bool,
    /// The entries.
    pub entries: Vec<CronEntry>,
}

/// A command that runs by a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CronEntry {
    /// What it is called.
    #[schema(value_type = String, example = "nightly")]
    pub name: CronName,
    /// When: five fields or a word, as the manifest has it.
    #[schema(example = "0 3 * * *")]
    pub schedule: String,
    /// The same in words.
    #[schema(example = "every day at 03:00")]
    pub in_words: String,
    /// By the clocks of which place, as the IANA database calls it.
    #[schema(example = "UTC")]
    pub timezone: String,
    /// What it runs, as somebody would type it.
    pub command: String,
    /// What happens when it is due and has not ended since the last time: `forbid`, `allow` or `replace`.
    #[schema(example = "forbid")]
    pub concurrency: String,
    /// How many seconds it may run.
    pub timeout_s: u64,
    /// How many seconds late it may still start.
    pub catch_up_s: u64,
    /// When it is due next; none while the app is stopped.
    #[schema(value_type = Option<u64>)]
    pub next: Option<Timestamp>,
    /// What became of it last.
    pub last: Option<CronPast>,
}

/// What became of an entry's last moments, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CronHistory {
    /// The last twenty; the timeline has all.
    pub past: Vec<CronPast>,
}

/// What became of a moment at which an entry was due, or of a wish to run it at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CronPast {
    /// When it was due; none when somebody asked for it.
    #[schema(value_type = Option<u64>)]
    pub due: Option<Timestamp>,
    /// When that was decided.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// What became of it.
    pub state: CronState,
    /// The instance that it ran as; none when it was left out.
    #[schema(value_type = Option<String>, example = "default/default/shop/run.3")]
    pub run: Option<InstanceId>,
    /// When it was over.
    #[schema(value_type = Option<u64>)]
    pub ended_at: Option<Timestamp>,
    /// How it ended, or why it was left out, in words.
    pub why: Option<String>,
    /// How many moments before this one were missed and not made up for; a thousand stands for as many or more.
    pub missed: u64,
}

/// What became of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CronState {
    /// It runs, or is about to.
    Running,
    /// It ended with status 0.
    Succeeded,
    /// It ended otherwise, or was not run though it should have been.
    Failed,
    /// It was left out.
    Skipped,
}

impl CronState {
    /// The state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}
