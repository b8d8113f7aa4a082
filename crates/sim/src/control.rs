//! The process that decides: the ledger on its journal, answers, snapshots, and what it knows of edge. All of it is lost when it dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use berth_clock::Clock;
use berth_control::command::{Command, Refusal, Wish};
use berth_control::event::{Event, Ordinal, Stream};
use berth_control::invariant::{
    Breach, check_answer, check_app, check_artifacts, check_leaks, check_routes, check_snapshot, check_step,
};
use berth_control::ledger::Ledger;
use berth_control::plan::{Action, plan};
use berth_control::route::{must_publish, snapshot};
use berth_control::state::{App, Life, Position, State};
use berth_control::world::{AppWorld, Compared, Edge, EdgeProcess, Probed, Stopwatch};
use berth_rollout::{Evidence, Verdict};
use berth_routing::{Generation, Role, Snapshot};
use berth_spec::{AppId, InstanceId, Millis, ReleaseNumber};

use crate::chance::Chance;
use crate::disk::{Append, Kept};
use crate::edge::{Word, ports};
use crate::fault::{Fault, Planted};
use crate::world::Outside;

/// What somebody who asked is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Kept),
    Refused(Refusal),
    /// The journal did not take it: nothing was done.
    NotDone,
}

#[derive(Debug)]
struct Waiting {
    position: Position,
    app: Option<AppId>,
    /// The key that it was asked with, and what to answer.
    request: Option<(String, Answer)>,
}

/// What is remembered of an app between two passes.
#[derive(Debug, Default)]
struct Memory {
    watch: Stopwatch,
    strays: BTreeSet<Ordinal>,
}

/// What is left to do of a plan, with what it was made from.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) app: Arc<App>,
    pub(crate) world: AppWorld,
    /// The instances whose time to drain was over when the plan was made.
    pub(crate) drained: BTreeSet<Ordinal>,
    pub(crate) actions: VecDeque<Action>,
}

/// An edge process as control knows it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) applied: Generation,
    connected: bool,
    drained: BTreeMap<InstanceId, Generation>,
    health: BTreeMap<InstanceId, Probed>,
    wanted: BTreeMap<AppId, Generation>,
}

/// The process.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) ledger: Ledger,
    waiting: VecDeque<Waiting>,
    pub(crate) dirty: BTreeSet<AppId>,
    pub(crate) timers: BTreeMap<AppId, Duration>,
    memories: BTreeMap<AppId, Memory>,
    pub(crate) passes: BTreeMap<AppId, Pass>,
    pub(crate) edges: BTreeMap<u64, Known>,
    /// Instances that this process had stand still, or go on.
    pub(crate) frozen: BTreeMap<(AppId, Ordinal), bool>,
    /// When it was last heard of somebody who keeps an app awake.
    stirred: BTreeMap<AppId, Duration>,
    pub(crate) newest: Snapshot,
    older: Option<Snapshot>,
    unsent: bool,
    /// Up to where in the journal the routing is published or was found to be as it was.
    published: Position,
    /// The ports of the snapshots that were published and that some edge may still use, by generation.
    in_use: VecDeque<(Generation, BTreeSet<u16>)>,
    /// All ports that an instance was given or seen with, while the state has it. It may be dead, and its port free again, before it is
    /// written down that it started; it may even be started again on another port by then.
    given: BTreeMap<(AppId, Ordinal), BTreeSet<u16>>,
    /// The tokens of one-off commands that were asked for and not started yet.
    pub(crate) orders: BTreeSet<String>,
    /// Until when somebody is connected to a one-off command, by its token.
    attended: BTreeMap<String, (AppId, Duration)>,
}

/// The app that it is about, if it is about one.
fn app_of(command: &Command) -> Option<AppId> {
    match command {
        Command::App { app, .. } | Command::Fact { app, .. } => Some(app.clone()),
        Command::EnsureProject { .. }
        | Command::IssueToken { .. }
        | Command::ChangeCertificates { .. }
        | Command::ReportBreach { .. } => None,
    }
}

