//! What happened, in words, and why.

use berth_spec::{AppId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which entries of a timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// Only entries after this position in the journal, oldest first. Without it the newest come, oldest of them first.
    pub after: Option<u64>,
    /// At most so many, up to 1,000; 50 when not given.
    pub limit: Option<u32>,
}

/// Part of a timeline, oldest entry first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimelinePage {
    /// The entries.
    pub entries: Vec<TimelineEntry>,
    /// What to give as `after` for those that follow.
    pub next: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntry {
    /// Its position in the journal.
    pub position: u64,
    /// When.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// The app it happened to; none for the platform itself.
    #[schema(value_type = Option<String>)]
    pub app: Option<AppId>,
    /// Who: `user:alice`, `token:ci`, `berth` for what the platform did by itself.
    pub actor: String,
    /// The request that it goes back to; the same id stands in the platform's log.
    pub correlation: String,
    /// The event's name: `release_submitted`.
    pub kind: String,
    /// What happened, in words.
    pub text: String,
    /// The event itself, without secrets.
    pub data: serde_json::Value,
}

/// What to explain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// `v42`, `web.7`, `web`, `scale`; without it the app as it is.
    pub subject: Option<String>,
}

/// An explanation that rests on the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The question as it was understood.
    pub question: String,
    /// The answer, in a sentence or two.
    pub answer: String,
    /// What it rests on, oldest first.
    pub because: Vec<Evidence>,
}

/// An event that an explanation rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Its position in the journal.
    pub position: u64,
    /// When.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// What happened, in words.
    pub text: String,
}
