//! What is asked: by people through the API, and by the reconcilers as facts that they found.

use std::collections::{BTreeMap, BTreeSet};

use berth_rollout::Evidence;
use berth_spec::manifest::{Manifest, Strategy};
use berth_spec::{
    AppId, CronName, EnvName, Gate, HostName, Millis, ProcessName, ProjectId, ReleaseNumber, SnapshotName,
    TenantId, Timestamp, VolumeName,
};

use crate::event::{
    Artifact, CertificateChange, Depth, Event, Exit, Failure, GitSettings, GoneCause, Grant, Ordinal, RunEnd,
    RunMode, RunNumber, SealedSecret, StopReason, Stream, VolumeWork, WakeReason, WarmEnd,
};

/// A wish or a fact, to be decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes the tenant and the project if they are not there.
    EnsureProject { project: ProjectId },
    /// Makes a token valid.
    IssueToken { token: String, sha256: String, grants: Vec<Grant> },
    /// Changes the certificates, or how they are had.
    ChangeCertificates { change: Box<CertificateChange> },
    /// Writes down that an invariant was found broken.
    ReportBreach { invariant: String, detail: String },
    /// A wish about one app.
    App { app: AppId, wish: Wish },
    /// A fact about one app, found by its reconciler.
    Fact { app: AppId, fact: Fact },
}

/// What somebody wants of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The app is to exist.
    Create,
    /// A new release from source; creates the app if need be.
    Deploy(Box<Deploy>),
    /// A new release that is as an old one was.
    Rollback {
        /// The old one.
        to: ReleaseNumber,
        /// Whether configuration and secrets stay as they are now.
        keep_config: bool,
    },
    /// Change environment variables.
    ChangeConfig { set: BTreeMap<EnvName, String>, unset: BTreeSet<EnvName> },
    /// Change secrets. Each new value is sealed for the version that it will be; see [`crate::decide::next_secret_version`].
    ChangeSecrets { set: BTreeMap<EnvName, SealedSecret>, unset: BTreeSet<EnvName> },
    /// Change how many instances run.
    Scale { processes: BTreeMap<ProcessName, u32> },
    /// Change which hosts lead to the app, without a release.
    ChangeDomains { add: BTreeSet<HostName>, remove: BTreeSet<HostName> },
    /// Have requests get to the app, wait, or be turned away.
    ChangeGate { gate: Gate },
    /// Have so many of a hundred requests go to a release, and have it stay so.
    SetTraffic {
        /// The one that is being rolled out, the one that serves, or the one before, as long as that is kept warm.
        release: ReleaseNumber,
        /// From 0 to 100.
        percent: u8,
    },
    /// Have the release that is being rolled out take over at once.
    Promote,
    /// Have all requests go to the release that serves again.
    Abort,
    /// Run a command once.
    Run(Box<RunWish>),
    /// Run the command of a cron entry at once.
    RunCron {
        /// The entry of the release that serves.
        entry: CronName,
        /// Random, in hex.
        token: String,
    },
    /// Have what has a volume stop, and work on it.
    WorkOnVolume { work: VolumeWork },
    /// Remove a volume that nothing has any more, or a snapshot of one. The app may be destroyed.
    RemoveVolume {
        /// The volume.
        volume: VolumeName,
        /// The snapshot, when it alone is to go.
        snapshot: Option<SnapshotName>,
    },
    /// Change how the app is deployed by git.
    ChangeGit { git: GitSettings },
    /// The app is to go.
    Destroy {
        /// Whether its volumes go too.
        volumes: bool,
    },
}

/// A one-off command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWish {
    /// In which release; the one that serves when not given.
    pub release: Option<ReleaseNumber>,
    /// In which instance; in one of its own when not given.
    pub within: Option<Ordinal>,
    /// What to run.
    pub command: berth_spec::Command,
    /// The names of variables that win over the app's.
    pub variables: BTreeSet<EnvName>,
    /// Whether somebody is connected to it.
    pub mode: RunMode,
    /// How long it may run.
    pub limit: Millis,
    /// Random, in hex.
    pub token: String,
}

