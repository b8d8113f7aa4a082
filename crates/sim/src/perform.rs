//! Performing a plan, one action at a time; and the bugs that are planted there.

use std::collections::{BTreeSet, VecDeque};

use berth_clock::random_bytes;
use berth_control::command::{Command, Fact, Refusal};
use berth_control::event::{Depth, Ordinal, WakeReason};
use berth_control::invariant::{
    Breach, Invariant, check_freeze, check_newly_routed, check_start, check_stop, check_wake,
};
use berth_control::plan::Action;
use berth_control::sleep::is_put_to_sleep;
use berth_control::state::App;
use berth_control::world::AppWorld;
use berth_routing::wire::Health;
use berth_spec::AppId;

use crate::builder::quality;
use crate::chance::Chance;
use crate::control::Control;
use crate::fault::{Fault, Planted};
use crate::machine::{Order, Proc};
use crate::world::Outside;

/// Puts the bug into a plan.
pub(crate) fn plant(
    planted: Option<Planted>,
    chance: &Chance,
    app: &App,
    world: &AppWorld,
    actions: &mut VecDeque<Action>,
) {
    let told = || app.instances.iter().filter(|(_, it)| !it.is_wanted() && it.port.is_some());
    match planted {
        Some(Planted::StopsBeforeApplied | Planted::StopsBeforeDrained) => {
            actions.extend(told().map(|(&ordinal, _)| Action::Stop(ordinal)));
        }
        Some(Planted::StartsBesideHolder) => {
            let waits = app.instances.iter().filter(|(ordinal, it)| {
                it.is_wanted() && !it.started && !world.instances.contains_key(ordinal)
            });
            actions.extend(waits.map(|(&ordinal, _)| Action::Start(ordinal)));
        }
        Some(Planted::FreezesBeforeDrained) => {
            // As soon as it is decided that the app sleeps, and not when edge has let go.
            let falls_asleep = actions
                .iter()
                .any(|it| matches!(it, Action::Record(Fact::Sleep { depth: Depth::Frozen, .. })));
            let sleeping = app.instances.iter().filter(|(_, it)| falls_asleep && is_put_to_sleep(app, it));
            actions.extend(sleeping.map(|(&ordinal, _)| Action::Freeze(ordinal)));
        }
        Some(Planted::WakesBeforeThawed) => {
            // One that is to stop goes on for what is left of its connections, and is no part of a waking.
            let sleeps = |ordinal: &Ordinal| {
                app.asleep.is_some() && app.instances.get(ordinal).is_some_and(|it| is_put_to_sleep(app, it))
            };
            let thawed = actions.iter().filter_map(|action| match action {
                Action::Thaw(ordinal) if sleeps(ordinal) => Some(*ordinal),
                _ => None,
            });
            let ordinals: BTreeSet<Ordinal> = thawed.collect();
            if !ordinals.is_empty() {
                actions
                    .retain(|action| !matches!(action, Action::Thaw(ordinal) if ordinals.contains(ordinal)));
                actions.push_back(Action::Record(Fact::Wake { why: WakeReason::Requested, ordinals }));
            }
        }
        Some(Planted::LeaksInstances) => actions.retain(|action| !matches!(action, Action::Remove(_))),
        Some(Planted::RoutesUnready) => {
            let unready = app.instances.iter().filter(|(ordinal, it)| {
                let ready = world.health.get(ordinal).is_some_and(|probed| probed.health == Health::Ready);
                !ready
                    && it.is_wanted()
                    && it.port.is_some()
                    && it.process.is_web()
                    && Some(it.release) == app.serving
            });
            let ordinals = unready.map(|(&ordinal, _)| ordinal).chain(app.routed.iter().copied()).collect();
            if ordinals != app.routed && chance.one_in(3) {
                actions.push_back(Action::Record(Fact::Route { ordinals }));
            }
        }
        _ => {}
    }
}

