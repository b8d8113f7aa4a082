//! Builds, and whose turn it is.

use crate::command::Fact;
use crate::event::Failure;
use crate::state::Phase;
use crate::world::Build;

use super::{Action, Planner};

impl Planner<'_> {
    /// Builds run in parallel; those of releases that are settled are ended, and so are their release commands.
    pub(super) fn builds(&mut self) {
        let app = self.app;
        for number in self.world.commands.keys() {
            if app.release(*number).is_none_or(|release| release.phase.is_settled()) {
                self.act(Action::CancelBuild(*number));
            }
        }
        for (&number, release) in app.releases.iter().rev() {
            let build = self.world.builds.get(&number);
            match (release.phase, build) {
                (Phase::Submitted, None) => self.act(Action::Build(number)),
                (Phase::Submitted, Some(Build::Done(artifact))) => {
                    self.record(Fact::Built { release: number, artifact: artifact.clone() });
                }
                (Phase::Submitted, Some(Build::Failed(failure))) => {
                    self.record(Fact::Failed { release: number, failure: failure.clone() });
                }
                (Phase::Submitted, Some(Build::Running)) | (_, None) => {}
                (_, Some(_)) => self.act(Action::CancelBuild(number)),
            }
        }
    }

    /// The newest release that is built is next; it supersedes all older ones that wait, at once where it has to wait itself.
    pub(super) fn begin_activation(&mut self) {
        let app = self.app;
        let ready = app.releases.iter().rev().find(|(_, release)| release.phase == Phase::Built);
        let Some((&release, _)) = ready else {
            return;
        };
        // It has to wait until what was stopped runs again.
        if app.volume_work.is_some() {
            return;
        }
        // A rollout in steps gives way at once: it would go on for minutes with a release that is not wanted any more, and nobody wants it
        // less than who rolls back.
        if let Some(split) = app.rollout().filter(|split| split.release < release && split.percent < 100) {
            let (number, percent) = (split.release, split.percent);
            let summary = format!(
                "{release} was submitted while the rollout of {number} was at {percent} % of the requests"
            );
            let failure = Failure::new("rollout_aborted", summary);
            self.record(Fact::Failed { release: number, failure });
        } else if app.activation.is_none() {
            self.record(Fact::BeginActivation { release });
        } else if app.overtaken(release).next().is_some() {
            self.record(Fact::Supersede { by: release });
        }
    }
}
