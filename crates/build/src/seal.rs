//! Sealing what a build made: another owner, read-only, on disk.
//!
//! The tree was made by a tenant's commands, all of which have ended. As root we are about to change owners and modes in it, so
//! nothing is followed: every step is one name below an open directory. A file with a second name is copied and its
//! own copy sealed, for the second name may be of a file elsewhere. The exception are files that were linked into the tree from a
//! layer, known by their numbers and sealed already. Modes are set, not inherited, which drops set-user-id bits and caps what
//! access lists grant.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};

use crate::error::{BuildError, failed};
use crate::log::Log;
use crate::remove::{make_writable, names, open_dir, open_dir_at};

/// The deepest directory of an artifact; each level takes a descriptor of ours while it is sealed.
const DEPTH_MAX: usize = 128;
/// The most files of an artifact.
const FILES_MAX: u64 = 500_000;
/// Up to so many files are synced one by one; beyond it syncing the whole file system is faster.
const SYNCED_ONE_BY_ONE: u64 = 64;

/// Whom a sealed artifact belongs to; root only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealedOwner {
    /// The uid that owns all artifacts and that nothing runs as.
    pub(crate) uid: u32,
    /// The group of the app, which may read.
    pub(crate) gid: u32,
}

/// What was sealed.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Bytes of those that are shared with a layer.
    pub(crate) shared: u64,
    files: u64,
}

impl Sealed {
    /// The bytes that are not shared with a layer.
    pub(crate) fn own(&self) -> u64 {
        self.bytes - self.shared
    }
}

/// Seals the directory at `path` and syncs it. Its own name is not synced: that is for after the rename. Files with a number in `shared`
/// were linked into it from a layer.
pub(crate) fn seal(
    path: &Path,
    owner: Option<SealedOwner>,
    shared: &BTreeSet<u64>,
    log: &Log,
) -> Result<Sealed, BuildError> {
    make_writable(rustix::fs::CWD, path).map_err(failed(path, "sealed"))?;
    let dir = open_dir(path).map_err(failed(path, "sealed"))?;
    let mut sealing = Sealing { owner, shared, log, sealed: Sealed::default() };
    sealing.dir(dir.as_fd(), path, 0)?;
    if sealing.sealed.files > SYNCED_ONE_BY_ONE {
        rustix::fs::syncfs(&dir).map_err(failed(path, "synced"))?;
    }
    Ok(sealing.sealed)
}

struct Sealing<'a> {
    owner: Option<SealedOwner>,
    shared: &'a BTreeSet<u64>,
    log: &'a Log,
    sealed: Sealed,
}

