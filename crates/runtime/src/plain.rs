//! The backend of Berth's own: a process tree per instance under a shim of its own, with or without isolation, or in a container.

mod adopt;
mod beside;
mod command;
mod contain;
mod daemon;
mod exec;
mod freezing;
mod launch;
mod link;
mod naming;
mod network;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_clock::Clock;
use berth_process::{BootId, Cgroups, Controller, Disk, Mark, SealedImage, Tree};
use berth_routing::Names;
use berth_shim::config::Restart;
use berth_shim::exec::Exec;
use berth_shim::wire::ToShim;
use berth_spec::{AppId, InstanceId, Isolation, ProcessName};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use crate::attach::{self, AppEnds, Attach, Attached};
use crate::egress::WayOut;
use crate::error::{RuntimeError, during};
use crate::instance::{
    Answer, Capabilities, Finished, Frozen, InstanceSpec, InstanceState, Observed, Runtime, RuntimeEvent,
    Stop,
};
use crate::layout::{Layout, short};
use crate::listener;
use crate::logs::InstanceLog;
use crate::record::StartRecord;
use crate::sandbox::{Abilities, Policy};
pub use command::CommandSandbox;
use contain::Containers;
pub use contain::{check_daemon, daemon_sockets};
pub use exec::Executing;

/// The shim, as the build script made it.
static SHIM: &[u8] = include_bytes!(env!("BERTH_SHIM_PROGRAM"));

/// Events kept for a reader that is behind; one that is further behind is told so and looks at the whole list.
const EVENTS_KEPT: usize = 1_024;
/// Orders that wait for a link: a stop, a kill and a few repeats of them.
const ORDERS_WAITING: usize = 16;
/// Starts and removals of one instance take turns. A lock per instance ever seen would grow without end; with this many
/// two instances seldom share one.
const GATES: usize = 64;
/// How long the kill of a tree may take before it is tried anew.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How long after the killing of a tree was due its end must have been seen.
const GRACE: Duration = Duration::from_secs(10);
/// A year is for ever here, and no deadline overflows with it.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Lines of the log that a one-off command's result has.
const TAIL: usize = 50;

/// The backend. Dropping it leaves the instances running, for the next one to adopt.
#[derive(Debug)]
pub struct PlainRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    clock: Arc<dyn Clock>,
    shim: SealedImage,
    cgroups: Option<Cgroups>,
    policy: Policy,
    boot: BootId,
    /// Who makes a container for each instance; `None` for nobody.
    containers: Option<Containers>,
    /// Whether a shim can make a network.
    own_network: bool,
    /// The way out of such networks, or why there is none.
    way_out: Result<WayOut, String>,
    /// Whether instances reach other apps by name.
    serves_names: bool,
    /// The apps that there are.
    names: Mutex<Arc<Names>>,
    /// Held while what an instance knows of them is changed.
    naming: Mutex<()>,
    entries: Mutex<BTreeMap<InstanceId, Arc<Entry>>>,
    events: broadcast::Sender<RuntimeEvent>,
    gates: [tokio::sync::Mutex<()>; GATES],
}

/// An instance that is known.
#[derive(Debug)]
struct Entry {
    token: Mark,
    tree: Tree,
    observed: watch::Sender<Observed>,
    orders: mpsc::Sender<Order>,
    link: Mutex<Option<JoinHandle<()>>>,
}

/// What kinds of the backend differ in.
struct Parts {
    shim: SealedImage,
    cgroups: Option<Cgroups>,
    policy: Policy,
    own_network: bool,
    names: bool,
    containers: Option<Containers>,
}

/// What a link is told.
#[derive(Debug)]
enum Order {
    /// Tell the shim.
    Tell(ToShim),
    /// Kill everything from outside: the shim does not do its part.
    Destroy,
}

