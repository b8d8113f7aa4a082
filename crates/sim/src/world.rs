//! The world: its steps, its faults, its end.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::Clock;
use berth_control::event::{CronSkip, Event, GoneCause, Stream};
use berth_control::invariant::{Breach, Invariant, check_replay};
use berth_control::state::{App, Phase, State};
use berth_spec::{AppId, Timestamp};

use crate::builder::{Builders, unsettled};
use crate::chance::Chance;
use crate::control::{Answer, Control};
use crate::disk::Disk;
use crate::edge::Edge;
use crate::fault::{Fault, Planted, Tally};
use crate::machine::Machine;
use crate::trace::Trace;
use crate::users::{Users, apps};

/// What a world is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Everything is drawn from it.
    pub seed: u64,
    /// How many steps there are faults for.
    pub steps: u32,
    /// Whether there are faults. Where there are none, every request has to be taken by the first attempt.
    pub faults: bool,
    /// A bug that is planted.
    pub planted: Option<Planted>,
    /// Whether to keep the whole trace, not only its end.
    pub whole_trace: bool,
}

/// What came of a world in which everything held.
#[derive(Debug)]
pub struct Outcome {
    /// The hash of the trace: the same for the same setup.
    pub hash: u64,
    /// The faults that came.
    pub tally: Tally,
    /// What came to pass in control: kinds of events, with what they were for.
    pub seen: BTreeSet<String>,
    /// How many events are in the journal.
    pub events: usize,
    /// How many releases were activated.
    pub activated: usize,
    /// The trace, as far as it was kept.
    pub trace: Vec<String>,
}

/// Something did not hold.
#[derive(Debug)]
pub struct Failure {
    /// The setup that gives it again.
    pub setup: Setup,
    /// The step.
    pub step: u32,
    /// The invariant, if it was one; else the world did not settle.
    pub invariant: Option<Invariant>,
    /// What was found.
    pub what: String,
    /// The trace, as far as it was kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let Setup { seed, steps, planted, faults, .. } = self.setup;
        writeln!(f, "seed {seed}, step {} of {steps}, planted {planted:?}: {}", self.step, self.what)?;
        let faults = u8::from(faults);
        write!(
            f,
            "the whole trace: BERTH_SIM_FAULTS={faults} BERTH_SIM_SEED={seed} cargo test -p berth-sim replay -- --nocapture"
        )
    }
}

impl std::error::Error for Failure {}

/// What stops a world.
#[derive(Debug)]
pub(crate) enum Stopped {
    Breach(Breach),
    /// It did not settle.
    Unsettled(String),
}

impl From<Breach> for Stopped {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

/// Everything outside control.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) chance: Chance,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    seen: BTreeSet<String>,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    pub(crate) builders: Builders,
    pub(crate) edge: Option<Edge>,
    pub(crate) planted: Option<Planted>,
    /// Whether instances can be had stand still.
    pub(crate) freezes: bool,
    /// No new faults.
    pub(crate) calm: bool,
    /// Nothing begins any more by the clock, or no world would ever be at rest.
    pub(crate) ending: bool,
    /// There never were any, so that every request is taken.
    strict: bool,
    pub(crate) memory_short: bool,
    pub(crate) answers: Vec<(String, Answer)>,
    edge_due: Duration,
    edge_deaths: VecDeque<(Duration, u64)>,
}

impl Outside {
    pub(crate) fn kill_edge(&mut self) {
        if let Some(edge) = self.edge.take() {
            self.edge_due = self.chance.later(20, 1_500);
            // A pidfd tells soon, not at once.
            self.edge_deaths.push_back((self.chance.later(1, 60), edge.pid));
            self.trace.add(self.chance.now(), format_args!("edge {} is dead", edge.pid));
        }
    }

    pub(crate) fn note_events(&mut self, stream: &Stream, events: &[Event]) {
        for event in events {
            let now = self.chance.now();
            self.seen.insert(label(event));
            match event {
                Event::ReleaseSubmitted(release) => {
                    self.trace.add(now, format_args!("{stream}: {} {:?}", release.number, release.reason));
                }
                other => self.trace.add(now, format_args!("{stream}: {other:?}")),
            }
        }
    }
}

