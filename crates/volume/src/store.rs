//! The volumes of a platform: made, listed, measured, removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use berth_spec::{AppId, VolumeName};

use crate::error::{VolumeError, failed};
use crate::owner::{Owner, passage};
use crate::quota::let_go;
use crate::walk::{self, Used, open_dir};

/// Below an app's folder: volumes on their way out. No name begins with a dot.
const GONE: &str = ".gone";

/// The volumes of a platform.
#[derive(Debug, Clone)]
pub struct Store {
    top: PathBuf,
}

impl Store {
    /// The volumes below `top`, which need not be there.
    #[must_use]
    pub fn new(top: PathBuf) -> Self {
        Self { top }
    }

    /// Where the volume is, or would be.
    #[must_use]
    pub fn path(&self, app: &AppId, volume: &VolumeName) -> PathBuf {
        self.folder(app).join(volume.as_str())
    }

    /// Where they all lie.
    pub(crate) fn top(&self) -> &Path {
        &self.top
    }

    pub(crate) fn folder(&self, app: &AppId) -> PathBuf {
        self.top.join(app.to_string())
    }

    /// Has the volume be there and be its owner's, and gives where it is. With no owner it is ours. Blocks.
    ///
    /// # Errors
    /// When it cannot be made, or something else is in its place.
    pub fn ensure(
        &self,
        app: &AppId,
        volume: &VolumeName,
        owner: Option<&Owner>,
    ) -> Result<PathBuf, VolumeError> {
        let (folder, path) = (self.folder(app), self.path(app, volume));
        self.make_folder(&folder)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => sync(&folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("made", &path)(error)),
        }
        if !fs::symlink_metadata(&path).map_err(failed("examined", &path))?.is_dir() {
            return Err(VolumeError::NotADirectory(path));
        }
        if let Some(owner) = owner {
            owner.take_over(&path)?;
        }
        Ok(path)
    }

    /// Makes the folders down to an app's.
    fn make_folder(&self, folder: &Path) -> Result<(), VolumeError> {
        let mut steps: Vec<&Path> = folder.ancestors().take_while(|step| *step != self.top).collect();
        steps.push(&self.top);
        for step in steps.into_iter().rev() {
            match DirBuilder::new().mode(0o700).create(step) {
                Ok(()) => {
                    // Whatever umask we run with.
                    fs::set_permissions(step, passage()).map_err(failed("made", step))?;
                    sync(step.parent().unwrap_or(step))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("made", step)(error)),
            }
        }
        Ok(())
    }

    /// The volumes of an app that are there. Blocks.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(&self, app: &AppId) -> Result<Vec<VolumeName>, VolumeError> {
        let folder = self.folder(app);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("listed", &folder))?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("listed", &folder))?;
            volumes.extend(entry.file_name().to_str().and_then(|name| VolumeName::new(name).ok()));
        }
        volumes.sort();
        Ok(volumes)
    }

    /// What a volume takes on the disk; `None` when it is not there. Blocks, for as long as it has files.
    ///
    /// # Errors
    /// When it cannot be gone through.
    pub fn used(&self, app: &AppId, volume: &VolumeName) -> Result<Option<Used>, VolumeError> {
        let path = self.path(app, volume);
        match open_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            top => {
                let top = top.map_err(failed("opened", &path))?;
                walk::measure(top.as_fd()).map(Some).map_err(failed("measured", &path))
            }
        }
    }

    /// Removes a volume with all that is in it and its snapshots: at once out of the way, then for good. Gives whether it was there. Blocks.
    ///
    /// # Errors
    /// When something of it cannot be removed; [`Store::sweep`] tries again.
    pub fn remove(&self, app: &AppId, volume: &VolumeName) -> Result<bool, VolumeError> {
        let (folder, path) = (self.folder(app), self.path(app, volume));
        let gone = folder.join(GONE);
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(false);
        }
        let rid = |path: &Path| -> Result<(), VolumeError> {
            let_go(path)?;
            berth_build::remove_all(path).map_err(failed("removed", path))
        };
        rid(&gone)?;
        fs::rename(&path, &gone).map_err(failed("removed", &path))?;
        sync(&folder)?;
        rid(&gone)?;
        rid(&self.snapshots_of(app, volume))?;
        Ok(true)
    }

    /// Removes all volumes of an app, and what is kept beside them. Blocks.
    ///
    /// # Errors
    /// When something of them cannot be removed.
    pub fn remove_all(&self, app: &AppId) -> Result<(), VolumeError> {
        let folder = self.folder(app);
        for volume in self.list(app)? {
            let_go(&self.path(app, &volume))?;
        }
        berth_build::remove_all(&folder).map_err(failed("removed", &folder))?;
        for above in folder.ancestors().skip(1).take_while(|above| *above != self.top) {
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is anything of an app.
    #[must_use]
    pub fn has_any(&self, app: &AppId) -> bool {
        self.folder(app).try_exists().unwrap_or(true)
    }

    /// Removes what a kill left half removed, of all apps. Blocks.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn sweep(&self) -> Result<(), VolumeError> {
        for tenant in below(&self.top)? {
            for project in below(&tenant)? {
                for app in below(&project)? {
                    let gone = app.join(GONE);
                    let_go(&gone)?;
                    berth_build::remove_all(&gone).map_err(failed("removed", &gone))?;
                    Self::sweep_snapshots(&app)?;
                }
            }
        }
        Ok(())
    }
}

/// The folders of ours below one of ours.
fn below(folder: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("listed", folder))?,
    };
    let paths: Result<Vec<PathBuf>, io::Error> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(failed("listed", folder))
}

/// The names in a folder of ours, sorted; none when it is not there.
pub(crate) fn names_of(folder: &Path) -> Result<Vec<String>, VolumeError> {
    let paths = below(folder)?;
    let mut names: Vec<String> =
        paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Makes the names in a folder durable.
pub(crate) fn sync(folder: &Path) -> Result<(), VolumeError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("made durable", folder))
}

#[cfg(test)]
mod tests;
