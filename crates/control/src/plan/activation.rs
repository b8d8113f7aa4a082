//! Activating a release: start beside the old, wait until ready, hand over, shift traffic, be done.

use std::collections::BTreeSet;

use berth_routing::Generation;
use berth_spec::manifest::Strategy;
use berth_spec::{ProcessName, ReleaseNumber};

use crate::command::Fact;
use crate::event::{Failure, Ordinal, Reason, StopReason};
use crate::state::{Activation, App, Release};
use crate::volume;
use crate::world::{Mark, ReleaseCommand};

use super::{APPLY_DEADLINE, Action, Planner};

/// Whether the instances of `warm` are in all they can see what release `number` wants: a rollback to the very release, with its
/// configuration and secrets.
pub(crate) fn can_adopt(app: &App, number: ReleaseNumber, warm: ReleaseNumber) -> bool {
    let (Some(new), Some(old)) = (app.release(number), app.release(warm)) else {
        return false;
    };
    let rollback = matches!(new.reason, Reason::Rollback { .. });
    rollback
        && new.artifact == old.artifact
        && new.manifest == old.manifest
        && new.config == old.config
        && new.secrets == old.secrets
}

impl Planner<'_> {
    /// The next steps of the activation, if there is one.
    pub(super) fn activate(&mut self) {
        let app = self.app;
        let Some(activation) = &app.activation else {
            return;
        };
        let Some(release) = app.release(activation.release) else {
            return;
        };
        if let Some(failure) = self.failure(release) {
            self.record(Fact::Failed { release: release.number, failure });
            return;
        }
        if app.warm.is_some_and(|warm| can_adopt(app, release.number, warm)) {
            self.record(Fact::AdoptWarm { release: release.number });
            return;
        }
        if !activation.command_done {
            self.release_command(release);
            return;
        }
        if self.start_and_hand_over(release, activation) && self.is_applied(release) {
            self.record(Fact::Activate { release: release.number });
        }
    }

    /// A deploy and a change of configuration run the release command.
    fn release_command(&mut self, release: &Release) {
        let number = release.number;
        if release.release_command().is_none() {
            self.record(Fact::CommandFinished { release: number });
            return;
        }
        match self.world.commands.get(&number) {
            None => self.act(Action::RunReleaseCommand(number)),
            Some(ReleaseCommand::Running) => {}
            Some(ReleaseCommand::Succeeded) => self.record(Fact::CommandFinished { release: number }),
            Some(ReleaseCommand::Failed(failure)) => {
                self.record(Fact::Failed { release: number, failure: failure.clone() });
            }
        }
    }

    /// Web first, beside the old; then the processes of which only one release may run; then the shift. Returns whether all of it is done.
    fn start_and_hand_over(&mut self, release: &Release, activation: &Activation) -> bool {
        let Some(processes) = release.processes() else {
            return false;
        };
        let (web, others): (Vec<_>, Vec<_>) = processes.keys().cloned().partition(ProcessName::is_web);
        if volume::is_exchanged_by_web(self.app, release.number) {
            return self.exchange(release, web.first(), others, activation);
        }
        let strategy = web.first().map(|process| release.strategy(process));
        let beside = matches!(strategy, Some(Strategy::BlueGreen | Strategy::Canary));
        // Once a rollout has begun what becomes of its instances is for that to judge.
        if beside && !self.start_all(release.number, &web[0]) && self.app.rollout().is_none() {
            return false;
        }
        if strategy == Some(Strategy::Canary) && !self.roll_out(release, &web[0]) {
            return false;
        }
        if !others.is_empty() && !self.hand_over(release, others, activation) {
            return false;
        }
        if let Some(process) = web.first().filter(|_| !beside)
            && !activation.handed_over.contains(process)
        {
            self.record(Fact::HandOver { release: release.number, processes: [process.clone()].into() });
            return false;
        }
        match (strategy, web.first()) {
            (Some(Strategy::BlueGreen | Strategy::Canary), Some(process)) => {
                self.shift(release.number, process)
            }
            (Some(Strategy::Rolling), Some(process)) => self.roll(release.number, process),
            (Some(Strategy::Recreate), Some(process)) => {
                self.stop_old_web(release.number)
                    && self.start_all(release.number, process)
                    && self.shift(release.number, process)
            }
            _ => self.give_up_web(release.number, activation),
        }
    }

    /// A volume goes from the old release's hands to this one's, and a web process is one of them: everything of the old one stops, then
    /// everything of this one starts. Edge holds what comes in between. Returns whether all of it is done.
    fn exchange(
        &mut self,
        release: &Release,
        web: Option<&ProcessName>,
        others: Vec<ProcessName>,
        activation: &Activation,
    ) -> bool {
        let number = release.number;
        let both =
            release.processes().into_iter().chain(self.app.serving_release().and_then(|it| it.processes()));
        let processes: BTreeSet<ProcessName> = both.flat_map(|processes| processes.keys().cloned()).collect();
        if !processes.is_subset(&activation.handed_over) {
            self.record(Fact::HandOver { release: number, processes });
            return false;
        }
        let gone = self.stop_old_web(number);
        let web_serves =
            gone && web.is_none_or(|process| self.start_all(number, process) && self.shift(number, process));
        let others_run = others.is_empty() || self.hand_over(release, others, activation);
        web_serves && others_run
    }

    /// Starts as many as are wanted; returns whether all of them are ready.
    fn start_all(&mut self, release: ReleaseNumber, process: &ProcessName) -> bool {
        let wanted = self.app.wanted(process) as usize;
        self.assign_missing(release, process, wanted) && self.ready(release, process).len() >= wanted
    }

    /// Stops the old release's instances of `processes` and starts the new one's; returns whether these are ready.
    fn hand_over(&mut self, release: &Release, processes: Vec<ProcessName>, activation: &Activation) -> bool {
        let app = self.app;
        let number = release.number;
        let processes: BTreeSet<ProcessName> = processes.into_iter().collect();
        // Those too that keep a volume from them, whatever they are called.
        let old = app.serving_release().map(|old| volume::given_up(old, release)).unwrap_or_default();
        let handed: BTreeSet<ProcessName> = processes.union(&old).cloned().collect();
        if !handed.is_subset(&activation.handed_over) {
            self.record(Fact::HandOver { release: number, processes: handed });
            return false;
        }
        // Instances of the old release are told to stop by retire(), since the process is no longer theirs.
        let old_left = |process: &ProcessName| {
            app.instances.values().any(|it| it.process == *process && it.release != number)
        };
        let mut all_ready = true;
        for process in &processes {
            all_ready &= !old_left(process) && self.start_all(number, process);
        }
        all_ready
    }

    /// Routes to all of the new release's instances at once; returns whether that is so.
    fn shift(&mut self, release: ReleaseNumber, process: &ProcessName) -> bool {
        let wanted = self.app.wanted(process) as usize;
        let mut target: Vec<Ordinal> = self.ready(release, process).into_iter().collect();
        // Once shifted, what is routed stays so even if it fails its probes: the activation ends by being applied.
        let routed_new = self.app.running(release, process).filter(|(it, _)| self.app.routed.contains(it));
        target.extend(routed_new.map(|(ordinal, _)| ordinal));
        let target: BTreeSet<Ordinal> = target.into_iter().collect();
        if target.len() < wanted {
            return false;
        }
        if target != self.app.routed {
            self.move_traffic(target);
            return false;
        }
        true
    }

    /// One new instance for one old at a time, never fewer than are wanted; returns whether all are new.
    fn roll(&mut self, release: ReleaseNumber, process: &ProcessName) -> bool {
        let app = self.app;
        let wanted = app.wanted(process) as usize;
        let ready = self.ready(release, process);
        let fit = |it: &Ordinal| app.routed.contains(it) || ready.contains(it);
        let new: BTreeSet<Ordinal> = app.running(release, process).map(|(it, _)| it).filter(fit).collect();
        let old = app.routed.iter().filter(|it| app.instances[*it].release != release);
        let target: BTreeSet<Ordinal> =
            new.iter().chain(old.take(wanted.saturating_sub(new.len()))).copied().collect();
        if target != app.routed {
            // The old ones that fall out of the routing are stopped by retire(), since the process went over.
            self.move_traffic(target);
            return false;
        }
        if new.len() < wanted {
            self.assign_missing(release, process, new.len() + 1);
        }
        new.len() >= wanted
    }

    /// The release has no web process: nothing of the app is routed from here on. Returns whether that is so. The old one's web process
    /// is handed over like any other, or what is stopped here would be started again as what the serving release lacks.
    fn give_up_web(&mut self, release: ReleaseNumber, activation: &Activation) -> bool {
        let old = self.app.serving_release().and_then(|serving| serving.processes());
        let web = old.into_iter().flat_map(|processes| processes.keys()).filter(|process| process.is_web());
        let processes: BTreeSet<ProcessName> =
            web.filter(|process| !activation.handed_over.contains(*process)).cloned().collect();
        if !processes.is_empty() {
            self.record(Fact::HandOver { release, processes });
            return false;
        }
        self.stop_old_web(release)
    }

    /// Takes the old release's web instances out of the routing and stops them, before the new ones start; returns whether none is left.
    fn stop_old_web(&mut self, release: ReleaseNumber) -> bool {
        let app = self.app;
        let mut none_left = true;
        for (&ordinal, instance) in &app.instances {
            if instance.process.is_web() && instance.release != release {
                none_left = false;
                if instance.is_wanted() {
                    self.record(Fact::Stop { ordinal, why: StopReason::Replaced });
                }
            }
        }
        none_left
    }

    /// Whether edge uses the routing as it is now. If it does not in time, the deployment fails and edge is restarted; nothing is
    /// ever stopped past it.
    fn is_applied(&mut self, release: &Release) -> bool {
        let changed = crate::route::changed_at(self.app);
        let edge = self.world.edge;
        // Before the snapshot is durable edge was not told; when edge is dead the supervisor is starting it already.
        let Some(process) = edge.alive.filter(|_| edge.durable.0 >= changed) else {
            return false;
        };
        if process.applied.0 >= changed {
            return true;
        }
        if self.restart_if_late(Mark::Unapplied(Generation(changed))) {
            let summary = "edge did not take over the new routing within 5 s and was restarted";
            let failure = Failure {
                detail: vec![format!("waited for generation {changed}; edge has {:?}", edge.alive)],
                ..Failure::new("edge_unresponsive", summary)
            };
            self.record(Fact::Failed { release: release.number, failure });
        }
        false
    }

    /// Restarts edge when `mark` has been so for longer than edge may take. Returns whether it has.
    pub(super) fn restart_if_late(&mut self, mark: Mark) -> bool {
        let late = self.is_over(mark.clone(), APPLY_DEADLINE);
        if late {
            // The next process gets as long; without this it would be killed before it is up, and the one after it too.
            self.watch.restart(mark, self.now);
            self.look_again(APPLY_DEADLINE);
            self.act(Action::RestartEdge);
        }
        late
    }
}
