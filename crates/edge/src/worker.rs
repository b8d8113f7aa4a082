//! One thread of edge: its listener, its clients, its pool, and the snapshot that it uses.

mod accepting;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use berth_clock::{Clock, random_bytes};
use berth_routing::retry;
use berth_spec::{Gate, Proxies};
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::access_log::{Buffer, Line};
use crate::activity::Activity;
use crate::address::Connections;
use crate::app::App;
use crate::backend::{Backend, InFlight};
use crate::cache::Cache;
use crate::client::{self, Client, Origin};
use crate::dial::Dialers;
use crate::fleet::{Fleet, Named};
use crate::headers::RequestId;
use crate::http1::{Buffers, Pipes};
use crate::http2::Lines;
use crate::limits::Limits;
use crate::proxied;
use crate::queue::Queue;
use crate::rate::Exceeded;
use crate::record::Record;
use crate::upstream::{self, Pool, Sender, UpstreamStream};
use crate::visit::Visit;
use crate::{Http1, events, preface};

pub(crate) use self::accepting::{is_about_one_connection, run};

/// How long a request waits for an app that edge could not read about when it started.
const UNKNOWN_HOLD: Duration = Duration::from_secs(5);
/// How long a request waits in line for an instance to have room, also where the app takes its time to wake: it is awake by then.
const LINE_HOLD: Duration = Duration::from_secs(5);
/// How long a request waits for an app that is paused.
const PAUSED_HOLD: Duration = Duration::from_secs(30);

/// What the control thread and a worker share.
#[derive(Debug)]
pub(crate) struct Orders {
    /// The snapshot to use.
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    /// Changes when some instance's health did, so that requests that wait try again.
    pub(crate) stir: watch::Receiver<u64>,
    /// True when it is time to go.
    pub(crate) stop: watch::Receiver<bool>,
    /// Whether another edge has the listeners by then.
    pub(crate) passed_on: Arc<AtomicBool>,
    /// Instances whose calls of other apps this thread takes, by the sockets at which their shims are asked.
    pub(crate) callers: mpsc::Receiver<PathBuf>,
}

/// How far one worker is, for the control thread.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// The generation that it uses. From the moment this is stored, no pick of this thread is by an older one.
    pub(crate) generation: AtomicU64,
    /// Woken after each change.
    pub(crate) changed: Arc<Notify>,
}

/// Which app is meant.
pub(crate) enum Target {
    /// The one that has this host.
    Host(String),
    /// The one that an instance of its project calls.
    Named(Named),
}

/// Where a request waits, and for how long in all.
pub(crate) struct Held {
    pub(crate) queue: Arc<Queue>,
    pub(crate) patience: Duration,
    /// The app's, which waiting keeps awake.
    pub(crate) activity: Option<Arc<Activity>>,
}

impl Held {
    /// Waits for `pause`, or less when something changed that may let a request through. False when too many wait.
    pub(crate) async fn wait(&self, worker: &Worker, pause: Duration) -> bool {
        let _waits = self.activity.as_ref().map(Activity::hold);
        self.queue.wait(worker, pause).await
    }
}

/// Where a request may go.
pub(crate) enum Choice {
    Backend(InFlight),
    /// Nowhere until one of the instances has room, which is waited for in line.
    Full(Held),
    /// Nowhere yet.
    Wait(Held),
    /// Nowhere until the app wakes.
    Asleep(Held),
    /// Nowhere until somebody lets requests through again.
    Paused(Held),
    /// Nowhere: the app is under maintenance.
    Maintenance,
    /// Nowhere: there are as many requests by its rule as there may be.
    Crowded,
    NoApp,
}

/// What clients may speak, and who reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spoken {
    pub(crate) http1: Http1,
    /// Whether HTTP/2 is spoken without TLS too.
    pub(crate) h2c: bool,
}

