//! Control's side of edge: writes routing snapshots durably, sends them, and keeps what edge says.
//!
//! Any number of edge processes may be connected, since an old one may still drain beside its successor. What counts as applied is the
//! least of all that live, and what counts as drained is what all of them have drained. An edge process is gone when its pidfd says so
//! and not before: a connection that ends proves nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_control::event::Ordinal;
use berth_control::invariant::{check_routes, check_snapshot};
use berth_control::route::{must_publish, snapshot};
use berth_control::state::App;
use berth_control::world::{Edge, EdgeProcess, Probed};
use berth_process::Identity;
use berth_routing::wire::{AppCounts, Decoder, FromEdge, Health, PROTOCOL, ToEdge, encode};
use berth_routing::{Generation, Snapshot};
use berth_spec::{AppId, InstanceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::desk::Desk;
use crate::events;

/// The file that edge boots from, in the routing directory.
const CURRENT: &str = "current.json";

/// What control knows of edge.
#[derive(Debug)]
pub struct EdgeLink {
    dir: PathBuf,
    group: Option<u32>,
    known: Mutex<Known>,
    newest: watch::Sender<Arc<Snapshot>>,
}

#[derive(Debug, Default)]
struct Known {
    durable: Generation,
    edges: BTreeMap<u32, Process>,
    counts: BTreeMap<AppId, Totals>,
}

#[derive(Debug)]
struct Process {
    identity: Identity,
    applied: Generation,
    drained: BTreeMap<InstanceId, Generation>,
    health: BTreeMap<InstanceId, Probed>,
}

/// An app's requests since control started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answered, by status class from 1xx to 5xx.
    pub by_class: [u64; 5],
    /// Handed to no instance.
    pub unserved: u64,
}

