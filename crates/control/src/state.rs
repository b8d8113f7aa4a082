//! What is true: the fold of the events.
//!
//! An app is behind an [`Arc`] and changed by copy, so that the speculative state and the published one (see
//! [`crate::ledger`]) share all that did not change, and a reader keeps a consistent app without a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use berth_spec::command::Command;
use berth_spec::manifest::{Manifest, Strategy};
use berth_spec::{
    AppId, AppName, CronName, EnvName, Gate, HostName, InstanceId, Millis, ProcessName, ProjectId,
    ReleaseNumber, TenantId, Timestamp,
};

use crate::certificate::Certificates;
use crate::cron::CronProgress;
use crate::event::{
    Artifact, CronRun, Failure, GitSettings, Grant, Ordinal, Reason, RunMode, RunNumber, StopReason, Stream,
    VolumeWork,
};
use crate::sleep::Asleep;

/// A position in the journal, from 1; nought is before the first event.
pub type Position = u64;

/// Everything that the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// The position of the last event folded in.
    pub position: Position,
    /// What belongs to no app.
    pub platform: Arc<Platform>,
    /// The apps, destroyed ones included: their numbers go on if the name is used again.
    pub apps: BTreeMap<AppId, Arc<App>>,
}

impl State {
    /// The number of events in `stream`, which the next append to it must expect.
    #[must_use]
    pub fn version(&self, stream: &Stream) -> u64 {
        match stream {
            Stream::Platform => self.platform.version,
            Stream::App(app) => self.apps.get(app).map_or(0, |app| app.version),
        }
    }

    /// The app, unless it never was or is destroyed.
    #[must_use]
    pub fn live_app(&self, id: &AppId) -> Option<&Arc<App>> {
        self.apps.get(id).filter(|app| app.life != Life::Destroyed)
    }

    /// The apps of one project that are not destroyed and whose names come after `after`, in the order of their names.
    pub fn live_apps_after<'a>(
        &'a self,
        project: &'a ProjectId,
        after: Option<&AppName>,
    ) -> impl Iterator<Item = &'a Arc<App>> {
        let from = match after {
            Some(name) => Bound::Excluded(project.app(name.clone())),
            None => Bound::Included(project.app(AppName::new("a").expect("it is the first of all names"))),
        };
        let in_project = self.apps.range((from, Bound::Unbounded));
        in_project
            .map(|(_, app)| app)
            .take_while(move |app| app.id.tenant == project.tenant && app.id.project == project.project)
            .filter(|app| app.life != Life::Destroyed)
    }
}

/// What belongs to no app.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// The number of events in the platform's stream.
    pub version: u64,
    /// The tenants.
    pub tenants: BTreeSet<TenantId>,
    /// The projects.
    pub projects: BTreeSet<ProjectId>,
    /// The tokens that open the API, by their id.
    pub tokens: BTreeMap<String, Token>,
    /// The lowest uid slot that no app ever had.
    pub next_slot: u32,
    /// How many breaches of an invariant were written.
    pub breaches: u64,
    /// The certificates.
    #[serde(default)]
    pub certificates: Certificates,
}