impl Control {
    /// A process that goes on from what was replayed. It is told by the supervisor which edge runs.
    pub(crate) fn start(
        replayed: State,
        durable: &Snapshot,
        edge: Option<u64>,
        known: BTreeSet<AppId>,
    ) -> Self {
        let dirty = replayed.apps.keys().cloned().chain(known).collect();
        Self {
            ledger: Ledger::new(replayed),
            waiting: VecDeque::new(),
            dirty,
            timers: BTreeMap::new(),
            memories: BTreeMap::new(),
            passes: BTreeMap::new(),
            frozen: BTreeMap::new(),
            stirred: BTreeMap::new(),
            edges: edge.into_iter().map(|pid| (pid, Known::default())).collect(),
            newest: durable.clone(),
            older: None,
            unsent: true,
            published: durable.generation.0,
            in_use: [(durable.generation, ports(durable))].into(),
            given: BTreeMap::new(),
            orders: BTreeSet::new(),
            attended: BTreeMap::new(),
        }
    }

    /// Whether answers wait for the disk.
    pub(crate) fn owes_answers(&self) -> bool {
        self.waiting.iter().any(|it| it.request.is_some())
    }

    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Decides on a command and hands what follows to the journal. Whoever asked with a key is answered once that is durable.
    pub(crate) fn submit(
        &mut self,
        command: &Command,
        actor: &str,
        key: Option<String>,
        out: &mut Outside,
    ) -> Result<Option<Refusal>, Breach> {
        if let Some(key) = &key {
            if let Some(kept) = out.disk.kept(key) {
                check_answer(kept.position, out.disk.head)?;
                out.answers.push((key.clone(), Answer::Done(kept.clone())));
                return Ok(None);
            }
            if out.disk.is_on_its_way(key) {
                return Ok(None);
            }
        }
        if let Command::App { wish: Wish::RunCron { token, .. }, .. } = command {
            self.orders.insert(token.clone());
        }
        if let Command::App { app, wish: Wish::Run(run) } = command {
            self.orders.insert(run.token.clone());
            self.attended.insert(run.token.clone(), (app.clone(), out.chance.later(10, 60_000)));
        }
        let at = out.chance.clock().now();
        let app = app_of(command);
        let before = app.as_ref().and_then(|app| self.ledger.speculative().apps.get(app)).cloned();
        let decided = self.ledger.submit(command, at, actor);
        let position = self.ledger.speculative().position;
        let (batch, answer) = match decided {
            Ok(batch) => {
                let release = batch.as_ref().and_then(|batch| released(&batch.events));
                (batch, Answer::Done(Kept { position, release }))
            }
            Err(refusal) => (None, Answer::Refused(refusal)),
        };
        if let Some(batch) = &batch {
            out.note_events(&batch.stream, &batch.events);
            if let Stream::App(id) = &batch.stream {
                let fresh = App::new(id.clone());
                let after = &self.ledger.speculative().apps[id];
                for event in &batch.events {
                    if let Event::CronSetBack { to } = event {
                        out.machine.clock_was_wrong(id, *to, after.last_run);
                    }
                }
                check_step(before.as_deref().unwrap_or(&fresh), &batch.events, after)?;
            }
        }
        let kept = match (&key, &answer) {
            (Some(key), Answer::Done(kept)) => Some((key.clone(), kept.clone())),
            _ => None,
        };
        if out.planted == Some(Planted::AnswersBeforeSync) && key.is_some() {
            check_answer(position, self.ledger.durable().position)?;
        }
        let refusal = match &answer {
            Answer::Refused(refusal) => Some(refusal.clone()),
            Answer::Done(_) | Answer::NotDone => None,
        };
        let changed = batch.is_some();
        if changed || kept.is_some() {
            let append = Append { batch, at, actor: actor.to_owned(), key: kept };
            if out.disk.append(append).is_err() {
                out.tally.add(Fault::DiskFull);
                out.answers.extend(key.map(|key| (key, Answer::NotDone)));
                self.fail(out)?;
                return Ok(None);
            }
        }
        let request = key.map(|key| (key, answer));
        self.waiting.push_back(Waiting { position, app: app.filter(|_| changed), request });
        Ok(refusal)
    }

    /// Syncs the journal, publishes what is durable since and answers.
    pub(crate) fn commit(&mut self, out: &mut Outside) -> Result<(), Breach> {
        let last = out.disk.sync()?;
        self.ledger.committed(last);
        while self.waiting.front().is_some_and(|it| it.position <= last) {
            let Some(done) = self.waiting.pop_front() else { break };
            if let Some((key, answer)) = done.request {
                check_answer(done.position, self.ledger.durable().position)?;
                out.answers.push((key, answer));
            }
            if let Some(app) = done.app {
                check_app(&self.ledger.durable().apps[&app])?;
                self.dirty.insert(app);
            }
        }
        Ok(())
    }