/// The state of one thread.
pub(crate) struct Worker {
    clock: Arc<dyn Clock>,
    limits: Limits,
    proxies: Arc<Proxies>,
    fleet: RefCell<Arc<Fleet>>,
    pool: RefCell<Pool<Sender>>,
    /// Those of our own codec.
    streams: RefCell<Pool<UpstreamStream>>,
    buffers: Rc<Buffers>,
    pipes: Rc<Pipes>,
    /// The date as heads have it, as of the last tick.
    date: Cell<Date>,
    spoken: Spoken,
    /// Those that many requests ride at a time.
    lines: RefCell<Lines>,
    dialers: RefCell<Dialers>,
    stirred: Notify,
    random: Cell<u64>,
    log: RefCell<Option<Buffer>>,
    /// The port of the listener for HTTPS.
    secure_port: Option<u16>,
    tasks: RefCell<JoinSet<()>>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    addresses: Rc<Connections>,
    tunnels: Cell<usize>,
    left: Notify,
    draining: Cell<bool>,
}

/// The app that is meant, if there is one.
fn app_of<'f>(fleet: &'f Fleet, target: &Target) -> Option<&'f Arc<App>> {
    match target {
        Target::Host(host) => fleet.app(host),
        Target::Named(named) => fleet.named(named),
    }
}

/// Counts a tunnel for as long as it exists.
pub(crate) struct TunnelGuard(Rc<Worker>);

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.0.tunnels.set(self.0.tunnels.get() - 1);
        self.0.left.notify_one();
    }
}

