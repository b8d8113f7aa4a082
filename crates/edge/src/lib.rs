//! The data plane: forwards requests by routing snapshots, probes health, drains.
//!
//! `run` takes the listeners from the supervisor and one worker thread serves each (`worker`); the thread that
//! called it follows control, probes and gives the orders (`control_thread`). A client that comes by a proxy is told of first (`proxied`, by
//! `proxy_header`), one of HTTPS shakes hands (`tls`, by `certificates`). A request goes through `client_stream` and `strict` (what is refused before hyper sees it), or through `http1` where it is ordinary, `before`
//! (what edge answers itself), `rate` (who asks too often), `routes` (what holds for parts of an app), `cache` (what is answered already), `forward` (which app, when again), `visit` (which release),
//! `queue` (how many wait, and whose turn it is), `circuit` (which instances are passed over) and `upstream` (the pool) by
//! `dial` (the way there), or `http2` where many requests share a connection to an instance that speaks it. `grpc` is what edge has to know of that, `preface` how a client
//! without TLS begins, `taking` which streams of HTTP/2 their clients take. What an instance sends to another app comes in by `internal`, and where it is no HTTP goes by
//! `passage`. `activity` is what keeps an app awake. Threads share nothing on the way but the counts in `backend` and `fleet`.
//!
//! Deliberately absent: any way for a request to reach control, any file but the snapshot and its certificates, and any queue
//! of requests besides the bounded one of those that wait for an instance.
#![warn(missing_docs)]

mod access_log;
mod activity;
mod address;
mod answer;
mod app;
mod app_body;
mod backend;
mod before;
mod body;
mod boot;
mod cache;
mod certificates;
mod circuit;
mod client;
mod client_stream;
mod coalescing;
mod control_thread;
mod dial;
mod events;
mod fleet;
mod forward;
mod frames;
// What is done with the files in fuzz/seeds is what the fuzz targets do.
#[cfg(test)]
#[path = "../../../fuzz/src/edge.rs"]
pub mod fuzzing;
mod grpc;
pub mod handover;
mod headers;
mod http1;
mod http2;
mod internal;
mod ledger;
mod limits;
mod link;
mod passage;
mod patience;
mod preface;
mod probe;
mod proxied;
mod proxy_header;
mod queue;
mod rate;
mod record;
mod request_body;
mod routes;
mod strict;
mod taking;
mod tally;
mod tls;
mod upgrade;
mod upstream;
mod visit;
mod worker;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::Clock;
use berth_spec::Proxies;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

pub use access_log::AccessLog;
pub use limits::Limits;
pub use patience::Patience;

use crate::access_log::{Buffer, Writer};
use crate::certificates::Shelf;
use crate::control_thread::{ControlThread, Hand, Outside, Signals};
use crate::handover::Listeners;
use crate::tls::Secure;
use crate::worker::{Orders, Spoken, Standing, Worker};

/// What an edge is started with.
pub struct Config {
    /// Bound and listening sockets; each gets a thread of its own.
    pub listeners: Vec<TcpListener>,
    /// Bound and listening sockets for HTTPS: none, or one for each thread.
    pub secure: Vec<TcpListener>,
    /// The directory that holds `current.json`, opened.
    pub routing_dir: OwnedFd,
    /// The folder of the sockets at which shims are asked for the way into their instances' networks.
    pub dial_folder: PathBuf,
    /// Where control listens. It need not be there.
    pub control_socket: PathBuf,
    /// The reading end of a pipe whose other end the supervisor holds.
    pub leash: Option<OwnedFd>,
    /// Takes one byte once every thread is set up with the snapshot that was there, and is then closed.
    pub ready: Option<OwnedFd>,
    /// Where a new supervisor asks for the listeners.
    pub handover: Option<UnixListener>,
    /// Who may ask for them, besides root.
    pub owner_uid: u32,
    /// Whether clients without TLS may speak HTTP/2 from the first byte on.
    pub h2c: bool,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// What is allowed and how long is waited.
    pub limits: Limits,
    /// Who reads HTTP/1.
    pub http1: Http1,
    /// Proxies whose connections begin with the address of their client, by the PROXY protocol. From nobody else is such a head taken.
    pub proxies: Proxies,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Whether it may run as root: it parses what strangers send.
    pub allow_root: bool,
    /// Stops edge like SIGTERM does.
    pub stop: oneshot::Receiver<()>,
}