    /// An append failed: what is before it may still become durable, what is after it never was.
    fn fail(&mut self, out: &mut Outside) -> Result<(), Breach> {
        if out.chance.one_in(2) {
            self.commit(out)?;
        } else {
            out.disk.discard();
        }
        if !self.waiting.is_empty() {
            out.tally.add(Fault::Discarded);
        }
        self.ledger.failed();
        for it in self.waiting.drain(..) {
            out.answers.extend(it.request.map(|(key, _)| (key, Answer::NotDone)));
        }
        // What could not be recorded is tried again later.
        let later = out.chance.later(1_000, 1_001);
        for app in self.passes.keys() {
            self.timers.insert(app.clone(), later);
        }
        Ok(())
    }

    /// Whether the durable state has to be published. Asked once for each state.
    pub(crate) fn has_news(&mut self) -> bool {
        let state = self.ledger.durable();
        if state.position <= self.published {
            return false;
        }
        let newer = snapshot(state);
        let news = newer.generation > self.newest.generation && must_publish(&self.newest, &newer, state);
        if !news {
            self.published = state.position;
        }
        news
    }

    /// Writes the routing of what is durable, to be sent to edge.
    pub(crate) fn publish(&mut self, out: &mut Outside) -> Result<(), Breach> {
        let mut newer = snapshot(self.ledger.durable());
        if out.planted == Some(Planted::DropsRoutes) && out.chance.one_in(4) {
            let all = newer.apps.values_mut().flat_map(|route| &mut route.backends);
            all.for_each(|backend| backend.role = Role::Parked);
        }
        if out.planted == Some(Planted::SharesHosts) && newer.apps.len() > 1 {
            let of_another = newer.apps.values().next_back().map(|route| route.hosts.clone());
            newer
                .apps
                .values_mut()
                .take(1)
                .for_each(|route| route.hosts.extend(of_another.clone().unwrap_or_default()));
        }
        check_routes(self.ledger.durable(), &newer)?;
        if out.planted == Some(Planted::SendsBeforeDurable) {
            check_snapshot(Generation(0), out.disk.routing.generation, &newer)?;
        }
        if out.disk.full || (!out.calm && out.chance.one_in(60)) {
            out.tally.add(Fault::SnapshotNotWritten);
            return Ok(());
        }
        out.disk.routing = newer.clone();
        self.published = newer.generation.0;
        self.in_use.push_back((newer.generation, ports(&newer)));
        self.older = Some(std::mem::replace(&mut self.newest, newer));
        self.unsent = true;
        out.trace.add(out.chance.now(), format_args!("durable snapshot {}", self.newest.generation));
        Ok(())
    }

    /// Whether a connected edge has not got the newest snapshot.
    pub(crate) fn owes_snapshot(&self) -> bool {
        self.unsent && self.edges.values().any(|known| known.connected)
    }

    pub(crate) fn send(&mut self, out: &mut Outside) -> Result<(), Breach> {
        let Some(edge) = out.edge.as_mut().filter(|edge| edge.connected) else { return Ok(()) };
        let older = self.older.as_ref().filter(|_| out.planted == Some(Planted::SendsOlderSnapshot));
        let next = older.unwrap_or(&self.newest);
        let applied = self.edges.get(&edge.pid).map(|known| known.applied).unwrap_or_default();
        check_snapshot(applied, out.disk.routing.generation, next)?;
        edge.receive(next);
        self.unsent = false;
        Ok(())
    }

    /// An edge process runs from now on. It is known before it reads the durable snapshot: one that is not would boot from a snapshot
    /// whose instances are being stopped because no edge is alive.
    pub(crate) fn edge_started(&mut self, pid: u64) {
        self.edges.insert(pid, Known::default());
        // Each waits for it to say what it serves by, or it would hang unnoticed.
        self.dirty.extend(self.ledger.durable().apps.keys().cloned());
    }

    /// It is proven dead.
    pub(crate) fn edge_gone(&mut self, pid: u64) {
        self.edges.remove(&pid);
        self.dirty.extend(self.ledger.durable().apps.keys().cloned());
    }

    pub(crate) fn edge_connected(&mut self, pid: u64) {
        self.edges.entry(pid).or_default().connected = true;
        self.unsent = true;
    }