/// A release from source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The id of the tree, all of which the platform has.
    pub tree: String,
    /// The manifest, with its defaults.
    pub manifest: Manifest,
    /// What the submitter says about it.
    pub description: Option<String>,
    /// The commit that the tree was packed from.
    pub commit: Option<String>,
}

/// What a reconciler found or takes upon itself. A fact that is no longer true when it is decided is refused as stale,
/// and the reconciler looks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The artifact stands.
    Built { release: ReleaseNumber, artifact: Artifact },
    /// The release cannot go on.
    Failed { release: ReleaseNumber, failure: Failure },
    /// It is this release's turn.
    BeginActivation { release: ReleaseNumber },
    /// This release is built and waits behind an activation: whatever older one waits too will never have its turn.
    Supersede { by: ReleaseNumber },
    /// The release command ended well.
    CommandFinished { release: ReleaseNumber },
    /// The warm instances of the release that is rolled back to serve the new one.
    AdoptWarm { release: ReleaseNumber },
    /// These processes are the new release's from here on.
    HandOver { release: ReleaseNumber, processes: BTreeSet<ProcessName> },
    /// New instances, one for each token.
    Assign { release: ReleaseNumber, process: ProcessName, tokens: Vec<String> },
    /// The instance's shim runs.
    Started { ordinal: Ordinal, port: Option<u16>, dialer: Option<String> },
    /// Requests go to these from here on.
    Route { ordinals: BTreeSet<Ordinal> },
    /// The next step of a rollout: so many of a hundred requests go to the release.
    Shift { release: ReleaseNumber, percent: u8, evidence: Option<Evidence> },
    /// The release serves.
    Activate { release: ReleaseNumber },
    /// The previous release is no longer kept warm.
    EndWarm { release: ReleaseNumber, why: WarmEnd },
    /// The instance is to stop.
    Stop { ordinal: Ordinal, why: StopReason },
    /// The app within the instance exited.
    Exited { ordinal: Ordinal, exit: Exit, more: u64 },
    /// The instance is gone.
    Gone { ordinal: Ordinal, cause: GoneCause },
    /// The one-off command is over.
    RunEnded { run: RunNumber, end: RunEnd },
    /// It is this late, and the cron entry may be due.
    Cron {
        /// The entry of the release that serves.
        entry: CronName,
        /// What the wall clock said.
        at: Timestamp,
        /// Random, in hex: of the run that may follow.
        token: String,
    },
    /// A push elsewhere was told of and made no release.
    HookFailed { branch: String, failure: Failure },
    /// A volume was worked on, or could not be.
    VolumeWorked { work: VolumeWork, failure: Option<Failure> },
    /// Nobody asked for the app for so long that it may sleep, or sleep deeper.
    Sleep { depth: Depth, idle: Millis },
    /// The app is to be awake, with requests to these instances at once; nothing of it stands still.
    Wake { why: WakeReason, ordinals: BTreeSet<Ordinal> },
    /// Nothing of the app is left.
    Destroyed,
}

/// What follows from a command: events for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The stream they go to.
    pub stream: Stream,
    /// The events in order; none when what was asked is so already.
    pub events: Vec<Event>,
}

