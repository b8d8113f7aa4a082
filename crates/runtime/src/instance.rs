//! The runtime as control knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use berth_process::{CgroupKind, Identity, Limits, Mark, User};
use berth_routing::Names;
use berth_shim::check::{Check, Checked};
use berth_shim::config::{Backoff, Network, Restart};
use berth_shim::exec::Exec;
use berth_shim::record::Record;
use berth_shim::wire::Exit;
use berth_spec::manifest::{Alias, Egress, Resources};
use berth_spec::{AppId, AppName, Command, InstanceId, Isolation, Millis, Timestamp};
use tokio::sync::broadcast;

use crate::attach::{Attach, Attached};
use crate::error::RuntimeError;
use crate::layout::short;
use crate::logs::InstanceLog;
use crate::plain::Executing;

/// A future in a box, so that [`Runtime`] can be a `dyn`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, RuntimeError>> + Send + 'a>>;

/// An instance to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Its id.
    pub id: InstanceId,
    /// Random, made once per instance: a start that is repeated with it is the same start.
    pub token: Mark,
    /// The command. Its variables are expanded from the whole environment, so also from what the runtime adds.
    pub command: Command,
    /// The environment. The runtime adds `PORT`, `HOME`, `TMPDIR` and, where missing, `PATH`.
    pub env: BTreeMap<String, String>,
    /// The working directory, absolute: the sealed artifact. In a root of its own the app has it at the same place.
    pub dir: PathBuf,
    /// The files of its root.
    pub root: Root,
    /// What of the machine it has beside that.
    pub mounts: Vec<Mount>,
    /// How much of the machine it may take. What a backend cannot limit is passed over: [`Capabilities::limits`] says what it can.
    pub resources: Resources,
    /// As whom it runs. As root there must be one and it must not be root, as an ordinary user there must be none.
    pub user: Option<User>,
    /// Which port it gets.
    pub port: PortWish,
    /// In which network it is. In one of its own only it is at its port, which then is the wished one or [`OWN_PORT`].
    pub network: Network,
    /// What it may connect to from a network of its own; the machine's network keeps nobody from anything.
    pub egress: Egress,
    /// What it also calls other apps of its project, beside their names.
    pub aliases: BTreeMap<Alias, AppName>,
    /// Limits of each of its processes.
    pub limits: Limits,
    /// What becomes of it when it exits.
    pub restart: Restart,
    /// The waits between restarts.
    pub backoff: Backoff,
    /// The command that says whether it is well, if it has one. One that is not well is ended, and then becomes of it what
    /// [`InstanceSpec::restart`] says.
    pub check: Option<Check<Command>>,
}

/// The files of an instance's root, where it has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The machine's programs and libraries, and nothing else of it.
    Host,
    /// The unpacked layers of an image, the topmost first. What is written to it is lost with the instance.
    Layers {
        /// Their folders, which instances share.
        lower: Vec<PathBuf>,
        /// As root: the user outside that is the image's root; 65,536 from it on are the image's users. Otherwise everything is ours.
        uid_base: u32,
    },
}

/// Something of the machine that an instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is on the machine.
    pub source: PathBuf,
    /// Where the instance has it.
    pub target: PathBuf,
    /// Whether it may write to it.
    pub writable: bool,
}

/// The port of an instance in a network of its own, when it wishes for any.
pub const OWN_PORT: u16 = 8080;

/// Which port an instance gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortWish {
    /// None: a worker.
    None,
    /// Any that is free and not among these: ports that edge may still send to.
    Any {
        /// Ports that must not be used.
        exclude: BTreeSet<u16>,
    },
    /// This one.
    Exactly(u16),
}

/// An instance as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its id.
    pub id: InstanceId,
    /// The token it was started with.
    pub token: Mark,
    /// Its shim, while there is one.
    pub shim: Option<Identity>,
    /// What it does.
    pub state: InstanceState,
    /// The port it was given.
    pub port: Option<u16>,
    /// In which network it is, and so where its port is.
    pub network: Network,
    /// Whether it listens there; looked at by [`Runtime::observe`] alone, since it costs a look at its processes.
    pub listener: Listener,
    /// The last exits, oldest first, at most 16.
    pub exits: Vec<Exit>,
    /// How often it exited.
    pub exit_count: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// How many log lines were dropped.
    pub dropped_lines: u64,
    /// How it stands with its checks; `None` when it has none.
    pub checked: Option<Checked>,
    /// How many of its processes the kernel has killed because memory ran out, where that is counted.
    pub oom_kills: u64,
}

impl Observed {
    /// The name by which edge finds the way to its port; `None` when the port is the machine's, or there is none.
    #[must_use]
    pub fn dialer(&self) -> Option<String> {
        (self.network == Network::Own && self.port.is_some()).then(|| short(self.token))
    }
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It is about to be started.
    Starting,
    /// It runs.
    Running {
        /// The app's process id.
        pid: u32,
        /// Since when.
        since: Timestamp,
    },
    /// It exited and is started again later.
    BackingOff {
        /// When.
        until: Timestamp,
    },
    /// It was told to stop, or what is left of it is being killed.
    Stopping,
    /// It has ended, its last exit is known, and no process of it is left.
    Exited,
    /// Its shim died; no process of it is left.
    Gone,
}

