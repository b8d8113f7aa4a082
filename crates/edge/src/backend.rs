//! One instance as edge sees it, with what is in flight to it over all threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use berth_routing::balance::Load;
use berth_routing::concurrency::Bounds;
use berth_spec::{HttpProtocol, InstanceId, Millis};
use tokio::sync::Notify;

use crate::activity::Activity;
use crate::circuit::{Circuit, Entry};
use crate::dial::Place;
use crate::queue::Queue;

/// One instance at one place, the same object from snapshot to snapshot.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Unlike any other backend's of this process.
    pub(crate) key: u64,
    pub(crate) instance: InstanceId,
    /// The instance as the access log names it.
    pub(crate) label: Box<str>,
    pub(crate) place: Place,
    protocol: HttpProtocol,
    /// Whether its probes fail, so that others are preferred.
    pub(crate) failing: AtomicBool,
    /// What became of the requests to it.
    pub(crate) circuit: Circuit,
    /// How many requests it gets at a time, as the newest snapshot says it.
    soft_limit: AtomicU64,
    hard_limit: AtomicU64,
    /// How many milliseconds it may take to begin an answer.
    request_timeout: AtomicU64,
    /// Those of its app that wait for room.
    queue: Arc<Queue>,
    pub(crate) activity: Arc<Activity>,
    in_flight: AtomicU64,
    /// Those of them that stand open and are no requests under way.
    standing: AtomicU64,
    open: AtomicU64,
    /// Set while control waits for this backend to drain, so that only then the last guard wakes the control thread.
    watched: AtomicBool,
    drained: Arc<Notify>,
}

impl Backend {
    /// One that has nothing to do yet, and no limits. `drained` is woken as [`Backend::watch`] says.
    pub(crate) fn new(
        key: u64,
        instance: InstanceId,
        (place, protocol): (Place, HttpProtocol),
        queue: Arc<Queue>,
        activity: Arc<Activity>,
        drained: Arc<Notify>,
    ) -> Self {
        Self {
            key,
            label: instance.short().into(),
            instance,
            place,
            protocol,
            failing: AtomicBool::new(false),
            circuit: Circuit::default(),
            soft_limit: AtomicU64::new(u64::MAX),
            hard_limit: AtomicU64::new(u64::MAX),
            request_timeout: AtomicU64::new(u64::MAX),
            queue,
            activity,
            in_flight: AtomicU64::new(0),
            standing: AtomicU64::new(0),
            open: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            drained,
        }
    }

    /// Whether nothing is in flight to it and no connection to it is open.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.load(SeqCst) == 0 && self.open.load(SeqCst) == 0
    }

    /// Whether no request is under way to it: nothing but what stands open.
    ///
    /// What is in flight is read first. What stands open goes off its own count first, so that it is never taken for a request that ended.
    pub(crate) fn is_still(&self) -> bool {
        let (in_flight, standing) = (self.in_flight.load(SeqCst), self.standing.load(SeqCst));
        in_flight == standing && self.open.load(SeqCst) <= standing
    }

    /// Whether a client waits for it or takes an answer.
    pub(crate) fn is_in_use(&self) -> bool {
        let in_flight = self.in_flight.load(SeqCst);
        in_flight > self.standing.load(SeqCst)
    }

    /// Whether the last guard to go tells the control thread. The caller looks at [`Backend::is_quiet`] after this:
    /// a guard either goes before that look or sees the flag.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.store(watched, SeqCst);
    }

    /// A request to it failed at `now`, by the instance's doing.
    pub(crate) fn failed(&self, now: Duration) {
        if self.circuit.failed(now) {
            // Whether it is passed over the control thread decides.
            self.drained.notify_one();
        }
    }

    /// Whether it is spoken to by HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.protocol == HttpProtocol::H2c
    }

    pub(crate) fn is_well(&self) -> bool {
        !self.failing.load(Relaxed) && !self.circuit.is_passed_over()
    }

    /// What speaks for and against one more request; nothing when it has as many as it may.
    pub(crate) fn load(&self) -> Option<Load> {
        let bounds = Bounds { soft: self.soft_limit.load(Relaxed), hard: self.hard_limit.load(Relaxed) };
        let in_flight = self.in_flight.load(SeqCst);
        let load = Load { failing: !self.is_well(), above_soft: bounds.is_above_soft(in_flight), in_flight };
        (!bounds.is_full(in_flight)).then_some(load)
    }

    /// How long it may take to begin an answer, if not for ever.
    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        let millis = self.request_timeout.load(Relaxed);
        (millis != u64::MAX).then(|| Duration::from_millis(millis))
    }

    /// Takes on what the newest snapshot says of how much it gets and how long it may take.
    pub(crate) fn bound(&self, bounds: Bounds, request_timeout: Option<Millis>) {
        self.soft_limit.store(bounds.soft, Relaxed);
        self.hard_limit.store(bounds.hard, Relaxed);
        self.request_timeout.store(request_timeout.map_or(u64::MAX, |it| it.0), Relaxed);
    }

    fn left(&self, count: &AtomicU64) -> u64 {
        let before = count.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "every guard adds one first");
        self.tell();
        before
    }

    /// Wakes the control thread where that waits. Not only when the last one goes: those that are left may stand open.
    fn tell(&self) {
        if self.watched.load(SeqCst) {
            self.drained.notify_one();
        }
    }
}

/// A request in flight, from the moment of the pick until its response has ended.
#[derive(Debug)]
pub(crate) struct InFlight {
    backend: Arc<Backend>,
    /// Whether its outcome decides if the backend gets more.
    trial: bool,
    stands: bool,
}

impl InFlight {
    /// `None` when the backend has as many as it may, or its only trial is another's, which another thread may have seen to in this moment.
    pub(crate) fn new(backend: &Arc<Backend>) -> Option<Self> {
        let hard = backend.hard_limit.load(Relaxed);
        if hard == u64::MAX {
            backend.in_flight.fetch_add(1, SeqCst);
        } else {
            let more = |count: u64| (count < hard).then_some(count + 1);
            backend.in_flight.fetch_update(SeqCst, SeqCst, more).ok()?;
        }
        let entry = backend.circuit.enter();
        let lease = Self { backend: Arc::clone(backend), trial: entry == Entry::Trial, stands: false };
        (entry != Entry::Taken).then_some(lease)
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// From here on it stands open: what the client sends on it counts, and it by itself does not.
    pub(crate) fn stand(&mut self) {
        if !self.stands {
            self.stands = true;
            self.backend.standing.fetch_add(1, SeqCst);
            self.backend.tell();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.stands {
            self.backend.standing.fetch_sub(1, SeqCst);
        }
        if self.trial {
            self.backend.circuit.trial_ended();
        }
        let before = self.backend.left(&self.backend.in_flight);
        let hard = self.backend.hard_limit.load(Relaxed);
        // For each place that is free one that waits, not for the first alone: two that go at once would have one of two wait on. What has more
        // than a limit that was lowered has no room yet.
        if hard != u64::MAX && before <= hard {
            self.backend.queue.freed();
        }
    }
}

/// A connection to a backend, in use, pooled or upgraded. It lives inside the socket's owner.
#[derive(Debug)]
pub(crate) struct Open(Arc<Backend>);

impl Open {
    pub(crate) fn new(backend: &Arc<Backend>) -> Self {
        backend.open.fetch_add(1, SeqCst);
        Self(Arc::clone(backend))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _others = self.0.left(&self.0.open);
    }
}
