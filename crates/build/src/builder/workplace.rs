//! Work directories: which build has which, with the group that limits it and the mark by which what it starts is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use berth_clock::random_bytes;
use berth_process::{Cgroup, Mark, Quota};
use berth_spec::AppId;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::garbage::touch;
use super::make::{cgroup_name, set_mode};
use super::{Builder, Inside, blocking, unless_cancelled};
use crate::error::{BuildError, failed};
use crate::log::Log;
use crate::remove::remove_all;
use crate::unmount::unmount_below;

/// Which work directory a build has, among those of its app. Another build has it once this is dropped.
pub(super) struct Turn {
    inside: Arc<Inside>,
    app: AppId,
    number: u32,
    pub(super) dir: PathBuf,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut works = self.inside.works.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = works.get_mut(&self.app) {
            taken.remove(&self.number);
            if taken.is_empty() {
                works.remove(&self.app);
            }
        }
    }
}

impl Inside {
    /// The first work directory of the app that no other build has.
    pub(super) fn take_turn(self: &Arc<Self>, app: &AppId) -> Turn {
        let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = works.entry(app.clone()).or_default();
        let number =
            (0..).find(|number| !taken.contains(number)).expect("there are more numbers than builds");
        taken.insert(number);
        let dir = self.layout.work(app, number);
        Turn { inside: Arc::clone(self), app: app.clone(), number, dir }
    }

    /// Makes a work directory anew, with the mark of the build that has it now.
    pub(super) fn begin_work(&self, dir: &Path) -> Result<Mark, BuildError> {
        remove_all(dir).map_err(failed(dir, "removed"))?;
        self.layout.make(&self.layout.builds, dir)?;
        let mark = Mark(random_bytes(&*self.clock));
        let path = dir.join("mark");
        fs::write(&path, mark.0).map_err(failed(&path, "written"))?;
        set_mode(&path, 0o600)?;
        Ok(mark)
    }

    /// The control group of the build in a work directory, with the limits that all builds have.
    pub(super) fn limited_group(&self, dir: &Path) -> Result<Option<Cgroup>, BuildError> {
        let quota =
            Quota { memory: self.config.memory_max, ..Quota::of_processes(self.config.processes_max) };
        let groups = self.config.cgroups.as_ref();
        let group = groups.map(|groups| groups.create_limited(&cgroup_name(dir), &quota));
        group.transpose().map_err(failed(dir, "given a control group"))
    }
}

/// The work directory of a build that a program of somebody else's makes, and what that keeps between an app's builds.
pub(crate) struct Workplace {
    turn: Turn,
    _permit: OwnedSemaphorePermit,
    /// The directory: nobody's but the platform's.
    pub(crate) dir: PathBuf,
    /// Where the program keeps what it likes for the app's next build. It need not be there; what is kept of it goes with other caches.
    pub(crate) kept: PathBuf,
    /// By which what the build starts is found.
    pub(crate) mark: Mark,
    /// The group whose limits the build has, with nothing in it.
    pub(crate) group: Option<Cgroup>,
}

impl Builder {
    /// A work directory, once it is this build's turn.
    ///
    /// # Errors
    /// [`BuildError`] when it cannot be had.
    pub(crate) async fn workplace(
        &self,
        app: &AppId,
        keeps: &str,
        log: &Arc<Log>,
        cancel: &CancellationToken,
    ) -> Result<Workplace, BuildError> {
        let permits = Arc::clone(&self.inside.permits);
        let permit = unless_cancelled(cancel, permits.acquire_owned()).await?;
        let permit = permit.expect("the semaphore is never closed");
        let turn = self.inside.take_turn(app);
        let (inside, dir, log) = (Arc::clone(&self.inside), turn.dir.clone(), Arc::clone(log));
        let cache = inside.layout.cache(app);
        let kept = cache.join(keeps);
        let made = blocking(move || {
            inside.make_room(&log)?;
            let mark = inside.begin_work(&dir)?;
            inside.layout.make(&inside.layout.builds, &cache)?;
            Ok((mark, inside.limited_group(&dir)?))
        });
        let (mark, group) = made.await?;
        Ok(Workplace { dir: turn.dir.clone(), turn, _permit: permit, kept, mark, group })
    }
}

impl Workplace {
    /// Ends what is left of the build, and clears its directory away.
    pub(crate) async fn leave(self) {
        let Self { turn, kept, .. } = self;
        let inside = Arc::clone(&turn.inside);
        let cleared = blocking(move || {
            inside.end_build(&turn.dir)?;
            unmount_below(&turn.dir);
            remove_all(&turn.dir).map_err(failed(&turn.dir, "removed"))?;
            if kept.is_dir() {
                touch(&kept, inside.clock.now());
            }
            inside.weigh_caches(&turn.app)
        });
        if let Err(error) = cleared.await {
            // What is left over goes with the next sweep.
            tracing::warn!(%error, "the work directory of a Dockerfile's build could not be removed");
        }
    }
}