impl InstanceState {
    /// Whether it has ended for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Exited | Self::Gone)
    }
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Nowhere, as far as is known.
    None,
    /// At the port it was given.
    Expected,
    /// Elsewhere: "listening on 3000, expected 8080".
    Elsewhere {
        /// The ports, in order.
        ports: Vec<u16>,
    },
    /// At the port it was given, but at no address where it is asked.
    Unreachable {
        /// The addresses, in order.
        addresses: Vec<IpAddr>,
    },
}

/// What becomes of the memory of an instance that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// It stays where it is: going on takes a fraction of a millisecond.
    Resident,
    /// It goes to swap, where there is any: what is needed again comes back piece by piece.
    PagedOut,
}

/// How an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The signal's number, sent to the app's process group.
    pub signal: i32,
    /// When its whole tree is killed.
    pub kill_after: Millis,
}

/// Something happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// Its state changed.
    Changed(InstanceId),
    /// Its app exited.
    Exited {
        /// The instance.
        id: InstanceId,
        /// The exit.
        exit: Exit,
    },
}

/// What a one-off command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its exit; `None` when its shim died with it.
    pub exit: Option<Exit>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// The last lines of its log.
    pub tail: Vec<Record>,
}

/// What a backend can do on this machine, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's name.
    pub backend: &'static str,
    /// The daemon that makes the containers of instances, its version and where it listens; `None` where there are none.
    pub daemon: Option<String>,
    /// What stands between instances.
    pub isolation: Isolation,
    /// What keeps them from more, with what to do about it, a sentence each.
    pub missing: Vec<String>,
    /// What of an instance can be limited, in the kernel's names.
    pub limits: Vec<&'static str>,
    /// Whether each app has a user of its own.
    pub users: bool,
    /// The control groups in use; `None` when the system lets us use none.
    pub cgroup: Option<CgroupKind>,
    /// Whether an instance can be made to stand still.
    pub freezes: bool,
    /// Whether an instance can have a network of its own: it was tried.
    pub own_network: bool,
    /// Why an instance in such a network has no way out, when that is so, with what to do about it.
    pub no_egress: Option<String>,
    /// Whether instances reach other apps of their project by name.
    pub names: bool,
}

/// Starts, adopts, watches and stops instances. Every call may be repeated, and may have been cut short before.
pub trait Runtime: Send + Sync + std::fmt::Debug {
    /// What the backend can do here.
    fn capabilities(&self) -> Capabilities;

    /// Starts an instance; it is under its shim when this returns, but its app may yet have to come up. Repeated with the
    /// same token it gives the instance that there is.
    fn start(&self, spec: InstanceSpec) -> Answer<'_, Observed>;

    /// Starts an instance that is not started again, and gives our ends of what it reads and writes, which then goes to no log. It can be
    /// asked for once: an instance that is there already is [`RuntimeError::Occupied`].
    fn start_attached(&self, spec: InstanceSpec, how: Attach) -> Answer<'_, (Observed, Attached)>;

    /// Waits until nothing of an instance is left.
    fn over<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed>;

    /// Finds the instances of an earlier control and takes them over; called once, before anything else. Those whose shim died
    /// meanwhile are ended and given as gone; those of an earlier boot are cleaned up and not given.
    fn adopt_all(&self) -> Answer<'_, Vec<Observed>>;

    /// All instances known, without looking for listeners.
    fn list(&self) -> Vec<Observed>;

    /// The instances of one app, as [`Runtime::list`] gives them.
    fn list_app(&self, app: &AppId) -> Vec<Observed>;

    /// One instance, with a look at where it listens.
    fn observe<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed>;

    /// Tells which apps there are in each project. Instances that may call them find them by their names from then on, also those that run.
    fn tell_names(&self, names: Names) -> Answer<'_, ()>;

    /// Stops an instance and waits until no process of it is left.
    fn stop<'a>(&'a self, id: &'a InstanceId, how: Stop) -> Answer<'a, Observed>;

    /// Sends an instance's process group a signal, and leaves it to the instance what it makes of it.
    fn signal<'a>(&'a self, id: &'a InstanceId, signal: i32) -> Answer<'a, ()>;

    /// Runs a command within an instance that runs: beside its app, as what the app is, with the app's environment, and with no right that the
    /// app has not. Gives our ends of what it reads and writes, and what waits for its end.
    fn exec<'a>(
        &'a self,
        id: &'a InstanceId,
        command: Exec,
        how: Attach,
    ) -> Answer<'a, (Attached, Executing)>;

    /// Has an instance stand still: it answers nothing, takes no processor time, and goes on where it was with [`Runtime::thaw`]. Stopping
    /// one thaws it first.
    fn freeze<'a>(&'a self, id: &'a InstanceId, then: Frozen) -> Answer<'a, ()>;

    /// Has an instance go on.
    fn thaw<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()>;

    /// Kills an instance and waits until no process of it is left.
    fn kill<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed>;

    /// Removes what is left of an instance that has ended, except its log. Of one that is not known nothing is left.
    fn remove<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()>;

    /// What happens from now on. Who reads too slowly is told so, and should look at [`Runtime::list`].
    fn watch(&self) -> broadcast::Receiver<RuntimeEvent>;

    /// Runs a one-off command to its end, at most for `limit`, and removes it.
    fn run_once(&self, spec: InstanceSpec, limit: Option<Duration>) -> Answer<'_, Finished>;

    /// The log of an instance, which may have ended or never been.
    fn log(&self, id: &InstanceId) -> InstanceLog;

    /// Removes the log of an instance that has been removed.
    fn remove_log<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()>;
}