impl Worker {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        limits: Limits,
        proxies: Arc<Proxies>,
        fleet: Arc<Fleet>,
        log: Option<Buffer>,
        secure_port: Option<u16>,
        spoken: Spoken,
    ) -> Rc<Self> {
        let random = u64::from_le_bytes(random_bytes(&*clock));
        Rc::new(Self {
            limits,
            proxies,
            fleet: RefCell::new(fleet),
            pool: RefCell::default(),
            streams: RefCell::default(),
            buffers: Rc::default(),
            pipes: Rc::default(),
            date: Cell::new(date(&*clock)),
            spoken,
            lines: RefCell::default(),
            dialers: RefCell::default(),
            stirred: Notify::new(),
            random: Cell::new(random),
            log: RefCell::new(log),
            secure_port,
            tasks: RefCell::default(),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            addresses: Rc::default(),
            tunnels: Cell::new(0),
            left: Notify::new(),
            draining: Cell::new(false),
            clock,
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(crate) fn secure_port(&self) -> Option<u16> {
        self.secure_port
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Who reads HTTP/1.
    pub(crate) fn http1(&self) -> Http1 {
        self.spoken.http1
    }

    pub(crate) fn buffers(&self) -> &Rc<Buffers> {
        &self.buffers
    }

    pub(crate) fn pipes(&self) -> &Rc<Pipes> {
        &self.pipes
    }

    /// The date for an answer that has none (RFC 9110, 6.6.1).
    pub(crate) fn date(&self) -> Date {
        self.date.get()
    }

    /// The connections of HTTP/2 to instances.
    pub(crate) fn lines(&self) -> &RefCell<Lines> {
        &self.lines
    }

    pub(crate) fn takes_h2c(&self) -> bool {
        self.spoken.h2c
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a client may ask this once more, by the rate limits of the app. What instances ask of each other is not limited.
    pub(crate) fn admit_rate(
        &self,
        target: &Target,
        origin: &Origin,
        request: &Request<Incoming>,
        record: &mut Record,
    ) -> Result<(), Exceeded> {
        let fleet = self.fleet.borrow();
        let (Origin::Outside { peer, .. }, Target::Host(host), true) = (origin, target, fleet.limits_rates)
        else {
            return Ok(());
        };
        let Some(app) = fleet.app(host).filter(|app| app.limiter.has_rules()) else { return Ok(()) };
        record.set_app(&app.counters);
        let peer = peer.to_str().ok().and_then(|peer| peer.parse().ok());
        let Some(peer) = peer else { return Ok(()) };
        app.limiter.admit(
            request.method().as_str(),
            request.uri().path(),
            peer,
            request.headers(),
            self.now(),
        )
    }

    /// Chooses by the snapshot in use, and counts the choice, without an await in between: the thread cannot take on
    /// another snapshot, and say so, in the middle. Who does not have its `turn` stands behind those that wait in line.
    pub(crate) fn choose(
        &self,
        target: &Target,
        tried: &[u64],
        turn: bool,
        record: Option<&mut Record>,
    ) -> Choice {
        let fleet = self.fleet.borrow();
        let Some(app) = app_of(&fleet, target) else {
            let queue = Arc::clone(&fleet.unknown);
            let held = Held { queue, patience: UNKNOWN_HOLD, activity: None };
            return if fleet.complete { Choice::NoApp } else { Choice::Wait(held) };
        };
        let visit = record.as_ref().and_then(|record| record.visit());
        let mut record = record;
        if let Some(record) = &mut record {
            record.set_app(&app.counters);
        }
        let held = |patience| {
            let (queue, activity) = (Arc::clone(&app.queue), Some(Arc::clone(&app.activity)));
            Held { queue, patience, activity }
        };
        match app.gate {
            Gate::Open => {}
            Gate::Paused => return Choice::Paused(held(PAUSED_HOLD)),
            Gate::Maintenance => return Choice::Maintenance,
        }
        if record.as_mut().is_some_and(|record| record.enter(&app.routes).is_err()) {
            return Choice::Crowded;
        }
        app.activity.stir();
        if app.asleep {
            return Choice::Asleep(held(app.hold));
        }
        if !turn && app.queue.has_line() {
            return Choice::Full(held(app.hold.min(LINE_HOLD)));
        }
        let visit = visit.unwrap_or_else(|| Visit::new(self.random()));
        let random = self.random();
        let random = ((random >> 32) as u32, (random & 0xffff_ffff) as u32);
        match app.pick(visit, tried, random) {
            Some(lease) => {
                if let Some(record) = record {
                    record.set_tally(app.tally_of(visit, &lease));
                }
                Choice::Backend(lease)
            }
            None if app.has_besides(tried) => Choice::Full(held(app.hold.min(LINE_HOLD))),
            None => Choice::Wait(held(app.hold)),
        }
    }

    /// Where answers of the app are stored, if somewhere, and who waits for some. It takes note of the app, and keeps it awake no more than it wakes it.
    pub(crate) fn cache(&self, target: &Target, record: &mut Record) -> Option<(Arc<Cache>, Arc<Queue>)> {
        let fleet = self.fleet.borrow();
        let app = fleet.caches.then(|| app_of(&fleet, target))??;
        let cache = app.cache.as_ref().filter(|_| app.gate == Gate::Open)?;
        record.set_app(&app.counters);
        Some((Arc::clone(cache), Arc::clone(&app.queue)))
    }

    /// An instance for a request about which nothing else is to be decided: nothing when something is, or when there is none at once.
    pub(crate) fn choose_plainly(&self, target: &Target, record: &mut Record) -> Option<InFlight> {
        let is_plain = app_of(&self.fleet.borrow(), target).is_some_and(|app| app.is_plain());
        match is_plain.then(|| self.choose(target, &[], false, Some(record)))? {
            Choice::Backend(lease) => Some(lease),
            Choice::Full(_) | Choice::Wait(_) | Choice::Asleep(_) | Choice::Paused(_) => None,
            Choice::Maintenance | Choice::Crowded | Choice::NoApp => None,
        }
    }

    /// What a request says of who sends it, while the requests of any app are shared between releases.
    pub(crate) fn visit(&self, headers: &http::HeaderMap) -> Option<Visit> {
        let splits = self.fleet.borrow().splits;
        splits.then(|| Visit::of(headers, self.random()))
    }

    /// An idle connection for a request that was counted in `lease`.
    pub(crate) fn pooled(&self, lease: &InFlight, repeatable: bool) -> Option<Sender> {
        self.pool.borrow_mut().take(lease.backend().key, repeatable, self.now())
    }

    /// Keeps a connection for the next request, unless its backend is no longer routed to.
    pub(crate) fn keep(&self, backend: u64, sender: Sender, now: Duration) {
        if self.routes(backend) {
            self.pool.borrow_mut().put(backend, sender, now);
        }
    }

    /// The same of those that our own codec reads.
    pub(crate) fn pooled_stream(&self, lease: &InFlight, repeatable: bool) -> Option<UpstreamStream> {
        self.streams.borrow_mut().take(lease.backend().key, repeatable, self.now())
    }

    /// Keeps one of those for the next request.
    pub(crate) fn keep_stream(&self, backend: u64, stream: UpstreamStream) {
        if self.routes(backend) {
            self.streams.borrow_mut().put(backend, stream, self.now());
        }
    }

    /// A new connection to a backend.
    pub(crate) async fn connect(self: &Rc<Self>, lease: &InFlight) -> io::Result<Sender> {
        let backend = lease.backend();
        let routed = self.routes(backend.key);
        let connecting = upstream::connect(backend, &self.dialers, routed, self.now(), self.limits.connect);
        let (sender, connection) = connecting.await?;
        self.spawn(async move {
            // Whoever waits for an answer on it hears of the failure there.
            let _heard_there = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// A new connection to a backend for what is not HTTP.
    pub(crate) async fn open(&self, lease: &InFlight) -> io::Result<UpstreamStream> {
        let backend = lease.backend();
        let routed = self.routes(backend.key);
        upstream::open(backend, &self.dialers, routed, self.now(), self.limits.connect).await
    }

    /// Takes note of what became of a request to `backend`.
    pub(crate) fn judge(&self, backend: &Backend, well: bool) {
        if !well {
            backend.failed(self.now());
        } else if backend.circuit.succeeded(|| self.now()) {
            events::readmitted(&backend.instance);
        }
    }

    /// Whether new requests may go to this backend.
    pub(crate) fn routes(&self, backend: u64) -> bool {
        self.fleet.borrow().routes(backend) && !self.draining.get()
    }

    /// What `look` finds in the snapshot in use.
    pub(crate) fn in_fleet<T>(&self, look: impl FnOnce(&Fleet) -> T) -> T {
        look(&self.fleet.borrow())
    }

    /// Comes true when another snapshot is used, when an instance became ready, or when it is time to go.
    pub(crate) fn stirred(&self) -> tokio::sync::futures::Notified<'_> {
        self.stirred.notified()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs `task` on this thread until it ends or the thread does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().spawn_local(task);
    }

    pub(crate) fn tunnel_opened(self: &Rc<Self>) -> TunnelGuard {
        self.tunnels.set(self.tunnels.get() + 1);
        TunnelGuard(Rc::clone(self))
    }

    pub(crate) fn request_id(&self) -> RequestId {
        let id = u128::from(self.random()) << 64 | u128::from(self.random());
        RequestId::new(id, self.random())
    }

    /// How long to pause before a request is sent again.
    pub(crate) fn jitter(&self) -> Duration {
        retry::jitter((self.random() >> 32) as u32)
    }

    pub(crate) fn log(&self, line: &Line<'_>) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.push(line);
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), seeded from the clock's randomness. For spreading load and
    /// telling requests apart; nothing secret comes from it.
    fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn take_fleet(&self, fleet: Arc<Fleet>, standing: &Standing) {
        let generation = fleet.generation();
        self.pool.borrow_mut().keep_routed(&fleet);
        self.streams.borrow_mut().keep_routed(&fleet);
        self.lines.borrow_mut().keep_routed(&fleet);
        self.dialers.borrow_mut().keep_routed(&fleet);
        *self.fleet.borrow_mut() = fleet;
        standing.generation.store(generation.0, SeqCst);
        standing.changed.notify_one();
        self.stirred.notify_waiters();
    }

    fn tick(&self) {
        self.date.set(date(&*self.clock));
        self.pool.borrow_mut().expire(self.now());
        self.streams.borrow_mut().expire(self.now());
        self.lines.borrow_mut().expire(self.now());
        self.dialers.borrow_mut().expire(self.now());
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.tick(&*self.clock);
        }
        for client in self.clients.borrow().values() {
            client.look(self.limits.tick, &self.limits.patience);
        }
        let mut tasks = self.tasks.borrow_mut();
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                events::task_failed(&error);
            }
        }
    }

    /// A place for a client, and its address as headers have it. One too many of an address is closed: what it would wait for are its own others.
    pub(crate) fn enter(&self, peer: SocketAddr) -> Option<(impl Sized + use<>, HeaderValue)> {
        let (all, max) = (self.clients.borrow().len(), self.limits.connections);
        let place = self.addresses.enter(peer.ip(), all, max)?;
        Some((place, named(peer)?))
    }

    fn admit(self: &Rc<Self>, socket: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>) {
        if self.proxies.contain(peer.ip()) {
            return proxied::admit(self, socket, peer, acceptor);
        }
        let Some((place, peer)) = self.enter(peer) else { return };
        self.serve(place, move |worker, client| async move {
            worker.serve_socket(client, socket, peer, acceptor).await;
        });
    }

    /// Serves a client that comes from `peer`, by HTTPS where there is an acceptor.
    pub(crate) async fn serve_socket(
        self: &Rc<Self>,
        client: Rc<Client>,
        socket: TcpStream,
        peer: HeaderValue,
        acceptor: Option<TlsAcceptor>,
    ) {
        let Some(acceptor) = acceptor else {
            let origin = Rc::new(Origin::Outside { peer, secure: None });
            return preface::serve(self, client, socket, origin).await;
        };
        if let Some(stream) = preface::shake_hands(self, socket, &peer, &acceptor).await {
            client::serve_secure(self, client, stream, peer).await;
        }
    }

    /// Serves a client by `service`. What `room` it takes is free again when that ends.
    pub(crate) fn serve<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        room: impl Sized + 'static,
        service: impl FnOnce(Rc<Self>, Rc<Client>) -> F + 'static,
    ) {
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        let client = Rc::new(Client::default());
        self.clients.borrow_mut().insert(number, Rc::clone(&client));
        let leaving = Leaving { worker: Rc::clone(self), number };
        let worker = Rc::clone(self);
        self.spawn(async move {
            // Made here: a future that an async block takes in from outside and awaits has its room there twice.
            service(worker, client).await;
            drop((leaving, room));
        });
    }

    fn is_empty(&self) -> bool {
        self.clients.borrow().is_empty() && self.tunnels.get() == 0
    }

    fn remaining(&self) -> usize {
        self.clients.borrow().values().filter(|client| !client.is_idle()).count() + self.tunnels.get()
    }
}

/// A date as heads have it.
pub(crate) type Date = [u8; 29];

fn date(clock: &dyn Clock) -> Date {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock.now().0);
    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let text = httpdate::fmt_http_date(now);
    if text.len() == date.len() {
        date.copy_from_slice(text.as_bytes());
    }
    date
}

/// A client's address as headers have it.
fn named(peer: SocketAddr) -> Option<HeaderValue> {
    HeaderValue::from_str(&peer.ip().to_canonical().to_string()).ok()
}

/// Takes a client off the list when its task ends, by a panic too.
struct Leaving {
    worker: Rc<Worker>,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.number);
        self.worker.left.notify_one();
    }
}