impl PlainRuntime {
    /// The backend for the platform at `layout`, at the level of isolation that is wanted, or the best that there is; makes its
    /// folders. Blocks.
    ///
    /// # Errors
    /// When the folders cannot be made, or the kernel lacks memory files; [`RuntimeError::Isolation`] when there is no such level
    /// here, or none at all and none was asked for.
    pub fn open(
        layout: Layout,
        clock: Arc<dyn Clock>,
        wanted: Option<Isolation>,
    ) -> Result<Self, RuntimeError> {
        layout.prepare().map_err(during("making the folders of the runtime"))?;
        let shim = SealedImage::new("berth-shim", SHIM).map_err(during("holding the shim in memory"))?;
        let cgroups = Cgroups::discover(&format!("berth-{}", layout.platform));
        let disk = Disk::of(&layout.instances).map_err(during("looking for the home's disk"))?;
        let policy = policy(&shim, cgroups.as_ref(), disk, wanted)?;
        let (own_network, names) = (policy.own_network(), policy.names());
        let parts = Parts { shim, cgroups, policy, own_network, names, containers: None };
        Self::assemble(layout, clock, parts)
    }

    /// The backend whose instances are in containers of the daemon that answers at one of `sockets`. Blocks.
    ///
    /// # Errors
    /// When the folders cannot be made, or there is no such daemon.
    pub fn open_in_containers(
        layout: Layout,
        clock: Arc<dyn Clock>,
        sockets: &[PathBuf],
    ) -> Result<Self, RuntimeError> {
        layout.prepare().map_err(during("making the folders of the runtime"))?;
        let shim = SealedImage::new("berth-shim", SHIM).map_err(during("holding the shim in memory"))?;
        let containers = Containers::open(&layout, sockets)?;
        let policy = Policy::new(containers.level(), Abilities::of_containers());
        let containers = Some(containers);
        // A container's shim may make no network; root makes it instead.
        let names = rustix::process::geteuid().is_root() && beside::is_possible();
        let own_network = true;
        let parts = Parts { shim, cgroups: None, policy, own_network, names, containers };
        Self::assemble(layout, clock, parts)
    }