/// Why a command is not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such tenant.
    #[error("there is no tenant {0}")]
    NoSuchTenant(TenantId),
    /// There is no such project.
    #[error("there is no project {0}")]
    NoSuchProject(ProjectId),
    /// There is no such app.
    #[error("there is no app {0}")]
    NoSuchApp(AppId),
    /// The app is being destroyed.
    #[error("the app {0} is being destroyed")]
    BeingDestroyed(AppId),
    /// No release runs such a process.
    #[error("{app} has no process {process}; it has {}", names(.has))]
    NoSuchProcess {
        /// The app.
        app: AppId,
        /// The process asked for.
        process: ProcessName,
        /// The processes there are.
        has: Vec<ProcessName>,
    },
    /// There is no such instance.
    #[error("{app} has no instance of the number {ordinal}")]
    NoSuchInstance {
        /// The app.
        app: AppId,
        /// The number asked for.
        ordinal: Ordinal,
    },
    /// There is no such release.
    #[error("{app} has no release {number}")]
    NoSuchRelease {
        /// The app.
        app: AppId,
        /// The number asked for.
        number: ReleaseNumber,
    },
    /// The release never served, so there is nothing to go back to.
    #[error("{number} of {app} never served, so it cannot be rolled back to")]
    NeverServed {
        /// The app.
        app: AppId,
        /// The number asked for.
        number: ReleaseNumber,
    },
    /// There is no release that serves, and so nothing to run a command in.
    #[error("{0} has no release that serves, so there is nothing to run the command in")]
    NothingServes(AppId),
    /// The release's artifact is not kept any more, or never was.
    #[error("{number} of {app} never served, so nothing of it is kept to run the command in")]
    ReleaseGone {
        /// The app.
        app: AppId,
        /// The number asked for.
        number: ReleaseNumber,
    },
    /// The release that serves has no such cron entry.
    #[error("{app} has no cron entry {entry}; it has {}", listed(.has))]
    NoSuchCron {
        /// The app.
        app: AppId,
        /// The entry asked for.
        entry: CronName,
        /// The entries there are.
        has: Vec<CronName>,
    },
    /// The entry runs, and may not run twice at a time.
    #[error("{entry} of {app} runs already, as run.{run}")]
    CronRuns {
        /// The app.
        app: AppId,
        /// The entry.
        entry: CronName,
        /// Its run.
        run: RunNumber,
    },
    /// Another app answers for the host, or for one that overlaps with it and belongs to another tenant.
    #[error("the host {host} belongs to {owner}")]
    HostTaken {
        /// The host.
        host: HostName,
        /// The app that has it.
        owner: AppId,
    },
    /// The host is kept for another app, which may not exist.
    #[error("hosts below .localhost lead to the app that they name, so {host} cannot be had by {app}")]
    HostReserved {
        /// The host.
        host: HostName,
        /// The app that asked for it.
        app: AppId,
    },
    /// The app does not have the host.
    #[error("{app} has no domain {host}")]
    NoSuchDomain {
        /// The app.
        app: AppId,
        /// The host asked for.
        host: HostName,
    },
    /// The app has the host and cannot be without it, or not in this way.
    #[error("{host} cannot be removed: {why}")]
    DomainFixed {
        /// The host.
        host: HostName,
        /// Why not.
        why: &'static str,
    },
    /// A secret was changed at the same time.
    #[error("the secret {name} was changed by somebody else at the same time")]
    SecretRace {
        /// Its name.
        name: EnvName,
    },
    /// More instances than one app may have.
    #[error("{process}={count} is more than the {max} instances that one process may have")]
    TooManyInstances {
        /// The process.
        process: ProcessName,
        /// The count asked for.
        count: u32,
        /// The most there may be.
        max: u32,
    },
    /// More than an app may hold.
    #[error("{app} would have {count} {what}, more than the {max} that one app may have")]
    TooMany {
        /// The app.
        app: AppId,
        /// What there would be too many of.
        what: &'static str,
        /// How many there would be.
        count: usize,
        /// The most there may be.
        max: usize,
    },
    /// The app does something that a volume cannot be worked on beside.
    #[error("no volume of {app} can be worked on now: {why}")]
    VolumeBusy {
        /// The app.
        app: AppId,
        /// What it does.
        why: String,
    },
    /// The volume is had by something, or will be.
    #[error("the volume {volume} of {app} is had by {release}")]
    VolumeInUse {
        /// The app.
        app: AppId,
        /// The volume.
        volume: VolumeName,
        /// A release that has it.
        release: ReleaseNumber,
    },
    /// A volume would be written to by two instances at once.
    #[error("{}", exclusive(.app, .volume, .how))]
    VolumeExclusive {
        /// The app.
        app: AppId,
        /// The volume.
        volume: VolumeName,
        /// What would have it so.
        how: Sharing,
    },
    /// There is no rollout, and requests are not shared.
    #[error("{0} has no rollout, and all its requests go to one release")]
    NoRollout(AppId),
    /// Requests cannot be shared in this way.
    #[error("{number} of {app} cannot get {percent} % of the requests: {why}")]
    CannotShare {
        /// The app.
        app: AppId,
        /// The release.
        number: ReleaseNumber,
        /// The share asked for.
        percent: u8,
        /// Why not.
        why: &'static str,
    },
    /// All uids that the platform may give out are given out.
    #[error("the platform has given out all its {0} user ids")]
    SlotsExhausted(u32),
    /// Programs before this one would not read it, and may still take over again.
    #[error(
        "{what}: written from format {needs} of the journal on, and this journal is kept in format {writes} for the program before this one"
    )]
    NotCommitted {
        /// What would be written.
        what: &'static str,
        /// From which format on it is.
        needs: u32,
        /// The format of the journal.
        writes: u32,
    },
    /// A reconciler's fact is no longer true. Never seen by people.
    #[error("the fact no longer holds: {0}")]
    Stale(&'static str),
}

