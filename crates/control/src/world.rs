//! What is seen: the observations that a plan is made from, none of which is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_rollout::Evidence;
use berth_routing::Generation;
use berth_routing::wire::Health;
use berth_spec::{AppId, Millis, ReleaseNumber, Timestamp};

use crate::event::{Artifact, Exit, Failure, Ordinal, RunEnd, RunNumber, VolumeWork};

/// What is seen of one app just now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppWorld {
    /// The instances that the runtime knows, whether or not the state does.
    pub instances: BTreeMap<Ordinal, Seen>,
    /// What edge makes of the instances' health, for those that it has said something about.
    pub health: BTreeMap<Ordinal, Probed>,
    /// The generation as of which edge has drained an instance.
    pub drained: BTreeMap<Ordinal, Generation>,
    /// Builds that run or have ended and were not taken note of yet.
    pub builds: BTreeMap<ReleaseNumber, Build>,
    /// Release commands that run or have ended.
    pub commands: BTreeMap<ReleaseNumber, ReleaseCommand>,
    /// One-off commands that the runtime knows or is about to start, whether or not the state does.
    pub runs: BTreeMap<RunNumber, SeenRun>,
    /// Edge and its snapshot, the same for all apps.
    pub edge: Edge,
    /// What was seen of the release that requests are shared with, beside the one that serves.
    pub compared: Option<Compared>,
    /// What the wall clock says; none where nobody looked.
    pub wall: Option<Timestamp>,
    /// What was done with a volume and was not taken note of yet, and why it failed if it did.
    pub volume_worked: Option<(VolumeWork, Option<Failure>)>,
    /// Whether instances can be had stand still, so that a snapshot needs nothing stopped.
    pub freezes: bool,
    /// Which instances stand still and which go on, by what this process did to them; of the others nothing is known.
    pub frozen: BTreeMap<Ordinal, bool>,
    /// The generation as of which edge has no request under way to an instance.
    pub still: BTreeMap<Ordinal, Generation>,
    /// How long ago it was last heard of somebody who keeps the app awake; none if that was not heard yet.
    pub idle: Option<Millis>,
    /// Whether edge says that somebody waits for the app, which sleeps.
    pub wanted: bool,
    /// Whether it is the app's turn to wake: not all wake at once.
    pub may_wake: bool,
    /// Whether there is a volume of the app; looked at only where the app is being destroyed.
    pub volumes_left: bool,
    /// Whether memory is so short that what is only kept warm should go.
    pub memory_short: bool,
}

/// What two releases between which requests are shared did within the same seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The one that is not the serving one.
    pub release: ReleaseNumber,
    /// The share that it has meanwhile.
    pub percent: u8,
    /// What it amounts to.
    pub evidence: Evidence,
}

/// An instance as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The token of the instance that runs under this ordinal.
    pub token: String,
    /// What it does.
    pub life: Life,
    /// Its port, if it has one.
    pub port: Option<u16>,
    /// The name by which edge finds the way to it, where its port is in a network of its own.
    pub dialer: Option<String>,
    /// Where it listens.
    pub listener: Listener,
    /// How often the app in it exited and was started again.
    pub restarts: u32,
    /// The last exit.
    pub last_exit: Option<Exit>,
    /// The last lines of its log, secrets masked, while its release is activated.
    pub log_tail: Vec<String>,
    /// Why its program could not be started, when it could not: what the system said, and what was probably meant.
    pub not_begun: Vec<String>,
    /// How it stands with the command that says whether it is well; `None` where there is none.
    pub check: Option<Check>,
}

impl Seen {
    /// Whether nothing of its own says that it is not well, or not yet.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.check.as_ref().is_none_or(|check| check.verdict == Verdict::Healthy)
    }
}

/// How an instance stands with its own check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is made of it.
    pub verdict: Verdict,
    /// How the last one came out that did not pass, and what it wrote, secrets masked.
    pub evidence: Vec<String>,
}