    fn assemble(layout: Layout, clock: Arc<dyn Clock>, parts: Parts) -> Result<Self, RuntimeError> {
        let inner = Inner {
            way_out: network::way_out(&parts, &layout.platform, &clock),
            own_network: parts.own_network,
            serves_names: parts.names,
            names: Mutex::default(),
            naming: Mutex::default(),
            shim: parts.shim,
            cgroups: parts.cgroups,
            policy: parts.policy,
            containers: parts.containers,
            boot: BootId::current().map_err(during("asking for the boot"))?,
            entries: Mutex::new(BTreeMap::new()),
            events: broadcast::channel(EVENTS_KEPT).0,
            gates: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            layout,
            clock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ends every instance of which there is a record, however it came to be nobody's, and removes what it left but its log.
    /// For when no control is left that would stop them as they want it. Blocks.
    ///
    /// # Errors
    /// When one cannot be ended or removed.
    pub fn end_all(&self) -> Result<(), RuntimeError> {
        self.inner.end_all()
    }
}

impl Drop for PlainRuntime {
    fn drop(&mut self) {
        for entry in self.inner.entries().values() {
            if let Some(link) = &*entry.link.lock().unwrap_or_else(PoisonError::into_inner) {
                link.abort();
            }
        }
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, id: &InstanceId) -> Result<Arc<Entry>, RuntimeError> {
        self.entries().get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }

    async fn gate(&self, id: &InstanceId) -> tokio::sync::MutexGuard<'_, ()> {
        let sum =
            id.to_string().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.gates[sum % GATES].lock().await
    }

    /// The tree of the instance of `record`.
    fn tree(&self, record: &StartRecord) -> Tree {
        let cgroup = self.cgroups.as_ref().map(|groups| groups.group(&short(record.token)));
        Tree { root: record.shim.clone(), mark: Some(record.token), cgroup }
    }

    /// Ends whatever there is of the instance of `record` and removes its socket and control group. Blocks.
    fn clear(&self, record: &StartRecord) -> Result<(), RuntimeError> {
        self.thaw_to_end(record.token)?;
        let tree = self.tree(record);
        tree.kill(&*self.clock, KILL_LIMIT)
            .map_err(|source| RuntimeError::Kill { id: record.id.clone(), source })?;
        if let Some(cgroup) = &tree.cgroup {
            cgroup.remove().map_err(during("removing a control group"))?;
        }
        if let Some(containers) = &self.containers {
            containers.remove(record.token)?;
        }
        let sockets = [Layout::socket, Layout::dial_socket, Layout::door];
        for socket in sockets.map(|socket| socket(&self.layout, record.token)) {
            let socket = socket.map_err(during("naming a socket"))?;
            remove_file(&socket).map_err(during("removing a socket"))?;
        }
        Ok(())
    }

    /// Starts an instance; with `ends`, one that reads and writes there.
    async fn start(
        self: Arc<Self>,
        spec: InstanceSpec,
        ends: Option<AppEnds>,
    ) -> Result<Observed, RuntimeError> {
        let _turn = self.gate(&spec.id).await;
        if let Ok(entry) = self.entry(&spec.id) {
            return if entry.token == spec.token && ends.is_none() {
                Ok(entry.observed.borrow().clone())
            } else {
                Err(RuntimeError::Occupied(spec.id))
            };
        }
        let (inner, id, names) = (Arc::clone(&self), spec.id.clone(), self.names());
        let launched = blocking(move || launch::launch(&inner, &spec, ends.as_ref())).await?;
        let met = link::meet(&launched.socket, launched.record.token);
        match met.await {
            Ok(met) => {
                let observed = self.link(launched.record, met, launched.child)?;
                if !Arc::ptr_eq(&names, &self.names()) {
                    // What was told while it was not known yet.
                    let inner = Arc::clone(&self);
                    blocking(move || inner.rename(&id)).await;
                }
                Ok(observed)
            }
            Err(what) => {
                let inner = Arc::clone(&self);
                blocking(move || {
                    let (child, record) = (launched.child, launched.record);
                    inner.clear(&record)?;
                    if let Some(mut child) = child {
                        child.wait().map_err(during("reaping a shim"))?;
                    }
                    inner.layout.remove_instance(&record.id).map_err(during("removing an instance's folder"))
                })
                .await?;
                Err(RuntimeError::Shim { id, what })
            }
        }
    }

    async fn start_attached(
        self: Arc<Self>,
        spec: InstanceSpec,
        how: Attach,
    ) -> Result<(Observed, Attached), RuntimeError> {
        let made = attach::make(how, spec.user.as_ref());
        let (attached, ends) = made.map_err(during("making what a command reads and writes"))?;
        let spec = InstanceSpec { restart: Restart::Never, ..spec };
        Ok((self.start(spec, Some(ends)).await?, attached))
    }

    async fn end(
        self: Arc<Self>,
        id: &InstanceId,
        order: ToShim,
        within: Duration,
    ) -> Result<Observed, RuntimeError> {
        let entry = self.entry(id)?;
        // What stands still hears no signal.
        let (inner, group, token) = (Arc::clone(&self), entry.tree.cgroup.clone(), entry.token);
        blocking(move || match group {
            Some(group) => group.thaw().map_err(during("thawing a control group")),
            None => inner.thaw_to_end(token),
        })
        .await?;
        entry.order(Order::Tell(order)).await;
        if let Some(observed) = entry.over(within + GRACE).await {
            return Ok(observed);
        }
        entry.order(Order::Destroy).await;
        entry.over(KILL_LIMIT + GRACE).await.ok_or_else(|| RuntimeError::Timeout(id.clone()))
    }

    async fn remove(self: Arc<Self>, id: InstanceId) -> Result<(), RuntimeError> {
        let _turn = self.gate(&id).await;
        if let Ok(entry) = self.entry(&id)
            && !entry.observed.borrow().state.is_over()
        {
            return Err(RuntimeError::StillRuns(id));
        }
        let (inner, name) = (Arc::clone(&self), id.clone());
        blocking(move || {
            let folder = inner.layout.instance(&name);
            if let Some(record) = StartRecord::read(&folder).map_err(during("reading start.json"))? {
                inner.clear(&record)?;
            }
            inner.layout.remove_instance(&name).map_err(during("removing an instance's folder"))
        })
        .await?;
        self.entries().remove(&id);
        Ok(())
    }

    async fn observe(&self, id: &InstanceId) -> Result<Observed, RuntimeError> {
        let entry = self.entry(id)?;
        let mut observed = entry.observed.borrow().clone();
        if let (Some(port), InstanceState::Running { .. }) = (observed.port, observed.state) {
            let tree = entry.tree.clone();
            let within = observed.shim.as_ref().map_or_else(std::process::id, |shim| shim.pid);
            let looked = blocking(move || listener::look(port, &app_pids(&tree)?, within));
            observed.listener = looked.await.map_err(during("looking for listeners"))?;
        }
        Ok(observed)
    }

    async fn run_once(
        self: Arc<Self>,
        spec: InstanceSpec,
        limit: Option<Duration>,
    ) -> Result<Finished, RuntimeError> {
        let id = spec.id.clone();
        Arc::clone(&self).start(InstanceSpec { restart: Restart::Never, ..spec }, None).await?;
        let entry = self.entry(&id)?;
        let over = entry.over(limit.unwrap_or(FOR_EVER)).await;
        let timed_out = over.is_none();
        let observed = match over {
            Some(observed) => observed,
            None => Arc::clone(&self).end(&id, ToShim::Kill, Duration::ZERO).await?,
        };
        let log = InstanceLog::new(&self.layout.log(&id));
        let tail = blocking(move || log.tail(TAIL)).await.map_err(during("reading the log"))?;
        Arc::clone(&self).remove(id).await?;
        let tail = tail.records.into_iter().map(|(_, record)| record).collect();
        Ok(Finished { exit: observed.exits.last().copied(), timed_out, tail })
    }
}

impl Entry {
    /// Gives the link an order. A link that has ended needs none.
    async fn order(&self, order: Order) {
        drop(self.orders.send(order).await);
    }

