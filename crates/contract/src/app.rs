//! Apps, their instances and how many are wanted.

use std::collections::BTreeMap;

use berth_spec::{AppId, AppName, Gate, InstanceId, ProcessName, ReleaseNumber, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Makes an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApp {
    /// Its name, unique within the project and the first label of its host.
    #[schema(value_type = String, example = "shop")]
    pub name: AppName,
}

/// Which apps of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AppsQuery {
    /// Only apps whose name comes after this one.
    #[param(value_type = Option<String>)]
    pub after: Option<AppName>,
    /// At most so many, from 1 to 1,000; 1,000 when not given.
    pub limit: Option<u32>,
    /// Only apps whose name holds this text.
    pub q: Option<String>,
}

/// Apps of a project, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppList {
    /// The apps.
    pub apps: Vec<AppSummary>,
    /// What to give as `after` for those that follow; none when these are the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<AppName>,
}

/// How an app is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// Nothing was deployed successfully yet.
    Empty,
    /// Every instance that is wanted runs.
    Running,
    /// Some that are wanted do not run.
    Degraded,
    /// None runs although some are wanted.
    Down,
    /// Nobody asks for it, and it sleeps until somebody does.
    Asleep,
    /// None is wanted.
    Stopped,
    /// It is being destroyed.
    Destroying,
}

impl AppState {
    /// All of them, those that need somebody's eye first.
    pub const ALL: [Self; 7] = [
        Self::Down,
        Self::Degraded,
        Self::Destroying,
        Self::Running,
        Self::Asleep,
        Self::Stopped,
        Self::Empty,
    ];

    /// The state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Asleep => "asleep",
            Self::Stopped => "stopped",
            Self::Destroying => "destroying",
        }
    }
}

/// An app in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppSummary {
    /// Its id.
    #[schema(value_type = String, example = "default/default/shop")]
    pub id: AppId,
    /// Its name, the last segment of the id.
    #[schema(value_type = String, example = "shop")]
    pub name: AppName,
    /// How it is.
    pub state: AppState,
    /// Where it answers.
    pub urls: Vec<String>,
    /// The active release.
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
    /// Its processes: how many instances are wanted and how many run.
    #[schema(value_type = BTreeMap<String, ProcessCount>)]
    pub processes: BTreeMap<ProcessName, ProcessCount>,
    /// Whether requests get to it, where they do not: `paused` or `maintenance`.
    #[serde(default, skip_serializing_if = "Gate::is_open")]
    #[schema(value_type = Option<String>)]
    pub gate: Gate,
    /// Its sleep, while it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<Asleep>,
    /// The stack that it is a service of, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub stack: Option<AppName>,
}

/// An app that sleeps until somebody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Asleep {
    /// Since when.
    #[schema(value_type = u64)]
    pub since: Timestamp,
    /// How deep.
    pub depth: SleepDepth,
}

/// How deep an app sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SleepDepth {
    /// Its web instances stand still and keep their memory.
    Frozen,
    /// They are stopped.
    Stopped,
}

impl SleepDepth {
    /// The depth as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Stopped => "stopped",
        }
    }
}

/// How many instances of a process there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessCount {
    /// How many are wanted.
    pub wanted: u32,
    /// How many of the active release are ready.
    pub running: u32,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// What the list says of it.
    #[serde(flatten)]
    pub summary: AppSummary,
    /// When it was made.
    #[schema(value_type = u64)]
    pub created_at: Timestamp,
    /// The release whose deployment is under way or waits, newest.
    #[schema(value_type = Option<u64>)]
    pub deploying: Option<ReleaseNumber>,
    /// The release that stays warm and can take over at once.
    #[schema(value_type = Option<u64>)]
    pub warm: Option<ReleaseNumber>,
    /// What it last logged or did that needs someone's eye: a crash loop, a failed deployment.
    pub trouble: Option<String>,
}

/// How many instances of each process are wanted, by process. As a request it changes the named ones only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = BTreeMap<String, u32>)]
pub struct Scale(pub BTreeMap<ProcessName, u32>);

/// An app's instances, sorted by process and ordinal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// The instances.
    pub instances: Vec<Instance>,
    /// The app's sleep, while it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<Asleep>,
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Started, not ready yet.
    Starting,
    /// Ready, and routed to when it is of the web process.
    Ready,
    /// Was ready; its health check fails now.
    Unhealthy,
    /// Ended by itself and waits to be started again.
    Backoff,
    /// Out of routing; what was in flight still ends.
    Draining,
    /// Out of routing and kept running, so that a rollback is at once.
    Warm,
    /// Standing still while the app sleeps.
    Frozen,
    /// Told to stop.
    Stopping,
    /// Ended.
    Exited,
}

impl InstanceState {
    /// The state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Backoff => "backoff",
            Self::Draining => "draining",
            Self::Warm => "warm",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
        }
    }
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its id.
    #[schema(value_type = String, example = "default/default/shop/web.7")]
    pub id: InstanceId,
    /// The process it runs.
    #[schema(value_type = String, example = "web")]
    pub process: ProcessName,
    /// The release it runs.
    #[schema(value_type = u64)]
    pub release: ReleaseNumber,
    /// How it is.
    pub state: InstanceState,
    /// When its program was last started.
    #[schema(value_type = Option<u64>)]
    pub started_at: Option<Timestamp>,
    /// The process id of its program.
    pub pid: Option<u32>,
    /// The port it is told to listen on.
    pub port: Option<u16>,
    /// How often its program was started again after it ended by itself.
    pub restarts: u32,
    /// How its program last ended.
    pub exit: Option<Exit>,
    /// How many of its processes the kernel has killed because memory ran out, also those that its program outlived, where that is counted.
    #[serde(default)]
    pub oom_kills: u64,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// What it ended with, when it ended by itself.
    pub status: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// When.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// Whether it was told to end because its health check failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
    /// Whether the kernel killed it, or a process of it, because memory ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
}