/// What an instance's own checks make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// None has passed yet since the app was started.
    Starting,
    /// It is well.
    Healthy,
    /// So many failed in a row that the app is ended and started again.
    Unhealthy,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// The shim runs, the app not yet.
    Starting,
    /// The app runs.
    Running,
    /// The app exited and waits to be started again.
    BackingOff,
    /// It was told to stop and is about to.
    Stopping,
    /// Nothing of it is left.
    Gone,
    /// It could not be started.
    NotStarted {
        /// The code of the failure.
        code: String,
        /// Why.
        detail: String,
    },
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Listener {
    /// Not looked yet, or on no port.
    #[default]
    None,
    /// On the port it was given.
    Expected,
    /// On other ports only.
    Elsewhere(Vec<u16>),
    /// On the port it was given, but only on these addresses, which edge does not ask at.
    Unreachable(Vec<String>),
}

/// An instance's health by edge's probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// What edge makes of it.
    pub health: Health,
    /// The last answers, newest last.
    pub evidence: Vec<String>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Build {
    /// It runs, or waits for its turn.
    Running,
    /// The artifact stands.
    Done(Artifact),
    /// It failed.
    Failed(Failure),
}

/// A release command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseCommand {
    /// It runs.
    Running,
    /// It ended with status 0.
    Succeeded,
    /// It did not.
    Failed(Failure),
}

/// A one-off command as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRun {
    /// The token of the one that runs under this number.
    pub token: String,
    /// Whether somebody is connected to it.
    pub attended: bool,
    /// How it ended, once it has.
    pub ended: Option<RunEnd>,
}

/// Edge, as control sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edge {
    /// The newest generation that is durable, and since when.
    pub durable: Generation,
    /// The process and what it said, if it lives; `None` once no edge process is left, which pidfds prove.
    pub alive: Option<EdgeProcess>,
}

/// A living edge process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeProcess {
    /// The newest generation that all its threads use; nought until it said so.
    pub applied: Generation,
}

/// Everything that the runtime has and the state does not: to be cleared away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The app it says it is of.
    pub app: AppId,
    /// Its ordinal.
    pub ordinal: Ordinal,
}

/// A stopwatch that is not wound back by a jump of the wall clock or kept over a restart: how long something has been so since this
/// process first saw it. A restart makes waits longer, never shorter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopwatch {
    since: BTreeMap<Mark, (Duration, bool)>,
}

/// What a stopwatch runs for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The release is being activated.
    Activating(ReleaseNumber),
    /// The release is kept warm.
    Warm(ReleaseNumber),
    /// The release that is being rolled out has this share.
    Share(ReleaseNumber, u8),
    /// Edge has not applied this generation.
    Unapplied(Generation),
    /// Edge uses this generation, and there is a newer one.
    Behind(Generation),
    /// The instance is out of the routing that edge uses.
    Draining(Ordinal),
    /// The instance runs since its so many-th restart.
    Alive(Ordinal, u32),
    /// The instance listens elsewhere only.
    Elsewhere(Ordinal),
    /// The instance does not serve yet, as far as is seen.
    Unready(Ordinal),
    /// The instance could not be started and is not tried again yet.
    NotStarted(Ordinal),
    /// The one-off command runs.
    Running(RunNumber),
    /// The app may sleep, and does not.
    Awake,
    /// The app sleeps since it fell asleep at this position.
    Asleep(u64),
}

impl Stopwatch {
    /// How long `mark` has been so, as of `now`.
    pub fn elapsed(&mut self, mark: Mark, now: Duration) -> Millis {
        let (since, seen) = self.since.entry(mark).or_insert((now, true));
        *seen = true;
        Millis(u64::try_from(now.saturating_sub(*since).as_millis()).unwrap_or(u64::MAX))
    }

    /// Starts `mark` anew at `now`.
    pub fn restart(&mut self, mark: Mark, now: Duration) {
        self.since.insert(mark, (now, true));
    }

    /// Forgets the marks that were not asked for since the last call.
    pub fn forget_unasked(&mut self) {
        self.since.retain(|_, (_, seen)| std::mem::replace(seen, false));
    }
}
