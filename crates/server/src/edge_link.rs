//! The link to edge: makes routing snapshots durable, sends them, and keeps what edge says.
//!
//! Any number of edge processes may be connected, since an old one may still drain beside its successor. What counts as applied is the
//! least of all that live, and what counts as drained is what all of them have drained. An edge process is gone when `/proc` says so
//! and not before: a connection that ends proves nothing. One that has not said hello yet shows by its [claim](EdgeClaims), and counts as
//! one that has applied nothing; so does none at all, since one is about to be started.

mod certificates;
mod claims;
mod comparisons;
mod sleep;
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_clock::Clock;
use berth_control::event::Ordinal;
use berth_control::invariant::check_routes;
use berth_control::route::{is_behind, must_publish, snapshot};
use berth_control::state::App;
use berth_control::world::{Compared, Edge, EdgeProcess, Probed};
use berth_process::Identity;
use berth_routing::wire::{FrameError, FromEdge, Health, ToEdge, encode};
use berth_routing::{Endpoint, Generation, Names, Snapshot};
use berth_spec::{AppId, InstanceId};
use tokio::sync::watch;

pub use self::certificates::CertificateShelf;
pub use self::claims::EdgeClaims;
use self::comparisons::Comparisons;
use crate::desk::Desk;
use crate::events;

/// The file that edge boots from, in the routing directory.
const CURRENT: &str = "current.json";
/// Of how many of edge's answers the evidence for an instance's health is kept, and how many bytes of each: edge is not trusted
/// with control's memory.
const EVIDENCE: usize = 5;
const EVIDENCE_BYTES: usize = 300;

/// What control knows of edge.
#[derive(Debug)]
pub struct EdgeLink {
    dir: PathBuf,
    group: Option<u32>,
    shelf: CertificateShelf,
    claims: EdgeClaims,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    newest: watch::Sender<Arc<Newest>>,
    /// What all living edges went by when one of them last said so.
    applied: watch::Sender<Generation>,
    /// The releases between which requests are shared, beside each other.
    comparisons: Comparisons,
    /// Whether every app has to be compared with the newest snapshot, and not only what changed since: at first, and while one that had
    /// to be written could not be.
    compare_all: AtomicBool,
    /// The version of the platform's own stream that the newest snapshot shows.
    platform: AtomicU64,
}

/// The newest snapshot that is durable, and the frame that tells edge of it.
#[derive(Debug)]
struct Newest {
    snapshot: Snapshot,
    frame: Vec<u8>,
}

impl Newest {
    fn new(snapshot: Snapshot) -> Result<Self, FrameError> {
        let message = ToEdge::Snapshot(snapshot);
        let frame = encode(&message)?;
        match message {
            ToEdge::Snapshot(snapshot) => Ok(Self { snapshot, frame }),
            ToEdge::Hello { .. } => unreachable!("it was made a snapshot above"),
        }
    }

    /// The ports of this machine's that edge sends to.
    fn ports(&self) -> impl Iterator<Item = u16> {
        let backends = self.snapshot.apps.values().flat_map(|route| &route.backends);
        backends.filter_map(|backend| match &backend.endpoint {
            Endpoint::Tcp { addr } => Some(addr.port()),
            Endpoint::Dialer { .. } => None,
        })
    }
}

#[derive(Debug, Default)]
struct Known {
    durable: Generation,
    edges: BTreeMap<u32, Process>,
    /// How many edges have said hello so far.
    greetings: u64,
    /// When it was last heard of somebody who keeps an app awake. Bounded by the apps there ever were.
    stirred: BTreeMap<AppId, Duration>,
    /// The last generation that has a port, for every port that some living edge may still send to. Bounded by the number of ports.
    ports: BTreeMap<u16, Generation>,
}

#[derive(Debug)]
struct Process {
    identity: Identity,
    /// Which greeting it was, so that the newest of them is known and a connection that was replaced has no say.
    greeting: u64,
    applied: Generation,
    drained: BTreeMap<InstanceId, Generation>,
    health: BTreeMap<InstanceId, Probed>,
    /// Instances that have nothing under way but what stands open.
    still: BTreeMap<InstanceId, Generation>,
    /// Apps that somebody waits for, with the sleep that is meant.
    wanted: BTreeMap<AppId, Generation>,
}

