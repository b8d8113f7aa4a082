//! What has happened: the events that are kept for ever.
//!
//! An event is written by one version of Berth and read by all later ones and, until `upgrade commit`, by the
//! previous one. Each kind therefore carries the schema number it was written with ([`Event::SCHEMA`]), fields are only ever
//! added with a default, and `contracts/events/` holds a sample of every kind and schema ever written, which a test
//! decodes and folds. Never rename a field; never give an old one a new meaning.

use std::collections::{BTreeMap, BTreeSet};

use berth_rollout::Evidence;
use berth_spec::command::{Command, RelativeDir};
use berth_spec::manifest::Manifest;
use berth_spec::{
    AppId, BranchName, CronName, EnvName, Gate, HostName, Millis, ProcessName, ProjectId, ReleaseNumber,
    SnapshotName, TenantId, Timestamp, VolumeName,
};
use serde::{Deserialize, Serialize};

mod run;
mod shift;

pub use self::run::{CronRun, CronSkip, RunEnd, RunMode, RunStop};
pub use self::shift::ShiftWhy;
pub use crate::certificate::CertificateChange;
pub use crate::sleep::{Depth, WakeReason};
pub use crate::volume::{VolumeDeed, VolumeWork};

/// The number of an instance within its app; see [`berth_spec::InstanceId`].
pub type Ordinal = u64;

/// The number of a one-off command within its app, from 1: the 3 of `run.3`.
pub type RunNumber = u64;

/// The journal stream that an event belongs to, and with it the part of the state that it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What belongs to no app: tenants, projects, tokens.
    Platform,
    /// One app, over all the lives its name has.
    App(AppId),
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Platform => f.write_str("platform"),
            Self::App(app) => write!(f, "app/{app}"),
        }
    }
}

impl std::str::FromStr for Stream {
    type Err = UnknownStream;
    fn from_str(text: &str) -> Result<Self, UnknownStream> {
        if text == "platform" {
            return Ok(Self::Platform);
        }
        let app = text.strip_prefix("app/").and_then(|id| id.parse().ok());
        app.map(Self::App).ok_or_else(|| UnknownStream(text.to_owned()))
    }
}

/// The journal holds a stream that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal holds the stream {0:?}, which this version does not know")]
pub struct UnknownStream(pub String);

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "data")]
pub enum Event {
    // The platform's own stream.
    /// A tenant exists from here on.
    TenantCreated { tenant: TenantId },
    /// A project exists from here on.
    ProjectCreated { project: ProjectId },
    /// A token for the API was issued. Only its hash is kept.
    TokenIssued { token: String, sha256: String, grants: Vec<Grant> },
    /// The token no longer opens anything.
    TokenRevoked { token: String },
    /// An invariant was found broken; see docs/invariants.md.
    InvariantBroken { invariant: String, detail: String },
    /// There are other certificates, or they are had in another way.
    CertificatesChanged { change: Box<CertificateChange> },

