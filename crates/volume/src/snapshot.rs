//! Snapshots of volumes: taken as a whole, brought back as a whole.
//!
//! A snapshot is a copy beside the volumes, made under another name and given its own when all of it is on the disk. To bring one
//! back a copy of it takes the volume's place in one step of the file system, so that whoever looks after a kill finds the volume as it was or
//! as the snapshot has it. Both may be done again from the beginning.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use berth_spec::{AppId, SnapshotName, VolumeName};
use rustix::fs::{CWD, RenameFlags};

use crate::copy::{copy, dress};
use crate::error::{VolumeError, failed};
use crate::quota::{self, limits_at};
use crate::store::{Store, names_of, sync};
use crate::walk::{self, Used, open_dir};

/// Below an app's folder: the snapshots, a folder for each volume.
const SNAPSHOTS: &str = ".snapshots";
/// Below that of a volume: a snapshot that is being taken.
const TAKING: &str = ".taking";
/// Below an app's folder: a copy that is about to take a volume's place, and then what was there before.
const COMING: &str = ".coming";

/// Called between any two steps; a test halts there as a kill would.
pub(crate) type Halt<'a> = &'a mut dyn FnMut() -> Result<(), VolumeError>;

impl Store {
    pub(crate) fn snapshots_of(&self, app: &AppId, volume: &VolumeName) -> PathBuf {
        self.folder(app).join(SNAPSHOTS).join(volume.as_str())
    }

    /// Takes a snapshot of a volume, to which nobody writes meanwhile; `reserve` bytes of the disk are left alone. One that is there
    /// stays as it is. Blocks.
    ///
    /// # Errors
    /// When it cannot be taken; nothing of it is left then, or [`Store::sweep`] removes it.
    pub fn snapshot(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: &SnapshotName,
        reserve: u64,
    ) -> Result<(), VolumeError> {
        self.snapshot_halting(app, volume, snapshot, reserve, &mut || Ok(()))
    }

    pub(crate) fn snapshot_halting(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: &SnapshotName,
        reserve: u64,
        halt: Halt<'_>,
    ) -> Result<(), VolumeError> {
        let folder = self.snapshots_of(app, volume);
        let done = folder.join(snapshot.as_str());
        if done.try_exists().map_err(failed("examined", &done))? {
            return Ok(());
        }
        for step in [folder.parent().unwrap_or(&folder), &folder] {
            match DirBuilder::new().mode(0o700).create(step) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("made", step)(error));
                }
                _ => {}
            }
        }
        halt()?;
        let taking = folder.join(TAKING);
        // What it takes is not the volume's, and its directory is in no project.
        let taken = duplicate(&self.path(app, volume), &taking, reserve, None, halt);
        if let Err(error) = taken {
            rid(&taking)?;
            return Err(error);
        }
        fs::rename(&taking, &done).map_err(failed("made", &done))?;
        halt()?;
        sync(&folder)
    }

    /// Has the volume be as the snapshot has it; nobody has the volume meanwhile. Blocks.
    ///
    /// # Errors
    /// When that cannot be done; the volume is as it was then.
    pub fn restore(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: &SnapshotName,
        reserve: u64,
    ) -> Result<(), VolumeError> {
        self.restore_halting(app, volume, snapshot, reserve, &mut || Ok(()))
    }

    pub(crate) fn restore_halting(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: &SnapshotName,
        reserve: u64,
        halt: Halt<'_>,
    ) -> Result<(), VolumeError> {
        let from = self.snapshots_of(app, volume).join(snapshot.as_str());
        let (folder, path) = (self.folder(app), self.path(app, volume));
        let coming = folder.join(COMING);
        let limits = limits_at(&path)?;
        if let Err(error) = duplicate(&from, &coming, reserve, limits, halt) {
            rid_volume(&coming)?;
            return Err(error);
        }
        let exchanged = rustix::fs::renameat_with(CWD, &coming, CWD, &path, RenameFlags::EXCHANGE);
        match exchanged {
            // It is not there any more: nothing has to make room.
            Err(rustix::io::Errno::NOENT) => {
                fs::rename(&coming, &path).map_err(failed("brought back", &path))?
            }
            exchanged => exchanged.map_err(failed("brought back", &path))?,
        }
        halt()?;
        sync(&folder)?;
        halt()?;
        rid_volume(&coming)
    }

    /// The snapshots of a volume, the oldest first, and what each takes. Blocks.
    ///
    /// # Errors
    /// When they cannot be listed or measured.
    pub fn snapshots(
        &self,
        app: &AppId,
        volume: &VolumeName,
    ) -> Result<Vec<(SnapshotName, Used)>, VolumeError> {
        let folder = self.snapshots_of(app, volume);
        let names = names_of(&folder)?;
        let names = names.iter().filter_map(|name| SnapshotName::new(name).ok());
        names
            .map(|name| {
                let path = folder.join(name.as_str());
                let top = open_dir(&path).map_err(failed("opened", &path))?;
                let used = walk::measure(top.as_fd()).map_err(failed("measured", &path))?;
                Ok((name, used))
            })
            .collect()
    }

    /// Removes a snapshot, and gives whether it was there. Blocks.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove_snapshot(
        &self,
        app: &AppId,
        volume: &VolumeName,
        snapshot: &SnapshotName,
    ) -> Result<bool, VolumeError> {
        let folder = self.snapshots_of(app, volume);
        let (path, gone) = (folder.join(snapshot.as_str()), folder.join(TAKING));
        if !path.try_exists().map_err(failed("examined", &path))? {
            return Ok(false);
        }
        rid(&gone)?;
        fs::rename(&path, &gone).map_err(failed("removed", &path))?;
        rid(&gone)?;
        // The last one takes the folder with it; another one keeps it.
        drop(fs::remove_dir(&folder));
        Ok(true)
    }

    /// Removes what kills left beside the volumes in an app's folder.
    pub(crate) fn sweep_snapshots(folder: &Path) -> Result<(), VolumeError> {
        rid_volume(&folder.join(COMING))?;
        let snapshots = folder.join(SNAPSHOTS);
        for volume in names_of(&snapshots)? {
            rid(&snapshots.join(volume).join(TAKING))?;
        }
        Ok(())
    }
}

