//! Instances: starting those that are assigned, noticing those that are gone, keeping as many as are wanted.

use std::collections::BTreeSet;

use berth_routing::wire::Health;
use berth_spec::{ProcessName, ReleaseNumber};

use crate::command::Fact;
use crate::event::{GoneCause, Ordinal, StopReason};
use crate::state::{self, Instance};
use crate::volume;
use crate::world::{Life, Listener, Mark};

use super::{Action, Planner, START_RETRY, WORKER_READY};

impl Planner<'_> {
    /// Starts what is assigned, and writes down what has started and what is gone.
    pub(super) fn lost_instances(&mut self) {
        let app = self.app;
        for (&ordinal, instance) in &app.instances {
            let seen = self.seen(ordinal, instance);
            let seen = seen.map(|seen| (seen.life.clone(), (seen.port, seen.dialer.clone())));
            match seen {
                None if instance.started => self.gone(ordinal, instance),
                // What has to wait for a volume is looked at again when whoever has it is gone.
                None if self.is_to_start(instance) && self.has_volumes_free(ordinal) => {
                    self.act(Action::Start(ordinal));
                }
                None if instance.is_wanted() => {}
                // It was never started, and is not wanted any more.
                None => self.record(Fact::Gone { ordinal, cause: GoneCause::Stopped }),
                Some((Life::Gone, _)) => self.gone(ordinal, instance),
                Some((Life::NotStarted { detail, .. }, _)) => {
                    // What serves is tried again, under the same ordinal so that a full disk is not filled with events; what is
                    // being activated fails its release, see failure(), and goes with that.
                    if self.is_activating(instance.started_as) && instance.is_wanted() {
                        continue;
                    }
                    if app.serving != Some(instance.release) || !instance.is_wanted() {
                        self.record(Fact::Gone { ordinal, cause: GoneCause::NotStarted { detail } });
                    } else if self.has_volumes_free(ordinal)
                        && self.is_over(Mark::NotStarted(ordinal), START_RETRY)
                    {
                        self.watch.restart(Mark::NotStarted(ordinal), self.now);
                        self.act(Action::Start(ordinal));
                    }
                }
                Some((Life::Starting | Life::Running | Life::BackingOff | Life::Stopping, place)) => {
                    let (port, dialer) = place;
                    let moved = instance.port != port || instance.dialer != dialer;
                    if !instance.started || (port.is_some() && moved) {
                        self.record(Fact::Started { ordinal, port, dialer });
                    }
                }
            }
        }
    }

    /// Whether an assigned instance is to be started: nothing speaks for its being stopped in the same pass.
    fn is_to_start(&self, instance: &Instance) -> bool {
        self.app.life == state::Life::Alive && instance.is_wanted() && self.reason_to_stop(instance).is_none()
    }

    fn has_volumes_free(&self, ordinal: Ordinal) -> bool {
        volume::in_the_way(self.app, ordinal, self.world).is_none()
    }

    pub(super) fn is_activating(&self, release: ReleaseNumber) -> bool {
        self.app.activation.as_ref().is_some_and(|activation| activation.release == release)
    }

    fn gone(&mut self, ordinal: Ordinal, instance: &Instance) {
        let cause = if instance.is_wanted() { GoneCause::Lost } else { GoneCause::Stopped };
        self.record(Fact::Gone { ordinal, cause });
    }

    /// Whether the instance can do its work: a web instance answers edge's probes on the port it was given, any other has been
    /// alive for a while. One with a check of its own has passed that.
    pub(super) fn is_ready(&mut self, ordinal: Ordinal, instance: &Instance) -> bool {
        let Some(seen) = self.seen(ordinal, instance) else {
            return false;
        };
        if seen.life != Life::Running || !seen.is_well() {
            return false;
        }
        if instance.process.is_web() {
            let healthy =
                self.world.health.get(&ordinal).is_some_and(|probed| probed.health == Health::Ready);
            return healthy && instance.port.is_some() && seen.listener == Listener::Expected;
        }
        let restarts = seen.restarts;
        self.is_over(Mark::Alive(ordinal, restarts), WORKER_READY)
    }

    /// The instances of `process` that serve `release` and are ready.
    pub(super) fn ready(&mut self, release: ReleaseNumber, process: &ProcessName) -> BTreeSet<Ordinal> {
        let app = self.app;
        app.running(release, process)
            .filter(|(ordinal, instance)| self.is_ready(*ordinal, instance))
            .map(|(ordinal, _)| ordinal)
            .collect()
    }

    /// Assigns what is missing to have `count` instances of `process` for `release`. Returns whether none is missing.
    pub(super) fn assign_missing(
        &mut self,
        release: ReleaseNumber,
        process: &ProcessName,
        count: usize,
    ) -> bool {
        let have = self.app.running(release, process).count();
        let missing = u32::try_from(count.saturating_sub(have)).unwrap_or(u32::MAX);
        if missing > 0 {
            self.act(Action::Assign { release, process: process.clone(), count: missing });
        }
        missing == 0
    }

    /// Keeps as many instances of the serving release as are wanted, and routes to those that are ready.
    pub(super) fn steady(&mut self) {
        let app = self.app;
        let Some(serving) = app.serving_release() else {
            return;
        };
        let processes: Vec<&ProcessName> = serving.processes().into_iter().flat_map(|it| it.keys()).collect();
        for process in processes {
            if !app.holds(serving.number, process) {
                continue;
            }
            let wanted = app.wanted(process) as usize;
            // Once traffic has begun to move the routing is the activation's to change.
            let moving = process.is_web()
                && app.activation.as_ref().is_some_and(|activation| {
                    app.routed.iter().any(|it| app.instances[it].release == activation.release)
                });
            // While the app sleeps nothing of it is missing; and nothing that was stopped in its sleep when a new release takes over.
            let rests = process.is_web() && app.asleep.is_some();
            if rests || (moving && app.running(serving.number, process).next().is_none()) {
                continue;
            }
            self.assign_missing(serving.number, process, wanted);
            if process.is_web() {
                let planned = self
                    .plan
                    .actions
                    .iter()
                    .any(|it| matches!(it, Action::Record(Fact::Route { .. } | Fact::Sleep { .. })));
                if !moving && !planned {
                    self.steady_web(serving.number, process, wanted);
                }
            } else {
                let surplus: Vec<Ordinal> =
                    app.running(serving.number, process).skip(wanted).map(|(ordinal, _)| ordinal).collect();
                for ordinal in surplus {
                    self.record(Fact::Stop { ordinal, why: StopReason::ScaledDown });
                }
            }
        }
    }

    fn steady_web(&mut self, serving: ReleaseNumber, process: &ProcessName, wanted: usize) {
        let app = self.app;
        let ready = self.ready(serving, process);
        let running: Vec<Ordinal> = app.running(serving, process).map(|(ordinal, _)| ordinal).collect();
        // Those that stay: routed ones first, then ready ones, then the oldest.
        let mut keep = running.clone();
        keep.sort_by_key(|ordinal| (!app.routed.contains(ordinal), !ready.contains(ordinal), *ordinal));
        let surplus = keep.split_off(wanted.min(keep.len()));
        // A routed instance stays routed while it fails its probes: edge avoids it where it can, and control does not add to an
        // outage by taking away the last one. Of a check of the instance's own edge knows nothing, so that one whose check has not
        // passed, since it was started again or at all, is taken away where another is ready.
        let unwell = |ordinal: &Ordinal| {
            app.instances
                .get(ordinal)
                .and_then(|it| self.seen(*ordinal, it))
                .is_some_and(|seen| !seen.is_well())
        };
        let stays = |it: &&Ordinal| app.routed.contains(it) && (ready.is_empty() || !unwell(it));
        let shared = app.split.map(|split| split.release).filter(|release| *release != serving);
        let other = app.routed.iter().filter(|it| shared == Some(app.instances[*it].release));
        let own = keep.iter().filter(|it| ready.contains(it) || stays(it));
        let target: BTreeSet<Ordinal> = own.chain(other).copied().collect();
        if target != app.routed {
            self.record(Fact::Route { ordinals: target });
            return;
        }
        for ordinal in surplus {
            self.record(Fact::Stop { ordinal, why: StopReason::ScaledDown });
        }
    }
}