/// The kind of an event, with what it was for where a kind has several reasons.
fn label(event: &Event) -> String {
    let kind = event.kind();
    match event {
        Event::ReleaseFailed { failure, .. } => format!("{kind} {}", failure.code),
        Event::RunEnded { end, .. } => match end.why {
            Some(why) => format!("{kind} {why:?}"),
            None => kind.to_owned(),
        },
        Event::CronSkipped { why: CronSkip::StillRunning { .. }, .. } => format!("{kind} StillRunning"),
        Event::CronSkipped { why, .. } => format!("{kind} {why:?}"),
        Event::AppSlept { depth, .. } => format!("{kind} {depth:?}"),
        Event::AppWoken { why, .. } => format!("{kind} {why:?}"),
        Event::WarmEnded { why, .. } => format!("{kind} {why:?}"),
        Event::InstanceStopping { why, .. } => format!("{kind} {why:?}"),
        Event::InstanceGone { cause: GoneCause::NotStarted { .. }, .. } => format!("{kind} NotStarted"),
        Event::InstanceGone { cause, .. } => format!("{kind} {cause:?}"),
        _ => kind.to_owned(),
    }
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) control: Option<Control>,
    control_due: Duration,
    pub(crate) out: Outside,
    pub(crate) users: Users,
    pids: u64,
    full_until: Duration,
    ticked: Duration,
}

/// Lets a world run.
///
/// # Errors
/// [`Failure`] with the first thing that did not hold.
pub fn run(setup: Setup) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(setup);
    let mut step = 0;
    let mut ended = Ok(());
    while step < setup.steps && ended.is_ok() {
        step += 1;
        ended = world.step().map_err(Stopped::from);
    }
    let ended = ended.and_then(|()| world.settle());
    let trace = std::mem::replace(&mut world.out.trace, Trace::new(false));
    let hash = trace.hash();
    let trace = trace.into_lines();
    match ended {
        Ok(()) => Ok(Outcome {
            hash,
            tally: world.out.tally,
            seen: world.out.seen,
            events: world.out.disk.events(),
            activated: world.control.iter().map(|control| activated(control.ledger.durable())).sum(),
            trace,
        }),
        Err(Stopped::Breach(breach)) => {
            let (invariant, what) = (Some(breach.invariant), breach.to_string());
            Err(Box::new(Failure { setup, step, invariant, what, trace }))
        }
        Err(Stopped::Unsettled(what)) => Err(Box::new(Failure { setup, step, invariant: None, what, trace })),
    }
}

fn activated(state: &State) -> usize {
    let releases = state.apps.values().flat_map(|app| app.releases.values());
    releases.filter(|release| release.phase == Phase::Activated).count()
}

impl World {
    fn new(setup: Setup) -> Self {
        let out = Outside {
            chance: Chance::new(setup.seed),
            trace: Trace::new(setup.whole_trace),
            tally: Tally::default(),
            seen: BTreeSet::new(),
            disk: Disk::default(),
            machine: Machine::default(),
            builders: Builders::default(),
            edge: None,
            planted: setup.planted,
            freezes: setup.seed.is_multiple_of(2),
            calm: !setup.faults,
            ending: false,
            strict: !setup.faults,
            memory_short: false,
            answers: Vec::new(),
            edge_due: Duration::ZERO,
            edge_deaths: VecDeque::new(),
        };
        Self {
            control: None,
            control_due: Duration::ZERO,
            out,
            users: Users::default(),
            pids: 0,
            full_until: Duration::ZERO,
            ticked: Duration::ZERO,
        }
    }

