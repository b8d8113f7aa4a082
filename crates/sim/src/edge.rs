//! Edge: threads that take over snapshots one after the other, requests in flight, probes, and what it says about all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use berth_control::event::Ordinal;
use berth_control::invariant::{Breach, Invariant};
use berth_routing::split;
use berth_routing::wire::Health;
use berth_routing::{AppRoute, Backend, Endpoint, Generation, Role, Snapshot};
use berth_spec::{AppId, InstanceId};

use crate::chance::Chance;
use crate::fault::{Fault, Tally};
use crate::machine::Machine;

/// What edge tells control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    Applied(Generation),
    Drained(InstanceId, Generation),
    Health(InstanceId, Health),
    /// Somebody waits for the app, which sleeps since then.
    Wanted(AppId, Generation),
    /// Somebody keeps the app awake.
    Busy(AppId),
}

#[derive(Debug)]
struct Flight {
    instance: InstanceId,
    ends: Duration,
}

#[derive(Debug)]
struct Held {
    app: AppId,
    thread: usize,
    until: Duration,
}

/// An edge process.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) pid: u64,
    /// The snapshot that each thread uses.
    threads: Vec<Arc<Snapshot>>,
    newest: Arc<Snapshot>,
    pub(crate) wedged: bool,
    pub(crate) connected: bool,
    /// Says that an instance is drained once, not at every snapshot again.
    terse: bool,
    in_flight: Vec<Flight>,
    held: Vec<Held>,
    health: BTreeMap<InstanceId, Health>,
    /// Since when no thread sends new requests to an instance.
    unrouted: BTreeMap<InstanceId, Duration>,
    said_applied: Option<Generation>,
    said_drained: BTreeMap<InstanceId, Generation>,
    said_wanted: BTreeSet<(AppId, Generation)>,
    outbox: VecDeque<(Duration, Word)>,
}

/// The ports of the machine's that a snapshot sends anything to.
pub(crate) fn ports(snapshot: &Snapshot) -> BTreeSet<u16> {
    let backends = snapshot.apps.values().flat_map(|route| &route.backends);
    let ports = backends.filter_map(|backend| match &backend.endpoint {
        Endpoint::Tcp { addr } => Some(addr.port()),
        Endpoint::Dialer { .. } => None,
    });
    ports.collect()
}

impl Edge {
    /// A process that boots from the durable snapshot.
    pub(crate) fn boot(pid: u64, durable: &Snapshot, chance: &Chance) -> Self {
        let newest = Arc::new(durable.clone());
        Self {
            pid,
            threads: vec![Arc::clone(&newest); 1 + chance.below(3)],
            newest,
            wedged: false,
            connected: false,
            terse: chance.one_in(2),
            in_flight: Vec::new(),
            held: Vec::new(),
            health: BTreeMap::new(),
            // What it never routes to, it has nothing in flight to.
            unrouted: durable
                .apps
                .values()
                .flat_map(|route| &route.backends)
                .filter(|backend| backend.role != Role::Routed)
                .map(|backend| (backend.instance.clone(), Duration::ZERO))
                .collect(),
            said_applied: None,
            said_drained: BTreeMap::new(),
            said_wanted: BTreeSet::new(),
            outbox: VecDeque::new(),
        }
    }

    /// A snapshot arrives.
    pub(crate) fn receive(&mut self, snapshot: &Snapshot) {
        if !self.wedged && snapshot.generation > self.newest.generation {
            self.newest = Arc::new(snapshot.clone());
        }
    }

