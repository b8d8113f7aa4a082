//! Sleep: an app that nobody asks for stands still, stops after a longer while, and wakes when it is wanted.

use std::collections::BTreeSet;

use berth_spec::Millis;

use crate::command::Fact;
use crate::event::Ordinal;
use crate::route::changed_at;
use crate::sleep::{
    Asleep, Depth, WakeReason, freeze_is_safe, is_put_to_sleep, is_scaled_down, may_sleep, may_stand_still,
};
use crate::world::{Life, Mark};

use super::{Action, Planner};

/// How soon it is looked again where something of a sleep has to become true that nobody may tell of.
pub(super) const SOON: Millis = Millis::from_secs(1);

impl Planner<'_> {
    /// The next step of falling asleep, of sleeping or of waking.
    pub(super) fn sleep(&mut self) {
        match self.app.asleep {
            None => self.fall_asleep(),
            Some(asleep) => self.stay_asleep(asleep),
        }
    }

    fn fall_asleep(&mut self) {
        let app = self.app;
        let Some(sleep) = may_sleep(app) else { return };
        // A control that was just started has heard of nothing yet, so the time runs from there at the earliest.
        let awake = self.watch.elapsed(Mark::Awake, self.now);
        let idle = self.world.idle.map_or(awake, |idle| idle.min(awake));
        if idle < sleep.idle_after {
            self.look_again(Millis(sleep.idle_after.0 - idle.0));
            return;
        }
        // What edge does not follow it does not tell of either.
        if self.world.edge.alive.is_none_or(|edge| edge.applied.0 < changed_at(app)) {
            self.look_again(SOON);
            return;
        }
        let stands_still = sleep.stop_after.0 > 0 && self.world.freezes && !self.world.memory_short;
        let depth = if stands_still { Depth::Frozen } else { Depth::Stopped };
        self.record(Fact::Sleep { depth, idle });
    }

    fn stay_asleep(&mut self, asleep: Asleep) {
        if self.app.volume_work.is_some() {
            self.wake(WakeReason::VolumeWork, BTreeSet::new());
        } else if is_scaled_down(self.app) {
            self.wake(WakeReason::ScaledDown, BTreeSet::new());
        } else if self.world.wanted {
            if self.world.may_wake {
                self.wake(WakeReason::Requested, self.able_to_serve());
            } else {
                self.look_again(SOON);
            }
        } else if asleep.depth == Depth::Frozen {
            self.stand_still(asleep);
        }
    }

    /// Those that stood still and can take requests as soon as they go on.
    fn able_to_serve(&self) -> BTreeSet<Ordinal> {
        let able = self.app.instances.iter().filter(|(ordinal, instance)| {
            let runs = self.seen(**ordinal, instance).is_some_and(|seen| seen.life == Life::Running);
            runs && instance.proven && instance.port.is_some() && is_put_to_sleep(self.app, instance)
        });
        able.map(|(&ordinal, _)| ordinal).collect()
    }

    fn stand_still(&mut self, asleep: Asleep) {
        let app = self.app;
        let sleep = app.serving_release().and_then(|release| release.manifest.sleep()).copied();
        let long = self.is_over(Mark::Asleep(asleep.position), sleep.unwrap_or_default().stop_after);
        // After a restart of the machine nothing of it is left.
        let none_left = !app.instances.values().any(|it| is_put_to_sleep(app, it));
        if long || none_left || self.world.memory_short || !self.world.freezes {
            let idle = self.world.idle.unwrap_or_default();
            self.record(Fact::Sleep { depth: Depth::Stopped, idle });
            return;
        }
        for &ordinal in app.instances.keys() {
            if self.world.frozen.get(&ordinal) != Some(&true) && freeze_is_safe(app, ordinal, self.world) {
                self.act(Action::Freeze(ordinal));
            }
        }
    }

    /// Wakes the app with requests to `ordinals`, once all that may stand still goes on.
    fn wake(&mut self, why: WakeReason, ordinals: BTreeSet<Ordinal>) {
        let still = may_stand_still(self.app, self.world);
        if still.is_empty() {
            self.record(Fact::Wake { why, ordinals });
            return;
        }
        self.look_again(SOON);
        for ordinal in still {
            self.act(Action::Thaw(ordinal));
        }
    }

    /// Has requests go to `ordinals`, which are a new release's; an app that sleeps wakes with that.
    pub(super) fn move_traffic(&mut self, ordinals: BTreeSet<Ordinal>) {
        if self.app.asleep.is_some() {
            self.wake(WakeReason::Deployed, ordinals);
        } else {
            self.record(Fact::Route { ordinals });
        }
    }
}

#[cfg(test)]
mod tests;