impl Control {
    /// Performs the next action of an app's plan.
    pub(crate) fn perform(&mut self, id: &AppId, out: &mut Outside) -> Result<(), Breach> {
        let Some(mut pass) = self.passes.remove(id) else { return Ok(()) };
        let Some(action) = pass.actions.pop_front() else { return Ok(()) };
        let (app, world) = (&pass.app, &pass.world);
        match action {
            Action::Record(fact) => {
                match &fact {
                    Fact::Route { ordinals } => check_newly_routed(app, ordinals, world)?,
                    Fact::Wake { ordinals, .. } => check_wake(app, ordinals, world)?,
                    _ => {}
                }
                self.record(id, fact, out)?;
            }
            Action::Assign { release, process, count } => {
                let token = || hex(random_bytes::<8>(out.chance.clock()));
                let tokens = (0..count).map(|_| token()).collect();
                self.record(id, Fact::Assign { release, process, tokens }, out)?;
            }
            Action::Build(number) => {
                if let Some(release) = app.release(number) {
                    out.builders.build((id.clone(), number), &release.tree, &out.chance, &mut out.tally);
                }
            }
            Action::CancelBuild(number) => {
                out.builders.cancel(&(id.clone(), number));
                self.dirty.insert(id.clone());
            }
            Action::RunReleaseCommand(number) => {
                out.builders.run_command((id.clone(), number), &out.chance, &mut out.tally, out.calm);
            }
            Action::Start(ordinal) => {
                // Where the check itself would find the bug, the machine has to find it too.
                if out.planted != Some(Planted::StartsBesideHolder) {
                    check_start(app, ordinal, world)?;
                }
                self.start_instance(app, ordinal, out)?;
            }
            Action::WorkOnVolume(work) => {
                out.machine.work_on_volume(id, work, out.freezes)?;
                self.dirty.insert(id.clone());
            }
            Action::RemoveVolumes => {
                out.machine.volumes.remove(id);
                self.dirty.insert(id.clone());
            }
            Action::Stop(ordinal) => {
                let drain_over = pass.drained.contains(&ordinal);
                stop_instance(app, ordinal, world, drain_over, out)?;
            }
            Action::Freeze(ordinal) => self.freeze_instance(app, ordinal, world, out)?,
            Action::Thaw(ordinal) => {
                out.machine.freeze(id, ordinal, false);
                self.frozen.insert((id.clone(), ordinal), false);
                self.dirty.insert(id.clone());
            }
            Action::Remove(ordinal) => {
                out.machine.remove(id, ordinal);
                self.dirty.insert(id.clone());
            }
            Action::Cron { .. } | Action::StartRun(_) | Action::StopRun(..) | Action::RemoveRun(_) => {
                self.perform_of_run(id, app, action, out)?;
            }
            Action::RestartEdge => {
                out.tally.add(Fault::EdgeRestarted);
                out.kill_edge();
            }
        }
        // Nobody looks again because a pass is over, only because something changed or a timer says so.
        if !pass.actions.is_empty() {
            self.passes.insert(id.clone(), pass);
        }
        Ok(())
    }

    fn perform_of_run(
        &mut self,
        id: &AppId,
        app: &App,
        action: Action,
        out: &mut Outside,
    ) -> Result<(), Breach> {
        match action {
            Action::Cron { entry, at } => {
                let token = hex(random_bytes::<8>(out.chance.clock()));
                self.orders.insert(token.clone());
                self.record(id, Fact::Cron { entry, at, token: token.clone() }, out)?;
                let decided = self.ledger.speculative().apps.get(id);
                if !decided.is_some_and(|app| app.runs.values().any(|run| run.token == token)) {
                    self.orders.remove(&token);
                }
            }
            Action::StartRun(number) => {
                if let Some(run) = app.runs.get(&number) {
                    let ordered = self.orders.remove(&run.token);
                    out.machine.start_run(id, number, run, ordered, &out.chance)?;
                    self.dirty.insert(id.clone());
                }
            }
            Action::StopRun(number, why) => {
                out.machine.stop_run(id, number, why);
                self.dirty.insert(id.clone());
            }
            Action::RemoveRun(number) => {
                out.machine.remove_run(id, number);
                self.dirty.insert(id.clone());
            }
            _ => unreachable!("perform() hands over only actions of one-off commands"),
        }
        Ok(())
    }

    /// Has an instance stand still that nothing may be under way to, by what edge really does.
    fn freeze_instance(
        &mut self,
        app: &App,
        ordinal: Ordinal,
        world: &AppWorld,
        out: &mut Outside,
    ) -> Result<(), Breach> {
        let Some(id) = app.instance_id(ordinal) else { return Ok(()) };
        // Somebody may have decided meanwhile that it wakes, which is not durable yet.
        if self.ledger.speculative().apps.get(&app.id).is_none_or(|ahead| ahead.asleep != app.asleep) {
            self.dirty.insert(app.id.clone());
            return Ok(());
        }
        // Where the check itself would find the bug, the requests have to find it too.
        if out.planted != Some(Planted::FreezesBeforeDrained) {
            check_freeze(app, ordinal, world)?;
        }
        let in_flight = out.edge.as_ref().map_or(0, |edge| edge.in_flight(&id));
        if in_flight > 0 {
            let detail = format!("{id} was had stand still while {in_flight} requests were in flight to it");
            return Err(Breach { invariant: Invariant::StillIsUnreachable, detail });
        }
        out.machine.freeze(&app.id, ordinal, true);
        self.frozen.insert((app.id.clone(), ordinal), true);
        self.dirty.insert(app.id.clone());
        Ok(())
    }