/// A token for the API.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Token {
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// What it opens.
    pub grants: Vec<Grant>,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct App {
    /// Which.
    pub id: AppId,
    /// The number of events in its stream.
    pub version: u64,
    /// The position of the newest event of its stream.
    pub position: Position,
    /// The uid slot that its processes run under.
    pub slot: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it lives.
    pub life: Life,
    /// Its environment variables.
    pub config: BTreeMap<EnvName, String>,
    /// Its secrets: the newest value, and the older ones that a release may still need.
    pub secrets: BTreeMap<EnvName, Secret>,
    /// How many instances are wanted; a process that is missing here has one.
    pub scale: BTreeMap<ProcessName, u32>,
    /// Hosts that lead to it whatever its releases say.
    #[serde(default)]
    pub domains: BTreeSet<HostName>,
    /// Whether requests get to it.
    #[serde(default)]
    pub gate: Gate,
    /// How it is deployed by git.
    #[serde(default)]
    pub git: GitSettings,
    /// Its releases.
    pub releases: BTreeMap<ReleaseNumber, Arc<Release>>,
    /// Its instances that are not gone.
    pub instances: BTreeMap<Ordinal, Instance>,
    /// How many instances it ever had.
    pub last_ordinal: Ordinal,
    /// The release that serves.
    pub serving: Option<ReleaseNumber>,
    /// The release that served before and can take over at once.
    pub warm: Option<ReleaseNumber>,
    /// The release that moves traffic just now.
    pub activation: Option<Activation>,
    /// The instances that requests go to.
    pub routed: BTreeSet<Ordinal>,
    /// How requests are shared between the release that serves and another one.
    #[serde(default)]
    pub split: Option<Split>,
    /// Its one-off commands that are not over.
    #[serde(default)]
    pub runs: BTreeMap<RunNumber, Run>,
    /// How many one-off commands it ever had.
    #[serde(default)]
    pub last_run: RunNumber,
    /// How far the cron entries of the release that serves have come.
    #[serde(default)]
    pub cron: BTreeMap<CronName, CronProgress>,
    /// Up to where entries were decided that are gone, so that none that comes back runs what it ran.
    #[serde(default)]
    pub cron_floor: Timestamp,
    /// What is to be done with one of its volumes while nothing has it.
    #[serde(default)]
    pub volume_work: Option<VolumeWork>,
    /// What was last done with one, and why it failed if it did.
    #[serde(default)]
    pub volume_worked: Option<(VolumeWork, Option<Failure>)>,
    /// Whether its volumes go with it, while it is being destroyed.
    #[serde(default)]
    pub volumes_go: bool,
    /// Set while it sleeps.
    #[serde(default)]
    pub asleep: Option<Asleep>,
}

/// Requests are shared between the release that serves and another one: one that is being rolled out, or the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// The other one.
    pub release: ReleaseNumber,
    /// How many of a hundred requests go to it.
    pub percent: u8,
    /// Whether somebody set that, and it stays until somebody says otherwise.
    pub held: bool,
}

/// A one-off command.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// The release that it runs in.
    pub release: ReleaseNumber,
    /// What it runs.
    pub command: Command,
    /// Whether somebody is connected to it.
    pub mode: RunMode,
    /// How long it may run.
    pub limit: Millis,
    /// Distinguishes it from every other that ever was, in hex.
    pub token: String,
    /// When it was asked for.
    pub assigned_at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// What it runs for, when it is a command of a cron entry.
    #[serde(default)]
    pub cron: Option<CronRun>,
    /// The instance that it runs in, when it is not one of its own.
    #[serde(default)]
    pub within: Option<Ordinal>,
}

/// Whether an app lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Life {
    /// It lives.
    Alive,
    /// It is being taken down.
    Destroying,
    /// Only its history is left.
    Destroyed,
}

/// A secret of an app.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Secret {
    /// The version that is in force, if it is set; a rollback puts an older one in force again.
    pub current: Option<u64>,
    /// Every value it had, sealed, by version.
    pub values: BTreeMap<u64, String>,
}

/// A release being activated: the only one of its app that moves traffic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Activation {
    /// Which.
    pub release: ReleaseNumber,
    /// Since when.
    pub began_at: Timestamp,
    /// The processes that are the new release's already.
    pub handed_over: BTreeSet<ProcessName>,
    /// Whether the release command ended well, or there is none to run.
    pub command_done: bool,
}

/// A release: artifact, configuration and secret versions, immutable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Release {
    /// Its number.
    pub number: ReleaseNumber,
    /// Why it was made.
    pub reason: Reason,
    /// Where it stands.
    pub phase: Phase,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Where in the journal that stands.
    pub submitted_position: Position,
    /// Who submitted it.
    pub submitted_by: String,
    /// When it was activated, failed or superseded.
    pub settled_at: Option<Timestamp>,
    /// The id of its source tree.
    pub tree: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its artifact, once it is built.
    pub artifact: Option<Artifact>,
    /// Its environment variables.
    pub config: BTreeMap<EnvName, String>,
    /// The versions of its secrets.
    pub secrets: BTreeMap<EnvName, u64>,
    /// What the submitter said about it.
    pub description: Option<String>,
    /// The commit that its tree was packed from.
    pub commit: Option<String>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

