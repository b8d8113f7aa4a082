//! The end of a world: no new faults, time passes, and everything has to become as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_control::event::Ordinal;
use berth_control::invariant::{Breach, Invariant, check_replay};
use berth_control::route::snapshot;
use berth_control::sleep::Asleep;
use berth_control::state::{App, Life, Phase};
use berth_spec::{AppId, Millis};

use crate::builder::{Quality, quality};
use crate::edge::Edge;
use crate::world::{Stopped, World};

/// More simulated time than all deadlines one after the other take.
const PATIENCE: Duration = Duration::from_secs(3 * 3_600);
/// More rounds than any world needed that settled.
const ROUNDS: u32 = 100_000;

impl World {
    /// Ends the faults, lets time pass until nothing more happens, and looks at what there is then.
    pub(crate) fn settle(&mut self) -> Result<(), Stopped> {
        let out = &mut self.out;
        out.calm = true;
        out.ending = true;
        out.memory_short = false;
        out.disk.full = false;
        let end = out.chance.now() + PATIENCE;
        out.trace.add(out.chance.now(), format_args!("the faults end"));
        let mut asked = false;
        let mut woken = None;
        for _ in 0..ROUNDS {
            self.tick()?;
            if let Some(control) = self.control.as_mut().filter(|_| !asked) {
                asked = true;
                self.users.ask_all_again(control, &mut self.out)?;
                self.users.end_shares(control, &mut self.out)?;
                control.dirty.extend(control.ledger.durable().apps.keys().cloned());
                control.dirty.extend(self.out.machine.apps());
            }
            let mut busy = false;
            for _ in 0..8 {
                busy |= self.control_works()?;
            }
            self.users.hear(&mut self.out)?;
            if !busy && asked && self.is_at_rest() {
                match &woken {
                    // Once more, with what the requests for them left.
                    None => woken = Some(self.ask_for_sleepers()?),
                    Some(woken) => {
                        self.check_woken(woken)?;
                        return self.check_settled();
                    }
                }
            }
            if self.out.chance.now() > end {
                break;
            }
            self.pass_time(busy);
        }
        let control = self.control.as_ref();
        let left = control.map(|it| (&it.dirty, &it.timers, it.passes.keys().collect::<Vec<_>>()));
        let edge =
            self.out.edge.as_ref().map(|edge| (edge.pid, edge.wedged, edge.connected, edge.is_quiet()));
        Err(Stopped::Unsettled(format!("the world does not come to rest: {left:?}, edge {edge:?}")))
    }

    /// Somebody asks for every app that sleeps. Gives which sleep it was.
    fn ask_for_sleepers(&mut self) -> Result<BTreeMap<AppId, Asleep>, Stopped> {
        let Some(control) = &self.control else { return Ok(BTreeMap::new()) };
        let apps = &control.ledger.durable().apps;
        let sleepers = apps.iter().filter_map(|(id, app)| Some((id.clone(), app.asleep?)));
        let sleepers: BTreeMap<AppId, Asleep> = sleepers.collect();
        // One that hangs hears of nothing.
        let Some(edge) = self.out.edge.as_mut().filter(|edge| !edge.wedged) else {
            return Ok(BTreeMap::new());
        };
        for id in sleepers.keys() {
            edge.request(id, &self.out.machine, &self.out.chance, &mut self.out.tally)?;
        }
        Ok(sleepers)
    }

    /// Each of them woke, and sleeps anew if it does.
    fn check_woken(&self, sleepers: &BTreeMap<AppId, Asleep>) -> Result<(), Stopped> {
        let Some(control) = &self.control else { return Ok(()) };
        for (id, before) in sleepers {
            let now = control.ledger.durable().apps.get(id).and_then(|app| app.asleep);
            if now.is_some_and(|now| now.position == before.position) {
                return Err(Stopped::Unsettled(format!("{id} was asked for and sleeps on")));
            }
        }
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let Some(control) = &self.control else { return false };
        let newest = control.newest.generation;
        let applied = control.edges.values().all(|known| known.applied == newest);
        let edge = self.out.edge.as_ref().is_some_and(has_rest);
        let now = self.out.chance.now();
        let works = self.out.machine.is_moving(now) || self.out.builders.next(now).is_some();
        control.is_at_rest() && edge && applied && control.edges.len() == 1 && !works
    }

