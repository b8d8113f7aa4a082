//! Builds and release commands under way: each a task that ends in an observation for the planner.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use berth_control::world::{Build, ReleaseCommand};
use berth_spec::{AppId, ReleaseId, ReleaseNumber};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::output::BuildOutput;

/// How many outputs of builds that are over are kept for those who come late.
const OUTPUTS_KEPT: usize = 64;

/// What is under way, and what has ended and was not taken note of.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    builds: Mutex<BTreeMap<ReleaseId, BuildJob>>,
    commands: Mutex<BTreeMap<ReleaseId, CommandJob>>,
    outputs: Mutex<Outputs>,
}

#[derive(Debug)]
struct BuildJob {
    state: Build,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct CommandJob {
    state: ReleaseCommand,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Outputs {
    by_release: BTreeMap<ReleaseId, BuildOutput>,
    order: std::collections::VecDeque<ReleaseId>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Takes note that a build begins, unless one of the release is known. Returns how to cancel it.
    pub(super) fn begin_build(&self, release: &ReleaseId) -> Option<CancellationToken> {
        let mut builds = lock(&self.builds);
        if builds.contains_key(release) {
            return None;
        }
        let cancel = CancellationToken::new();
        builds.insert(release.clone(), BuildJob { state: Build::Running, cancel: cancel.clone() });
        Some(cancel)
    }

    /// Takes note of how a build ended. One that was cancelled is forgotten.
    pub(super) fn end_build(&self, release: &ReleaseId, state: Build) {
        let mut builds = lock(&self.builds);
        match builds.get_mut(release) {
            Some(job) if job.cancel.is_cancelled() => drop(builds.remove(release)),
            Some(job) => job.state = state,
            None => {}
        }
    }

    /// Cancels a build that runs, forgets one that has ended.
    pub(super) fn cancel_build(&self, release: &ReleaseId) {
        let mut builds = lock(&self.builds);
        match builds.get(release).map(|job| job.state == Build::Running) {
            Some(true) => builds.get(release).into_iter().for_each(|job| job.cancel.cancel()),
            Some(false) => drop(builds.remove(release)),
            None => {}
        }
    }

    /// Cancels all that runs.
    pub(super) fn cancel_all(&self) {
        lock(&self.builds).values().for_each(|job| job.cancel.cancel());
        lock(&self.commands).values().filter_map(|job| job.task.as_ref()).for_each(AbortHandle::abort);
    }

    /// The builds of one app.
    pub(super) fn builds_of(&self, app: &AppId) -> BTreeMap<ReleaseNumber, Build> {
        let builds = lock(&self.builds);
        builds
            .iter()
            .filter(|(id, _)| id.app == *app)
            .map(|(id, job)| (id.number, job.state.clone()))
            .collect()
    }

    /// Takes note that a release command begins, unless one of the release is known.
    pub(super) fn begin_command(&self, release: &ReleaseId) -> bool {
        let mut commands = lock(&self.commands);
        if commands.contains_key(release) {
            return false;
        }
        commands.insert(release.clone(), CommandJob { state: ReleaseCommand::Running, task: None });
        true
    }

    /// The task that runs it.
    pub(super) fn set_command_task(&self, release: &ReleaseId, task: AbortHandle) {
        if let Some(job) = lock(&self.commands).get_mut(release) {
            job.task = Some(task);
        }
    }

    /// Stops waiting for a release command that runs; one that has ended is forgotten. Returns whether it has to be ended.
    pub(super) fn abort_command(&self, release: &ReleaseId) -> bool {
        let mut commands = lock(&self.commands);
        let Some(job) = commands.get_mut(release) else {
            return false;
        };
        if job.state != ReleaseCommand::Running {
            commands.remove(release);
            return false;
        }
        // Taken: whoever comes second finds that somebody ends it already.
        job.task.take().inspect(AbortHandle::abort).is_some()
    }

    /// Forgets a release command.
    pub(super) fn forget_command(&self, release: &ReleaseId) {
        lock(&self.commands).remove(release);
    }

    /// Takes note of how a release command ended.
    pub(super) fn end_command(&self, release: &ReleaseId, state: ReleaseCommand) {
        if let Some(job) = lock(&self.commands).get_mut(release) {
            (job.state, job.task) = (state, None);
        }
    }

    /// The release commands of one app.
    pub(super) fn commands_of(&self, app: &AppId) -> BTreeMap<ReleaseNumber, ReleaseCommand> {
        let commands = lock(&self.commands);
        commands
            .iter()
            .filter(|(id, _)| id.app == *app)
            .map(|(id, job)| (id.number, job.state.clone()))
            .collect()
    }

    /// Forgets release commands that have ended for releases that are settled.
    pub(super) fn forget_commands(&self, app: &AppId, settled: impl Fn(ReleaseNumber) -> bool) {
        lock(&self.commands)
            .retain(|id, job| id.app != *app || job.state == ReleaseCommand::Running || !settled(id.number));
    }

    /// The output of a release's build, if one is kept.
    pub(super) fn kept_output(&self, release: &ReleaseId) -> Option<BuildOutput> {
        lock(&self.outputs).by_release.get(release).cloned()
    }

    /// The output of a release's build, which may be still to come. Those of long ago are forgotten.
    pub(super) fn output(&self, release: &ReleaseId) -> BuildOutput {
        let mut outputs = lock(&self.outputs);
        if let Some(output) = outputs.by_release.get(release) {
            return output.clone();
        }
        let output = BuildOutput::default();
        outputs.by_release.insert(release.clone(), output.clone());
        outputs.order.push_back(release.clone());
        if outputs.order.len() > OUTPUTS_KEPT
            && let Some(oldest) = outputs.order.pop_front()
        {
            outputs.by_release.remove(&oldest);
        }
        output
    }
}
