//! The reconciler: re-reads the world of one app, plans, performs; again after every change.
//!
//! It takes no input but which app to look at. Everything it does may be cut off between any two steps: the next pass starts from
//! what is durable and what is seen then. One pass per app at a time; apps do not wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_clock::{Clock, random_bytes};
use berth_control::command::{Command, Fact};
use berth_control::event::Ordinal;
use berth_control::invariant::{
    check_app, check_freeze, check_leaks, check_newly_routed, check_start, check_stop, check_wake,
};
use berth_control::plan::{Action, Plan, plan};
use berth_control::state::{App, Life};
use berth_control::world::{AppWorld, Life as SeenLife, Listener, Stopwatch};
use berth_spec::{AppId, Millis};
use tokio::task::JoinSet;

use crate::desk::{Asker, Desk, SubmitError};
use crate::edge_link::EdgeLink;
use crate::events;
use crate::machine::Machine;
use crate::wake::WakeTurns;

/// How many apps are reconciled at a time: enough to fill a group of the journal, few enough to start instances at a steady rate.
const AT_ONCE: usize = 64;
/// How long to wait after facts could not be recorded, as with a full disk, before trying again.
const BACKOFF: Millis = Millis::from_secs(1);
/// How often every app that has something running or coming is looked at, whatever else happens: a lost notice costs so much and no more.
const RESYNC: Duration = Duration::from_secs(30);
/// How soon it is looked again where an instance listens that does not listen where it should; nothing tells of that. Twice as long after
/// each look, up to the longest: a look goes through `/proc`, and an instance may never come to listen.
const LISTENERS: Millis = Millis(250);
const LISTENERS_MAX: Millis = Millis::from_secs(8);

/// Everything a pass needs.
#[derive(Debug)]
pub struct Reconciler {
    desk: Desk,
    edge: Arc<EdgeLink>,
    machine: Arc<Machine>,
    clock: Arc<dyn Clock>,
    memories: Mutex<BTreeMap<AppId, Memory>>,
    turns: WakeTurns,
}

/// What is remembered of an app between two passes, and lost with the process.
#[derive(Debug, Default)]
struct Memory {
    watch: Stopwatch,
    /// Instances that the runtime had at the last pass and the state did not.
    strays: BTreeSet<Ordinal>,
    /// How often in a row it was looked for an instance that does not listen where it should.
    listener_looks: u32,
}

/// When apps are to be looked at again, at most once each.
#[derive(Debug, Default)]
struct Timers {
    due: BTreeMap<AppId, Duration>,
    order: BTreeSet<(Duration, AppId)>,
}

impl Timers {
    fn set(&mut self, app: AppId, due: Duration) {
        self.cancel(&app);
        self.order.insert((due, app.clone()));
        self.due.insert(app, due);
    }

    fn cancel(&mut self, app: &AppId) {
        if let Some(due) = self.due.remove(app) {
            self.order.remove(&(due, app.clone()));
        }
    }

    /// When the first is due.
    fn next(&self) -> Option<Duration> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes out one that is due.
    fn take(&mut self, now: Duration) -> Option<AppId> {
        let (due, _) = self.order.first()?;
        if *due > now {
            return None;
        }
        let (_, app) = self.order.pop_first()?;
        self.due.remove(&app);
        Some(app)
    }
}

impl Reconciler {
    /// A reconciler that knows nothing yet.
    #[must_use]
    pub fn new(desk: Desk, edge: Arc<EdgeLink>, machine: Arc<Machine>, clock: Arc<dyn Clock>) -> Self {
        Self { desk, edge, machine, clock, memories: Mutex::default(), turns: WakeTurns::new() }
    }

