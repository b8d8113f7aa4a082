//! Cron entries: asks for a decision where one is due, and looks again when the next is.

use super::{Action, Planner};
use crate::cron::{Judgement, entries, judge};

impl Planner<'_> {
    pub(super) fn cron(&mut self) {
        let Some(at) = self.world.wall else { return };
        let app = self.app;
        for (name, entry, progress) in entries(app) {
            match judge(entry, progress, at) {
                Judgement::Wait(None) => {}
                Judgement::Wait(Some(next)) => self.look_again(next - at),
                Judgement::SetBack | Judgement::Due { .. } => {
                    self.act(Action::Cron { entry: name.clone(), at });
                }
            }
        }
    }
}