    // An app's stream.
    /// The app exists from here on, with the uid slot that its processes run under.
    AppCreated { slot: u32 },
    /// Environment variables were set or unset.
    ConfigChanged { set: BTreeMap<EnvName, String>, unset: BTreeSet<EnvName> },
    /// Secrets were set, sealed under the key-encryption key, or unset.
    SecretsChanged { set: BTreeMap<EnvName, SealedSecret>, unset: BTreeSet<EnvName> },
    /// How many instances of a process are wanted.
    ScaleChanged { processes: BTreeMap<ProcessName, u32> },
    /// Hosts lead to the app, or no longer do, whatever its releases say.
    DomainsChanged { added: BTreeSet<HostName>, removed: BTreeSet<HostName> },
    /// Requests get to the app, wait, or are turned away.
    GateChanged { gate: Gate },
    /// What of its repository is deployed, and from where else.
    GitChanged { git: GitSettings },
    /// A push to the repository elsewhere was told of and made no release.
    HookFailed { branch: String, failure: Failure },
    /// A release was submitted: everything it is made of but the artifact.
    ReleaseSubmitted(Box<ReleaseSubmitted>),
    /// The release's artifact stands, sealed.
    ReleaseBuilt { number: ReleaseNumber, artifact: Artifact },
    /// The release command ended well.
    ReleaseCommandFinished { number: ReleaseNumber },
    /// The release is the one that moves traffic from here on.
    ActivationBegan { number: ReleaseNumber },
    /// These processes are the new release's from here on: the old one's instances of them stop first.
    ProcessesHandedOver { number: ReleaseNumber, processes: BTreeSet<ProcessName> },
    /// An instance is to be started.
    InstanceAssigned { ordinal: Ordinal, process: ProcessName, release: ReleaseNumber, token: String },
    /// The instance's shim runs; a web instance has its port, and in a network of its own the name by which edge finds the way there.
    InstanceStarted {
        ordinal: Ordinal,
        port: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dialer: Option<String>,
    },
    /// Instances that were started for another release serve this one, which is the same in all they can see.
    InstancesAdopted { number: ReleaseNumber, ordinals: BTreeSet<Ordinal> },
    /// Requests go to these instances from here on, and to no others.
    Routed { ordinals: BTreeSet<Ordinal> },
    /// So many of a hundred requests go to the release, the rest to the one that serves.
    TrafficShifted {
        number: ReleaseNumber,
        percent: u8,
        why: ShiftWhy,
        /// What spoke for it, where the releases were compared before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Evidence>,
    },
    /// The release serves.
    ReleaseActivated { number: ReleaseNumber, previous: Option<ReleaseNumber> },
    /// The release will never serve.
    ReleaseFailed { number: ReleaseNumber, failure: Failure },
    /// The release will never serve, because a newer one was ready first.
    ReleaseSuperseded { number: ReleaseNumber, by: ReleaseNumber },
    /// The previous release's instances are no longer kept for a rollback.
    WarmEnded { number: ReleaseNumber, why: WarmEnd },
    /// The instance is to be stopped.
    InstanceStopping { ordinal: Ordinal, why: StopReason },
    /// The app exited within its instance; the shim starts it again. Rate-limited: `more` counts the exits that were
    /// not written since the last one that was, of whichever of the app's instances.
    InstanceExited { ordinal: Ordinal, exit: Exit, more: u64 },
    /// The instance is gone, its whole tree with it.
    InstanceGone { ordinal: Ordinal, cause: GoneCause },
    /// A one-off command is to be run, once. The values of `variables` are in no journal.
    RunAssigned {
        run: RunNumber,
        release: ReleaseNumber,
        command: Command,
        variables: BTreeSet<EnvName>,
        mode: RunMode,
        limit: Millis,
        token: String,
        /// What it runs for, when it is a command of a cron entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cron: Option<CronRun>,
        /// The instance that it runs in, when it is not one of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<Ordinal>,
    },
    /// A cron entry was due, and was not run.
    CronSkipped { entry: CronName, due: Timestamp, why: CronSkip, missed: u64 },
    /// The wall clock was set back so far that the moments up to which cron entries were decided are of no use.
    CronSetBack { to: Timestamp },
    /// The one-off command is over, or will never be run.
    RunEnded { run: RunNumber, end: RunEnd },
    /// A volume that no release had any more was removed with all that was in it and with its snapshots; or one of these alone.
    VolumeRemoved {
        volume: VolumeName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotName>,
    },
    /// A volume is to be worked on: what has it stops, or stands still for a snapshot where the machine can have it do so.
    VolumeWorkBegan { work: VolumeWork },
    /// The volume was worked on, or could not be; what has it is started again.
    VolumeWorkEnded {
        work: VolumeWork,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// Nobody asked for the app for so long: no requests go to it, and its web instances stand still or stop. Or they stood still, and stop.
    AppSlept { depth: Depth, idle: Millis },
    /// The app is awake again, and requests go to these instances at once, of those that stood still or of a new release.
    AppWoken { why: WakeReason, ordinals: BTreeSet<Ordinal> },
    /// The app is to go, with all it has but its volumes, unless these go too.
    AppDestroying {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        volumes: bool,
    },
    /// Nothing of the app is left but its history.
    AppDestroyed {},
}

/// How an app is deployed by git.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GitSettings {
    /// The branch that is deployed; none for those that everybody calls so.
    pub branch: Option<BranchName>,
    /// The repository elsewhere whose pushes are deployed.
    pub connection: Option<GitConnection>,
}

/// A repository elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitConnection {
    /// Names its webhook, and with it the webhook's secret, which is made of it and the platform's key.
    pub hook: String,
    /// Where it is cloned from.
    pub url: String,
    /// What lets one clone it, sealed; only the server can open it.
    pub token: Option<String>,
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "on")]
pub enum Grant {
    /// Everything on the platform.
    Platform,
    /// Everything of one tenant.
    Tenant { tenant: TenantId },
    /// Everything of one project.
    Project { project: ProjectId },
}

/// A secret's value, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Counts the values that this name has had in this app, from 1.
    pub version: u64,
    /// The envelope, base64; only the server can open it.
    pub sealed: String,
}

