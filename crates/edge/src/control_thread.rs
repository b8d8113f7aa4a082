//! The thread that does not serve: follows control, orders the workers, probes, and answers for the process.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use berth_clock::Clock;
use berth_routing::wire::Health;
use berth_routing::{Generation, InvalidSnapshot, Snapshot};
use berth_spec::{AppId, InstanceId};
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::certificates::{Local, Shelf};
use crate::fleet::{Fleet, Quiet, Registry};
use crate::handover::Listeners;
use crate::ledger::Ledger;
use crate::link::{self, Desk};
use crate::probe::{Finding, Prober};
use crate::tls::Chooser;
use crate::worker::Standing;
use crate::{EdgeError, ExitReason, boot, events, handover, internal};

/// How often counts go to control.
const COUNTS_EVERY: Duration = Duration::from_secs(1);

/// One worker as the control thread sees it.
pub(crate) struct Hand {
    pub(crate) standing: Arc<Standing>,
    /// How many requests it had to cut when it ended; an error when its thread died.
    pub(crate) ended: oneshot::Receiver<usize>,
}

/// What the control thread tells all workers.
#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) fleet: watch::Sender<Arc<Fleet>>,
    pub(crate) stir: watch::Sender<u64>,
    pub(crate) stop: watch::Sender<bool>,
    /// Whether the listeners were given to another supervisor, whose edge serves.
    pub(crate) passed_on: Arc<AtomicBool>,
}

/// What comes from outside.
pub(crate) struct Outside {
    pub(crate) control_socket: PathBuf,
    pub(crate) leash: Option<pipe::Receiver>,
    pub(crate) handover: Option<UnixListener>,
    pub(crate) stop: oneshot::Receiver<()>,
    pub(crate) terminate: tokio::signal::unix::Signal,
    pub(crate) owner_uid: u32,
    pub(crate) listeners: Listeners,
    /// Where the sockets of the shims are, and who is told of them.
    pub(crate) dial_folder: PathBuf,
    pub(crate) callers: Vec<mpsc::Sender<PathBuf>>,
}

/// The state of the control thread.
pub(crate) struct ControlThread {
    registry: Registry,
    prober: Prober,
    findings: mpsc::Receiver<Finding>,
    desk: Rc<Desk>,
    signals: Signals,
    shelf: Shelf,
    /// Who chooses certificates, where there is a listener that shows them.
    chooser: Option<Arc<Chooser>>,
    /// Woken by a worker that took a snapshot or ended, and by the last guard of a backend that drains.
    changed: Arc<Notify>,
    clock: Arc<dyn Clock>,
    /// The newest snapshot that was given to the workers.
    offered: Arc<Fleet>,
    listed: BTreeSet<u64>,
    routed: BTreeSet<InstanceId>,
    apps: BTreeSet<AppId>,
    applied: Option<Generation>,
}

impl ControlThread {
    /// Starts from what control left.
    pub(crate) fn boot(
        shelf: Shelf,
        dial_folder: PathBuf,
        changed: Arc<Notify>,
        signals: Signals,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (prober, findings) = Prober::new();
        let mut thread = Self {
            registry: Registry::new(Arc::clone(&changed), dial_folder),
            prober,
            findings,
            desk: Rc::default(),
            signals,
            shelf,
            chooser: None,
            changed,
            clock,
            offered: Arc::default(),
            listed: BTreeSet::new(),
            routed: BTreeSet::new(),
            apps: BTreeSet::new(),
            applied: None,
        };
        match boot::snapshot(thread.shelf.routing()) {
            Ok(left) => {
                if let Err(refusal) = thread.take(&left.unwrap_or_default()) {
                    events::snapshot_refused(&refusal);
                }
            }
            Err(error) => events::boot_failed(&error),
        }
        thread
    }