    /// Waits until the instance has ended, for at most `limit`.
    async fn over(&self, limit: Duration) -> Option<Observed> {
        let mut observed = self.observed.subscribe();
        let over = tokio::time::timeout(limit, observed.wait_for(|observed| observed.state.is_over())).await;
        over.ok()?.ok().map(|observed| observed.clone())
    }
}

impl Runtime for PlainRuntime {
    fn capabilities(&self) -> Capabilities {
        let (policy, containers) = (&self.inner.policy, &self.inner.containers);
        let limits = || policy.abilities.controllers.iter().map(|it| it.name()).collect();
        Capabilities {
            backend: if containers.is_some() { "docker" } else { "native" },
            daemon: containers.as_ref().map(Containers::daemon),
            isolation: policy.level,
            missing: containers
                .as_ref()
                .map_or_else(|| policy.abilities.missing(policy.level), Containers::missing),
            limits: containers.as_ref().map_or_else(limits, Containers::limits),
            users: rustix::process::geteuid().is_root(),
            cgroup: self.inner.cgroups.as_ref().map(Cgroups::kind),
            freezes: self.inner.cgroups.is_some() || containers.is_some(),
            own_network: self.inner.own_network,
            no_egress: network::no_egress(&self.inner),
            names: self.inner.serves_names,
        }
    }

    fn start(&self, spec: InstanceSpec) -> Answer<'_, Observed> {
        Box::pin(to_its_end(Arc::clone(&self.inner).start(spec, None)))
    }