impl Sealing<'_> {
    fn dir(&mut self, dir: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<(), BuildError> {
        if depth > DEPTH_MAX {
            return Err(BuildError::Outcome(format!(
                "the build made directories more than {DEPTH_MAX} deep"
            )));
        }
        for (name, kind) in names(dir).map_err(failed(path, "sealed"))? {
            let inner = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            self.sealed.files += 1;
            if self.sealed.files > FILES_MAX {
                return Err(BuildError::Outcome(format!("the build made more than {FILES_MAX} files")));
            }
            match kind {
                FileType::Directory => {
                    make_writable(dir, &name).map_err(failed(&inner, "sealed"))?;
                    let below = open_dir_at(dir, &name).map_err(failed(&inner, "sealed"))?;
                    self.dir(below.as_fd(), &inner, depth + 1)?;
                }
                FileType::RegularFile => self.file(dir, &name).map_err(failed(&inner, "sealed"))?,
                FileType::Symlink => self.link(dir, &name).map_err(failed(&inner, "sealed"))?,
                _ => {
                    rustix::fs::unlinkat(dir, &name, AtFlags::empty()).map_err(failed(&inner, "sealed"))?;
                    self.log.say(format!("left out {}: neither file, directory nor link", inner.display()));
                }
            }
        }
        self.give(dir, 0o750, 0o700).map_err(failed(path, "sealed"))?;
        if self.sealed.files <= SYNCED_ONE_BY_ONE {
            rustix::fs::fsync(dir).map_err(failed(path, "synced"))?;
        }
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.is_of_a_layer(&stat) {
            let bytes = u64::try_from(stat.st_size).unwrap_or_default();
            self.sealed.bytes += bytes;
            self.sealed.shared += bytes;
            return Ok(());
        }
        if stat.st_mode & 0o400 == 0 && !rustix::process::geteuid().is_root() {
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(stat.st_mode) | Mode::RUSR, AtFlags::empty())?;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
        if stat.st_nlink > 1 {
            file = own_copy(dir, name, &file)?;
        }
        let exec = stat.st_mode & 0o100 != 0;
        let (root, user) = if exec { (0o750, 0o550) } else { (0o640, 0o440) };
        self.give(&file, root, user)?;
        self.sealed.bytes += file.metadata()?.len();
        if self.sealed.files <= SYNCED_ONE_BY_ONE {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Whether the file is one of a layer, and sealed as that was. As root nobody else can have made it so: only the uid that nothing runs as
    /// could change it. As an ordinary user a build may have made it writable, and it is then copied like any other.
    fn is_of_a_layer(&self, stat: &Stat) -> bool {
        let mode = stat.st_mode & 0o7777;
        let as_sealed = match self.owner {
            Some(SealedOwner { uid, gid }) => {
                stat.st_uid == uid && stat.st_gid == gid && matches!(mode, 0o640 | 0o750)
            }
            None => matches!(mode, 0o440 | 0o550),
        };
        as_sealed && self.shared.contains(&stat.st_ino)
    }

    fn link(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let Some(SealedOwner { uid, gid }) = self.owner else {
            return Ok(());
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets owner and mode: `of_sealed` when it belongs to the uid that nothing runs as, `of_ours` when it stays ours and only
    /// the mode of files keeps an app from writing by mistake. Directories of ours stay writable, so that `rm -r` of a
    /// home works.
    fn give(&self, fd: impl AsFd, of_sealed: u32, of_ours: u32) -> io::Result<()> {
        let mode = match self.owner {
            Some(SealedOwner { uid, gid }) => {
                rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                of_sealed
            }
            None => of_ours,
        };
        Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
    }
}

/// Replaces a file by a copy that has no other name, and gives the copy.
fn own_copy(dir: BorrowedFd<'_>, name: &CStr, mut file: &File) -> io::Result<File> {
    // A file of the build that has this very name loses it; nobody else gives it.
    let fresh = c".berth-sealing";
    match rustix::fs::unlinkat(dir, fresh, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(dir, fresh, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut file, &mut copy)?;
    rustix::fs::renameat(dir, fresh, dir, name)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogLine, Sink};
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::sync::Arc;

    struct Nowhere;
    impl Sink for Nowhere {
        fn line(&self, _: LogLine) {}
    }

    #[test]
    fn hostile_output_is_sealed_without_touching_anything_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let before = fs::metadata(&outside).unwrap();
        let made = dir.path().join("made");
        fs::create_dir_all(made.join("d/e")).unwrap();
        fs::write(made.join("run"), "#!/bin/sh").unwrap();
        fs::set_permissions(made.join("run"), fs::Permissions::from_mode(0o6777)).unwrap();
        fs::write(made.join("plain"), "abc").unwrap();
        fs::set_permissions(made.join("plain"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::hard_link(&outside, made.join("d/hard")).unwrap();
        symlink(&outside, made.join("d/soft")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, made.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let as_root = rustix::process::geteuid().is_root();
        let owner = as_root.then_some(SealedOwner { uid: 2_000_000_002, gid: 2_000_000_016 });
        let sealed = seal(&made, owner, &BTreeSet::new(), &Log::new(Arc::new(Nowhere), &[])).unwrap();
        assert_eq!(sealed.bytes, 9 + 3 + 8);
        let after = fs::metadata(&outside).unwrap();
        assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
        assert_eq!(after.nlink(), 1);
        let mode = |path: &str| fs::symlink_metadata(made.join(path)).unwrap().mode() & 0o7777;
        if as_root {
            assert_eq!([mode("."), mode("d/e"), mode("run"), mode("plain")], [0o750, 0o750, 0o750, 0o640]);
            assert_eq!(fs::symlink_metadata(made.join("d/soft")).unwrap().uid(), 2_000_000_002);
            assert_eq!(fs::metadata(made.join("d/hard")).unwrap().gid(), 2_000_000_016);
        } else {
            assert_eq!([mode("."), mode("d/e"), mode("run"), mode("plain")], [0o700, 0o700, 0o550, 0o440]);
        }
        assert!(!made.join("pipe").try_exists().unwrap());
        crate::remove::remove_all(&made).unwrap();
    }

    #[test]
    fn bottomless_output_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        fs::create_dir_all(made.join("d/".repeat(DEPTH_MAX + 2))).unwrap();
        let refused = seal(&made, None, &BTreeSet::new(), &Log::new(Arc::new(Nowhere), &[])).unwrap_err();
        assert_eq!(refused.code(), "build_failed");
        crate::remove::remove_all(&made).unwrap();
    }
}
