//! The link to one shim: a task that hears what the shim tells and ends when the shim does.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_clock::Clock;
use berth_process::{Child, Identity, Mark, Tree};
use berth_shim::wire::{FromShim, Hello, RUNS_COMMANDS, State, Status, ToShim, take_frame};
use berth_spec::{InstanceId, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};

use super::{Entry, Inner, KILL_LIMIT, ORDERS_WAITING, Order, blocking, contain};
use crate::error::{RuntimeError, during};
use crate::instance::{InstanceState, Listener, Observed, RuntimeEvent};
use crate::record::StartRecord;

/// How long a shim may take to say hello. It is a matter of milliseconds, on a machine that does anything at all.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// The waits between attempts to kill a tree that does not end: the first, doubling up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// A shim that was spoken to.
pub(super) struct Met {
    wire: Wire,
    hello: Hello,
}

/// A connection to a shim.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: UnixStream,
    buffer: Vec<u8>,
}

/// Connects to the shim behind `socket` and checks that it is the one of `token`.
pub(super) async fn meet(socket: &Path, token: Mark) -> Result<Met, &'static str> {
    let meeting = async {
        let stream = UnixStream::connect(socket).await.map_err(|_refused| "it does not listen")?;
        let mut wire = Wire { stream, buffer: Vec::new() };
        match wire.read().await {
            Ok(Some(FromShim::Hello(hello))) if hello.token == token.0 => Ok(Met { wire, hello }),
            Ok(Some(FromShim::Hello(_))) => Err("another shim answered"),
            Ok(_) => Err("it ended, or did not say hello"),
            Err(_) => Err("it does not speak our language"),
        }
    };
    tokio::time::timeout(HELLO_LIMIT, meeting).await.unwrap_or(Err("it did not answer in time"))
}

/// The shim behind `socket`, whichever it is, and its token; `None` when none answers.
pub(super) async fn stranger(socket: &Path, inner: &Inner) -> Option<(Identity, Mark)> {
    let meeting = async {
        let stream = UnixStream::connect(socket).await.ok()?;
        let mut wire = Wire { stream, buffer: Vec::new() };
        match wire.read().await {
            Ok(Some(FromShim::Hello(hello))) => Some(Met { wire, hello }),
            _ => None,
        }
    };
    let met = tokio::time::timeout(HELLO_LIMIT, meeting).await.ok().flatten()?;
    Some((met.identity(inner), Mark(met.hello.token)))
}

impl Met {
    /// The shim as it calls itself.
    pub(super) fn identity(&self, inner: &Inner) -> Identity {
        Identity { boot: inner.boot.clone(), pid: self.hello.pid, starttime: self.hello.starttime }
    }

    /// Whether it can be asked for a command beside the app.
    pub(super) fn runs_commands(&self) -> bool {
        self.hello.protocol >= RUNS_COMMANDS
    }

    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }
}

impl Wire {
    /// The next message, `None` at the end. May be given up at any await.
    pub(super) async fn read(&mut self) -> io::Result<Option<FromShim>> {
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            while let Some(body) = take_frame(&mut self.buffer).map_err(wrong)? {
                if let Some(message) = FromShim::decode(&body).map_err(wrong)? {
                    return Ok(Some(message));
                }
            }
            // Bounded by the longest frame, which `take_frame` checks, and one reading.
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

struct Link {
    id: InstanceId,
    wire: Wire,
    /// To be reaped, when the shim is a child of ours.
    child: Option<Child>,
    pidfd: Option<OwnedFd>,
    tree: Tree,
    /// Whether the shim is in a container, where processes have other numbers.
    contained: bool,
    observed: watch::Sender<Observed>,
    events: broadcast::Sender<RuntimeEvent>,
    orders: mpsc::Receiver<Order>,
    clock: Arc<dyn Clock>,
    ended: bool,
}

impl Inner {
    /// Makes the entry of an instance whose shim was met, and starts its link.
    pub(super) fn link(
        &self,
        mut record: StartRecord,
        met: Met,
        child: Option<Child>,
    ) -> Result<Observed, RuntimeError> {
        let contained = self.containers.is_some();
        // In a container it calls itself 1.
        let known = record.shim.clone().filter(|_| contained);
        let shim = known.unwrap_or_else(|| met.identity(self));
        let pidfd = shim.pidfd().map_err(during("watching a shim"))?;
        record.shim = Some(shim);
        let (entry, orders) = self.enter(&record, InstanceState::Starting);
        let mut link = Link {
            id: record.id.clone(),
            wire: met.wire,
            child,
            pidfd,
            tree: entry.tree.clone(),
            contained,
            observed: entry.observed.clone(),
            events: self.events.clone(),
            orders,
            clock: Arc::clone(&self.clock),
            ended: false,
        };
        link.learn(met.hello.status);
        let observed = entry.observed.borrow().clone();
        *entry.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(link.run()));
        Ok(observed)
    }

    /// Makes the entry of the instance of `record`.
    pub(super) fn enter(
        &self,
        record: &StartRecord,
        state: InstanceState,
    ) -> (Arc<Entry>, mpsc::Receiver<Order>) {
        let (orders, waiting) = mpsc::channel(ORDERS_WAITING);
        let observed = Observed {
            id: record.id.clone(),
            token: record.token,
            shim: record.shim.clone(),
            state,
            port: record.port,
            network: record.network,
            listener: Listener::None,
            exits: Vec::new(),
            exit_count: 0,
            restarts: 0,
            dropped_lines: 0,
            checked: None,
            oom_kills: 0,
        };
        let entry = Arc::new(Entry {
            token: record.token,
            tree: self.tree(record),
            observed: watch::Sender::new(observed),
            orders,
            link: Mutex::new(None),
        });
        self.entries().insert(record.id.clone(), Arc::clone(&entry));
        (entry, waiting)
    }
}

impl Link {
    async fn run(mut self) {
        self.converse().await;
        self.bury().await;
    }