    fn step(&mut self) -> Result<(), Breach> {
        let chance = &self.out.chance;
        let span = match chance.below(100) {
            0 => chance.span(5_000, 40_000),
            1..=8 => chance.span(500, 4_000),
            _ => chance.span(1, 120),
        };
        chance.clock().advance(span);
        self.tick()?;
        match self.out.chance.below(100) {
            0..=59 => {
                for _ in 0..=self.out.chance.below(4) {
                    self.control_works()?;
                }
            }
            60..=76 => self.requests()?,
            77..=89 => {
                if let Some(control) = &mut self.control {
                    self.users.ask(control, &mut self.out)?;
                }
            }
            90..=96 if !self.out.calm => self.fault()?,
            97 => self.collect_artifacts(),
            _ => {
                if let Some(control) = &mut self.control {
                    control.dirty.extend(control.ledger.durable().apps.keys().cloned());
                }
            }
        }
        self.users.hear(&mut self.out)
    }

    /// Lets everything happen that is due.
    pub(crate) fn tick(&mut self) -> Result<(), Breach> {
        let now = self.out.chance.now();
        if self.full_until <= now {
            self.out.disk.full = false;
        }
        let (mut changed, exited) = self.out.machine.tick(&self.out.chance);
        for (app, artifact) in self.out.builders.ended(self.ticked, now) {
            self.out.disk.artifacts.entry(app.clone()).or_default().extend(artifact);
            changed.insert(app);
        }
        self.ticked = now;
        self.supervise();
        if let Some(edge) = &mut self.out.edge {
            edge.tick(&self.out.machine, &self.out.chance)?;
        }
        let Some(control) = &mut self.control else { return Ok(()) };
        if let Some(edge) = &mut self.out.edge {
            for word in edge.heard(now) {
                self.out.trace.add(now, format_args!("edge says {word:?}"));
                control.hear(edge.pid, word, now);
            }
        }
        control.leave(now);
        for app in changed {
            if !self.out.calm && self.out.chance.one_in(40) {
                self.out.tally.add(Fault::NoticeLost);
            } else {
                control.dirty.insert(app);
            }
        }
        for (app, ordinal, exit) in exited {
            if self.out.chance.one_in(3) {
                let fact = berth_control::command::Fact::Exited { ordinal, exit, more: 0 };
                let command = berth_control::command::Command::Fact { app, fact };
                control.submit(&command, "reconciler", None, &mut self.out)?;
            }
        }
        let due = control.timers.iter().filter(|(_, due)| **due <= now).map(|(app, _)| app.clone());
        let due: Vec<AppId> = due.collect();
        control.timers.retain(|_, due| *due > now);
        control.dirty.extend(due);
        Ok(())
    }

    /// Starts what has died, and says who lives.
    fn supervise(&mut self) {
        let now = self.out.chance.now();
        if self.control.is_none() && self.control_due <= now {
            self.start_control();
        }
        if self.out.edge.is_none() && self.out.edge_due <= now {
            self.pids += 1;
            if let Some(control) = &mut self.control {
                control.edge_started(self.pids);
            }
            self.out.edge = Some(Edge::boot(self.pids, &self.out.disk.routing, &self.out.chance));
            self.out
                .trace
                .add(now, format_args!("edge {} boots {}", self.pids, self.out.disk.routing.generation));
        }
        let Some(control) = &mut self.control else { return };
        while let Some((due, pid)) = self.out.edge_deaths.front().copied()
            && due <= now
        {
            self.out.edge_deaths.pop_front();
            control.edge_gone(pid);
        }
        if let Some(edge) = self.out.edge.as_mut().filter(|edge| !edge.connected && !edge.wedged)
            && self.out.chance.one_in(3)
        {
            edge.connect(&self.out.chance);
            control.edge_connected(edge.pid);
        }
    }

    fn start_control(&mut self) {
        let out = &mut self.out;
        let mut state = out.disk.replay(out.disk.head, None, false);
        tamper(out.planted, &mut state);
        out.trace.add(out.chance.now(), format_args!("control starts at {}", state.position));
        let edge = out.edge.as_ref().map(|edge| edge.pid);
        self.control = Some(Control::start(state, &out.disk.routing, edge, out.machine.apps()));
    }

