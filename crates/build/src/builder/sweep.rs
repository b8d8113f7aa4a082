//! What remains of builds: swept up after a kill, listed and removed when control says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_process::{Cgroup, Mark, Tree};
use berth_spec::AppId;

use super::make::{cgroup_name, noted};
use super::{Builder, Inside, blocking};
use crate::artifact::ArtifactId;
use crate::dockerfile::MADE_BELOW;
use crate::error::{BuildError, failed};
use crate::layout::{KEPT, LAYERS, Layout, entries};
use crate::remove::remove_all;
use crate::unmount::unmount_below;

/// How long the processes of a build that outlived us may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Builder {
    /// Ends builds that outlived a killed control and removes what they left. Call it before the first build.
    ///
    /// # Errors
    /// [`BuildError`] when something of them cannot be ended or removed.
    pub async fn sweep(&self) -> Result<(), BuildError> {
        let inside = Arc::clone(&self.inside);
        blocking(move || inside.sweep()).await
    }

    /// The artifacts of `app` that stand, with the bytes of their files.
    ///
    /// # Errors
    /// None today; what cannot be read is not listed.
    pub async fn list(&self, app: &AppId) -> Result<Vec<(ArtifactId, u64)>, BuildError> {
        let (inside, app) = (Arc::clone(&self.inside), app.clone());
        blocking(move || {
            let ids = entries(&inside.layout.artifacts_of(&app)).into_iter().filter_map(|path| {
                let id: ArtifactId = path.file_name()?.to_str()?.parse().ok()?;
                let bytes = noted(&inside.layout.note(&app, &id)).size().bytes;
                Some((id, bytes))
            });
            Ok(ids.collect())
        })
        .await
    }

    /// Removes an artifact; one that is not there is removed already. Whoever calls knows that nothing runs from it and no
    /// release needs it.
    ///
    /// # Errors
    /// [`BuildError`] when it cannot be removed; it may be partly gone, but not stand partly.
    pub async fn remove(&self, app: &AppId, id: &ArtifactId) -> Result<(), BuildError> {
        let turn = self.inside.turn(app, id);
        let held = turn.lock().await;
        let (inside, owned) = (Arc::clone(&self.inside), (app.clone(), id.clone()));
        let removed = blocking(move || {
            let (app, id) = owned;
            let (dir, leaving) = (inside.layout.artifact(&app, &id), inside.layout.leaving(&app, &id));
            remove_all(&leaving).map_err(failed(&leaving, "removed"))?;
            match fs::rename(&dir, &leaving) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                moved => moved.map_err(failed(&dir, "removed"))?,
            }
            for path in [leaving, inside.layout.note(&app, &id)] {
                remove_all(&path).map_err(failed(&path, "removed"))?;
            }
            Ok(())
        })
        .await;
        drop(held);
        self.inside.leave(turn, app, id);
        removed
    }

    /// Removes everything of an app that is destroyed: artifacts, work directories, what was kept between builds.
    ///
    /// # Errors
    /// [`BuildError`] when something of it cannot be removed.
    pub async fn remove_app(&self, app: &AppId) -> Result<(), BuildError> {
        let (inside, app) = (Arc::clone(&self.inside), app.clone());
        blocking(move || {
            let layout = &inside.layout;
            for path in [layout.artifacts_of(&app), layout.builds_of(&app), layout.cache(&app)] {
                remove_all(&path).map_err(failed(&path, "removed"))?;
            }
            Ok(())
        })
        .await
    }
}

impl Inside {
    fn sweep(&self) -> Result<(), BuildError> {
        let works = Layout::apps_below(&self.layout.builds).into_iter().flat_map(|app| entries(&app));
        let works: Vec<PathBuf> = works.collect();
        works.iter().try_for_each(|work| self.end_build(work))?;
        unmount_below(&self.layout.builds);
        for work in works {
            remove_all(&work).map_err(failed(&work, "removed"))?;
        }
        let artifacts = Layout::apps_below(&self.layout.artifacts);
        let folders = [artifacts, Layout::apps_below(&self.layout.caches())].concat();
        let below =
            |app: &PathBuf| [entries(app), entries(&app.join(LAYERS)), entries(&app.join(KEPT))].concat();
        let left = folders.iter().flat_map(below).filter(|path| Layout::is_leftover(path));
        let mirrors = entries(&self.layout.toolchains());
        let left_mirrors = mirrors.into_iter().filter(|path| Layout::is_leftover(path));
        for path in left.chain(left_mirrors) {
            remove_all(&path).map_err(failed(&path, "removed"))?;
        }
        Ok(())
    }

    /// Ends what still runs of the build in `work`, known by its mark and its control group.
    pub(super) fn end_build(&self, work: &Path) -> Result<(), BuildError> {
        let mark =
            fs::read(work.join("mark")).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(Mark);
        let cgroup = self.config.cgroups.as_ref().map(|groups| groups.group(&cgroup_name(work)));
        Tree { root: None, mark, cgroup: cgroup.clone() }.kill(&*self.clock, KILL_LIMIT)?;
        let removed = |cgroup: Cgroup| cgroup.remove_made_below(MADE_BELOW).and_then(|()| cgroup.remove());
        cgroup.map_or(Ok(()), removed).map_err(failed(work, "freed of its control group"))
    }
}