/// What a release is made of, given at submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSubmitted {
    /// Its number.
    pub number: ReleaseNumber,
    /// Why there is a new release.
    pub reason: Reason,
    /// The id of its source tree.
    pub tree: String,
    /// The manifest, with its defaults.
    pub manifest: Manifest,
    /// Set when the artifact stands already: the release needs no build.
    pub artifact: Option<Artifact>,
    /// The app's configuration at submit.
    pub config: BTreeMap<EnvName, String>,
    /// The versions of the app's secrets at submit.
    pub secrets: BTreeMap<EnvName, u64>,
    /// What the submitter said about it.
    pub description: Option<String>,
    /// The commit that the tree was packed from.
    pub commit: Option<String>,
}

/// Why there is a new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// New source.
    Deploy,
    /// `config set`, `config unset`.
    Config,
    /// `secrets set`, `secrets unset`.
    Secrets,
    /// A rollback.
    Rollback {
        /// The release whose artifact, configuration and secrets this one has.
        of: ReleaseNumber,
        /// Whether the configuration and the secrets were left as they are.
        keep_config: bool,
    },
}

/// A sealed artifact and how to start what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Artifact {
    /// Its id: the hash of what it was built from.
    pub id: String,
    /// The commands of its processes.
    pub processes: BTreeMap<ProcessName, Command>,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// How it came to be, in words: the rules of detection that fitted.
    #[serde(default)]
    pub why: Vec<String>,
    /// Environment of its processes, over which the manifest's wins; `$ARTIFACT` in a value stands for its directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Folders of it whose programs come first in the `PATH` of its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<RelativeDir>,
    /// Folders of the machine whose programs come next: those of the tools that its processes need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// What runs once before traffic, unless the manifest says: what was detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_command: Option<Command>,
    /// The image that it is, when nothing was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<Image>>,
}

/// An image that stands in place of something that was built, and what its configuration says of how it is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Image {
    /// Its name, held to the digest that the name meant when the release was submitted.
    pub reference: String,
    /// The digest of its manifest for the platform's machine.
    pub manifest: String,
    /// As whom it runs, as its author wrote it: names are looked up in the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The directory that it runs in, below its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workdir: String,
    /// The first port of TCP that it exposes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The signal that asks it to stop, where it is not SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
    /// The path that its own check asks for, where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// Its own check, where that does something else: a command that is run in its instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ImageCheck>,
}

/// A command of an image that says by its status whether an instance is well. What the image left open is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCheck {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// From the end of one to the beginning of the next.
    pub interval: Millis,
    /// How long one may take.
    pub timeout: Millis,
    /// How long from the start on a failure does not count, unless one has passed before.
    pub start_period: Millis,
    /// From one to the next as long as none has passed.
    pub start_interval: Millis,
    /// How many must fail in a row.
    pub retries: u32,
}

/// Why a release failed, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A code that has a page in docs/errors.
    pub code: String,
    /// One sentence.
    pub summary: String,
    /// The facts behind it, a line each: answers of probes, ports listened on, what an exit means.
    pub detail: Vec<String>,
    /// The lines that matter of what the program printed last, secrets masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// What to do about it, where more is known than the code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Failure {
    /// A failure of which nothing more is known than its code and its sentence.
    #[must_use]
    pub fn new(code: &str, summary: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            summary: summary.into(),
            detail: Vec::new(),
            log: Vec::new(),
            next: None,
        }
    }
}

/// Why an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its release no longer serves.
    Retired,
    /// Its release failed before it served.
    ReleaseFailed,
    /// Fewer instances are wanted.
    ScaledDown,
    /// The new release takes its place, and both may not run at once.
    Replaced,
    /// The app goes.
    Destroyed,
    /// A volume of its is worked on.
    VolumeWork,
    /// The app sleeps.
    Asleep,
}

/// Why the previous release is no longer kept warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmEnd {
    /// Its time is over.
    Expired,
    /// A newer release is the previous one now.
    Displaced,
    /// It was rolled back to.
    Used,
    /// Memory is short.
    MemoryPressure,
    /// It holds a secret that was revoked.
    SecretRevoked,
    /// None of its instances is left.
    Gone,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, when it exited.
    pub status: Option<i32>,
    /// The signal, when one ended it.
    pub signal: Option<i32>,
    /// How long it had run.
    pub after: Millis,
    /// Whether the kernel killed it because memory ran out, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<bool>,
    /// Whether it was ended because its own check said that it was not well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.unhealthy {
            f.write_str("failed its health check, was told to end and ")?;
        }
        match (self.status, self.signal) {
            // It was another of its processes that was killed; that is why the program could not go on, as a rule.
            (Some(status), _) if self.oom == Some(true) => {
                write!(
                    f,
                    "exited with status {status}, after the kernel killed a process of it because memory ran out,"
                )?;
            }
            (Some(status), _) => write!(f, "exited with status {status}")?,
            (None, Some(9)) if self.unhealthy => f.write_str("was killed by signal 9")?,
            (None, Some(9)) => f.write_str(match self.oom {
                Some(true) => "was killed by the kernel, because memory ran out",
                Some(false) => "was killed by signal 9",
                None => "was killed by signal 9, as the kernel does when memory is short",
            })?,
            (None, Some(signal)) => write!(f, "was ended by signal {signal}")?,
            (None, None) => f.write_str("ended")?,
        }
        write!(f, " after {}.{:03} s", self.after.0 / 1_000, self.after.0 % 1_000)
    }
}