    /// Hears and tells until the shim is no more, or is to be no more.
    async fn converse(&mut self) {
        loop {
            if self.ended {
                // Its end is known here now, perhaps since its hello, and that is what it waited for.
                self.tell(ToShim::Leave).await;
            }
            let pidfd = self.pidfd.as_ref();
            let gone = async {
                match pidfd {
                    Some(pidfd) => berth_process::exited(pidfd).await,
                    None => Ok(()),
                }
            };
            tokio::select! {
                // What the shim said before it died comes before its death.
                biased;
                message = self.wire.read() => match message {
                    Ok(Some(FromShim::Status(status))) => self.learn(status),
                    Ok(Some(FromShim::Hello(hello))) => self.learn(hello.status),
                    // It was asked for on another connection.
                    Ok(Some(FromShim::Executed(_))) => {}
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(instance = %self.id, %error, "the connection to a shim broke");
                        return;
                    }
                },
                order = self.orders.recv() => match order {
                    Some(Order::Tell(command)) => self.tell(command).await,
                    Some(Order::Destroy) | None => return,
                },
                seen = gone => {
                    if let Err(error) = seen {
                        tracing::warn!(instance = %self.id, %error, "a shim cannot be watched");
                    }
                    return;
                }
            }
        }
    }

    async fn tell(&mut self, command: ToShim) {
        if let Err(error) = self.wire.stream.write_all(&command.encode()).await {
            // The reading side finds out what became of the shim.
            tracing::debug!(instance = %self.id, %error, "a shim did not take a command");
        }
    }

    /// Takes over what the shim says, and tells of what is new.
    fn learn(&mut self, status: Status) {
        self.ended |= status.state == State::Ended;
        let mut fresh: VecDeque<_> = VecDeque::new();
        let shim = self.tree.root.as_ref().filter(|_| self.contained).map(|shim| shim.pid);
        let outside = |pid| shim.map_or(pid, |shim| contain::outside(shim, pid).unwrap_or(pid));
        self.observed.send_modify(|observed| {
            let new = status.exit_count.saturating_sub(observed.exit_count);
            let known = status.exits.len().saturating_sub(usize::try_from(new).unwrap_or(usize::MAX));
            fresh.extend(status.exits.iter().skip(known).copied());
            observed.state = match status.state {
                State::Starting => InstanceState::Starting,
                State::Running { pid, since } => {
                    InstanceState::Running { pid: outside(pid), since: Timestamp(since) }
                }
                State::BackingOff { until } => InstanceState::BackingOff { until: Timestamp(until) },
                // Over it is when nothing of it is left, the shim included.
                State::Stopping | State::Ended => InstanceState::Stopping,
            };
            observed.exits = status.exits;
            observed.exit_count = status.exit_count;
            observed.restarts = status.restarts;
            observed.dropped_lines = status.dropped;
            observed.checked = status.checked;
            observed.oom_kills = status.oom_kills;
        });
        for exit in fresh {
            self.announce(RuntimeEvent::Exited { id: self.id.clone(), exit });
        }
        self.announce(RuntimeEvent::Changed(self.id.clone()));
    }

    /// Ends what is left of the tree and reaps the shim; then the instance is over.
    async fn bury(mut self) {
        if !self.ended {
            tracing::warn!(instance = %self.id, "a shim is gone or to be gone; its tree is ended");
        }
        let mut pause = RETRY_FIRST;
        loop {
            let (tree, clock) = (self.tree.clone(), Arc::clone(&self.clock));
            match blocking(move || tree.kill(&*clock, KILL_LIMIT)).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(instance = %self.id, %error, "a tree does not end; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LAST);
                }
            }
        }
        if let Some(child) = &mut self.child
            && let Err(error) = child.ended().await
        {
            tracing::warn!(instance = %self.id, %error, "a shim could not be reaped");
        }
        let state = if self.ended { InstanceState::Exited } else { InstanceState::Gone };
        self.observed.send_modify(|observed| {
            observed.state = state;
            observed.shim = None;
        });
        self.announce(RuntimeEvent::Changed(self.id.clone()));
    }

    fn announce(&self, event: RuntimeEvent) {
        // Nobody has to listen.
        drop(self.events.send(event));
    }
}