impl EdgeLink {
    /// A link that goes on from the snapshot in `dir`, if there is one. Files are readable for `group`, edge's own.
    ///
    /// # Errors
    /// When the directory cannot be read. A snapshot that cannot be read is treated as none: it is derived anew at once.
    pub fn open(dir: &Path, group: Option<u32>) -> io::Result<Self> {
        let last = match std::fs::read(dir.join(CURRENT)) {
            Ok(bytes) => serde_json::from_slice::<Snapshot>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let last = last.filter(|it| it.format <= Snapshot::FORMAT).unwrap_or_default();
        let known = Known { durable: last.generation, ..Known::default() };
        let newest = watch::Sender::new(Arc::new(last));
        Ok(Self { dir: dir.to_owned(), group, known: Mutex::new(known), newest })
    }

    /// Makes the routing of what is durable known: on disk first, then to every edge. Returns whether it changed.
    pub fn publish(&self, desk: &Desk) -> bool {
        let last = Arc::clone(&self.newest.borrow());
        let newer = desk.read(|state| {
            let newer = snapshot(state);
            let publish = newer.generation > last.generation && must_publish(&last, &newer, state);
            publish.then(|| {
                events::breach(check_routes(state, &newer));
                newer
            })
        });
        let Some(newer) = newer else {
            return false;
        };
        let path = self.dir.join(CURRENT);
        let bytes = serde_json::to_vec(&newer).expect("a snapshot is plain data with string keys");
        if let Err(error) = write_durably(&path, &bytes, self.group) {
            events::snapshot_not_written(newer.generation, &path, &error);
            return false;
        }
        events::snapshot_written(newer.generation, newer.apps.len());
        self.with(|known| known.durable = newer.generation);
        self.newest.send_replace(Arc::new(newer));
        true
    }

    /// Has the apps looked at again that wait for a snapshot to be durable or applied.
    pub fn wake_waiting(&self, desk: &Desk) {
        desk.changed().extend(waiting(desk));
    }

    /// Edge as a plan needs it. Processes that are proven dead are forgotten here.
    pub fn observe(&self) -> Edge {
        self.with(|known| {
            known.edges.retain(|&pid, process| {
                // What /proc cannot tell is not proven.
                let alive = process.identity.is_alive().unwrap_or(true);
                if !alive {
                    events::edge_gone(pid);
                }
                alive
            });
            let applied = known.edges.values().map(|process| process.applied).min();
            Edge { durable: known.durable, alive: applied.map(|applied| EdgeProcess { applied }) }
        })
    }

    /// What the edge processes say of an instance's health; the newest process decides.
    #[must_use]
    pub fn health(&self, instance: &InstanceId) -> Option<Probed> {
        self.with(|known| {
            known.edges.values().rev().find_map(|process| process.health.get(instance).cloned())
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

    /// The edge processes that are connected or draining.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.with(|known| known.edges.keys().copied().collect())
    }

    /// What passed since control started.
    #[must_use]
    pub fn totals(&self, app: &AppId) -> Totals {
        self.with(|known| known.counts.get(app).copied().unwrap_or_default())
    }

    /// Accepts edges on `listener` until the task is dropped. A peer must be one of `uids`.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, uids: Vec<u32>, desk: Desk) {
        let mut links = JoinSet::new();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    events::could_not("accept edge", &error);
                    // Out of descriptors: others have to be closed first.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            while links.try_join_next().is_some() {}
            let peer = stream.peer_cred();
            let pid = peer.as_ref().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
            match (peer, pid) {
                (Ok(peer), Some(pid)) if uids.contains(&peer.uid()) => {
                    links.spawn(Arc::clone(&self).talk(stream, pid, desk.clone()));
                }
                _ => events::edge_refused("the peer is neither edge nor the platform's owner"),
            }
        }
    }

    async fn talk(self: Arc<Self>, stream: UnixStream, pid: u32, desk: Desk) {
        let Ok(Some(identity)) = Identity::of(pid) else {
            return;
        };
        let (mut reading, mut writing) = stream.into_split();
        let hello = encode(&ToEdge::Hello { protocol: PROTOCOL }).expect("a hello is short");
        if writing.write_all(&hello).await.is_err() {
            return;
        }
        let mut newest = self.newest.subscribe();
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 << 10];
        let mut greeted = false;
        loop {
            tokio::select! {
                read = reading.read(&mut buffer) => {
                    let Ok(length @ 1..) = read else { return };
                    decoder.feed(&buffer[..length]);
                    loop {
                        match decoder.message::<FromEdge>() {
                            Ok(Some(FromEdge::Hello { protocol, pid: said })) => {
                                if protocol != PROTOCOL || said != pid || greeted {
                                    events::edge_refused("it speaks another protocol or is not who it says");
                                    return;
                                }
                                greeted = true;
                                self.greet(pid, identity.clone());
                                newest.mark_changed();
                            }
                            Ok(Some(_)) if !greeted => {
                                events::edge_refused("it did not say hello first");
                                return;
                            }
                            Ok(Some(message)) => self.hear(pid, message, &desk),
                            Ok(None) => break,
                            Err(error) => {
                                events::edge_refused(&error.to_string());
                                return;
                            }
                        }
                    }
                }
                sent = newest.changed(), if greeted => {
                    if sent.is_err() {
                        return;
                    }
                    let snapshot = Arc::clone(&newest.borrow_and_update());
                    if !self.send(&mut writing, pid, &snapshot).await {
                        return;
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        writing: &mut tokio::net::unix::OwnedWriteHalf,
        pid: u32,
        snapshot: &Snapshot,
    ) -> bool {
        let (applied, durable) = self.with(|known| {
            (known.edges.get(&pid).map(|process| process.applied).unwrap_or_default(), known.durable)
        });
        events::breach(check_snapshot(applied, durable, snapshot));
        let frame = match encode(&ToEdge::Snapshot(snapshot.clone())) {
            Ok(frame) => frame,
            Err(error) => {
                events::could_not("encode a routing snapshot", &error);
                return false;
            }
        };
        writing.write_all(&frame).await.is_ok()
    }

    fn greet(&self, pid: u32, identity: Identity) {
        events::edge_connected(pid);
        let fresh = Process {
            identity,
            applied: Generation::default(),
            drained: BTreeMap::new(),
            health: BTreeMap::new(),
        };
        self.with(|known| known.edges.insert(pid, fresh));
    }

    fn hear(&self, pid: u32, message: FromEdge, desk: &Desk) {
        let apps = self.with(|known| {
            let Some(process) = known.edges.get_mut(&pid) else {
                return Vec::new();
            };
            match message {
                FromEdge::Hello { .. } => Vec::new(),
                FromEdge::Applied { generation } => {
                    process.applied = process.applied.max(generation);
                    waiting(desk)
                }
                FromEdge::Drained { instance, generation } => {
                    let app = instance.app.clone();
                    process.drained.insert(instance, generation);
                    vec![app]
                }
                FromEdge::Health { instance, health, evidence } => {
                    let app = instance.app.clone();
                    process.health.insert(instance, Probed { health, evidence });
                    vec![app]
                }
                FromEdge::Counts { apps } => {
                    for counts in apps {
                        add(known.counts.entry(counts.app.clone()).or_default(), &counts);
                    }
                    Vec::new()
                }
            }
        });
        desk.changed().extend(apps);
    }

    /// Forgets what edge said of instances that are gone, so that what is kept is bounded by what runs.
    pub fn forget(&self, instance: &InstanceId) {
        self.with(|known| {
            for process in known.edges.values_mut() {
                process.drained.remove(instance);
                process.health.remove(instance);
            }
        });
    }

    /// Whether an instance counts as ready by edge.
    #[must_use]
    pub fn is_ready(&self, instance: &InstanceId) -> bool {
        self.health(instance).is_some_and(|probed| probed.health == Health::Ready)
    }

    /// The ports that edge may still reach: those of the newest snapshot.
    #[must_use]
    pub fn ports_in_use(&self) -> std::collections::BTreeSet<u16> {
        let newest = self.newest.borrow();
        let backends = newest.apps.values().flat_map(|route| &route.backends);
        backends
            .map(|backend| match &backend.endpoint {
                berth_routing::Endpoint::Tcp { addr } => addr.port(),
            })
            .collect()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The apps that may be waiting for edge to apply a snapshot.
fn waiting(desk: &Desk) -> Vec<AppId> {
    let waits = |app: &App| app.activation.is_some() || app.instances.values().any(|it| !it.is_wanted());
    desk.read(|state| state.apps.values().filter(|it| waits(it)).map(|it| it.id.clone()).collect())
}

fn add(totals: &mut Totals, counts: &AppCounts) {
    for (total, count) in totals.by_class.iter_mut().zip(counts.by_class) {
        *total = total.saturating_add(count);
    }
    totals.unserved = totals.unserved.saturating_add(counts.unserved);
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