/// Why an instance is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GoneCause {
    /// It was told to stop and did.
    Stopped,
    /// Its shim died, was killed, or the machine was started again.
    Lost,
    /// It could not be started.
    NotStarted {
        /// Why.
        detail: String,
    },
    /// The platform was shut down.
    PlatformDown,
}

impl Event {
    /// The schema that this version writes, for every kind: raised for a kind when a field is added to it.
    pub const SCHEMA: u32 = 1;

    /// The kind as the journal names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TenantCreated { .. } => "tenant_created",
            Self::ProjectCreated { .. } => "project_created",
            Self::TokenIssued { .. } => "token_issued",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::InvariantBroken { .. } => "invariant_broken",
            Self::CertificatesChanged { .. } => "certificates_changed",
            Self::AppCreated { .. } => "app_created",
            Self::ConfigChanged { .. } => "config_changed",
            Self::SecretsChanged { .. } => "secrets_changed",
            Self::ScaleChanged { .. } => "scale_changed",
            Self::DomainsChanged { .. } => "domains_changed",
            Self::GateChanged { .. } => "gate_changed",
            Self::GitChanged { .. } => "git_changed",
            Self::HookFailed { .. } => "hook_failed",
            Self::ReleaseSubmitted(_) => "release_submitted",
            Self::ReleaseBuilt { .. } => "release_built",
            Self::ReleaseCommandFinished { .. } => "release_command_finished",
            Self::ActivationBegan { .. } => "activation_began",
            Self::ProcessesHandedOver { .. } => "processes_handed_over",
            Self::InstanceAssigned { .. } => "instance_assigned",
            Self::InstanceStarted { .. } => "instance_started",
            Self::InstancesAdopted { .. } => "instances_adopted",
            Self::Routed { .. } => "routed",
            Self::TrafficShifted { .. } => "traffic_shifted",
            Self::ReleaseActivated { .. } => "release_activated",
            Self::ReleaseFailed { .. } => "release_failed",
            Self::ReleaseSuperseded { .. } => "release_superseded",
            Self::WarmEnded { .. } => "warm_ended",
            Self::InstanceStopping { .. } => "instance_stopping",
            Self::InstanceExited { .. } => "instance_exited",
            Self::InstanceGone { .. } => "instance_gone",
            Self::RunAssigned { .. } => "run_assigned",
            Self::RunEnded { .. } => "run_ended",
            Self::CronSkipped { .. } => "cron_skipped",
            Self::CronSetBack { .. } => "cron_set_back",
            Self::VolumeRemoved { .. } => "volume_removed",
            Self::VolumeWorkBegan { .. } => "volume_work_began",
            Self::VolumeWorkEnded { .. } => "volume_work_ended",
            Self::AppSlept { .. } => "app_slept",
            Self::AppWoken { .. } => "app_woken",
            Self::AppDestroying { .. } => "app_destroying",
            Self::AppDestroyed {} => "app_destroyed",
        }
    }

    /// The event as the journal keeps it: JSON of its data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("events are plain data with string keys")
    }

    /// Reads an event that was written with `schema`.
    ///
    /// # Errors
    /// [`UnreadableEvent`] when a newer version wrote it, or the bytes are not such an event.
    pub fn decode(kind: &str, schema: u32, body: &[u8]) -> Result<Self, UnreadableEvent> {
        if schema > Self::SCHEMA {
            return Err(UnreadableEvent::Newer { kind: kind.to_owned(), schema });
        }
        serde_json::from_slice(body)
            .map_err(|source| UnreadableEvent::Malformed { kind: kind.to_owned(), source })
    }
}

/// An event of the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableEvent {
    /// A newer version wrote it.
    #[error("the event {kind} has schema {schema}, which a newer version of Berth wrote")]
    Newer {
        /// Its kind.
        kind: String,
        /// Its schema.
        schema: u32,
    },
    /// The bytes are not such an event.
    #[error("the event {kind} cannot be decoded")]
    Malformed {
        /// Its kind.
        kind: String,
        /// What the decoder said.
        source: serde_json::Error,
    },
}

#[cfg(test)]
pub(crate) mod tests;