    fn start_attached(&self, spec: InstanceSpec, how: Attach) -> Answer<'_, (Observed, Attached)> {
        Box::pin(to_its_end(Arc::clone(&self.inner).start_attached(spec, how)))
    }

    fn over<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed> {
        Box::pin(async move {
            let over = self.inner.entry(id)?.over(FOR_EVER).await;
            over.ok_or_else(|| RuntimeError::Timeout(id.clone()))
        })
    }

    fn adopt_all(&self) -> Answer<'_, Vec<Observed>> {
        Box::pin(to_its_end(Arc::clone(&self.inner).adopt_all()))
    }

    fn list(&self) -> Vec<Observed> {
        self.inner.entries().values().map(|entry| entry.observed.borrow().clone()).collect()
    }

    fn list_app(&self, app: &AppId) -> Vec<Observed> {
        // Names begin with a letter, so none comes before this one: the app's instances follow one another from here.
        let process = ProcessName::new("a").expect("it is a name");
        let first = app.instance(process, 0);
        let entries = self.inner.entries();
        let of_app = entries.range(first..).take_while(|(id, _)| id.app == *app);
        of_app.map(|(_, entry)| entry.observed.borrow().clone()).collect()
    }

    fn observe<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed> {
        Box::pin(self.inner.observe(id))
    }

    fn tell_names(&self, names: Names) -> Answer<'_, ()> {
        Box::pin(to_its_end(Arc::clone(&self.inner).tell_names(names)))
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, how: Stop) -> Answer<'a, Observed> {
        let order = ToShim::Stop { signal: how.signal, kill_after: how.kill_after.0 };
        Box::pin(Arc::clone(&self.inner).end(id, order, how.kill_after.as_duration()))
    }

    fn signal<'a>(&'a self, id: &'a InstanceId, signal: i32) -> Answer<'a, ()> {
        Box::pin(async move {
            self.inner.entry(id)?.order(Order::Tell(ToShim::Signal { signal })).await;
            Ok(())
        })
    }

    fn freeze<'a>(&'a self, id: &'a InstanceId, then: Frozen) -> Answer<'a, ()> {
        Box::pin(to_its_end(Arc::clone(&self.inner).freeze(id.clone(), then)))
    }

    fn thaw<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()> {
        Box::pin(to_its_end(Arc::clone(&self.inner).thaw(id.clone())))
    }

    fn exec<'a>(
        &'a self,
        id: &'a InstanceId,
        command: Exec,
        how: Attach,
    ) -> Answer<'a, (Attached, Executing)> {
        Box::pin(Arc::clone(&self.inner).exec(id.clone(), command, how))
    }

    fn kill<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, Observed> {
        Box::pin(Arc::clone(&self.inner).end(id, ToShim::Kill, Duration::ZERO))
    }

    fn remove<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()> {
        Box::pin(to_its_end(Arc::clone(&self.inner).remove(id.clone())))
    }

    fn watch(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.inner.events.subscribe()
    }

    fn run_once(&self, spec: InstanceSpec, limit: Option<Duration>) -> Answer<'_, Finished> {
        Box::pin(Arc::clone(&self.inner).run_once(spec, limit))
    }

    fn log(&self, id: &InstanceId) -> InstanceLog {
        InstanceLog::new(&self.inner.layout.log(id))
    }

    fn remove_log<'a>(&'a self, id: &'a InstanceId) -> Answer<'a, ()> {
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        Box::pin(blocking(move || inner.layout.remove_log(&id).map_err(during("removing a log"))))
    }
}

/// How instances are kept apart here.
fn policy(
    shim: &SealedImage,
    cgroups: Option<&Cgroups>,
    disk: Option<Disk>,
    wanted: Option<Isolation>,
) -> Result<Policy, RuntimeError> {
    let mut controllers = cgroups.map(Cgroups::controllers).unwrap_or_default();
    if disk.is_none() {
        controllers.remove(&Controller::Disk);
    }
    let found = Abilities::find(shim, controllers);
    let abilities = found.map_err(during("trying what this machine isolates with"))?;
    let best = abilities.best();
    match wanted {
        Some(level) if level <= best => Ok(Policy::new(level, abilities).on(disk)),
        // Nothing is run unprotected because nobody thought of it.
        None if best > Isolation::Plain => Ok(Policy::new(best, abilities).on(disk)),
        _ => {
            let missing = abilities.missing(best);
            Err(RuntimeError::Isolation { wanted, best, missing })
        }
    }
}

/// Runs `work` to its end even if whoever asked for it goes away: half a start would leave a shim that nobody reaps.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    joined(tokio::spawn(work).await)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work).await)
}

/// The result of a task of ours. None is ever aborted, so that it can only have panicked, and its panic is ours.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a task of the runtime was aborted: {error}"),
        },
    }
}

/// The processes of the app, without the shim.
fn app_pids(tree: &Tree) -> io::Result<Vec<u32>> {
    if let Some(cgroup) = &tree.cgroup {
        return cgroup.pids();
    }
    let shim = tree.root.as_ref().map(|root| root.pid);
    Ok(tree.members()?.iter().map(|stat| stat.pid).filter(|pid| Some(*pid) != shim).collect())
}

fn remove_file(path: &PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