/// Who reads HTTP/1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Http1 {
    /// Our own codec, which leaves what is not ordinary to hyper.
    #[default]
    Own,
    /// hyper alone.
    Hyper,
}

/// Why an edge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// It was told to stop, and every request came to its end.
    Drained,
    /// It was told to stop, and some requests took too long.
    DeadlinePassed {
        /// How many.
        cut: usize,
    },
}

/// Why an edge could not start or go on.
#[derive(Debug, Error)]
pub enum EdgeError {
    /// It was started as root.
    #[error("edge runs as root, and must not: it parses what strangers send")]
    Root,
    /// There is nothing to listen on.
    #[error("edge was given no listener")]
    NoListener,
    /// A thread, a socket or a signal handler could not be set up.
    #[error("edge failed to set up {what}")]
    Setup {
        /// What it was.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread ended that should not have. The supervisor starts edge anew; the listeners' queues live on with it.
    #[error("a thread of edge died")]
    WorkerDied,
}

fn setup(what: &'static str) -> impl FnOnce(io::Error) -> EdgeError {
    move |source| EdgeError::Setup { what, source }
}

/// Serves until SIGTERM or [`Config::stop`], and then until the requests in flight have ended.
///
/// # Errors
/// [`EdgeError`] when it cannot start, or one of its threads dies.
pub fn run(config: Config) -> Result<ExitReason, EdgeError> {
    if !config.allow_root && rustix::process::geteuid().is_root() {
        return Err(EdgeError::Root);
    }
    if config.listeners.is_empty() {
        return Err(EdgeError::NoListener);
    }
    let limits = config.limits.within(raise_file_limit(), config.listeners.len());
    let handed = Listeners { plain: copies(&config.listeners)?, secure: copies(&config.secure)? };
    let runtime = runtime()?;
    let local = LocalSet::new();
    let entered = runtime.enter();
    // The handler is there before anything is served, so that no SIGTERM kills what it should drain.
    let terminate = signal(SignalKind::terminate()).map_err(setup("the signal handler"))?;
    let leash = config.leash.map(pipe::Receiver::from_owned_fd).transpose().map_err(setup("the leash"))?;
    let handover = config.handover.map(into_async).transpose().map_err(setup("the handover socket"))?;
    let writer = Writer::start(config.access_log).map_err(setup("the access log"))?;
    drop(entered);

    let outcome = local.block_on(&runtime, async {
        let changed = Arc::<Notify>::default();
        let signals = Signals::default();
        let (callers, orders): (Vec<_>, Vec<_>) = config.listeners.iter().map(|_| orders(&signals)).unzip();
        let mut thread = ControlThread::boot(
            Shelf::new(config.routing_dir),
            config.dial_folder.clone(),
            Arc::clone(&changed),
            signals,
            Arc::clone(&config.clock),
        );
        let fleet = thread.fleet();
        let (mut hands, mut threads) = (Vec::new(), Vec::new());
        let (count, proxies) = (config.listeners.len(), Arc::new(config.proxies));
        let mut secure = secure_listeners(&mut thread, config.secure, &config.clock)?;
        for (listener, orders) in config.listeners.into_iter().zip(orders) {
            let secure = secure.next();
            let log = writer.as_ref().map(|writer| writer.buffer(&*config.clock));
            let (clock, proxies) = (Arc::clone(&config.clock), Arc::clone(&proxies));
            let spoken = Spoken { http1: config.http1, h2c: config.h2c };
            let post = Post { listener, secure, orders, limits, proxies, clock, log, spoken };
            let standing =
                Arc::new(Standing { generation: fleet.generation().0.into(), changed: Arc::clone(&changed) });
            let (hand, joined) = start_worker(post, standing, Arc::clone(&fleet))?;
            hands.push(hand);
            threads.push(joined);
        }
        events::started(count, fleet.generation());
        if let Some(ready) = config.ready {
            // A supervisor that is gone does not wait for it.
            let _told = rustix::io::write(ready, b"r");
        }
        drop(fleet);
        let outside = Outside {
            control_socket: config.control_socket,
            leash,
            handover,
            stop: config.stop,
            terminate,
            owner_uid: config.owner_uid,
            listeners: handed,
            dial_folder: config.dial_folder,
            callers,
        };
        let reason = thread.run(hands, outside).await?;
        let joined = threads.into_iter().all(|thread| thread.join().is_ok());
        if joined { Ok(reason) } else { Err(EdgeError::WorkerDied) }
    });
    // A buffer of a worker that died may still exist, so that the writer would wait for ever.
    if outcome.is_ok()
        && let Some(writer) = writer
    {
        writer.finish();
    }
    outcome
}

/// Copies of listeners, for who takes over.
fn copies(listeners: &[TcpListener]) -> Result<Vec<OwnedFd>, EdgeError> {
    let copies = listeners.iter().map(|listener| listener.try_clone().map(OwnedFd::from));
    copies.collect::<io::Result<_>>().map_err(setup("the listeners"))
}

/// The orders of one worker thread, and who tells it of instances that call others.
fn orders(signals: &Signals) -> (mpsc::Sender<PathBuf>, Orders) {
    let (tell, callers) = mpsc::channel(internal::WAITING);
    let (fleet, stir) = (signals.fleet.subscribe(), signals.stir.subscribe());
    let (stop, passed_on) = (signals.stop.subscribe(), Arc::clone(&signals.passed_on));
    (tell, Orders { fleet, stir, stop, passed_on, callers })
}

/// What one worker thread is started with.
struct Post {
    listener: TcpListener,
    secure: Option<Secure<TcpListener>>,
    orders: Orders,
    limits: Limits,
    proxies: Arc<Proxies>,
    clock: Arc<dyn Clock>,
    log: Option<Buffer>,
    spoken: Spoken,
}

fn start_worker(
    post: Post,
    standing: Arc<Standing>,
    fleet: Arc<fleet::Fleet>,
) -> Result<(Hand, std::thread::JoinHandle<()>), EdgeError> {
    /// Wakes the control thread when the worker's thread ends, by a panic too.
    struct Farewell(Arc<Notify>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    prepare(&post.listener).map_err(setup("a listener"))?;
    if let Some(secure) = &post.secure {
        prepare(&secure.listener).map_err(setup("a listener"))?;
    }
    let runtime = runtime()?;
    let (farewell, ended) = oneshot::channel();
    let hand = Hand { standing: Arc::clone(&standing), ended };
    let work = move || {
        // Declared first, so that it goes last: after the sender below.
        let _farewell = Farewell(Arc::clone(&standing.changed));
        let farewell = farewell;
        let secure_port = post.secure.as_ref().map(|secure| secure.port);
        let worker =
            Worker::new(post.clock, post.limits, post.proxies, fleet, post.log, secure_port, post.spoken);
        let local = LocalSet::new();
        let served = local.block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(post.listener)?;
            let secure = post.secure.map(Secure::into_async).transpose()?;
            Ok::<_, io::Error>(worker::run(worker, listener, secure, post.orders, standing).await)
        });
        match served {
            // Nobody listens any more when the control thread has failed, which ends the process anyway.
            Ok(cut) => drop(farewell.send(cut)),
            Err(error) => events::accept_failed(&error),
        }
    };
    let thread =
        std::thread::Builder::new().name("edge".to_owned()).spawn(work).map_err(setup("a thread"))?;
    Ok((hand, thread))
}