    /// Says everything again to a control that has just connected.
    pub(crate) fn connect(&mut self, chance: &Chance) {
        self.connected = true;
        self.said_applied = None;
        self.said_drained.clear();
        self.said_wanted.clear();
        self.outbox.clear();
        let health: Vec<_> = self.health.iter().map(|(id, health)| (id.clone(), *health)).collect();
        for (id, health) in health {
            self.say(Word::Health(id, health), chance);
        }
    }

    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        self.outbox.clear();
    }

    /// In order, as on a stream: nothing overtakes what was said before.
    fn say(&mut self, word: Word, chance: &Chance) {
        if self.connected {
            let due = chance.later(0, 80);
            let due = self.outbox.back().map_or(due, |(before, _)| due.max(*before));
            self.outbox.push_back((due, word));
        }
    }

    /// What arrives at control by now.
    pub(crate) fn heard(&mut self, now: Duration) -> Vec<Word> {
        let due = self.outbox.iter().take_while(|(due, _)| *due <= now).count();
        self.outbox.drain(..due).map(|(_, word)| word).collect()
    }

    /// When edge has something to do by itself, at the latest.
    pub(crate) fn next(&self) -> Option<Duration> {
        let flights = self.in_flight.iter().map(|flight| flight.ends);
        let words = self.outbox.front().map(|(due, _)| *due);
        flights.chain(words).chain(self.held.iter().map(|held| held.until)).min()
    }

    fn applied(&self) -> Generation {
        self.threads.iter().map(|snapshot| snapshot.generation).min().unwrap_or_default()
    }

    /// Whether every thread uses the newest snapshot that arrived and everything is said.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.wedged && self.applied() == self.newest.generation && self.outbox.is_empty()
    }

    pub(crate) fn routes(&self) -> &Snapshot {
        &self.newest
    }

    /// Since when no thread sends new requests to an instance; `None` while one may.
    pub(crate) fn unrouted_since(&self, instance: &InstanceId) -> Option<Duration> {
        self.unrouted.get(instance).copied()
    }

    pub(crate) fn in_flight(&self, instance: &InstanceId) -> usize {
        self.in_flight.iter().filter(|flight| flight.instance == *instance).count()
    }

    /// Lets edge work for a moment.
    pub(crate) fn tick(&mut self, machine: &Machine, chance: &Chance) -> Result<(), Breach> {
        let now = chance.now();
        self.in_flight.retain(|flight| flight.ends > now);
        if self.wedged {
            return Ok(());
        }
        for at in 0..self.threads.len() {
            if self.threads[at].generation == self.newest.generation || chance.one_in(2) {
                continue;
            }
            let (from, to) = (self.threads[at].generation, self.newest.generation);
            if to < from {
                let detail = format!("a thread of edge went from {from} to {to}");
                return Err(Breach { invariant: Invariant::SnapshotsGoForward, detail });
            }
            self.threads[at] = Arc::clone(&self.newest);
        }
        self.probe(machine, chance);
        self.note_unrouted(now);
        let applied = self.applied();
        if self.connected && self.said_applied != Some(applied) {
            self.said_applied = Some(applied);
            self.say(Word::Applied(applied), chance);
        }
        self.say_drained(applied, chance);
        self.say_wanted(chance);
        let held = std::mem::take(&mut self.held);
        for it in held {
            let thread = it.thread;
            if it.until > now && !self.send(&it.app, thread, machine, chance)? {
                self.held.push(it);
            }
        }
        Ok(())
    }

    /// Those who wait for an app that sleeps are told of once for each sleep, and again to a control that has just connected.
    fn say_wanted(&mut self, chance: &Chance) {
        let waiting: BTreeSet<(AppId, Generation)> = self
            .held
            .iter()
            .filter_map(|held| {
                let route = self.threads[held.thread].apps.get(&held.app)?;
                Some((held.app.clone(), route.asleep?))
            })
            .collect();
        for (app, asleep) in waiting {
            if self.connected && self.said_wanted.insert((app.clone(), asleep)) {
                self.say(Word::Wanted(app, asleep), chance);
            }
        }
    }

    fn probe(&mut self, machine: &Machine, chance: &Chance) {
        let newest = Arc::clone(&self.threads[0]);
        let mut known = BTreeSet::new();
        let sleeps =
            |route: &AppRoute, backend: &Backend| route.asleep.is_some() && backend.role == Role::Parked;
        let probed = newest
            .apps
            .values()
            .flat_map(|route| route.backends.iter().filter(move |backend| !sleeps(route, backend)));
        for backend in probed {
            known.insert(backend.instance.clone());
            let answers = machine.at(&backend.endpoint).is_some_and(|(_, proc)| proc.accepts(chance.now()));
            let before = self.health.get(&backend.instance).copied();
            let health = match (answers, before) {
                (true, _) => Health::Ready,
                (false, Some(Health::Ready | Health::Failing)) => Health::Failing,
                (false, _) => Health::Unready,
            };
            if before != Some(health) {
                self.health.insert(backend.instance.clone(), health);
                self.say(Word::Health(backend.instance.clone(), health), chance);
            }
        }
        self.health.retain(|instance, _| known.contains(instance));
    }

    fn note_unrouted(&mut self, now: Duration) {
        let routed: BTreeSet<&InstanceId> = self
            .threads
            .iter()
            .flat_map(|snapshot| snapshot.apps.values())
            .flat_map(|route| &route.backends)
            .filter(|backend| backend.role == Role::Routed)
            .map(|backend| &backend.instance)
            .collect();
        self.unrouted.retain(|instance, _| !routed.contains(instance));
        for backend in self.newest.apps.values().flat_map(|route| &route.backends) {
            if !routed.contains(&backend.instance) {
                self.unrouted.entry(backend.instance.clone()).or_insert(now);
            }
        }
    }

    fn say_drained(&mut self, applied: Generation, chance: &Chance) {
        if !self.connected {
            return;
        }
        self.said_drained.retain(|instance, _| self.unrouted.contains_key(instance));
        let idle: Vec<InstanceId> = self
            .unrouted
            .keys()
            .filter(|instance| match self.said_drained.get(*instance) {
                Some(_) if self.terse => false,
                said => said != Some(&applied),
            })
            .filter(|instance| self.in_flight(instance) == 0)
            .cloned()
            .collect();
        for instance in idle {
            self.said_drained.insert(instance.clone(), applied);
            self.say(Word::Drained(instance, applied), chance);
        }
    }

    /// A request for an app arrives at some thread. Returns whether it was taken, if there was an instance to take it.
    pub(crate) fn request(
        &mut self,
        app: &AppId,
        machine: &Machine,
        chance: &Chance,
        tally: &mut Tally,
    ) -> Result<bool, Breach> {
        let thread = chance.below(self.threads.len());
        if self.threads[thread].apps.contains_key(app) {
            self.say(Word::Busy(app.clone()), chance);
        }
        if self.send(app, thread, machine, chance)? {
            return Ok(true);
        }
        let Some(route) = self.threads[thread].apps.get(app) else { return Ok(true) };
        // Bounded, as the real one is.
        if route.hold.0 > 0 && self.held.len() < 100 {
            tally.add(Fault::RequestHeld);
            self.held.push(Held { app: app.clone(), thread, until: chance.now() + route.hold.as_duration() });
        }
        Ok(!route.backends.iter().any(|backend| backend.role == Role::Routed))
    }

    /// Tries the routed instances in random order until one takes the request.
    fn send(
        &mut self,
        app: &AppId,
        thread: usize,
        machine: &Machine,
        chance: &Chance,
    ) -> Result<bool, Breach> {
        let snapshot = Arc::clone(&self.threads[thread]);
        let Some(route) = snapshot.apps.get(app) else { return Ok(false) };
        let mut routed: Vec<&Backend> = route.backends.iter().filter(|it| it.role == Role::Routed).collect();
        let visitor = chance.below(1 << 30) as u64;
        let share = split::choose(&route.shares, visitor).and_then(|at| route.shares.get(at));
        while !routed.is_empty() {
            let own =
                |it: &&Backend| share.is_some_and(|it_has| it_has.instances.contains(&it.instance.ordinal));
            let first = routed.iter().position(own).unwrap_or_else(|| chance.below(routed.len()));
            let backend = routed.swap_remove(first);
            if deliver(backend, snapshot.generation, machine, chance.now())? {
                let most = if chance.one_in(20) { 20_000 } else { 800 };
                let ends = chance.later(1, most);
                self.in_flight.push(Flight { instance: backend.instance.clone(), ends });
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Sends a request to a backend. Whether it was taken; an instance that crashed takes none, which is nobody's fault.
fn deliver(
    backend: &Backend,
    generation: Generation,
    machine: &Machine,
    now: Duration,
) -> Result<bool, Breach> {
    let meant: (&AppId, Ordinal) = (&backend.instance.app, backend.instance.ordinal);
    if machine.get(meant.0, meant.1).is_some_and(|proc| proc.told) {
        let detail =
            format!("a request went to {} by {generation} after it was told to stop", backend.instance);
        return Err(Breach { invariant: Invariant::StoppedIsUnreachable, detail });
    }
    let Some(((app, ordinal), proc)) = machine.at(&backend.endpoint) else { return Ok(false) };
    if proc.frozen {
        let detail = format!("a request went to {} by {generation}, which stands still", backend.instance);
        return Err(Breach { invariant: Invariant::StillIsUnreachable, detail });
    }
    if (app, *ordinal) != meant {
        let detail = format!("a request for {} by {generation} reached {app} {ordinal}", backend.instance);
        return Err(Breach { invariant: Invariant::EndpointsAreNotShared, detail });
    }
    Ok(proc.accepts(now))
}