impl Known {
    /// The least generation that some edge may still go by.
    ///
    /// While there are more than have said hello nothing counts as applied: after a restart of control, or because one has just been
    /// started and booted from an older file. The planner has an edge that does not say so started again.
    ///
    /// This is called under the lock that `durable` is changed under, and the claims are counted before the deaths: an edge that is in
    /// neither has yet to be started, and will boot from what is durable now or newer.
    fn applied(&mut self, claims: &EdgeClaims) -> Generation {
        let living = claims.living();
        self.edges.retain(|&pid, process| {
            // What /proc cannot tell is not proven.
            let alive = process.identity.is_alive().unwrap_or(true);
            if !alive {
                events::edge_gone(pid);
            }
            alive
        });
        match living {
            Ok(living) if living <= self.edges.len() => {
                self.edges.values().map(|process| process.applied).min().unwrap_or_default()
            }
            Ok(_) => Generation::default(),
            Err(error) => {
                events::could_not("count the edges that live", &error);
                Generation::default()
            }
        }
    }

    fn free_ports(&mut self, claims: &EdgeClaims) {
        let least = self.applied(claims);
        self.ports.retain(|_, last| *last >= least);
    }
}

impl EdgeLink {
    /// A link that goes on from the snapshot in `dir`, if there is one. Files are readable for `group`, edge's own; `claims` tell which
    /// edges live.
    ///
    /// # Errors
    /// When the directory cannot be read. A snapshot that cannot be read is treated as none: it is derived anew at once.
    pub fn open(
        dir: &Path,
        group: Option<u32>,
        claims: EdgeClaims,
        shelf: CertificateShelf,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let last = match std::fs::read(dir.join(CURRENT)) {
            Ok(bytes) => serde_json::from_slice::<Snapshot>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let last = last.filter(|it| it.format <= Snapshot::FORMAT);
        if let Some(last) = &last {
            // A control that ended between a snapshot and this left keys that nothing names.
            shelf.keep(last);
        }
        let last = last.unwrap_or_default();
        let newest = Newest::new(last).map_err(io::Error::other)?;
        let durable = newest.snapshot.generation;
        let ports = newest.ports().map(|port| (port, durable)).collect();
        let known = Known { durable, ports, ..Known::default() };
        Ok(Self {
            dir: dir.to_owned(),
            group,
            shelf,
            claims,
            clock,
            known: Mutex::new(known),
            newest: watch::Sender::new(Arc::new(newest)),
            applied: watch::Sender::new(Generation::default()),
            comparisons: Comparisons::default(),
            compare_all: AtomicBool::new(true),
            platform: AtomicU64::new(0),
        })
    }

    /// Makes the routing of what is durable known: on disk first, then to every edge. Gives whether it changed. Blocks; one caller.
    ///
    /// # Errors
    /// When it cannot be written. Edge keeps what it has, and the next call tries again.
    pub fn publish(&self, desk: &Desk) -> io::Result<bool> {
        let last = Arc::clone(&self.newest.borrow());
        let all = self.compare_all.load(Ordering::Relaxed);
        // A copy shares every app, so the desk waits for as long as that takes and not until the routes are derived.
        let state = desk.read_changed(|state, changed| {
            let mut changed = changed.iter().filter_map(|id| state.apps.get(id));
            // Certificates are the platform's: they are compared when anything of it changed, which is seldom.
            let platform = state.platform.version != self.platform.load(Ordering::Relaxed);
            (all || platform || changed.any(|app| is_behind(&last.snapshot, app))).then(|| state.clone())
        });
        let Some(state) = state else {
            return Ok(false);
        };
        self.compare_all.store(true, Ordering::Relaxed);
        let newer = snapshot(&state);
        let platform = state.platform.version;
        if !must_publish(&last.snapshot, &newer, &state) {
            self.compare_all.store(false, Ordering::Relaxed);
            self.platform.store(platform, Ordering::Relaxed);
            return Ok(false);
        }
        if newer.generation <= last.snapshot.generation {
            // This version derives something else from the same state: it needs a generation of its own, which the next event gives it.
            return Ok(false);
        }
        events::breach(check_routes(&state, &newer));
        // Before the snapshot that names them.
        self.shelf.put(&newer, &state)?;
        let path = self.dir.join(CURRENT);
        let bytes = serde_json::to_vec(&newer)?;
        let newer = Newest::new(newer).map_err(io::Error::other)?;
        write_durably(&path, &bytes, self.group)?;
        self.compare_all.store(false, Ordering::Relaxed);
        self.platform.store(platform, Ordering::Relaxed);
        self.shelf.keep(&newer.snapshot);
        let generation = newer.snapshot.generation;
        events::snapshot_written(generation, newer.snapshot.apps.len());
        self.with(|known| {
            known.durable = generation;
            known.ports.extend(newer.ports().map(|port| (port, generation)));
            known.free_ports(&self.claims);
        });
        self.newest.send_replace(Arc::new(newer));
        Ok(true)
    }

    /// The names of apps as of the newest snapshot that is durable.
    #[must_use]
    pub fn names(&self) -> Names {
        Names::of(&self.newest.borrow().snapshot)
    }

    /// Has the apps looked at again that wait for a snapshot to be durable or applied.
    pub fn wake_waiting(&self, desk: &Desk) {
        desk.changed().extend(waiting(desk));
    }

    /// Edge as a plan needs it. Processes that are proven dead are forgotten here.
    pub fn observe(&self) -> Edge {
        self.with(|known| {
            let applied = known.applied(&self.claims);
            Edge { durable: known.durable, alive: Some(EdgeProcess { applied }) }
        })
    }

    /// What the edge processes say of an instance's health; the one that connected last decides.
    #[must_use]
    pub fn health(&self, instance: &InstanceId) -> Option<Probed> {
        self.with(|known| {
            let said = known.edges.values().filter_map(|it| Some((it.greeting, it.health.get(instance)?)));
            said.max_by_key(|(greeting, _)| *greeting).map(|(_, probed)| probed.clone())
        })
    }

    /// The generation as of which every living edge has drained the instance.
    #[must_use]
    pub fn drained(&self, instance: &InstanceId) -> Option<Generation> {
        self.with(|known| {
            let all: Option<Vec<Generation>> =
                known.edges.values().map(|process| process.drained.get(instance).copied()).collect();
            all.and_then(|generations| generations.into_iter().min())
        })
    }

    /// The health and the drains of one app's instances, by ordinal.
    #[must_use]
    pub fn of_app(
        &self,
        ids: &[(Ordinal, InstanceId)],
    ) -> (BTreeMap<Ordinal, Probed>, BTreeMap<Ordinal, Generation>) {
        let health = ids.iter().filter_map(|(ordinal, id)| Some((*ordinal, self.health(id)?))).collect();
        let drained = ids.iter().filter_map(|(ordinal, id)| Some((*ordinal, self.drained(id)?))).collect();
        (health, drained)
    }

    /// What was seen of the release that the app's requests are shared with, beside the one that serves.
    #[must_use]
    pub fn compared(&self, app: &App) -> Option<Compared> {
        self.comparisons.of(app)
    }

    /// Waits until every living edge goes by what the journal held at `position`, for at most `limit`; gives whether it does.
    pub async fn follows(&self, position: u64, limit: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let follows = applied.wait_for(|applied| applied.0 >= position);
        tokio::time::timeout(limit, follows).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Waits until every living edge answers the challenge with this token, for at most `limit`; gives whether it does.
    pub async fn answers(&self, token: &str, limit: Duration) -> bool {
        let answered = async {
            let mut newest = self.newest.subscribe();
            let has = |newest: &Arc<Newest>| newest.snapshot.challenges.iter().any(|it| it.token == token);
            let generation = newest.wait_for(has).await.ok()?.snapshot.generation;
            self.applied.subscribe().wait_for(|applied| *applied >= generation).await.ok().map(drop)
        };
        tokio::time::timeout(limit, answered).await.is_ok_and(|answered| answered.is_some())
    }

    /// The edge processes that are connected or draining.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.with(|known| known.edges.keys().copied().collect())
    }

    /// Forgets what edge said of instances that are gone, so that what is kept is bounded by what runs.
    pub fn forget(&self, instance: &InstanceId) {
        self.with(|known| {
            for process in known.edges.values_mut() {
                process.drained.remove(instance);
                process.health.remove(instance);
                process.still.remove(instance);
            }
        });
    }

    /// Whether an instance counts as ready by edge.
    #[must_use]
    pub fn is_ready(&self, instance: &InstanceId) -> bool {
        self.health(instance).is_some_and(|probed| probed.health == Health::Ready)
    }

    /// The ports that edge may still send to: those of the newest snapshot, and those of older ones until every edge has applied one
    /// without them. Should an instance that was lost leave its port, another app must not find itself behind it.
    #[must_use]
    pub fn ports_in_use(&self) -> BTreeSet<u16> {
        self.with(|known| {
            known.free_ports(&self.claims);
            known.ports.keys().copied().collect()
        })
    }

    fn greet(&self, pid: u32, identity: Identity) -> u64 {
        events::edge_connected(pid);
        self.with(|known| {
            known.greetings += 1;
            let greeting = known.greetings;
            let applied = Generation::default();
            let fresh = Process {
                identity,
                greeting,
                applied,
                drained: BTreeMap::new(),
                health: BTreeMap::new(),
                still: BTreeMap::new(),
                wanted: BTreeMap::new(),
            };
            known.edges.insert(pid, fresh);
            greeting
        })
    }

    /// Takes in what the edge `pid` said on the connection that began with `greeting`.
    fn hear(&self, pid: u32, greeting: u64, message: FromEdge, desk: &Desk) {
        // What it says of instances that there are not is not kept: it would be kept for ever.
        let is_known = |instance: &InstanceId| {
            desk.read(|state| {
                let app = state.apps.get(&instance.app);
                app.and_then(|app| app.instance_id(instance.ordinal)).as_ref() == Some(instance)
            })
        };
        let said: Box<dyn FnOnce(&mut Process) + '_> = match &message {
            FromEdge::Hello { .. } => return,
            // Of the rest of the counts telemetry will make something, which does not listen yet.
            FromEdge::Counts { apps } => {
                apps.iter().for_each(|counts| self.comparisons.hear(counts, desk));
                return self.note_activity(apps, desk);
            }
            FromEdge::Applied { generation } => {
                Box::new(|process| process.applied = process.applied.max(*generation))
            }
            FromEdge::Drained { instance, .. }
            | FromEdge::Still { instance, .. }
            | FromEdge::Health { instance, .. }
                if !is_known(instance) =>
            {
                return;
            }
            FromEdge::Wanted { app, .. } if desk.app(app).is_none() => return,
            FromEdge::Wanted { app, asleep } => Box::new(|process| {
                process.wanted.insert(app.clone(), *asleep);
            }),
            FromEdge::Still { instance, generation } => Box::new(|process| {
                process.still.insert(instance.clone(), *generation);
            }),
            FromEdge::Drained { instance, generation } => Box::new(|process| {
                process.drained.insert(instance.clone(), *generation);
            }),
            FromEdge::Health { instance, health, evidence } => {
                let probed = Probed { health: *health, evidence: shortened(evidence) };
                Box::new(|process| {
                    process.health.insert(instance.clone(), probed);
                })
            }
        };
        let heard = self.with(|known| {
            let process = known.edges.get_mut(&pid).filter(|process| process.greeting == greeting);
            process.map(said).is_some()
        });
        if !heard {
            return;
        }
        match message {
            FromEdge::Applied { .. } => {
                self.applied.send_replace(self.with(|known| known.applied(&self.claims)));
                self.wake_waiting(desk);
            }
            FromEdge::Drained { instance, .. }
            | FromEdge::Still { instance, .. }
            | FromEdge::Health { instance, .. } => desk.changed().add(instance.app),
            FromEdge::Wanted { app, .. } => desk.changed().add(app),
            FromEdge::Hello { .. } | FromEdge::Counts { .. } => {}
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The newest lines of evidence, newest last.
fn shortened(evidence: &[String]) -> Vec<String> {
    let newest = evidence.iter().skip(evidence.len().saturating_sub(EVIDENCE));
    let short =
        |line: &String| line.get(..line.floor_char_boundary(EVIDENCE_BYTES)).unwrap_or_default().to_owned();
    newest.map(short).collect()
}

/// The apps that may be waiting for edge to apply a snapshot.
fn waiting(desk: &Desk) -> Vec<AppId> {
    let waits = |app: &App| app.activation.is_some() || app.instances.values().any(|it| !it.is_wanted());
    desk.read(|state| state.apps.values().filter(|it| waits(it)).map(|it| it.id.clone()).collect())
}

/// Replaces `path` so that after a crash it holds either what it held or all of `bytes`.
fn write_durably(path: &Path, bytes: &[u8], group: Option<u32>) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let staged = path.with_extension("next");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(bytes)?;
    if let Some(group) = group {
        std::os::unix::fs::fchown(&file, None, Some(group))?;
        file.set_permissions(std::fs::Permissions::from_mode(0o640))?;
    }
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