/// A copy of the directory `from` at `to`, where nothing is once this begins; with `limits` as a volume that the file system keeps to these.
fn duplicate(
    from: &Path,
    to: &Path,
    reserve: u64,
    limits: Option<(u64, u64)>,
    halt: Halt<'_>,
) -> Result<(), VolumeError> {
    rid_volume(to)?;
    halt()?;
    let source = open_dir(from).map_err(failed("opened", from))?;
    DirBuilder::new().mode(0o700).create(to).map_err(failed("made", to))?;
    halt()?;
    let target = open_dir(to).map_err(failed("opened", to))?;
    // A number of its own, as the volume whose place it takes has: both are there for a while.
    let project = limits.map(|_| quota::allot(&target)).transpose().map_err(failed("limited", to))?;
    copy(source.as_fd(), target.as_fd(), reserve).map_err(failed("copied", from))?;
    halt()?;
    let stat = rustix::fs::fstat(&source).map_err(failed("examined", from))?;
    dress(&target, &stat).map_err(failed("copied", from))?;
    if let (Some(project), Some(limits)) = (project, limits) {
        quota::finish(&target, project, limits).map_err(failed("limited", to))?;
    }
    rustix::fs::fsync(&target).map_err(failed("copied", from))?;
    halt()
}

/// Removes a directory that was a volume or was to be one.
fn rid_volume(path: &Path) -> Result<(), VolumeError> {
    quota::let_go(path)?;
    rid(path)
}