    /// The snapshot that the workers start with.
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.offered)
    }

    /// What chooses certificates from here on, by the newest snapshot and, for hosts below `localhost`, the machine's own authority.
    pub(crate) fn choose_certificates(&mut self, clock: &Arc<dyn Clock>) -> Arc<Chooser> {
        let local = self.shelf.authority().map(|authority| Local::new(authority, Arc::clone(clock)));
        let chooser = Arc::new(Chooser::new(self.fleet(), local));
        self.chooser = Some(Arc::clone(&chooser));
        chooser
    }

    /// Gives `snapshot` to the workers and probes what it names.
    fn take(&mut self, snapshot: &Snapshot) -> Result<(), InvalidSnapshot> {
        let shown = self.shelf.show(snapshot);
        let (fleet, targets, flaws) = self.registry.compile(snapshot, shown, self.offered.generation())?;
        flaws.iter().for_each(events::snapshot_flawed);
        self.listed = targets.iter().map(|target| target.backend.key).collect();
        let routed = targets.iter().filter(|target| fleet.routes(target.backend.key));
        self.routed = routed.map(|target| target.backend.instance.clone()).collect();
        self.apps = snapshot.apps.keys().cloned().collect();
        let probed: BTreeSet<InstanceId> =
            targets.iter().filter(|target| !target.sleeps).map(|it| it.backend.instance.clone()).collect();
        for gone in self.prober.follow(targets.into_iter().filter(|target| !target.sleeps).collect()) {
            if !probed.contains(&gone.instance) {
                self.desk.tell(|ledger| ledger.forget_health(&gone.instance));
            }
        }
        self.offered = Arc::new(fleet);
        if let Some(chooser) = &self.chooser {
            chooser.follow(&self.offered);
        }
        self.signals.fleet.send_replace(Arc::clone(&self.offered));
        Ok(())
    }

    fn snapshot_arrived(&mut self, snapshot: &Snapshot, hands: &[Hand]) {
        if snapshot.generation == self.offered.generation() && self.offered.complete {
            self.desk.tell(Ledger::repeat_applied);
            return;
        }
        if let Err(refusal) = self.take(snapshot) {
            // Going back would send requests to instances that were told to stop. Control hears what is in use.
            events::snapshot_refused(&refusal);
            self.desk.tell(Ledger::repeat_applied);
        }
        self.settle(hands);
    }

    /// Says Applied when every worker uses the newest snapshot, and then which instances are drained as of it.
    ///
    /// While a worker is behind nothing is said of drains: it may still pick by the older snapshot.
    fn settle(&mut self, hands: &[Hand]) {
        let generation = self.offered.generation();
        let everywhere = hands.iter().all(|hand| hand.standing.generation.load(SeqCst) == generation.0);
        if !everywhere || !self.offered.complete {
            return;
        }
        if self.applied != Some(generation) {
            self.applied = Some(generation);
            events::applied(generation);
        }
        let Quiet { quiet, still } = self.registry.quiet(&self.offered, &self.listed);
        self.desk.tell(|ledger| {
            ledger.applied(generation);
            ledger.still(&still, generation);
            ledger.drained(quiet, generation, |instance| self.routed.contains(instance));
        });
    }

    /// Tells control which apps somebody waits for that sleep.
    fn tell_wanted(&self) {
        let wanted = self.registry.wanted();
        self.desk.tell(|ledger| ledger.wanted(wanted));
    }

    fn found(&self, finding: Finding) {
        if !self.prober.is_probing(&finding.backend) {
            return;
        }
        let failing = finding.health == Health::Failing;
        if finding.backend.failing.swap(failing, SeqCst) && !failing {
            finding.backend.circuit.recovered(self.clock.monotonic());
        }
        let instance = &finding.backend.instance;
        self.desk.tell(|ledger| ledger.health(instance, finding.health, finding.evidence));
        if finding.health == Health::Ready {
            self.signals.stir.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    fn pass_over(&self) {
        self.offered.pass_over(self.clock.monotonic(), events::decided);
    }

    fn second_passed(&mut self) {
        self.pass_over();
        self.prober.reap();
        let counts = self.registry.counts(|app| self.apps.contains(app));
        if !counts.is_empty() {
            self.desk.tell(|ledger| ledger.count(counts));
        }
        self.tell_wanted();
    }

    /// Works until every worker has ended.
    pub(crate) async fn run(
        mut self,
        mut hands: Vec<Hand>,
        outside: Outside,
    ) -> Result<ExitReason, EdgeError> {
        let Outside { control_socket, leash, handover, mut stop, mut terminate, owner_uid, .. } = outside;
        let Outside { listeners, dial_folder, callers, .. } = outside;
        let mut side_tasks = JoinSet::new();
        let desk = Rc::clone(&self.desk);
        side_tasks.spawn_local(async move { link::keep(&control_socket, &desk).await });
        side_tasks.spawn_local(watch_leash(leash));
        side_tasks.spawn_local(internal::watch(dial_folder, callers));
        side_tasks.spawn_local(hand_over(
            handover,
            owner_uid,
            listeners,
            Arc::clone(&self.signals.passed_on),
        ));
        let mut seconds = tokio::time::interval(COUNTS_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let desk = Rc::clone(&self.desk);
        let changed = Arc::clone(&self.changed);
        let mut cut = 0;
        let mut asked = false;
        self.settle(&hands);
        while !hands.is_empty() {
            tokio::select! {
                snapshot = desk.snapshot() => self.snapshot_arrived(&snapshot, &hands),
                () = changed.notified() => {
                    cut += reap(&mut hands, *self.signals.stop.borrow())?;
                    self.pass_over();
                    self.tell_wanted();
                    self.settle(&hands);
                }
                Some(finding) = self.findings.recv() => self.found(finding),
                _ = seconds.tick() => self.second_passed(),
                _ = terminate.recv() => self.stop(),
                // A caller that dropped its end has no say any more; it did not ask to stop.
                told = &mut stop, if !asked => {
                    asked = true;
                    if told.is_ok() {
                        self.stop();
                    }
                }
            }
        }
        side_tasks.shutdown().await;
        Ok(if cut == 0 { ExitReason::Drained } else { ExitReason::DeadlinePassed { cut } })
    }

    fn stop(&self) {
        events::draining();
        self.signals.stop.send_replace(true);
    }
}

/// Takes the workers off the list that ended, and sums up what they had to cut.
fn reap(hands: &mut Vec<Hand>, stopping: bool) -> Result<usize, EdgeError> {
    let mut cut = 0;
    let mut died = false;
    hands.retain_mut(|hand| match hand.ended.try_recv() {
        Ok(count) => {
            cut += count;
            died |= !stopping;
            false
        }
        Err(oneshot::error::TryRecvError::Empty) => true,
        Err(oneshot::error::TryRecvError::Closed) => {
            died = true;
            false
        }
    });
    if died { Err(EdgeError::WorkerDied) } else { Ok(cut) }
}

/// Says once that the supervisor has died: nothing was ever written to the pipe, so any end of reading is that.
async fn watch_leash(leash: Option<pipe::Receiver>) {
    use tokio::io::AsyncReadExt;
    let Some(mut leash) = leash else { return };
    let mut byte = [0];
    while matches!(leash.read(&mut byte).await, Ok(count) if count > 0) {}
    events::supervisor_died();
}

async fn hand_over(
    socket: Option<UnixListener>,
    owner_uid: u32,
    listeners: Listeners,
    passed_on: Arc<AtomicBool>,
) {
    let Some(socket) = socket else { return };
    loop {
        let outcome = match socket.accept().await.and_then(|(peer, _)| peer.into_std()) {
            Ok(peer) => handover::send(&peer, owner_uid, &listeners),
            Err(error) => {
                events::handover_failed(&error.into());
                // The usual reason is a lack of file descriptors; trying at once would only repeat it.
                tokio::time::sleep(COUNTS_EVERY).await;
                continue;
            }
        };
        match outcome {
            Ok(()) => {
                passed_on.store(true, SeqCst);
                events::handed_over();
            }
            Err(error) => events::handover_failed(&error),
        }
    }
}
