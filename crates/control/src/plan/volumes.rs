//! Work on a volume: what has it stops, it is worked on, and what is wanted starts again.

use crate::command::Fact;
use crate::event::{StopReason, VolumeDeed};
use crate::volume::is_wanted_for_work;
use crate::world::Life;

use super::{Action, Planner};

impl Planner<'_> {
    /// The next step of the work, if there is some. Those that are assigned meanwhile wait, see [`crate::volume::in_the_way`].
    pub(super) fn volume_work(&mut self) {
        let app = self.app;
        let Some(work) = &app.volume_work else { return };
        // For a snapshot whoever performs it has them stand still.
        let stands_still = work.what == VolumeDeed::Snapshot && self.world.freezes;
        let mut free = true;
        for (&ordinal, instance) in app.instances.iter().filter(|(_, it)| is_wanted_for_work(app, it)) {
            let seen = self.seen(ordinal, instance).map(|seen| seen.life.clone());
            let runs = seen.is_some_and(|life| !matches!(life, Life::Gone | Life::NotStarted { .. }));
            if stands_still || (!instance.started && !runs) {
                continue;
            }
            free = false;
            if instance.is_wanted() {
                self.record(Fact::Stop { ordinal, why: StopReason::VolumeWork });
            }
        }
        let strays = self.world.instances.iter().any(|(ordinal, seen)| {
            let known = app.instances.get(ordinal).is_some_and(|it| it.token == seen.token);
            !known && !matches!(seen.life, Life::Gone | Life::NotStarted { .. })
        });
        if !free || (strays && !stands_still) {
            return;
        }
        match &self.world.volume_worked {
            Some((done, failure)) if done == work => {
                self.record(Fact::VolumeWorked { work: work.clone(), failure: failure.clone() });
            }
            _ => self.act(Action::WorkOnVolume(work.clone())),
        }
    }
}
