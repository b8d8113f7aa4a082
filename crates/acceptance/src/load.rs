//! A client that forgives nothing: every answer is read to its end and compared, every failure is kept with its time.
//!
//! The load is open: requests are due at fixed times whether or not earlier ones were answered, so that a server which stalls
//! is seen to stall. One thread for each connection; half of them keep their connection, the others open one for each request.
//! Where it is asked for, part of the requests goes over HTTP/2, and sessions that last stand beside them.

mod client;
mod http2;
mod lasting;
mod order;
mod outcome;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_clock::{Clock, SystemClock};

pub use client::{Body, Connection, Exchange, Failure, Page};
pub use http2::Http2;
pub use order::{Activation, Violation};
pub use outcome::{Failed, Kill, Outcome, Sample};

use outcome::{Sent, Way};

/// What to send, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where edge listens.
    pub edge: SocketAddr,
    /// The `Host` of every request.
    pub host: String,
    /// How many connections at once. Enough of them to keep the rate: rate times the longest answer.
    pub connections: u32,
    /// Requests in a second, over all connections.
    pub rate: u32,
    /// How long an answer may take, from its first byte sent to its last byte read.
    pub patience: Duration,
    /// What is asked for: a page, or the mix of requests for the example when not given.
    pub page: Option<Arc<Page>>,
    /// Connections of HTTP/2 that take their part of the requests.
    pub http2: Option<Http2>,
    /// The host of an app as `apps/actor` plays it, to which one session of each kind that lasts stands at any time.
    pub lasting: Option<String>,
}

impl Options {
    /// 32 connections, 500 requests a second, to `app` behind `edge`, with patience for what edge holds for 5 s.
    #[must_use]
    pub fn new(edge: SocketAddr, app: &str) -> Self {
        Self {
            edge,
            host: format!("{app}.localhost"),
            connections: 32,
            rate: 500,
            patience: Duration::from_secs(15),
            page: None,
            http2: None,
            lasting: None,
        }
    }
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Outcome>>,
    started: Duration,
    rate: u32,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    clock: SystemClock,
    next: AtomicU64,
    stopped: AtomicBool,
}

impl Load {
    /// Starts sending.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (connections, rate) = (options.connections, options.rate);
        let shared = Arc::new(Shared {
            options,
            clock: SystemClock::new(),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let started = shared.now();
        let mut workers: Vec<_> =
            (0..connections).map(|number| shared.spawn(move |it| it.work(number, started))).collect();
        // Numbers that no other client has: what a client is known by in what it reports.
        let mut number = connections;
        if let Some(http2) = &shared.options.http2 {
            for _ in 0..http2.connections {
                workers.push(shared.spawn(move |it| http2::work(&it, number, started)));
                number += http2.streams;
            }
        }
        if let Some(host) = &shared.options.lasting {
            for session in lasting::Session::ALL {
                let host = host.clone();
                workers.push(shared.spawn(move |it| lasting::work(&it, session, &host, number)));
                number += 1;
            }
        }
        Self { shared, workers, started, rate }
    }

    /// The time on the load's clock, to note beside a kill or an activation. It is `CLOCK_MONOTONIC`, counted from the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// How many requests were begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is on its way and gives all that happened.
    #[must_use]
    pub fn stop(self) -> Outcome {
        let ended = self.now();
        self.shared.stopped.store(true, Ordering::Relaxed);
        let mut total = Outcome::new(self.rate, ended - self.started);
        for worker in self.workers {
            worker.thread().unpark();
            total.add(worker.join().expect("a worker does not panic"));
        }
        total.sort();
        total
    }
}

impl Shared {
    fn spawn(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>) -> Outcome + Send + 'static,
    ) -> JoinHandle<Outcome> {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("load".to_owned()).stack_size(512 << 10);
        thread.spawn(move || work(shared)).expect("a thread can be started")
    }

    fn work(&self, number: u32, started: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let keep = number.is_multiple_of(2);
        let mut connection = None;
        let mut over = Way::default();
        loop {
            let (ticket, due) = self.draw(started);
            if !self.wait_for(due) {
                self.give_back();
                return outcome;
            }
            let exchange = self.request(ticket, keep);
            let start = self.now();
            let answer = self.exchange(&exchange, &mut connection, &mut over);
            if answer.is_err() || !keep {
                connection = None;
            }
            let sent = Sent { kind: "HTTP/1.1", start, end: self.now(), number, over };
            outcome.note(sent, &exchange, answer);
        }
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The next request's number, and when it is due.
    fn draw(&self, started: Duration) -> (u64, Duration) {
        let (ticket, rate) = (self.next.fetch_add(1, Ordering::Relaxed), self.options.rate);
        let seconds = u32::try_from(ticket / u64::from(rate)).unwrap_or(u32::MAX);
        let part = u32::try_from(ticket % u64::from(rate)).unwrap_or(0);
        (ticket, started + Duration::from_secs(1) * seconds + Duration::from_secs(1) * part / rate)
    }

    /// A number that was drawn and not sent must not count as sent.
    fn give_back(&self) {
        self.next.fetch_sub(1, Ordering::Relaxed);
    }

    fn request(&self, ticket: u64, keep: bool) -> Exchange {
        match &self.options.page {
            Some(page) => Exchange::page(page, &self.options.host, keep),
            None => Exchange::of_mix(ticket, &self.options.host, keep),
        }
    }

    fn exchange(
        &self,
        exchange: &Exchange,
        kept: &mut Option<Connection>,
        over: &mut Way,
    ) -> Result<String, Failure> {
        let connection = match kept {
            Some(connection) if !connection.was_ended() => connection,
            Some(_) | None => {
                *over = Way { serial: over.serial + 1, opened: None };
                kept.insert(self.open(over)?)
            }
        };
        exchange.perform(connection)
    }

    /// Opens a connection, and notes which one it is.
    fn open(&self, over: &mut Way) -> Result<Connection, Failure> {
        let begun = self.now();
        let connection = Connection::open(self.options.edge, self.options.patience)?;
        over.opened = connection.port().map(|port| (port, begun));
        Ok(connection)
    }

    /// Waits until `due`, or the end: says whether there is something to send.
    fn wait_for(&self, due: Duration) -> bool {
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return false;
            }
            let now = self.now();
            if now >= due {
                return true;
            }
            std::thread::park_timeout(due - now);
        }
    }
}