impl Release {
    /// The processes of the artifact and their commands; none before it is built.
    #[must_use]
    pub fn processes(&self) -> Option<&BTreeMap<ProcessName, Command>> {
        self.artifact.as_ref().map(|artifact| &artifact.processes)
    }

    /// What runs once before it gets traffic: what the manifest says, else what was detected when it was built. A rollback runs none, since
    /// the old release's command would migrate the wrong way.
    #[must_use]
    pub fn release_command(&self) -> Option<&Command> {
        let detected = || self.artifact.as_ref()?.release_command.as_ref();
        match self.reason {
            Reason::Rollback { .. } => None,
            Reason::Deploy | Reason::Config | Reason::Secrets => {
                self.manifest.deploy.release_command.as_ref().or_else(detected)
            }
        }
    }

    /// Whether it has a process of this name.
    #[must_use]
    pub fn runs(&self, process: &ProcessName) -> bool {
        self.processes().is_some_and(|processes| processes.contains_key(process))
    }

    /// How this process of it takes over from the release before, where no volume goes from one to the other.
    #[must_use]
    pub fn strategy(&self, process: &ProcessName) -> Strategy {
        let default = if process.is_web() { Strategy::BlueGreen } else { Strategy::Recreate };
        if process.is_web() { self.manifest.deploy.strategy.unwrap_or(default) } else { default }
    }
}

/// Where a release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Phase {
    /// Submitted; its artifact is being built or waits to be.
    Submitted,
    /// Its artifact stands; it waits for its turn.
    Built,
    /// It is taking over.
    Activating,
    /// It serves, or did: [`App::serving`] names the one that does.
    Activated,
    /// It will never serve.
    Failed,
    /// It will never serve, because a newer one was ready first.
    Superseded,
}

impl Phase {
    /// Whether the release's deployment is over.
    #[must_use]
    pub fn is_settled(self) -> bool {
        match self {
            Self::Submitted | Self::Built | Self::Activating => false,
            Self::Activated | Self::Failed | Self::Superseded => true,
        }
    }
}

/// An instance that is assigned and not gone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Instance {
    /// The process it runs.
    pub process: ProcessName,
    /// The release it serves.
    pub release: ReleaseNumber,
    /// The release it was started for: what `RELEASE_VERSION` says in it.
    pub started_as: ReleaseNumber,
    /// Distinguishes it from every other instance that ever was, in hex.
    pub token: String,
    /// Its port, once it runs and if it has one.
    pub port: Option<u16>,
    /// The name by which edge finds the way to it, where its port is in a network of its own.
    #[serde(default)]
    pub dialer: Option<String>,
    /// Whether its shim was started.
    pub started: bool,
    /// Set when it is to stop.
    pub stopping: Option<StopReason>,
    /// Where in the journal its place in the routing last changed: a snapshot of that generation or a later one shows it as it is now.
    pub routing_changed_at: Position,
    /// Whether requests ever went to it, and so whether it ever was ready.
    #[serde(default)]
    pub proven: bool,
    /// How often its program exited since.
    #[serde(default)]
    pub exits: u64,
}

impl Instance {
    /// Whether it is not told to stop.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.stopping.is_none()
    }
}

impl App {
    /// An app of which nothing is known but its name.
    #[must_use]
    pub fn new(id: AppId) -> Self {
        Self {
            id,
            version: 0,
            position: 0,
            slot: 0,
            created_at: Timestamp::default(),
            life: Life::Destroyed,
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            scale: BTreeMap::new(),
            domains: BTreeSet::new(),
            gate: Gate::Open,
            git: GitSettings::default(),
            releases: BTreeMap::new(),
            instances: BTreeMap::new(),
            last_ordinal: 0,
            serving: None,
            warm: None,
            activation: None,
            routed: BTreeSet::new(),
            split: None,
            runs: BTreeMap::new(),
            last_run: 0,
            cron: BTreeMap::new(),
            cron_floor: Timestamp::default(),
            volume_work: None,
            volume_worked: None,
            volumes_go: false,
            asleep: None,
        }
    }