/// Each of the listeners for HTTPS with what it accepts by.
fn secure_listeners(
    thread: &mut ControlThread,
    listeners: Vec<TcpListener>,
    clock: &Arc<dyn Clock>,
) -> Result<std::vec::IntoIter<Secure<TcpListener>>, EdgeError> {
    let Some(first) = listeners.first() else { return Ok(Vec::new().into_iter()) };
    let port = first.local_addr().map_err(setup("a listener"))?.port();
    let acceptor = tls::acceptor(thread.choose_certificates(clock));
    let acceptor = acceptor.map_err(|error| setup("TLS")(io::Error::other(error)))?;
    let secure = listeners.into_iter().map(|listener| Secure { listener, acceptor: acceptor.clone(), port });
    Ok(secure.collect::<Vec<_>>().into_iter())
}

/// Options that accepted sockets inherit, which saves two system calls for each connection.
pub(crate) fn prepare(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    sockopt::set_tcp_nodelay(listener, true)?;
    // A WebSocket whose client has vanished is found out within two minutes.
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(listener, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(listener, 4)?;
    Ok(())
}

fn runtime() -> Result<Runtime, EdgeError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup("a runtime"))
}

fn into_async(listener: UnixListener) -> io::Result<tokio::net::UnixListener> {
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Raises the number of open files to what is allowed, and gives it.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it is refused the lower one holds, and the number of connections follows from it.
    let holds = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    holds.unwrap_or(u64::MAX)
}