    /// Control does one thing of those that it could do.
    pub(crate) fn control_works(&mut self) -> Result<bool, Breach> {
        let Some(control) = &mut self.control else { return Ok(false) };
        let out = &mut self.out;
        let look = control.next_to_look(&out.chance);
        let passes: Vec<AppId> = control.passes.keys().cloned().collect();
        let could = [
            (0, out.disk.is_dirty() || control.waits()),
            (1, control.has_news()),
            (2, control.owes_snapshot()),
            (3, look.is_some()),
            (4, !passes.is_empty()),
            (5, !passes.is_empty()),
        ];
        let could: Vec<usize> = could.into_iter().filter(|(_, could)| *could).map(|(what, _)| what).collect();
        match out.chance.pick(&could) {
            None => return Ok(false),
            Some(0) => {
                if !out.calm && out.chance.one_in(150) {
                    out.tally.add(Fault::SyncFailed);
                    self.kill_control()?;
                    return Ok(true);
                }
                control.commit(out)?;
            }
            Some(1) => control.publish(out)?,
            Some(2) => control.send(out)?,
            Some(3) => {
                if let Some(app) = look {
                    control.look(&app, out)?;
                }
            }
            Some(_) => {
                if let Some(app) = out.chance.pick(&passes).cloned() {
                    for _ in 0..=out.chance.below(4) {
                        control.perform(&app, out)?;
                    }
                }
            }
        }
        Ok(true)
    }

    fn requests(&mut self) -> Result<(), Breach> {
        let all: Vec<AppId> = apps().collect();
        let Some(edge) = &mut self.out.edge else { return Ok(()) };
        for _ in 0..4 {
            let app = &all[self.out.chance.below(all.len())];
            let taken = edge.request(app, &self.out.machine, &self.out.chance, &mut self.out.tally)?;
            if let (false, true) = (taken, self.out.strict) {
                let detail =
                    format!("a request for {app} found none of the routed instances, and nothing had failed");
                return Err(Breach { invariant: Invariant::SomethingServes, detail });
            }
        }
        Ok(())
    }

    fn fault(&mut self) -> Result<(), Breach> {
        let now = self.out.chance.now();
        let kind = self.out.chance.below(100);
        self.out.trace.add(now, format_args!("fault {kind}"));
        let out = &mut self.out;
        match kind {
            0..=17 => {
                out.tally.add(Fault::ControlKilled);
                self.kill_control()?;
            }
            18..=19 => {
                out.tally.add(Fault::Rebooted);
                out.machine.reboot();
                out.kill_edge();
                self.kill_control()?;
            }
            20..=31 => {
                out.tally.add(Fault::EdgeDied);
                out.kill_edge();
            }
            32..=37 => {
                if let Some(edge) = &mut out.edge {
                    out.tally.add(Fault::EdgeWedged);
                    edge.wedged = true;
                }
            }
            38..=47 => {
                if let Some(edge) = &mut out.edge {
                    out.tally.add(Fault::LinkBroke);
                    edge.disconnect();
                }
            }
            48..=57 => {
                let wall = out.chance.clock().now().0;
                let (fault, to) = if out.chance.one_in(2) {
                    (Fault::ClockAhead, wall + out.chance.span(1, 100_000_000).0)
                } else {
                    (Fault::ClockBack, wall - out.chance.span(1, 100_000_000).0)
                };
                out.tally.add(fault);
                out.chance.clock().jump(Timestamp(to));
            }
            58..=63 => {
                out.disk.full = true;
                self.full_until = out.chance.later(100, 6_000);
            }
            64..=67 => {
                out.memory_short = !out.memory_short;
                out.tally.add(Fault::MemoryShort);
                if let Some(control) = &mut self.control {
                    control.dirty.extend(control.ledger.durable().apps.keys().cloned());
                }
            }
            _ => {
                let app = out.machine.trouble(&out.chance, &mut out.tally);
                if let (Some(app), Some(control)) = (app, &mut self.control) {
                    control.dirty.insert(app);
                }
            }
        }
        Ok(())
    }