/// What would have two instances write to one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// A strategy that starts new instances beside the old ones.
    Strategy(Strategy),
    /// So many instances of one process.
    Instances {
        /// The process.
        process: ProcessName,
        /// How many.
        count: u32,
    },
}

fn exclusive(app: &AppId, volume: &VolumeName, how: &Sharing) -> String {
    match how {
        Sharing::Strategy(strategy) => {
            format!(
                "the strategy {} starts new instances of web beside the old ones, and both would write to the volume {volume} of {app}",
                strategy.name()
            )
        }
        Sharing::Instances { process, count } => {
            format!("{count} instances of {process} would write to the volume {volume} of {app} at once")
        }
    }
}

fn names(processes: &[ProcessName]) -> String {
    let names: Vec<&str> = processes.iter().map(ProcessName::as_str).collect();
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}

fn listed(entries: &[CronName]) -> String {
    let names: Vec<&str> = entries.iter().map(CronName::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Refusal {
    /// The code that the error's page has.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchTenant(_) => "tenant_not_found",
            Self::NoSuchProject(_) => "project_not_found",
            Self::NoSuchApp(_) => "app_not_found",
            Self::BeingDestroyed(_) => "app_destroying",
            Self::NoSuchProcess { .. } => "process_not_found",
            Self::NoSuchInstance { .. } => "instance_not_found",
            Self::NoSuchRelease { .. } => "release_not_found",
            Self::NeverServed { .. } => "release_never_served",
            Self::NothingServes(_) => "never_deployed",
            Self::ReleaseGone { .. } => "release_gone",
            Self::NoSuchCron { .. } => "cron_not_found",
            Self::CronRuns { .. } => "cron_running",
            Self::HostTaken { .. } | Self::HostReserved { .. } => "host_taken",
            Self::NoSuchDomain { .. } => "domain_not_found",
            Self::DomainFixed { .. } => "domain_fixed",
            Self::SecretRace { .. } | Self::Stale(_) => "conflict",
            Self::TooManyInstances { .. } | Self::TooMany { .. } => "limit_exceeded",
            Self::VolumeBusy { .. } => "volume_busy",
            Self::VolumeInUse { .. } => "volume_in_use",
            Self::VolumeExclusive { .. } => "volume_exclusive",
            Self::NoRollout(_) => "no_rollout",
            Self::CannotShare { .. } => "traffic_not_possible",
            Self::SlotsExhausted(_) => "user_ids_exhausted",
            Self::NotCommitted { .. } => "upgrade_uncommitted",
        }
    }
}