    /// To the next moment at which anything is due, or a little while when somebody is at work.
    fn pass_time(&self, busy: bool) {
        let now = self.out.chance.now();
        let control = self
            .control
            .iter()
            .flat_map(|control| control.timers.values().copied().chain(control.next_leave()));
        let machine = self.out.machine.next(now).into_iter().chain(self.out.builders.next(now));
        let edge = self.out.edge.iter().filter_map(Edge::next);
        let next = control.chain(machine).chain(edge).chain(self.next_start()).filter(|due| *due > now).min();
        let edge_works = !self.out.edge.as_ref().is_some_and(has_rest);
        let little = Duration::from_millis(20);
        let next = match next {
            Some(next) if busy || edge_works => next.min(now + little),
            Some(next) => next,
            None => now + little,
        };
        let span = Duration::as_millis(&(next - now)).clamp(1, 600_000);
        self.out.chance.clock().advance(Millis(u64::try_from(span).expect("it is ten minutes at most")));
    }

    fn check_settled(&mut self) -> Result<(), Stopped> {
        let Some(control) = &mut self.control else { return Ok(()) };
        let state = control.ledger.durable().clone();
        if self.out.planted.is_none_or(|planted| !planted.spoils_replay()) {
            check_replay(&state, &self.out.disk.replay(self.out.disk.head, None, true))?;
        }
        self.users.check(&self.out.disk)?;
        for (id, app) in &state.apps {
            self.check_app_settled(id, app)?;
        }
        for app in self.out.machine.apps() {
            if !state.apps.contains_key(&app) && !self.out.machine.living(&app).is_empty() {
                return Err(leak(format!("something of {app} runs, which never was")).into());
            }
        }
        let routes = self.out.edge.as_ref().map(|edge| &edge.routes().apps);
        if routes != Some(&snapshot(&state).apps) {
            return Err(Stopped::Unsettled("edge does not serve by the routing of the state".to_owned()));
        }
        let Some(control) = &mut self.control else { return Ok(()) };
        for id in state.apps.keys() {
            control.look(id, &mut self.out)?;
        }
        if !control.passes.is_empty() || !control.timers.is_empty() {
            let passes: Vec<_> = control.passes.values().map(|pass| &pass.actions).collect();
            return Err(Stopped::Unsettled(format!("planning goes on: {passes:?} {:?}", control.timers)));
        }
        Ok(())
    }

    fn check_app_settled(&self, id: &AppId, app: &App) -> Result<(), Stopped> {
        let runs = self.out.machine.living(id);
        let known: BTreeSet<Ordinal> = app.instances.keys().copied().collect();
        if runs != known {
            return Err(leak(format!("of {id} there run {runs:?}, and the state has {known:?}")).into());
        }
        if !app.runs.is_empty() || !self.out.machine.runs(id, |_| false).is_empty() {
            return Err(leak(format!("of {id} there are one-off commands left: {:?}", app.runs)).into());
        }
        if app.life == Life::Destroyed {
            return Ok(());
        }
        let unsettled = |what: String| Err(Stopped::Unsettled(format!("{id}: {what}")));
        if app.life != Life::Alive || app.activation.is_some() || app.warm.is_some() {
            return unsettled(format!("{:?} {:?} warm {:?}", app.life, app.activation, app.warm));
        }
        if let Some(release) = app.releases.values().find(|release| !release.phase.is_settled()) {
            return unsettled(format!("{} is still {:?}", release.number, release.phase));
        }
        let newest = app
            .releases
            .values()
            .rev()
            .find(|release| release.phase == Phase::Activated && release.artifact.is_some());
        if app.serving != newest.map(|release| release.number) {
            return unsettled(format!("{:?} serves, not {:?}", app.serving, newest.map(|it| it.number)));
        }
        let Some(serving) = newest else {
            return if app.instances.is_empty() {
                Ok(())
            } else {
                unsettled("something runs for nothing".to_owned())
            };
        };
        let mut wanted_in_all = 0;
        for process in serving.processes().into_iter().flat_map(|processes| processes.keys()) {
            // Everything sleeps fast in the end that may sleep.
            let asleep = process.is_web() && app.asleep.is_some();
            let wanted = if asleep { 0 } else { app.wanted(process) as usize };
            wanted_in_all += wanted;
            let running = app.running(serving.number, process).count();
            if running != wanted {
                return unsettled(format!("{running} of {wanted} {process} run"));
            }
            let good = serving.artifact.as_ref().is_some_and(|artifact| {
                matches!(quality(&artifact.id), Quality::Good | Quality::Slow | Quality::Ailing)
            });
            if process.is_web() && good && app.routed.len() != wanted {
                return unsettled(format!("{} of {wanted} are routed", app.routed.len()));
            }
        }
        if app.instances.len() != wanted_in_all {
            return unsettled(format!("{} instances, {wanted_in_all} are wanted", app.instances.len()));
        }
        Ok(())
    }
}

fn leak(detail: String) -> Breach {
    Breach { invariant: Invariant::NothingLeaks, detail }
}

/// Whether edge has nothing to do. One that hangs while there is nothing for it to follow is nothing that a plan could notice, with a
/// connection or without.
fn has_rest(edge: &Edge) -> bool {
    edge.wedged || (edge.connected && edge.is_quiet())
}