    fn record(&mut self, id: &AppId, fact: Fact, out: &mut Outside) -> Result<(), Breach> {
        let command = Command::Fact { app: id.clone(), fact };
        match self.submit(&command, "reconciler", None, out)? {
            None => {}
            Some(Refusal::Stale(why)) => {
                out.tally.add(Fault::StaleFact);
                out.trace.add(out.chance.now(), format_args!("stale: {why}: {command:?}"));
            }
            Some(refusal) => panic!("a reconciler's fact was refused as if a person had asked: {refusal}"),
        }
        Ok(())
    }

    /// Starts an instance as the plan saw it, however long ago.
    fn start_instance(&mut self, app: &App, ordinal: Ordinal, out: &mut Outside) -> Result<(), Breach> {
        let Some(instance) = app.instances.get(&ordinal) else { return Ok(()) };
        let excluded = match out.planted {
            Some(Planted::ReusesPorts) => Some(BTreeSet::new()),
            _ if !instance.process.is_web() => Some(BTreeSet::new()),
            _ => self.ports_in_use(),
        };
        let Some(excluded) = excluded else {
            // Edge has not said yet what it uses: what is free is not known.
            self.timers.insert(app.id.clone(), out.chance.later(100, 101));
            return Ok(());
        };
        let artifact = app.release(instance.release).and_then(|release| release.artifact.as_ref());
        let Some(artifact) = artifact else { return Ok(()) };
        let order = Order {
            app: app.id.clone(),
            ordinal,
            process: instance.process.clone(),
            release: instance.started_as,
            volumes: berth_control::volume::of_instance(app, instance).cloned().collect(),
            token: instance.token.clone(),
            quality: quality(&artifact.id),
        };
        out.machine.start(order, &excluded, &out.chance, &mut out.tally, out.calm)?;
        self.note_port(&app.id, ordinal, out.machine.get(&app.id, ordinal).and_then(Proc::shared_port));
        self.dirty.insert(app.id.clone());
        Ok(())
    }
}

/// The instances that edge has had out of its routing for as long as their requests may take to end: by what edge does, not by what
/// control makes of it.
pub(crate) fn drained(app: &App, out: &Outside) -> BTreeSet<Ordinal> {
    let now = out.chance.now();
    let Some(edge) = &out.edge else {
        return app.instances.keys().copied().collect();
    };
    let over = app.instances.iter().filter(|(ordinal, instance)| {
        let release = app.release(instance.release);
        let drain = release.map(|release| release.manifest.shutdown.drain).unwrap_or_default();
        let id = app.id.instance(instance.process.clone(), **ordinal);
        let since = edge.unrouted_since(&id);
        since.is_some_and(|since| now.saturating_sub(since) >= drain.as_duration())
    });
    over.map(|(&ordinal, _)| ordinal).collect()
}

fn stop_instance(
    app: &App,
    ordinal: Ordinal,
    world: &AppWorld,
    drain_over: bool,
    out: &mut Outside,
) -> Result<(), Breach> {
    let (Some(instance), Some(id)) = (app.instances.get(&ordinal), app.instance_id(ordinal)) else {
        return Ok(());
    };
    let release = app.release(instance.release);
    let kill_after = release.map(|release| release.manifest.shutdown.kill_after).unwrap_or_default();
    // Where the check itself would find the bug, the requests have to find it too.
    if out.planted != Some(Planted::StopsBeforeDrained) {
        check_stop(app, ordinal, world, drain_over)?;
    }
    let in_flight = out.edge.as_ref().map_or(0, |edge| edge.in_flight(&id));
    if in_flight > 0 && !drain_over {
        let detail = format!("{id} was stopped while {in_flight} requests were in flight to it");
        return Err(Breach { invariant: Invariant::StoppedIsUnreachable, detail });
    }
    out.machine.stop(&app.id, ordinal, kill_after, &out.chance, &mut out.tally);
    Ok(())
}

fn hex(bytes: [u8; 8]) -> String {
    format!("{:016x}", u64::from_le_bytes(bytes))
}
