//! Desired and observed give a plan of actions for one app.
//!
//! The planner is called again after every change of the state or the world and after each [`Plan::look_again`]. It leaves the
//! performer no choices: each action may be performed late, twice or not at all, and the next plan, made from what is true then,
//! goes on from there. It proposes at most one [`Fact`] about the routing per pass, because what follows depends on it.

mod activation;
mod canary;
mod cron;
mod deployment;
mod failing;
mod instances;
mod retirement;
mod runs;
mod sleep;
mod volumes;

use std::time::Duration;

use berth_spec::{CronName, Millis, ProcessName, ReleaseNumber, Timestamp};

pub(crate) use activation::can_adopt;

use crate::command::Fact;
use crate::event::{Ordinal, RunNumber, RunStop, VolumeWork};
use crate::state::{App, Instance, Life};
use crate::world::{AppWorld, Stopwatch};

/// How long edge may take to apply a durable snapshot before the deployment fails and edge is restarted.
pub const APPLY_DEADLINE: Millis = Millis::from_secs(5);
/// How long a worker must have been alive to count as ready.
pub const WORKER_READY: Millis = Millis::from_secs(3);
/// How long an app may listen on a wrong port only before its deployment fails: time enough to open an admin port first.
pub const ELSEWHERE_GRACE: Millis = Millis::from_secs(5);
/// How many exits of an instance that is being activated make its release fail.
pub const CRASHES: u32 = 3;
/// How long to wait before an instance that could not be started is given up and replaced.
pub const START_RETRY: Millis = Millis::from_secs(1);

/// What is to be done for one app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Plan again after this long even if nothing changes.
    pub look_again: Option<Millis>,
}

/// Something to be done. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Decide on this and append what follows.
    Record(Fact),
    /// Assign so many new instances, each with a token of its own: a [`Fact::Assign`] that needs randomness.
    Assign {
        /// For this release.
        release: ReleaseNumber,
        /// Of this process.
        process: ProcessName,
        /// How many.
        count: u32,
    },
    /// Build the release's artifact.
    Build(ReleaseNumber),
    /// End the release's build and its release command, if they run, and forget how they ended.
    CancelBuild(ReleaseNumber),
    /// Run the release command.
    RunReleaseCommand(ReleaseNumber),
    /// Start the instance's shim.
    Start(Ordinal),
    /// Stop the instance: signal, wait, kill. Only ever planned when [`stop_is_safe`] holds.
    Stop(Ordinal),
    /// Have the instance stand still. Only ever planned when [`crate::sleep::freeze_is_safe`] holds.
    Freeze(Ordinal),
    /// Have the instance go on, whether or not it stands still.
    Thaw(Ordinal),
    /// Clear away what the runtime keeps of an instance that the state no longer has.
    Remove(Ordinal),
    /// Decide about this cron entry, which may be due by now: a [`Fact::Cron`] that needs randomness.
    Cron {
        /// The entry of the release that serves.
        entry: CronName,
        /// What the wall clock said.
        at: Timestamp,
    },
    /// Do what is to be done with a volume, which nothing has.
    WorkOnVolume(VolumeWork),
    /// Remove all volumes of the app, which is being destroyed with them.
    RemoveVolumes,
    /// Start the one-off command that was asked for under this number, if it was asked of this very process.
    StartRun(RunNumber),
    /// End the one-off command.
    StopRun(RunNumber, RunStop),
    /// Clear away what the runtime keeps of a one-off command that the state no longer has.
    RemoveRun(RunNumber),
    /// Kill and start edge: it does not answer.
    RestartEdge,
}

/// What the steps of the planner share.
pub(crate) struct Planner<'a> {
    pub(crate) app: &'a App,
    pub(crate) world: &'a AppWorld,
    pub(crate) watch: &'a mut Stopwatch,
    pub(crate) now: Duration,
    pub(crate) plan: Plan,
}

/// Plans for `app` given what is seen of it; `now` is monotonic.
#[must_use]
pub fn plan(app: &App, world: &AppWorld, watch: &mut Stopwatch, now: Duration) -> Plan {
    let mut planner = Planner { app, world, watch, now, plan: Plan::default() };
    match app.life {
        Life::Alive => {
            planner.builds();
            planner.lost_instances();
            planner.begin_activation();
            planner.activate();
            planner.sleep();
            planner.steady();
            planner.warmth();
            planner.retire();
            planner.volume_work();
            planner.edge_follows();
            planner.cron();
        }
        Life::Destroying => {
            planner.lost_instances();
            planner.destroy();
            planner.edge_follows();
        }
        Life::Destroyed => {}
    }
    planner.runs();
    planner.strays();
    planner.watch.forget_unasked();
    planner.plan
}

/// Whether nothing new can reach the instance and nothing of what was sent to it is left, or waiting for it is over: what
/// zero downtime means here. Checked by the planner before it plans a stop and by whoever performs it.
#[must_use]
pub fn stop_is_safe(app: &App, ordinal: Ordinal, world: &AppWorld, drain_over: bool) -> bool {
    let Some(instance) = app.instances.get(&ordinal) else {
        return true;
    };
    if app.routed.contains(&ordinal) || instance.is_wanted() {
        return false;
    }
    if instance.port.is_none() || !instance.process.is_web() {
        return true;
    }
    let unrouted = instance.routing_changed_at;
    if world.edge.durable.0 < unrouted {
        return false;
    }
    match world.edge.alive {
        None => true,
        Some(edge) if edge.applied.0 < unrouted => false,
        Some(_) => {
            drain_over || world.drained.get(&ordinal).is_some_and(|generation| generation.0 >= unrouted)
        }
    }
}

impl Planner<'_> {
    /// Adds `action`; once is enough even where two steps find the same need.
    pub(crate) fn act(&mut self, action: Action) {
        if !self.plan.actions.contains(&action) {
            self.plan.actions.push(action);
        }
    }

    pub(crate) fn record(&mut self, fact: Fact) {
        self.act(Action::Record(fact));
    }

    pub(crate) fn look_again(&mut self, after: Millis) {
        let after = after.max(Millis(1));
        self.plan.look_again = Some(self.plan.look_again.map_or(after, |before| before.min(after)));
    }

    /// Whether so much has passed on a stopwatch; if not, plans to look again when it will have.
    pub(crate) fn is_over(&mut self, mark: crate::world::Mark, span: Millis) -> bool {
        let elapsed = self.watch.elapsed(mark, self.now);
        if elapsed < span {
            self.look_again(Millis(span.0 - elapsed.0));
        }
        elapsed >= span
    }

    /// The instance as the runtime sees it, if it is the very one that the state means.
    pub(crate) fn seen(&self, ordinal: Ordinal, instance: &Instance) -> Option<&crate::world::Seen> {
        self.world.instances.get(&ordinal).filter(|seen| seen.token == instance.token)
    }

    /// Clears away what the runtime has and the state does not. A gone instance of the state is written down first.
    fn strays(&mut self) {
        let strays: Vec<Ordinal> = self
            .world
            .instances
            .iter()
            .filter(|(ordinal, seen)| {
                self.app.instances.get(ordinal).is_none_or(|instance| instance.token != seen.token)
            })
            .map(|(&ordinal, _)| ordinal)
            .collect();
        for ordinal in strays {
            self.act(Action::Remove(ordinal));
        }
    }
}

#[cfg(test)]
mod tests;