    /// Kills control as `kill -9` does. What it served has to be what the journal gives, and nothing that anybody was told is lost.
    fn kill_control(&mut self) -> Result<(), Breach> {
        let Some(control) = self.control.take() else { return Ok(()) };
        let out = &mut self.out;
        for (fault, so) in [
            (Fault::KilledBetweenActions, !control.passes.is_empty()),
            (Fault::KilledBeforeAnswer, control.owes_answers()),
            (Fault::KilledBeforeSend, control.owes_snapshot()),
        ] {
            if so {
                out.tally.add(fault);
            }
        }
        out.trace.add(out.chance.now(), format_args!("control dies at {}", out.disk.head));
        self.control_due = out.chance.later(30, 2_500);
        out.builders.control_died();
        if let Some(edge) = &mut out.edge {
            edge.disconnect();
        }
        // Answers that were on their way arrive: they were given.
        self.users.hear(out)?;
        out.disk.crash(&out.chance, &mut out.tally)?;
        self.users.check(&out.disk)?;
        let served = control.ledger.durable();
        let without =
            (out.planted == Some(Planted::ForgetsEvent)).then(|| out.chance.below(out.disk.events().max(1)));
        if out.planted.is_none_or(|planted| !planted.spoils_replay()) {
            check_replay(served, &out.disk.replay(served.position, without, false))?;
        }
        Ok(())
    }

    /// Deletes the artifacts that nothing needs.
    fn collect_artifacts(&mut self) {
        let Some(control) = &self.control else { return };
        let out = &mut self.out;
        // Its artifact would be missed before it is activated out of order.
        if out.planted == Some(Planted::RevivesSuperseded) {
            return;
        }
        for (id, on_disk) in &mut out.disk.artifacts {
            let Some(app) = control.ledger.speculative().apps.get(id) else { continue };
            let mut kept = berth_control::invariant::kept_artifacts(app);
            // Those that are being built, or stand and were not taken note of yet.
            kept.extend(unsettled(app));
            if out.planted == Some(Planted::CollectsTooMuch) {
                let serving = app.serving_release().and_then(|release| release.artifact.as_ref());
                kept = serving.into_iter().map(|artifact| artifact.id.clone()).collect();
            }
            // What is durable may be older than what is ahead of it, and is what a crash goes back to.
            if let Some(durable) = control.ledger.durable().apps.get(id)
                && out.planted != Some(Planted::CollectsTooMuch)
            {
                kept.extend(berth_control::invariant::kept_artifacts(durable));
                // A crash may leave that they were built, and not what was decided of them after that.
                kept.extend(unsettled(durable));
            }
            on_disk.retain(|artifact| kept.contains(artifact));
        }
    }

    /// When the supervisor has something to do.
    pub(crate) fn next_start(&self) -> impl Iterator<Item = Duration> {
        let control = self.control.is_none().then_some(self.control_due);
        let edge = self.out.edge.is_none().then_some(self.out.edge_due);
        let deaths = self.out.edge_deaths.front().map(|(due, _)| *due);
        control.into_iter().chain(edge).chain(deaths)
    }
}

/// Makes the state that control goes on from wrong.
fn tamper(planted: Option<Planted>, state: &mut State) {
    for app in state.apps.values_mut() {
        let app = Arc::make_mut(app);
        match planted {
            Some(Planted::RevivesSuperseded) => revive(app),
            Some(Planted::ForgetsActivation) => forget_activation(app),
            Some(Planted::ForgetsOrdinals) => {
                app.last_ordinal = app.instances.last_key_value().map_or(0, |(last, _)| *last);
            }
            Some(Planted::RepeatsMoments) => {
                let of_a_day = |until: Timestamp| Timestamp(until.0.saturating_sub(86_400_000));
                app.cron.values_mut().for_each(|it| it.decided_until = of_a_day(it.decided_until));
            }
            _ => {}
        }
    }
}

/// Only before traffic has moved: after it the routing is wrong as well, and is found first.
fn forget_activation(app: &mut App) {
    let moved = |release| app.routed.iter().any(|ordinal| app.instances[ordinal].release == release);
    if !app.activation.as_ref().is_some_and(|activation| moved(activation.release)) {
        app.activation = None;
    }
}

fn revive(app: &mut App) {
    let superseded = app
        .releases
        .values_mut()
        .filter(|release| release.phase == Phase::Superseded && release.artifact.is_some());
    for release in superseded {
        Arc::make_mut(release).phase = Phase::Built;
    }
}
