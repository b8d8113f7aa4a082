//! Taking down: what is no longer needed is drained, stopped and cleared away.

use berth_spec::ReleaseNumber;

use crate::command::Fact;
use crate::event::{Ordinal, StopReason, WarmEnd};
use crate::sleep::is_stopped_by_sleep;
use crate::state::{Instance, Phase};
use crate::volume;
use crate::world::{Life, Mark};

use super::sleep::SOON;
use super::{Action, Planner, stop_is_safe};

impl Planner<'_> {
    /// The previous release stays warm for its time, while there is memory.
    pub(super) fn warmth(&mut self) {
        let app = self.app;
        let Some(warm) = app.warm else {
            return;
        };
        let any_left = app.instances.values().any(|it| it.release == warm && it.is_wanted());
        let span = app.serving_release().map(|release| release.manifest.deploy.warm).unwrap_or_default();
        // Its time stands still while another release is being activated, which may need it, and while it gets requests.
        let shared = app.split.is_some_and(|split| split.release == warm);
        let expired = !shared && self.is_over(Mark::Warm(warm), span) && app.activation.is_none();
        let why = if !any_left {
            WarmEnd::Gone
        } else if self.world.memory_short && !shared {
            WarmEnd::MemoryPressure
        } else if expired {
            WarmEnd::Expired
        } else {
            return;
        };
        self.record(Fact::EndWarm { release: warm, why });
    }

    /// Tells the instances to stop that serve no release which serves, is warm or is being activated; and stops those that were
    /// told and are drained.
    pub(super) fn retire(&mut self) {
        let app = self.app;
        for (&ordinal, instance) in &app.instances {
            if instance.is_wanted() {
                if let Some(why) = self.reason_to_stop(instance)
                    && !app.routed.contains(&ordinal)
                {
                    self.record(Fact::Stop { ordinal, why });
                }
            } else {
                self.stop_when_drained(ordinal, instance);
            }
        }
    }

    pub(super) fn reason_to_stop(&self, instance: &Instance) -> Option<StopReason> {
        let app = self.app;
        let release = instance.release;
        let activating = self.is_activating(release);
        if activating || app.serving == Some(release) {
            // One that is the release's no longer because the process went over to the new one.
            let went_over = !activating && !app.holds(release, &instance.process);
            if went_over {
                return Some(StopReason::Replaced);
            }
            let sleeps = !activating && is_stopped_by_sleep(app, instance);
            return sleeps.then_some(StopReason::Asleep);
        }
        if app.warm == Some(release) {
            // Only what can be routed to is kept warm: two releases of a worker would both do its work, and would both write to a
            // volume.
            let is_kept = instance.process.is_web() && volume::of_instance(app, instance).next().is_none();
            return (!is_kept).then_some(StopReason::Retired);
        }
        let failed = |number: ReleaseNumber| {
            app.release(number).is_some_and(|it| matches!(it.phase, Phase::Failed | Phase::Superseded))
        };
        Some(if failed(release) { StopReason::ReleaseFailed } else { StopReason::Retired })
    }

    fn stop_when_drained(&mut self, ordinal: Ordinal, instance: &Instance) {
        let Some(seen) = self.seen(ordinal, instance) else {
            return;
        };
        match seen.life {
            Life::Gone | Life::Stopping | Life::NotStarted { .. } => return,
            Life::Starting | Life::Running | Life::BackingOff => {}
        }
        let release = self.app.release(instance.release);
        let drain = release.map(|release| release.manifest.shutdown.drain).unwrap_or_default();
        let edge = self.world.edge;
        let unrouted = edge.alive.is_some_and(|edge| edge.applied.0 >= instance.routing_changed_at);
        let drain_over = unrouted && self.is_over(Mark::Draining(ordinal), drain);
        if stop_is_safe(self.app, ordinal, self.world, drain_over) {
            self.act(Action::Stop(ordinal));
            return;
        }
        // One that fell asleep with connections that stand open has to hear what comes on them until it is stopped. While a volume is
        // copied whoever has it stands still for that, and goes on by itself afterwards.
        let may_go_on = unrouted && self.app.volume_work.is_none();
        let sleeps = instance.process.is_web() && release.is_some_and(|it| it.manifest.sleep().is_some());
        if may_go_on && sleeps && self.world.frozen.get(&ordinal) != Some(&false) {
            self.act(Action::Thaw(ordinal));
            self.look_again(SOON);
        }
    }

    /// Edge has to go on to newer snapshots, also where nothing waits for this app's routing: a new instance is to be probed, a port is
    /// not known to be free before edge has let go of it. One that stays behind for as long as it may take is started again.
    pub(super) fn edge_follows(&mut self) {
        let edge = self.world.edge;
        if let Some(process) = edge.alive
            && process.applied < edge.durable
        {
            self.restart_if_late(Mark::Behind(process.applied));
        }
    }

    /// Everything of the app goes: nothing is routed any more, so that each instance stops once it is drained.
    pub(super) fn destroy(&mut self) {
        let app = self.app;
        for &number in self.world.builds.keys().chain(self.world.commands.keys()) {
            self.act(Action::CancelBuild(number));
        }
        for (&ordinal, instance) in &app.instances {
            if instance.is_wanted() {
                self.record(Fact::Stop { ordinal, why: StopReason::Destroyed });
            } else {
                self.stop_when_drained(ordinal, instance);
            }
        }
        let world = self.world;
        let nothing_left = world.instances.is_empty()
            && world.builds.is_empty()
            && world.commands.is_empty()
            && world.runs.is_empty();
        if !(app.instances.is_empty() && app.runs.is_empty() && nothing_left) {
            return;
        }
        if app.volumes_go && world.volumes_left {
            self.act(Action::RemoveVolumes);
        } else {
            self.record(Fact::Destroyed);
        }
    }
}