    /// The release of this number.
    #[must_use]
    pub fn release(&self, number: ReleaseNumber) -> Option<&Arc<Release>> {
        self.releases.get(&number)
    }

    /// The release that serves.
    #[must_use]
    pub fn serving_release(&self) -> Option<&Arc<Release>> {
        self.serving.and_then(|number| self.release(number))
    }

    /// The release that is being rolled out by canary, with its share, once that has begun.
    #[must_use]
    pub fn rollout(&self) -> Option<Split> {
        let activating = self.activation.as_ref().map(|activation| activation.release);
        self.split.filter(|split| Some(split.release) == activating)
    }

    /// Whether requests may go to instances of `release`.
    #[must_use]
    pub fn may_route_to(&self, release: ReleaseNumber) -> bool {
        let activating = self.activation.as_ref().map(|activation| activation.release);
        [self.serving, activating, self.split.map(|split| split.release)].contains(&Some(release))
    }

    /// The number that the next release gets.
    #[must_use]
    pub fn next_number(&self) -> ReleaseNumber {
        self.releases.last_key_value().map_or(ReleaseNumber(1), |(number, _)| number.next())
    }

    /// The full id of one of its instances.
    #[must_use]
    pub fn instance_id(&self, ordinal: Ordinal) -> Option<InstanceId> {
        self.instances.get(&ordinal).map(|instance| self.id.instance(instance.process.clone(), ordinal))
    }

    /// The releases older than `by` that are built or being built, and have not had their turn.
    pub fn overtaken(&self, by: ReleaseNumber) -> impl Iterator<Item = ReleaseNumber> {
        let waiting = |phase: Phase| matches!(phase, Phase::Submitted | Phase::Built);
        self.releases
            .range(..by)
            .filter(move |(_, release)| waiting(release.phase))
            .map(|(&number, _)| number)
    }

    /// How many instances of `process` are wanted.
    #[must_use]
    pub fn wanted(&self, process: &ProcessName) -> u32 {
        self.scale.get(process).copied().unwrap_or(1)
    }

    /// The instances of `process` that serve `release` and are not told to stop, oldest first.
    pub fn running<'a>(
        &'a self,
        release: ReleaseNumber,
        process: &'a ProcessName,
    ) -> impl Iterator<Item = (Ordinal, &'a Instance)> {
        self.instances
            .iter()
            .filter(move |(_, it)| it.release == release && it.is_wanted() && it.process == *process)
            .map(|(&ordinal, it)| (ordinal, it))
    }

    /// Whether `release` is the one that runs `process` now: handed over, or serving and not handed over.
    #[must_use]
    pub fn holds(&self, release: ReleaseNumber, process: &ProcessName) -> bool {
        match &self.activation {
            Some(activation) if activation.handed_over.contains(process) => activation.release == release,
            _ => self.serving == Some(release),
        }
    }

    /// The versions of the secrets that are set now.
    #[must_use]
    pub fn secret_versions(&self) -> BTreeMap<EnvName, u64> {
        self.secrets.iter().filter_map(|(name, secret)| Some((name.clone(), secret.current?))).collect()
    }

    /// The newest release that a rollback without a number goes back to: the one that was activated before the
    /// one that serves, leaving out releases that are the same by rollback. While another is rolled out in steps it is that one which is to
    /// go, and the one that serves is what there is to go back to.
    #[must_use]
    pub fn rollback_target(&self) -> Option<ReleaseNumber> {
        let serving = self.serving?;
        if self.rollout().is_some() {
            return Some(serving);
        }
        let same = |release: &Release| match release.reason {
            Reason::Rollback { of, keep_config: false } => of,
            Reason::Rollback { .. } | Reason::Deploy | Reason::Config | Reason::Secrets => release.number,
        };
        let current = same(self.release(serving)?);
        let mut activated: Vec<&Arc<Release>> =
            self.releases.values().filter(|release| release.phase == Phase::Activated).collect();
        activated.sort_by_key(|release| release.number);
        activated.iter().rev().map(|release| same(release)).find(|&number| number < current)
    }
}
