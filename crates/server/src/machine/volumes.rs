//! Volumes: had by the instances of an app, kept when these go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use berth_control::state::{App, Life, Release};
use berth_runtime::{Mount, Root, User};
use berth_spec::{AppId, Isolation, ProcessName, SnapshotName, VolumeName};
use berth_volume::{Numbers, Owner, Used, VolumeError};

use super::instances::START_FAILED;
use super::volume_sizes::Measured;
use super::{Machine, NotStarted, in_full};
use crate::{events, tasks};

impl Machine {
    /// The volumes of `process` of a release, or with none those of all its processes, as an instance has them; they are made if need
    /// be. `env` gets to know where they are: where an app has no root of its own, they are where they lie on the machine.
    ///
    /// # Errors
    /// Why one cannot be had.
    pub(super) fn mount_volumes(
        &self,
        app: &App,
        release: &Release,
        process: Option<&ProcessName>,
        (root, user): (&Root, Option<&User>),
        env: &mut BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, NotStarted> {
        let owner = self.owner(app, root, user);
        let has_root = self.runtime.capabilities().isolation >= Isolation::Namespaces;
        let wanted = release.manifest.volumes.iter();
        let wanted = wanted.filter(|(_, volume)| process.is_none_or(|process| volume.is_of(process)));
        let mut mounts = Vec::new();
        for (name, volume) in wanted {
            let made = self.volumes.ensure(&app.id, name, owner.as_ref());
            let source = made.map_err(|error| (START_FAILED.to_owned(), in_full(&error)))?;
            self.keep_to_size(&app.id, name, volume.size, process.is_some());
            let target = if has_root { PathBuf::from(volume.path.as_str()) } else { source.clone() };
            env.insert(name.variable(), target.to_string_lossy().into_owned());
            mounts.push(Mount { source, target, writable: true });
        }
        Ok(mounts)
    }

    /// Whose the volumes of an app have to be when its instances run as `user` in `root`.
    fn owner(&self, app: &App, root: &Root, user: Option<&User>) -> Option<Owner> {
        let (plan, user) = (self.uid_plan?, user?);
        let Numbers { own, images } = plan.of_volumes(app.slot)?;
        let former = vec![own..own + 1, images.clone()];
        Some(match root {
            Root::Host => Owner { uid: user.uid, gid: user.gid, users: user.uid..user.uid + 1, former },
            Root::Layers { uid_base, .. } => {
                Owner { uid: uid_base + user.uid, gid: uid_base + user.gid, users: images, former }
            }
        })
    }

    /// All volumes, and whose files are in those of `app`; `None` where all are of one user.
    pub(crate) fn volumes_to_save(&self, app: &App) -> (&berth_volume::Store, Option<Numbers>) {
        (&self.volumes, self.uid_plan.and_then(|plan| plan.of_volumes(app.slot)))
    }

    /// Where a volume lies.
    #[must_use]
    pub fn volume_place(&self, app: &AppId, volume: &VolumeName) -> PathBuf {
        self.volumes.path(app, volume)
    }

    /// The volumes of an app that are there, and what each takes, or why that cannot be told.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) async fn volumes(
        &self,
        app: &AppId,
    ) -> Result<BTreeMap<VolumeName, Result<Measured, String>>, VolumeError> {
        let (store, app) = (self.volumes.clone(), app.clone());
        blocking(move || {
            let names = store.list(&app)?.into_iter();
            let measured = names.filter_map(|name| match Measured::of(&store, &app, &name).transpose()? {
                Ok(measured) => Some((name, Ok(measured))),
                Err(error) => Some((name, Err(in_full(&error)))),
            });
            Ok(measured.collect())
        })
        .await
    }

    /// The names of the volumes of an app that are there.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn volume_names(&self, app: &AppId) -> Result<BTreeSet<VolumeName>, VolumeError> {
        let (store, app) = (self.volumes.clone(), app.clone());
        blocking(move || store.list(&app).map(BTreeSet::from_iter)).await
    }

    /// Removes a volume that nothing has, or a snapshot of it alone.
    ///
    /// # Errors
    /// When something of it is left.
    pub async fn remove_volume(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: Option<SnapshotName>,
    ) -> Result<(), VolumeError> {
        let (store, app, volume) = (self.volumes.clone(), app.clone(), volume.clone());
        blocking(move || match snapshot {
            Some(snapshot) => store.remove_snapshot(&app, &volume, &snapshot).map(drop),
            None => store.remove(&app, &volume).map(drop),
        })
        .await
    }

    /// The snapshots of a volume, the oldest first, and what each takes.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn snapshots(
        &self,
        app: &AppId,
        volume: &VolumeName,
    ) -> Result<Vec<(SnapshotName, Used)>, VolumeError> {
        let (store, app, volume) = (self.volumes.clone(), app.clone(), volume.clone());
        blocking(move || store.snapshots(&app, &volume)).await
    }

    /// Whether volumes are left of an app that goes with them.
    pub(super) fn volumes_left(&self, app: &App) -> bool {
        app.life == Life::Destroying && app.volumes_go && self.volumes.has_any(&app.id)
    }

    /// Removes all volumes of an app, in a task of its own.
    pub fn remove_volumes(self: &Arc<Self>, app: &AppId) {
        let (this, app) = (Arc::clone(self), app.clone());
        tasks::run("removing volumes", async move {
            let (store, of) = (this.volumes.clone(), app.clone());
            match blocking(move || store.remove_all(&of)).await {
                // Should that not work, the next look at all apps tries again.
                Err(error) => events::could_not("remove volumes", &error),
                Ok(()) => this.desk.changed().add(app),
            }
        });
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
