//! Builds and release commands. What becomes of them is written in the id of the source tree.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_control::event::{Artifact, Failure};
use berth_control::state::App;
use berth_control::world::{Build, ReleaseCommand};
use berth_spec::command::Command;
use berth_spec::{AppId, ProcessName, ReleaseNumber};

use crate::chance::Chance;
use crate::fault::{Fault, Tally};

/// How long a build may take before the builder ends it.
const BUILD_DEADLINE: u64 = 120_000;

/// What an app does once it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Starts, listens, serves.
    Good,
    /// Listens only after some seconds.
    Slow,
    /// Exits again and again.
    Crashes,
    /// Never listens.
    Deaf,
    /// Listens on a port of its own.
    Elsewhere,
    /// Has a check of its own, which passes after a while, and may fail later, when something happens to it.
    Ailing,
    /// Has one that never passes.
    Sick,
}

/// A source tree: `kind.processes.quality.number`.
pub(crate) fn tree(chance: &Chance, number: u64) -> String {
    let build = match chance.below(14) {
        0 => "fails",
        1 => "hangs",
        _ => "builds",
    };
    let processes = ["web", "web", "web", "web+worker", "web+worker", "worker"][chance.below(6)];
    let quality = match chance.below(16) {
        0 => "crashes",
        1 => "deaf",
        2 => "elsewhere",
        3 | 4 => "slow",
        5 => "ailing",
        6 => "sick",
        _ => "good",
    };
    // Some trees come again, so that their artifact stands already.
    let number = if chance.one_in(4) { number % 7 } else { number };
    format!("{build}.{processes}.{quality}.{number}")
}

/// What an artifact of that tree does; artifacts are named after their tree.
pub(crate) fn quality(artifact: &str) -> Quality {
    match artifact.split('.').nth(2) {
        Some("crashes") => Quality::Crashes,
        Some("deaf") => Quality::Deaf,
        Some("elsewhere") => Quality::Elsewhere,
        Some("slow") => Quality::Slow,
        Some("ailing") => Quality::Ailing,
        Some("sick") => Quality::Sick,
        _ => Quality::Good,
    }
}

fn artifact(tree: &str) -> Artifact {
    let names = tree.split('.').nth(1).unwrap_or_default().split('+');
    let process = |name: &str| {
        let process: ProcessName = name.parse().expect("the names of processes in a tree are names");
        (process, Command::Argv(vec![format!("bin/{name}")]))
    };
    Artifact {
        id: format!("a-{tree}"),
        processes: names.map(process).collect(),
        bytes: 1_000,
        why: vec!["the tree says so".to_owned()],
        ..Artifact::default()
    }
}

/// The artifacts of the releases that are not settled, whether they stand or not.
pub(crate) fn unsettled(app: &App) -> impl Iterator<Item = String> {
    let unsettled = app.releases.values().filter(|release| !release.phase.is_settled());
    unsettled.map(|release| format!("a-{}", release.tree))
}

/// Work that was begun for a release.
#[derive(Debug)]
struct Work<T> {
    ends: Duration,
    outcome: T,
}

/// The builds and the release commands. All end with control, whose children they are.
#[derive(Debug, Default)]
pub(crate) struct Builders {
    builds: BTreeMap<(AppId, ReleaseNumber), Work<Build>>,
    commands: BTreeMap<(AppId, ReleaseNumber), Work<ReleaseCommand>>,
}

fn failure(code: &str) -> Failure {
    Failure { detail: vec!["a line".to_owned()], ..Failure::new(code, "it went wrong") }
}

impl Builders {
    pub(crate) fn build(
        &mut self,
        id: (AppId, ReleaseNumber),
        tree: &str,
        chance: &Chance,
        tally: &mut Tally,
    ) {
        self.builds.entry(id).or_insert_with(|| match tree.split('.').next() {
            Some("fails") => {
                tally.add(Fault::BuildFailed);
                Work { ends: chance.later(50, 4_000), outcome: Build::Failed(failure("build_failed")) }
            }
            Some("hangs") => {
                tally.add(Fault::BuildHung);
                let ends = chance.later(BUILD_DEADLINE, BUILD_DEADLINE + 1);
                Work { ends, outcome: Build::Failed(failure("build_timed_out")) }
            }
            _ => Work { ends: chance.later(20, 6_000), outcome: Build::Done(artifact(tree)) },
        });
    }

    pub(crate) fn run_command(
        &mut self,
        id: (AppId, ReleaseNumber),
        chance: &Chance,
        tally: &mut Tally,
        calm: bool,
    ) {
        self.commands.entry(id).or_insert_with(|| match chance.below(if calm { 1 } else { 8 }) {
            1 => {
                tally.add(Fault::CommandFailed);
                let outcome = ReleaseCommand::Failed(failure("release_command_failed"));
                Work { ends: chance.later(10, 2_000), outcome }
            }
            2 => {
                tally.add(Fault::CommandHung);
                Work { ends: Duration::MAX, outcome: ReleaseCommand::Running }
            }
            _ => Work { ends: chance.later(10, 2_000), outcome: ReleaseCommand::Succeeded },
        });
    }

    pub(crate) fn cancel(&mut self, id: &(AppId, ReleaseNumber)) {
        self.builds.remove(id);
        self.commands.remove(id);
    }

    pub(crate) fn control_died(&mut self) {
        self.builds.clear();
        self.commands.clear();
    }

    pub(crate) fn builds(&self, app: &AppId, now: Duration) -> BTreeMap<ReleaseNumber, Build> {
        let of_app = self.builds.iter().filter(|((it, _), _)| it == app);
        let seen = |work: &Work<Build>| if work.ends <= now { work.outcome.clone() } else { Build::Running };
        of_app.map(|((_, number), work)| (*number, seen(work))).collect()
    }

    pub(crate) fn commands(&self, app: &AppId, now: Duration) -> BTreeMap<ReleaseNumber, ReleaseCommand> {
        let of_app = self.commands.iter().filter(|((it, _), _)| it == app);
        let seen = |work: &Work<ReleaseCommand>| {
            if work.ends <= now { work.outcome.clone() } else { ReleaseCommand::Running }
        };
        of_app.map(|((_, number), work)| (*number, seen(work))).collect()
    }

    /// The apps with work that ended between `before` and `now`, and the artifacts that stand since.
    pub(crate) fn ended(&self, before: Duration, now: Duration) -> Vec<(AppId, Option<String>)> {
        let within = |ends: Duration| before < ends && ends <= now;
        let builds = self.builds.iter().filter(|(_, work)| within(work.ends)).map(|((app, _), work)| {
            let artifact = match &work.outcome {
                Build::Done(artifact) => Some(artifact.id.clone()),
                Build::Running | Build::Failed(_) => None,
            };
            (app.clone(), artifact)
        });
        let commands = self.commands.iter().filter(|(_, work)| within(work.ends));
        builds.chain(commands.map(|((app, _), _)| (app.clone(), None))).collect()
    }

    /// When the next piece of work ends.
    pub(crate) fn next(&self, now: Duration) -> Option<Duration> {
        let ends =
            self.builds.values().map(|work| work.ends).chain(self.commands.values().map(|work| work.ends));
        ends.filter(|ends| *ends > now && *ends < Duration::MAX).min()
    }
}
