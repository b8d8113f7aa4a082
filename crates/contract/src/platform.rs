//! The platform as a whole.

use berth_spec::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::AppSummary;
use crate::volume::VolumeSizes;

/// How the platform is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Platform {
    /// Its id, 16 hex digits.
    pub platform: String,
    /// The version of the program.
    pub version: String,
    /// The directory that holds everything of it; empty, like `socket` and `roles`, for whoever does not own the platform.
    pub home: String,
    /// The file of the program that runs; empty for whoever does not own the platform.
    #[serde(default)]
    pub program: String,
    /// Where edge listens for requests to apps: `127.0.0.1:8080`.
    pub edge: String,
    /// Where it serves HTTPS: `127.0.0.1:8443`. Nothing where it does not.
    #[serde(default)]
    pub https: Option<String>,
    /// Where the API listens: `127.0.0.1:7070`.
    pub api: String,
    /// The Unix socket of the API.
    pub socket: String,
    /// What instances run in: `native`, or `docker` with the daemon's version and where it listens.
    #[serde(default)]
    pub backend: String,
    /// What keeps instances apart.
    pub isolation: Isolation,
    /// The same in words.
    #[serde(default)]
    pub isolation_words: String,
    /// What keeps the machine from more, a sentence each, with what to do about it.
    #[serde(default)]
    pub isolation_missing: Vec<String>,
    /// What of an instance can be limited: `memory`, `cpu`, `pids`.
    #[serde(default)]
    pub limits: Vec<String>,
    /// In which network instances are and what they reach from there, in words.
    #[serde(default)]
    pub network: String,
    /// Whether instances reach other apps of their project by name.
    #[serde(default)]
    pub names: bool,
    /// The version of control groups that instances and builds are held in: `v2`, `v1`. Nothing where the system gives none.
    #[serde(default)]
    pub cgroups: Option<String>,
    /// How many processes a build may have at once. Nothing where nobody counts them: the system gives no control group for it, and builds
    /// have no user of their own.
    #[serde(default)]
    pub build_processes: Option<u64>,
    /// In which network the commands of builds are, in words.
    #[serde(default)]
    pub build_network: String,
    /// What builds Dockerfiles: `Docker 20.10.24 at /run/docker.sock`, `buildah, with crun`, or `nothing`.
    #[serde(default)]
    pub dockerfiles: String,
    /// Whether volumes are kept to their sizes. Nothing from a platform that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_sizes: Option<VolumeSizes>,
    /// How many breaches of an invariant were found and written down, and found since control started. More than nought is a fault of
    /// the platform.
    #[serde(default)]
    pub breaches: u64,
    /// When control last started.
    #[schema(value_type = u64)]
    pub started_at: Timestamp,
    /// For how long control has run.
    #[schema(value_type = u64)]
    pub uptime_ms: Millis,
    /// The position of the journal's last event.
    pub position: u64,
    /// The format that the journal is written in. Programs that know it can take the platform over.
    #[serde(default)]
    pub journal_format: u32,
    /// The newest format that the program writes: greater while an upgrade is not committed.
    #[serde(default)]
    pub newest_format: u32,
    /// The programs that make it up.
    pub roles: Vec<Role>,
    /// The first hundred of its apps that the caller may see, sorted by id; the list of a project's apps has all.
    pub apps: Vec<AppSummary>,
    /// How many apps the caller may see.
    #[serde(default)]
    pub app_count: u64,
}

impl Platform {
    /// What `dockerfiles` says where nothing builds them.
    pub const NOTHING: &str = "nothing";
}

/// A program that is to take the platform over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Where it lies on the platform's machine, an absolute path.
    pub from: String,
}

/// A program that takes the platform over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeBegun {
    /// Its name in `bin/` of the home. The platform's own `program` ends with it once it has taken over.
    pub program: String,
    /// The version that it says it is.
    pub version: String,
    /// The version that ran until now.
    pub before: String,
    /// Whether it is the program that runs already; nothing happens then.
    pub runs: bool,
}

/// An upgrade was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeCommitted {
    /// The format that the journal was written in until now.
    pub before: u32,
    /// The format that it is written in from here on; the same when there was nothing to commit.
    pub format: u32,
}

/// How to save the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BackupQuery {
    /// Whether the key that the secrets are sealed under is to be in it; given over the Unix socket alone.
    #[serde(default)]
    pub key: bool,
    /// Whether volumes are to be in it. A snapshot is taken of each, and removed when it is saved.
    #[serde(default)]
    pub volumes: bool,
}

/// What keeps instances apart from each other and from the platform. Each level has what the one before it has, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A process like any other; as root one of a user of its app's own.
    Plain,
    /// Few system calls, and its own files alone.
    Confined,
    /// Namespaces of its own.
    Namespaces,
    /// All that, made by root: users of their own, and limits.
    Full,
}

impl From<berth_spec::Isolation> for Isolation {
    fn from(level: berth_spec::Isolation) -> Self {
        match level {
            berth_spec::Isolation::Plain => Self::Plain,
            berth_spec::Isolation::Confined => Self::Confined,
            berth_spec::Isolation::Namespaces => Self::Namespaces,
            berth_spec::Isolation::Full => Self::Full,
        }
    }
}

/// A program of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Role {
    /// `supervisor`, `control`, `edge`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

/// The platform goes down: apps stop first, then the platform's own programs end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlatformDown {
    /// How many instances are being stopped.
    pub instances: u32,
}