    pub(crate) fn hear(&mut self, pid: u64, word: Word, now: Duration) {
        let known = self.edges.entry(pid).or_default();
        let app = match &word {
            Word::Applied(_) => None,
            // Nobody looks for that.
            Word::Busy(app) => {
                self.stirred.insert(app.clone(), now);
                return;
            }
            Word::Wanted(app, _) => Some(app.clone()),
            Word::Drained(instance, _) | Word::Health(instance, _) => Some(instance.app.clone()),
        };
        match word {
            Word::Applied(generation) => known.applied = generation,
            Word::Drained(instance, generation) => {
                known.drained.insert(instance, generation);
            }
            Word::Busy(_) => {}
            Word::Wanted(app, asleep) => {
                known.wanted.insert(app, asleep);
            }
            Word::Health(instance, health) => {
                known
                    .health
                    .insert(instance, Probed { health, evidence: vec!["GET /healthz: 200".to_owned()] });
            }
        }
        match app {
            Some(app) => {
                self.dirty.insert(app);
            }
            None => self.dirty.extend(self.ledger.durable().apps.keys().cloned()),
        }
    }

    /// Those who were connected to a one-off command leave; their apps are to be looked at.
    pub(crate) fn leave(&mut self, now: Duration) {
        let gone: Vec<String> = self
            .attended
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(token, _)| token.clone())
            .collect();
        for token in gone {
            self.orders.remove(&token);
            self.dirty.extend(self.attended.remove(&token).map(|(app, _)| app));
        }
    }

    /// When somebody leaves next.
    pub(crate) fn next_leave(&self) -> Option<Duration> {
        self.attended.values().map(|(_, until)| *until).min()
    }

    /// The ports that no instance may be given now, `None` while it is not known what a living edge uses.
    pub(crate) fn ports_in_use(&mut self) -> Option<BTreeSet<u16>> {
        let least = self.edges.values().map(|known| known.applied).min();
        while let Some(least) = least
            && self.in_use.len() > 1
            && self.in_use[1].0 <= least
        {
            self.in_use.pop_front();
        }
        if least.is_some_and(|least| least < self.in_use[0].0) {
            return None;
        }
        let state = self.ledger.durable();
        self.given.retain(|(app, ordinal), _| {
            state.apps.get(app).is_some_and(|app| app.instances.contains_key(ordinal))
        });
        let of_state = self.ledger.durable().apps.values().flat_map(|app| app.instances.values());
        let sent = self.in_use.iter().flat_map(|(_, ports)| ports.iter().copied());
        let given = self.given.values().flatten().copied();
        Some(
            of_state
                .filter(|it| it.dialer.is_none())
                .filter_map(|it| it.port)
                .chain(sent)
                .chain(given)
                .collect(),
        )
    }

    /// Remembers the port that an instance was given or is seen with.
    pub(crate) fn note_port(&mut self, app: &AppId, ordinal: Ordinal, port: Option<u16>) {
        self.given.entry((app.clone(), ordinal)).or_default().extend(port);
    }

    fn observe(&self, app: &App, out: &Outside) -> AppWorld {
        let now = out.chance.now();
        let ids = || app.instances.keys().filter_map(|&ordinal| Some((ordinal, app.instance_id(ordinal)?)));
        let health =
            |id: &InstanceId| self.edges.values().rev().find_map(|known| known.health.get(id).cloned());
        let drained = |id: &InstanceId| {
            let all: Option<Vec<Generation>> =
                self.edges.values().map(|known| known.drained.get(id).copied()).collect();
            all.and_then(|all| all.into_iter().min())
        };
        AppWorld {
            instances: out.machine.observe(&app.id, now),
            runs: out.machine.runs(&app.id, |token| self.attended.contains_key(token)),
            health: ids().filter_map(|(ordinal, id)| Some((ordinal, health(&id)?))).collect(),
            drained: ids().filter_map(|(ordinal, id)| Some((ordinal, drained(&id)?))).collect(),
            builds: out.builders.builds(&app.id, now),
            commands: out.builders.commands(&app.id, now),
            // What is overlooked is seen once all has calmed down: the bug is that stops do not wait for it.
            edge: self.seen_edge(out.planted.filter(|_| !out.calm)),
            memory_short: out.memory_short,
            compared: compared(app, out),
            volume_worked: out.machine.worked.get(&app.id).cloned(),
            freezes: out.freezes,
            frozen: self.frozen_of(&app.id),
            still: ids().filter_map(|(ordinal, id)| Some((ordinal, drained(&id)?))).collect(),
            idle: self.stirred.get(&app.id).map(|last| in_millis(now.saturating_sub(*last))),
            wanted: self.is_wanted(app),
            may_wake: true,
            volumes_left: app.life == Life::Destroying && out.machine.volumes.contains(&app.id),
            wall: (!out.ending).then(|| out.chance.clock().now()),
        }
    }

    fn frozen_of(&self, app: &AppId) -> BTreeMap<Ordinal, bool> {
        let of_app = self.frozen.iter().filter(|((it, _), _)| it == app);
        of_app.map(|((_, ordinal), frozen)| (*ordinal, *frozen)).collect()
    }

    fn is_wanted(&self, app: &App) -> bool {
        let meant = app.asleep.map(|asleep| Generation(asleep.position));
        meant.is_some() && self.edges.values().any(|known| known.wanted.get(&app.id).copied() == meant)
    }

    fn seen_edge(&self, planted: Option<Planted>) -> Edge {
        let overlooks = planted == Some(Planted::OverlooksNewEdge);
        let seen = self.edges.values().filter(|known| !overlooks || known.connected);
        let applied = seen.map(|known| known.applied).min();
        Edge { durable: self.newest.generation, alive: applied.map(|applied| EdgeProcess { applied }) }
    }

    /// One look at one app: makes a plan to be performed step by step.
    pub(crate) fn look(&mut self, id: &AppId, out: &mut Outside) -> Result<(), Breach> {
        self.dirty.remove(id);
        self.timers.remove(id);
        let Some(app) = self.ledger.durable().apps.get(id).cloned() else {
            for ordinal in out.machine.observe(id, out.chance.now()).into_keys() {
                out.machine.remove(id, ordinal);
            }
            for number in out.machine.runs(id, |_| false).into_keys() {
                out.machine.remove_run(id, number);
            }
            return Ok(());
        };
        check_app(&app)?;
        if app.life != Life::Destroyed {
            let none = BTreeSet::new();
            check_artifacts(&app, out.disk.artifacts.get(id).unwrap_or(&none))?;
        }
        let world = self.observe(&app, out);
        for (ordinal, seen) in &world.instances {
            self.note_port(id, *ordinal, seen.port.filter(|_| seen.dialer.is_none()));
        }
        let memory = self.memories.entry(id.clone()).or_default();
        let strays: BTreeSet<Ordinal> =
            world.instances.keys().filter(|ordinal| !app.instances.contains_key(ordinal)).copied().collect();
        check_leaks(&app, &strays.intersection(&memory.strays).copied().collect())?;
        memory.strays = strays;
        let plan = plan(&app, &world, &mut memory.watch, out.chance.now());
        if let Some(again) = plan.look_again {
            self.timers.insert(id.clone(), out.chance.now() + again.as_duration());
        }
        if !plan.actions.is_empty() {
            out.trace.add(out.chance.now(), format_args!("plan {id}: {:?}", plan.actions));
            let mut actions: VecDeque<Action> = plan.actions.into();
            crate::perform::plant(out.planted, &out.chance, &app, &world, &mut actions);
            let drained = crate::perform::drained(&app, out);
            self.passes.insert(id.clone(), Pass { app, world, drained, actions });
        }
        Ok(())
    }

    /// Whether every app is at rest: nothing to plan, nothing to wait for.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.dirty.is_empty() && self.passes.is_empty() && self.timers.is_empty() && self.waiting.is_empty()
    }

    /// An app that is to be looked at and has no pass under way.
    pub(crate) fn next_to_look(&self, chance: &Chance) -> Option<AppId> {
        let ready: Vec<&AppId> = self.dirty.iter().filter(|app| !self.passes.contains_key(*app)).collect();
        chance.pick(&ready).copied().cloned()
    }
}

fn in_millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn released(events: &[Event]) -> Option<ReleaseNumber> {
    events.iter().find_map(|event| match event {
        Event::ReleaseSubmitted(release) => Some(release.number),
        _ => None,
    })
}

/// What was seen of two releases that share the requests: nothing that speaks against the new one, but for now and then.
fn compared(app: &App, out: &Outside) -> Option<Compared> {
    let split = app.split?;
    let verdict = match out.chance.below(40) {
        _ if out.calm => Verdict::TooFew,
        0 => Verdict::Worse,
        1..=4 => Verdict::Unclear,
        5..=20 => Verdict::AsGood,
        _ => Verdict::TooFew,
    };
    let evidence = Evidence { verdict, ..Evidence::none() };
    Some(Compared { release: split.release, percent: split.percent, evidence })
}
