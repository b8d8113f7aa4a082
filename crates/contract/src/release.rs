//! Releases, what makes them, and how their deployments get on.

use std::collections::BTreeMap;
use std::fmt;

use berth_spec::{EnvName, Millis, ReleaseNumber, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::code::Code;
use crate::logs::LogStream;
use crate::upload::TreeId;

/// How traffic moves from the old release to the new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All new instances start beside the old, then traffic moves at once.
    Bluegreen,
    /// All new instances start beside the old, then traffic moves in steps as long as they do no worse.
    Canary,
    /// One instance after the other is replaced.
    Rolling,
    /// The old instances stop before the new start: requests fail in between.
    Recreate,
}

/// Deploys a source tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitRelease {
    /// The tree, uploaded before.
    #[schema(value_type = String)]
    pub tree: TreeId,
    /// The text of berth.toml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The text of the Procfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procfile: Option<String>,
    /// The name of an image that is run in place of what the tree would be built to, which may be empty then. What a tag means is found out
    /// now and stays so for the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How traffic moves, when it is to be other than the manifest says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// What is in it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The source's commit, given to the app as `SOURCE_COMMIT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Makes a release out of an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The release to go back to. Without it the release that was active before the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub to: Option<ReleaseNumber>,
    /// Whether the configuration and the secrets of today stay. New instances are started then.
    #[serde(default)]
    pub keep_config: bool,
}

/// An app's releases, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseList {
    /// The releases.
    pub releases: Vec<Release>,
}

/// Where a release is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Taken on; waits for its build.
    Submitted,
    /// Being built.
    Building,
    /// Built; waits for its turn.
    Built,
    /// Its instances start.
    Starting,
    /// Traffic moves to it.
    Activating,
    /// It serves.
    Active,
    /// It served before.
    Retired,
    /// It never served.
    Failed,
    /// A newer one took its place before it served.
    Superseded,
}

impl ReleaseState {
    /// The state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Building => "building",
            Self::Built => "built",
            Self::Starting => "starting",
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// What made a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// New source.
    Deploy,
    /// Changed configuration.
    Config,
    /// Changed secrets.
    Secrets,
    /// Going back to the release that `rollback_of` names.
    Rollback,
}

/// A release: an artifact, a configuration and the versions of the secrets. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Its number within the app.
    #[schema(value_type = u64)]
    pub number: ReleaseNumber,
    /// Where it is in its life.
    pub state: ReleaseState,
    /// What made it.
    pub reason: Reason,
    /// The release that it brings back.
    #[schema(value_type = Option<u64>)]
    pub rollback_of: Option<ReleaseNumber>,
    /// When it was submitted.
    #[schema(value_type = u64)]
    pub created_at: Timestamp,
    /// Who submitted it: `user:alice`, `token:ci`.
    pub created_by: String,
    /// What is in it, for people.
    pub description: Option<String>,
    /// The source's commit.
    pub commit: Option<String>,
    /// The source tree it was built from.
    #[schema(value_type = Option<String>)]
    pub tree: Option<TreeId>,
    /// The id of what was built; none before it is.
    pub artifact: Option<String>,
    /// The image that it runs, held to the digest that its name meant when it was submitted; none when it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The names of its configuration variables.
    #[schema(value_type = Vec<String>)]
    pub config_names: Vec<EnvName>,
    /// Which version of each secret it has.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub secret_versions: BTreeMap<EnvName, u64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// How long its deployment took, from submit to its end; none while it goes on.
    #[schema(value_type = Option<u64>)]
    pub took_ms: Option<Millis>,
}

/// Which release another one is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// Its number: what is different since then. The one that served before when not given.
    #[param(value_type = Option<u64>)]
    pub since: Option<ReleaseNumber>,
}

/// What is different between two releases of an app. What is the same is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseDiff {
    /// The release that is compared with.
    #[schema(value_type = u64)]
    pub since: ReleaseNumber,
    /// The release that was asked for.
    #[schema(value_type = u64)]
    pub number: ReleaseNumber,
    /// `commit`, `tree` and `artifact`.
    pub source: Vec<Difference>,
    /// Processes and their commands, as they run.
    pub processes: Vec<Difference>,
    /// Keys of the manifest: `deploy.timeout`, `env.LOG_LEVEL`.
    pub manifest: Vec<Difference>,
    /// Configuration variables with their values.
    pub config: Vec<Difference>,
    /// Secrets with their versions; their values never come out.
    pub secrets: Vec<Difference>,
}

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// What it is called.
    pub name: String,
    /// What it was; none when it was not there.
    pub before: Option<String>,
    /// What it is; none when it is not there.
    pub after: Option<String>,
}

/// Why a release failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The error code, for programs.
    #[schema(value_type = String, example = "health_check_failed")]
    pub code: Code,
    /// What happened, a sentence without the final full stop.
    pub summary: String,
    /// What was seen: the last answers of the health check, the port that is listened on.
    pub details: Vec<String>,
    /// The lines that matter of what the build, the release command or the instance printed last.
    pub log: Vec<String>,
    /// What the release changed, a line for each kind of change; where it is shown by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// The last release before it that served, which [`Failure::changed`] compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub changed_since: Option<ReleaseNumber>,
    /// What to do about it, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Failure {
    /// What is behind the summary, a line each, as it is shown everywhere: what was seen, what was printed, what changed, what to do next.
    #[must_use]
    pub fn report(&self) -> Vec<String> {
        let why = self.details.iter().map(|line| format!("why:  {line}"));
        let log = self.log.iter().map(|line| format!("| {line}"));
        let since = self.changed_since.map_or_else(String::new, |number| format!(" since {number}"));
        let changed = self.changed.iter().map(|line| format!("changed{since}: {line}"));
        let next = self.next.iter().map(|line| format!("next: {line}"));
        why.chain(log).chain(changed).chain(next).collect()
    }
}

/// A step of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Taken on.
    Submitted,
    /// Being built.
    Building,
    /// Built.
    Built,
    /// The release command runs.
    ReleaseCommand,
    /// Instances start.
    Starting,
    /// Instances are ready.
    Ready,
    /// Traffic moves.
    Shifting,
    /// The end: it serves.
    Active,
    /// The end: it does not.
    Failed,
    /// The end: a newer one took its place.
    Superseded,
}

impl Stage {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Active | Self::Failed | Self::Superseded)
    }

    /// The stage as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Building => "building",
            Self::Built => "built",
            Self::ReleaseCommand => "release_command",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Shifting => "shifting",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A line that a build or a release command wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputLine {
    /// Where it was written.
    pub stream: LogStream,
    /// The line without its end.
    pub text: String,
}

/// Something that happened in a deployment; the event's id is the position.
///
/// Output is not in the journal: an event with `log` repeats the position of the event before it, and after a resume such
/// lines may be missing or come again. The others come exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgressEvent {
    /// Its position in the journal.
    pub position: u64,
    /// When.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// The release that is deployed.
    #[schema(value_type = u64)]
    pub release: ReleaseNumber,
    /// The step that the deployment is at.
    pub stage: Stage,
    /// What happened, in words.
    pub text: String,
    /// A line of output, when that is what happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<OutputLine>,
    /// Why it failed, at the end of one that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}