    /// Works until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut passes: JoinSet<(AppId, Option<Millis>)> = JoinSet::new();
        let mut busy: BTreeSet<AppId> = BTreeSet::new();
        let mut dirty: BTreeSet<AppId> = self.all_apps();
        let mut timers = Timers::default();
        let mut resync = self.clock.monotonic() + RESYNC;
        loop {
            let ready: Vec<AppId> = dirty
                .iter()
                .filter(|app| !busy.contains(*app))
                .take(AT_ONCE.saturating_sub(passes.len()))
                .cloned()
                .collect();
            for app in ready {
                dirty.remove(&app);
                timers.cancel(&app);
                busy.insert(app.clone());
                let this = Arc::clone(&self);
                passes.spawn(async move {
                    let again = this.pass(&app).await;
                    (app, again)
                });
            }
            let next = timers.next().map_or(resync, |due| due.min(resync));
            let wait = next.saturating_sub(self.clock.monotonic());
            tokio::select! {
                changed = self.desk.changed().take() => dirty.extend(changed),
                Some(done) = passes.join_next() => match done {
                    Ok((app, again)) => {
                        busy.remove(&app);
                        if let Some(again) = again {
                            timers.set(app, self.clock.monotonic() + again.as_duration());
                        }
                    }
                    Err(error) => {
                        // A pass that panicked has found a broken invariant or a bug: nothing is known to be safe then.
                        events::could_not("finish a pass of the reconciler", &error);
                        std::process::abort();
                    }
                },
                () = tokio::time::sleep(wait) => {}
            }
            let now = self.clock.monotonic();
            dirty.extend(std::iter::from_fn(|| timers.take(now)));
            if now >= resync {
                dirty.extend(self.all_apps());
                resync = now + RESYNC;
            }
        }
    }

    /// The apps of which something may be or has to come. An app that is at rest with nothing running needs no look: of ten thousand apps
    /// most are stopped.
    fn all_apps(&self) -> BTreeSet<AppId> {
        let rests = |app: &App| {
            let settled = app.releases.values().rev().all(|release| release.phase.is_settled());
            let processes = app.serving_release().and_then(|release| release.processes());
            let stopped = processes.is_none_or(|processes| {
                processes.keys().all(|it| app.wanted(it) == 0 || (it.is_web() && app.asleep.is_some()))
            });
            let still = app.instances.is_empty()
                && app.activation.is_none()
                && app.warm.is_none()
                && app.runs.is_empty()
                && app.volume_work.is_none()
                && app.cron.is_empty();
            app.life == Life::Destroyed || (app.life == Life::Alive && still && settled && stopped)
        };
        let mut apps: BTreeSet<AppId> = self
            .desk
            .read(|state| state.apps.values().filter(|app| !rests(app)).map(|app| app.id.clone()).collect());
        apps.extend(self.machine.apps());
        apps
    }

    /// One look at one app. Returns when to look again if nothing changes before.
    async fn pass(&self, id: &AppId) -> Option<Millis> {
        let Some(app) = self.desk.read(|state| state.apps.get(id).cloned()) else {
            self.machine.clear_unknown(id).await;
            return None;
        };
        events::breach(check_app(&app));
        // Asked before the look: what was being cleared away then may still be seen, and may be done by the time of the check.
        let clearing = self.machine.clearing(id);
        let mut world = self.machine.observe(&app).await;
        self.add_edge(&app, &mut world);
        let mut plan = self.plan(&app, &world, &clearing);
        if let Some(soon) = self.next_listener_look(&app, &world) {
            plan.look_again = Some(plan.look_again.map_or(soon, |again| again.min(soon)));
        }
        self.perform(&app, &world, plan).await
    }

    fn next_listener_look(&self, app: &App, world: &AppWorld) -> Option<Millis> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.get_mut(&app.id)?;
        if !waits_for_listener(app, world) {
            memory.listener_looks = 0;
            return None;
        }
        let soon = Millis(LISTENERS.0 << memory.listener_looks.min(8)).min(LISTENERS_MAX);
        memory.listener_looks = memory.listener_looks.saturating_add(1);
        Some(soon)
    }

    fn add_edge(&self, app: &App, world: &mut AppWorld) {
        let ids: Vec<_> = app.instances.keys().filter_map(|&it| Some((it, app.instance_id(it)?))).collect();
        (world.health, world.drained) = self.edge.of_app(&ids);
        world.edge = self.edge.observe();
        world.compared = self.edge.compared(app);
        world.still = self.edge.still(&ids);
        world.idle = self.edge.idle(&app.id);
        world.wanted = self.edge.is_wanted(app);
        let waits_awake = app.asleep.is_none() && app.routed.is_empty() && app.life == Life::Alive;
        if world.wanted && app.life == Life::Alive {
            world.may_wake = self.turns.ask(&app.id, world.memory_short, self.clock.monotonic());
        } else if !waits_awake {
            self.desk.changed().extend(self.turns.done(&app.id));
        }
    }

    fn plan(&self, app: &App, world: &AppWorld, clearing: &BTreeSet<Ordinal>) -> Plan {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.entry(app.id.clone()).or_default();
        let strays: BTreeSet<Ordinal> =
            world.instances.keys().filter(|it| !app.instances.contains_key(it)).copied().collect();
        // What was cleared away at the last pass must not be there any more, unless the state has taken it up since.
        let twice = strays.iter().filter(|it| memory.strays.contains(it) && !clearing.contains(it));
        events::breach(check_leaks(app, &twice.copied().collect()));
        memory.strays = strays;
        let plan = plan(app, world, &mut memory.watch, self.clock.monotonic());
        if app.life == Life::Destroyed && plan.actions.is_empty() {
            memories.remove(&app.id);
        }
        plan
    }

    async fn freeze(&self, app: &Arc<App>, ordinal: Ordinal, world: &AppWorld) {
        events::breach(check_freeze(app, ordinal, world));
        // Somebody may have decided meanwhile that it wakes, which is not durable yet.
        if self.desk.app_ahead(&app.id).is_some_and(|ahead| ahead.asleep == app.asleep) {
            self.machine.freeze(app, ordinal).await;
        }
    }

    async fn perform(&self, app: &Arc<App>, world: &AppWorld, plan: Plan) -> Option<Millis> {
        let mut facts: Vec<Fact> = Vec::new();
        let mut ordered: Vec<String> = Vec::new();
        let mut again = plan.look_again;
        for action in plan.actions {
            match action {
                Action::Record(fact) => {
                    if let Fact::RunEnded { run, .. } = &fact
                        && let Some(run) = app.runs.get(run)
                    {
                        // One that another took the place of before it began has its order still.
                        self.machine.forget_order(&run.token);
                    }
                    match &fact {
                        Fact::Route { ordinals } => {
                            events::breach(check_newly_routed(app, ordinals, world));
                        }
                        Fact::Wake { ordinals, .. } => events::breach(check_wake(app, ordinals, world)),
                        _ => {}
                    }
                    facts.push(fact);
                }
                Action::Assign { release, process, count } => {
                    let tokens = (0..count).map(|_| hex::encode(random_bytes::<16>(&*self.clock))).collect();
                    facts.push(Fact::Assign { release, process, tokens });
                }
                Action::Cron { entry, at } => {
                    let token = hex::encode(random_bytes::<16>(&*self.clock));
                    // Before the decision: a run whose order is not there when it is to start is taken for one that was started before.
                    self.machine.order_cron(&token);
                    ordered.push(token.clone());
                    facts.push(Fact::Cron { entry, at, token });
                }
                Action::Build(release) => self.machine.build(app, release),
                Action::CancelBuild(release) => self.machine.cancel_build(app, release),
                Action::RunReleaseCommand(release) => self.machine.run_release_command(app, release),
                Action::Start(ordinal) => {
                    events::breach(check_start(app, ordinal, world));
                    self.machine.start(app, ordinal, &self.edge.ports_in_use()).await;
                }
                Action::Stop(ordinal) => {
                    // The planner has seen that the drain is over where it is; everything else is checked here again.
                    events::breach(check_stop(app, ordinal, world, true));
                    self.machine.stop(app, ordinal).await;
                }
                Action::Freeze(ordinal) => self.freeze(app, ordinal, world).await,
                Action::Thaw(ordinal) => self.machine.thaw(app, ordinal).await,
                Action::Remove(ordinal) => {
                    if let Some(instance) = self.machine.remove(&app.id, ordinal).await {
                        self.edge.forget(&instance);
                    }
                }
                Action::WorkOnVolume(work) => self.machine.work_on_volume(app, work),
                Action::RemoveVolumes => self.machine.remove_volumes(&app.id),
                Action::StartRun(run) => self.machine.start_run(app, run),
                Action::StopRun(run, why) => self.machine.stop_run(app, run, why),
                Action::RemoveRun(run) => self.machine.remove_run(&app.id, run),
                Action::RestartEdge => {
                    if self.machine.restart_edge() {
                        events::edge_restarted(&app.id);
                    }
                }
            }
        }
        if !self.record(app, facts).await {
            again = Some(again.map_or(BACKOFF, |before| before.min(BACKOFF)));
        }
        self.forget_unused(&app.id, &ordered);
        again
    }

    /// Forgets the orders whose decision was not to run.
    fn forget_unused(&self, id: &AppId, ordered: &[String]) {
        let app = if ordered.is_empty() { None } else { self.desk.app(id) };
        let runs =
            |token: &String| app.as_ref().is_some_and(|app| app.runs.values().any(|it| it.token == *token));
        ordered.iter().filter(|token| !runs(token)).for_each(|token| self.machine.forget_order(token));
    }

    /// Records the facts in order. Returns whether the journal took them; a stale one counts as taken, since the state has moved on.
    async fn record(&self, app: &App, facts: Vec<Fact>) -> bool {
        if facts.is_empty() {
            return true;
        }
        let commands: Vec<Command> =
            facts.into_iter().map(|fact| Command::Fact { app: app.id.clone(), fact }).collect();
        let asker = Asker::platform(&format!("reconcile-{}", app.position));
        let mut taken = true;
        for answer in self.desk.submit_all(commands, &asker).await {
            match answer {
                Ok(_) => {}
                Err(SubmitError::Refused(refusal)) => events::refused(&app.id, &refusal),
                Err(error) => {
                    events::not_recorded(&app.id, &error);
                    taken = false;
                }
            }
        }
        taken
    }
}

/// Whether a web instance runs and was not seen to listen on its port.
fn waits_for_listener(app: &App, world: &AppWorld) -> bool {
    app.instances.iter().any(|(ordinal, instance)| {
        let seen = world.instances.get(ordinal);
        instance.process.is_web()
            && instance.is_wanted()
            && seen.is_some_and(|seen| seen.life == SeenLife::Running && seen.listener != Listener::Expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_taken_in_their_order_and_once() {
        let app = |name: &str| -> AppId { format!("a/b/{name}").parse().unwrap() };
        let at = Duration::from_secs;
        let mut timers = Timers::default();
        assert_eq!((timers.next(), timers.take(at(9))), (None, None));
        timers.set(app("late"), at(5));
        timers.set(app("soon"), at(3));
        timers.set(app("never"), at(1));
        timers.set(app("late"), at(4));
        timers.cancel(&app("never"));
        timers.cancel(&app("never"));
        assert_eq!((timers.next(), timers.take(at(2))), (Some(at(3)), None));
        assert_eq!(timers.take(at(9)), Some(app("soon")));
        assert_eq!(timers.take(at(9)), Some(app("late")));
        assert_eq!((timers.next(), timers.take(at(9))), (None, None));
    }
}
