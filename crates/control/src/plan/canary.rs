//! Rolling a release out by canary: beside the one that serves, with a share that grows as long as nothing speaks against it.
//!
//! Traffic goes back by the same fact as whenever a release fails: it fails, and requests go to the one that serves, in one decision. Its
//! instances stop once they are drained.

use std::collections::BTreeSet;

use berth_rollout::{Evidence, Move, course};
use berth_routing::wire::Health;
use berth_spec::{Millis, ProcessName, ReleaseNumber};

use crate::command::Fact;
use crate::event::{Failure, Ordinal, Reason};
use crate::state::{Release, Split};
use crate::world::Mark;

use super::Planner;

impl Planner<'_> {
    /// The next step of the rollout. Returns whether the release may have all requests.
    pub(super) fn roll_out(&mut self, release: &Release, process: &ProcessName) -> bool {
        let (app, number) = (self.app, release.number);
        let Some(serving) = app.serving else { return true };
        match app.rollout() {
            // Scaled to nothing there are no requests to be shared.
            _ if app.wanted(process) == 0 => true,
            Some(Split { percent: 100, .. }) => true,
            None if self.has_nobody_beside(release, serving) => true,
            None => {
                self.shift_to_next(release, 0, None);
                false
            }
            Some(split) => {
                // It runs also where somebody holds the step, or instances are routed anew.
                let elapsed = self.watch.elapsed(Mark::Share(number, split.percent), self.now);
                let target = self.both(number, serving, process);
                if target == app.routed {
                    self.judge(release, serving, split, elapsed);
                } else if !target.is_empty() {
                    self.record(Fact::Route { ordinals: target });
                }
                false
            }
        }
    }

    /// Whether there is no release to be compared with, or none that is to be compared: a rollback is wanted at once.
    fn has_nobody_beside(&self, release: &Release, serving: ReleaseNumber) -> bool {
        let app = self.app;
        let rollback = matches!(release.reason, Reason::Rollback { .. });
        rollback || !app.routed.iter().any(|it| app.instances[it].release == serving)
    }

    /// The instances of both releases that get requests, or are fit to.
    fn both(&mut self, new: ReleaseNumber, old: ReleaseNumber, process: &ProcessName) -> BTreeSet<Ordinal> {
        let app = self.app;
        let wanted = app.wanted(process) as usize;
        let mut target = BTreeSet::new();
        for release in [old, new] {
            let ready = self.ready(release, process);
            let mut fit: Vec<Ordinal> = app.running(release, process).map(|(it, _)| it).collect();
            fit.retain(|it| app.routed.contains(it) || ready.contains(it));
            fit.sort_by_key(|it| (!app.routed.contains(it), *it));
            target.extend(fit.into_iter().take(wanted));
        }
        target
    }

    /// What is done with what was seen so far.
    fn judge(&mut self, release: &Release, serving: ReleaseNumber, split: Split, elapsed: Millis) {
        let number = release.number;
        if let Some(failure) = self.unfit(release, split) {
            self.record(Fact::Failed { release: number, failure });
            return;
        }
        let compared = self.world.compared.as_ref();
        let compared = compared.filter(|it| it.release == number && it.percent == split.percent);
        let evidence = compared.map_or_else(Evidence::none, |it| it.evidence.clone());
        match course(&evidence, elapsed, release.manifest.deploy.canary.interval) {
            Move::GoBack => {
                let failure = worse(&evidence, number, serving, split.percent);
                self.record(Fact::Failed { release: number, failure });
            }
            Move::Wait(span) => self.look_again(span),
            Move::GoOn if split.held => {}
            Move::GoOn => self.shift_to_next(release, split.percent, Some(evidence)),
        }
    }

    fn shift_to_next(&mut self, release: &Release, before: u8, evidence: Option<Evidence>) {
        let steps = &release.manifest.deploy.canary.steps;
        let next = steps.iter().copied().filter(|step| *step > before).min();
        let percent = next.unwrap_or(100).min(100);
        self.record(Fact::Shift { release: release.number, percent, evidence });
    }

    /// Why an instance that got its share is not fit to: its program exited, or it fails its health checks while the old release's do not.
    fn unfit(&self, release: &Release, split: Split) -> Option<Failure> {
        let app = self.app;
        let failing = |ordinal: &Ordinal| {
            self.world.health.get(ordinal).is_some_and(|probed| probed.health == Health::Failing)
        };
        let (new, old): (Vec<Ordinal>, Vec<Ordinal>) =
            app.routed.iter().partition(|it| app.instances[*it].release == release.number);
        let code = "rollout_failed";
        let at = |what: String| format!("{what}, at {} % of the requests", split.percent);
        for ordinal in &new {
            let instance = &app.instances[ordinal];
            let name = format!("{}.{ordinal} of {}", instance.process, release.number);
            if instance.exits > 0 {
                let exit = self.seen(*ordinal, instance).and_then(|seen| seen.last_exit);
                let detail = exit.map(|exit| format!("it {exit}")).into_iter().collect();
                return Some(Failure {
                    detail,
                    ..Failure::new(code, at(format!("{name} exited while it served")))
                });
            }
            if failing(ordinal) && !old.iter().any(failing) {
                let probed = self.world.health.get(ordinal);
                let detail = probed.map(|it| it.evidence.clone()).unwrap_or_default();
                return Some(Failure {
                    detail,
                    ..Failure::new(code, at(format!("{name} fails its health checks")))
                });
            }
        }
        None
    }
}

/// The failure of a release that does worse than the one before.
fn worse(evidence: &Evidence, number: ReleaseNumber, serving: ReleaseNumber, percent: u8) -> Failure {
    let (new, old) = (number.to_string(), serving.to_string());
    let mut sentences = evidence.sentences(&new, &old).into_iter();
    let summary = sentences.next().unwrap_or_default();
    let summary = format!("{summary}, at {percent} % of the requests");
    Failure { detail: sentences.collect(), ..Failure::new("rollout_worse", summary) }
}

#[cfg(test)]
mod tests;
