//! A client that forgives nothing: every answer is read to its end and compared, every failure is kept with its time.
//!
//! The load is open: requests are due at fixed times whether or not earlier ones were answered, so that a server which stalls
//! is seen to stall. One thread for each connection; half of them keep their connection, the others open one for each request.

mod client;
mod order;
mod outcome;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_clock::{Clock, SystemClock};

pub use client::{Body, Connection, Exchange, Failure, Page};
pub use order::{Activation, Violation};
pub use outcome::{Failed, Kill, Outcome, Sample};

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
        let started = shared.clock.monotonic();
        let workers = (0..connections)
            .map(|number| {
                let shared = Arc::clone(&shared);
                let worker = std::thread::Builder::new().name(format!("load {number}")).stack_size(256 << 10);
                worker.spawn(move || shared.work(number, started)).expect("a thread can be started")
            })
            .collect();
        Self { shared, workers, started, rate }
    }

    /// The time on the load's clock, to note beside a kill or an activation. It is `CLOCK_MONOTONIC`, counted from the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.clock.monotonic()
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
    fn work(&self, number: u32, started: Duration) -> Outcome {
        let mut outcome = Outcome::new(0, Duration::ZERO);
        let keep = number.is_multiple_of(2);
        let mut connection = None;
        // Which connection an answer came over: one for each that was opened, never the same again.
        let mut serial = 0_u64;
        loop {
            let ticket = self.next.fetch_add(1, Ordering::Relaxed);
            let due = started
                + Duration::from_secs(1)
                    * u32::try_from(ticket / u64::from(self.options.rate)).unwrap_or(u32::MAX)
                + Duration::from_secs(1) * u32::try_from(ticket % u64::from(self.options.rate)).unwrap_or(0)
                    / self.options.rate;
            if !self.wait_for(due) {
                // Drawn and not sent: it must not count as sent.
                self.next.fetch_sub(1, Ordering::Relaxed);
                return outcome;
            }
            let exchange = match &self.options.page {
                Some(page) => Exchange::page(page, &self.options.host, keep),
                None => Exchange::of_mix(ticket, &self.options.host, keep),
            };
            let start = self.clock.monotonic();
            let answer = self.exchange(&exchange, &mut connection, &mut serial);
            let end = self.clock.monotonic();
            let connection_id = (u64::from(number) << 32) | serial;
            match answer {
                Ok(release) => {
                    outcome.samples.push(Sample { start, end, connection: connection_id, release });
                }
                Err(failure) => {
                    connection = None;
                    let (method, path) = (exchange.method.to_owned(), exchange.path.to_string());
                    outcome.failed.push(Failed {
                        start,
                        end,
                        connection: connection_id,
                        method,
                        path,
                        failure,
                    });
                }
            }
            if !keep {
                connection = None;
            }
        }
    }

    fn exchange(
        &self,
        exchange: &Exchange,
        kept: &mut Option<Connection>,
        serial: &mut u64,
    ) -> Result<String, Failure> {
        let connection = match kept {
            Some(connection) if !connection.was_ended() => connection,
            Some(_) | None => {
                *serial += 1;
                kept.insert(Connection::open(self.options.edge, self.options.patience)?)
            }
        };
        exchange.perform(connection)
    }

    /// Waits until `due`, or the end: says whether there is something to send.
    fn wait_for(&self, due: Duration) -> bool {
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return false;
            }
            let now = self.clock.monotonic();
            if now >= due {
                return true;
            }
            std::thread::park_timeout(due - now);
        }
    }
}