fn rid(path: &Path) -> Result<(), VolumeError> {
    berth_build::remove_all(path).map_err(failed("removed", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (AppId, VolumeName, SnapshotName) {
        ("a/b/shop".parse().unwrap(), "data".parse().unwrap(), "20261127T171530Z".parse().unwrap())
    }

    fn halted() -> VolumeError {
        VolumeError::NotADirectory("killed".into())
    }

    fn words(path: &Path) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|it| it.unwrap().path())
            .map(|it| fs::read_to_string(it).unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_snapshot_is_taken_and_brought_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("volumes"));
        let (app, volume, snapshot) = ids();
        let data = store.ensure(&app, &volume, None).unwrap();
        fs::write(data.join("a"), "old").unwrap();
        store.snapshot(&app, &volume, &snapshot, 0).unwrap();
        fs::write(data.join("a"), "new").unwrap();
        fs::write(data.join("b"), "newer").unwrap();
        // Taken once: a repeat changes nothing.
        store.snapshot(&app, &volume, &snapshot, 0).unwrap();
        let listed = store.snapshots(&app, &volume).unwrap();
        assert_eq!(
            listed.iter().map(|(name, used)| (name.as_str(), used.entries)).collect::<Vec<_>>(),
            [("20261127T171530Z", 1)]
        );
        store.restore(&app, &volume, &snapshot, 0).unwrap();
        assert_eq!(words(&data), ["old"]);
        assert_eq!(store.list(&app).unwrap(), std::slice::from_ref(&volume));
        // Also where the volume was removed meanwhile.
        fs::remove_dir_all(&data).unwrap();
        store.restore(&app, &volume, &snapshot, 0).unwrap();
        assert_eq!(words(&data), ["old"]);
        assert!(store.remove_snapshot(&app, &volume, &snapshot).unwrap());
        assert!(!store.remove_snapshot(&app, &volume, &snapshot).unwrap());
        store.restore(&app, &volume, &snapshot, 0).unwrap_err();
        assert_eq!(words(&data), ["old"]);
        store.snapshot(&app, &volume, &snapshot, 0).unwrap();
        assert!(store.remove(&app, &volume).unwrap());
        assert_eq!(store.snapshots(&app, &volume).unwrap(), []);
    }

    /// The fault test: killed between any two steps the volume is the old one or the new one, whole, and doing it again ends it.
    #[test]
    fn a_kill_at_any_step_leaves_the_old_volume_or_the_new_one() {
        let (app, volume, snapshot) = ids();
        let mut saw = std::collections::BTreeSet::new();
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::new(dir.path().join("volumes"));
            let data = store.ensure(&app, &volume, None).unwrap();
            let (old, new) = (["1".to_owned(), "2".to_owned()], ["3".to_owned(), "4".to_owned()]);
            let write = |all: &[String]| {
                all.iter().for_each(|it| fs::write(data.join(format!("f{it}")), it).unwrap())
            };
            write(&old);
            store.snapshot(&app, &volume, &snapshot, 0).unwrap();
            fs::remove_file(data.join("f1")).unwrap();
            fs::remove_file(data.join("f2")).unwrap();
            write(&new);
            let mut left = step;
            let mut halt = || {
                left -= 1;
                if left < 0 { Err(halted()) } else { Ok(()) }
            };
            let done = store.restore_halting(&app, &volume, &snapshot, 0, &mut halt).is_ok();
            let found = words(&data);
            assert!(found == old || found == new, "after step {step}: {found:?}");
            saw.insert(found == old);
            store.sweep().unwrap();
            store.restore(&app, &volume, &snapshot, 0).unwrap();
            assert_eq!(words(&data), old, "after step {step} and again");
            if done {
                assert!(step > 5);
                break;
            }
        }
        assert_eq!(saw.len(), 2, "killed before and after the exchange");
    }

    #[test]
    fn a_kill_leaves_a_snapshot_or_none() {
        let (app, volume, snapshot) = ids();
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::new(dir.path().join("volumes"));
            let data = store.ensure(&app, &volume, None).unwrap();
            fs::write(data.join("a"), "1").unwrap();
            let mut left = step;
            let mut halt = || {
                left -= 1;
                if left < 0 { Err(halted()) } else { Ok(()) }
            };
            let done = store.snapshot_halting(&app, &volume, &snapshot, 0, &mut halt).is_ok();
            for (_, used) in store.snapshots(&app, &volume).unwrap() {
                assert_eq!(used.entries, 1);
            }
            store.sweep().unwrap();
            store.snapshot(&app, &volume, &snapshot, 0).unwrap();
            assert_eq!(store.snapshots(&app, &volume).unwrap().len(), 1);
            if done {
                break;
            }
        }
    }
}
