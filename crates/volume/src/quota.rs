//! Volumes that the file system keeps to their sizes, by quotas of projects.
//!
//! A volume with a size is a project of its own. Its number is made of the inode of the volume's directory, and stands there and nowhere else: so
//! two platforms on one file system do not get in each other's way, and whatever moves or replaces a volume moves its number along. That everything
//! in it was given to the project is known by the limit, which is set last.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_spec::{AppId, VolumeName};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

mod kernel;

use kernel::{Keeping, Kind};

use crate::error::{VolumeError, failed};
use crate::store::Store;
use crate::walk::{self, Found, Used, open_dir};

/// The first number that a volume may have, and how many there are. Whoever gives numbers out by hand begins with small ones.
const FIRST: u32 = 1 << 30;
const COUNT: u64 = 1 << 30;
/// How many numbers are tried for a volume before it is said that there is none.
const TRIES: u64 = 16;
/// A volume has room for one file, folder or link for so many bytes, as a file system of its size would that mke2fs(8) makes.
const BYTES_PER_ENTRY: u64 = 16 << 10;
/// However small it is, it has room for so many.
const ENTRIES_MIN: u64 = 1_024;

/// Why sizes are not kept to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotKept {
    /// The reason, a sentence without its end.
    pub why: String,
    /// What to do about it.
    pub next: String,
}

/// What a volume takes, and what the file system lets it take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What is in it, as the file system counts it.
    pub used: Used,
    /// How many bytes it may take.
    pub size: u64,
    /// How many files, links and directories.
    pub entries: u64,
}

/// What to do about the size of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// It has so many bytes. Where more is in it, what limit there is stays.
    Exactly(u64),
    /// It has so many bytes, or more if it has more: while somebody else has it, nothing is taken away.
    AtLeast(u64),
    /// It has no limit.
    None,
}

/// How many files, links and directories a volume of `size` bytes may have.
#[must_use]
pub fn entries_of(size: u64) -> u64 {
    (size / BYTES_PER_ENTRY).max(ENTRIES_MIN)
}

/// A limit as the file system has it, in its units.
#[must_use]
pub fn size_kept(size: u64) -> u64 {
    size / kernel::UNIT * kernel::UNIT
}

impl Store {
    /// Whether volumes with a size are kept to it. Blocks.
    ///
    /// # Errors
    /// Why they are not, and what to do about it.
    pub fn keeps_sizes(&self) -> Result<(), NotKept> {
        let not = |why: &str, next: &str| Err(NotKept { why: why.to_owned(), next: next.to_owned() });
        if !rustix::process::geteuid().is_root() {
            return not("only root can have a file system limit a directory", "run Berth as root");
        }
        let unknown = |error: io::Error| NotKept {
            why: format!("it cannot be found out what the file system of the home can do: {error}"),
            next: "look into the home".to_owned(),
        };
        // Before the first volume is made its place is not there; the home is on the same file system.
        let there = self.top().ancestors().find_map(|path| open_dir(path).ok());
        let there = there.ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
        let kind = rustix::fs::fstatfs(&there).map(Kind::from).map_err(|error| unknown(error.into()))?;
        let keeping = kernel::keeping(&there).and_then(|keeping| match keeping {
            // Asking is anybody's, limiting is not, and a container's root is not always the machine's.
            Keeping::Limits => kernel::account(&there, FIRST).map(|_| keeping),
            Keeping::Counts | Keeping::Nothing | Keeping::Unable => Ok(keeping),
        });
        match keeping {
            Ok(Keeping::Limits) => {}
            Ok(found) => return Err(advice(kind, found)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return not(
                    "whoever contains this machine does not let it limit directories",
                    "run Berth with CAP_SYS_ADMIN, outside of a container",
                );
            }
            Err(error) => return Err(unknown(error)),
        }
        // Whatever is moved into such a directory has to be of its project, and volumes are of their own.
        let around = kernel::attributes(&there).map_err(unknown)?;
        if around.project != 0 && around.inherit() {
            let why = format!("the home is in a project of its own, number {}", around.project);
            return not(
                &why,
                "take the home out of it: `chattr -R -P -p 0`, or `xfs_quota -x -c 'project -C'`",
            );
        }
        Ok(())
    }

    /// Has the file system keep a volume that is there to a size, or no longer; gives whether that is now so. What is in it comes to the
    /// volume's project when that is done first, which takes as long as it has files, and may be done while apps write to it. Blocks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn limit(&self, app: &AppId, volume: &VolumeName, limit: Limit) -> Result<bool, VolumeError> {
        let path = self.path(app, volume);
        set(&path, limit).map_err(failed("limited", &path))
    }

    /// What a volume takes and may take, where the file system keeps it to a size; `None` for any other. Blocks for no longer than a call takes.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn kept(&self, app: &AppId, volume: &VolumeName) -> Result<Option<Kept>, VolumeError> {
        let path = self.path(app, volume);
        let look = || -> io::Result<Option<Kept>> {
            let top = match open_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                top => top?,
            };
            let Some((_, account)) = limited(&top)? else { return Ok(None) };
            // The volume's own directory is not in it.
            let entries = account.entries.saturating_sub(1);
            let used = Used { bytes: account.bytes, entries };
            Ok(Some(Kept { used, size: account.bytes_max, entries: account.entries_max }))
        };
        look().map_err(failed("measured", &path))
    }
}

/// What is missing on a file system of this kind.
fn advice(kind: Kind, found: Keeping) -> NotKept {
    let (why, next) = match (kind, found) {
        // A kernel without quotas does not mount for writing what was made to have some.
        (Kind::Ext4 | Kind::Xfs, Keeping::Unable) => (
            "the kernel has no quotas",
            "run Linux 5.14 or later with CONFIG_QUOTA, as distributions have it, and ask again",
        ),
        (Kind::Ext4, Keeping::Counts) => (
            "the home's file system, ext4, counts what projects take and limits none",
            "write `prjquota` among its options in /etc/fstab and mount it anew",
        ),
        (Kind::Ext4, _) => (
            "the home's file system, ext4, was not made to count what projects take",
            "while it is not mounted `tune2fs -O project,quota -Q prjquota DEVICE`; then mount it with the option `prjquota`",
        ),
        (Kind::Xfs, _) => (
            "the home's file system, XFS, was mounted without quotas of projects",
            "write `pquota` among its options in /etc/fstab and mount it anew; for the root file system `rootflags=pquota` on the kernel's command line",
        ),
        (Kind::Btrfs, _) => (
            "the home's file system is btrfs, whose limits are those of subvolumes",
            "put the home on ext4 or XFS with quotas of projects",
        ),
        (Kind::Other, _) => (
            "the home's file system, or the kernel, has no quotas of projects",
            "put the home on ext4 (`tune2fs -O project,quota -Q prjquota DEVICE`, the mount option `prjquota`) or XFS (the mount option `pquota`)",
        ),
    };
    NotKept { why: why.to_owned(), next: next.to_owned() }
}

/// The numbers that a directory's volume may have, the likeliest first.
fn candidates(inode: u64) -> impl Iterator<Item = u32> {
    let number = |offset: u64| u32::try_from(offset % COUNT).unwrap_or_default() + FIRST;
    (0..TRIES).map(move |step| number(inode.wrapping_add(step)))
}

/// The project of the volume whose directory is open, if it has one. A number that could not have been given to it is none: somebody copied it, or
/// an app set it where nothing keeps apps from that.
fn project(top: &OwnedFd) -> io::Result<Option<u32>> {
    let attributes = match kernel::attributes(top) {
        // No file system with projects.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS)) =>
        {
            return Ok(None);
        }
        attributes => attributes?,
    };
    let own = attributes.inherit()
        && candidates(rustix::fs::fstat(top)?.st_ino).any(|number| number == attributes.project);
    Ok(own.then_some(attributes.project))
}

/// The project of the volume and its account, if it is limited.
fn limited(top: &OwnedFd) -> io::Result<Option<(u32, kernel::Account)>> {
    let Some(project) = project(top)? else { return Ok(None) };
    let account = match kernel::account(top, project) {
        // Mounted without quotas since.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ESRCH | libc::EINVAL)) => {
            return Ok(None);
        }
        account => account?,
    };
    Ok((account.bytes_max > 0).then_some((project, account)))
}

fn set(path: &Path, limit: Limit) -> io::Result<bool> {
    let top = open_dir(path)?;
    let (size, before) = match (limit, limited(&top)?) {
        (Limit::None, None) => return Ok(false),
        (Limit::None, Some((project, _))) => {
            kernel::limit(&top, project, 0, 0)?;
            return Ok(false);
        }
        (Limit::AtLeast(size), Some((_, account))) => (size.max(account.bytes_max), Some(account)),
        (Limit::AtLeast(size) | Limit::Exactly(size), before) => (size, before.map(|(_, account)| account)),
    };
    let project = match project(&top)? {
        Some(project) => project,
        None => allot(&top)?,
    };
    if before.is_none() {
        take_in(&top, project)?;
    }
    let account = kernel::account(&top, project)?;
    // Never less than there is, by which an app that was well would not be able to write any more.
    if account.bytes > size || account.entries > entries_of(size) {
        return Ok(false);
    }
    kernel::limit(&top, project, size, entries_of(size))?;
    Ok(true)
}

/// Gives the directory `top` a project of its own, which nothing else has, and gives its number. What is made in an empty one is the project's.
pub(crate) fn allot(top: &OwnedFd) -> io::Result<u32> {
    for number in candidates(rustix::fs::fstat(top)?.st_ino) {
        if kernel::account(top, number)? == kernel::Account::default() {
            kernel::give(top, number, true)?;
            return Ok(number);
        }
    }
    Err(io::Error::other("all numbers of projects that it may have are taken"))
}

/// Gives all that is in a volume to its project. A directory is given before it is looked into, so that what is made in it meanwhile is the project's, too.
fn take_in(top: &OwnedFd, project: u32) -> io::Result<()> {
    let give = |found: &Found<'_>| -> io::Result<()> {
        let kind = FileType::from_raw_mode(found.stat.st_mode);
        // Links, pipes and sockets cannot be given, and take no room but their inodes.
        if !(kind.is_dir() || kind.is_file()) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(found.dir, found.name, flags, Mode::empty()) {
            // Gone, or something else by now, which its directory has given its project.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(file) => match kernel::give(&file, project, kind.is_dir()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
                given => given,
            },
        }
    };
    walk::walk(top.as_fd(), give)
}

/// What a volume at `path` is to be limited to, should another directory take its place; `None` when it is not limited or not there.
pub(crate) fn limits_at(path: &Path) -> Result<Option<(u64, u64)>, VolumeError> {
    let look = || -> io::Result<Option<(u64, u64)>> {
        match open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            top => Ok(limited(&top?)?.map(|(_, account)| (account.bytes_max, account.entries_max))),
        }
    };
    look().map_err(failed("measured", path))
}

/// Limits the project of a directory that was made to take a volume's place, when all is in it: a copy that takes more than it may is a volume all the same.
pub(crate) fn finish(top: &OwnedFd, project: u32, (bytes, entries): (u64, u64)) -> io::Result<()> {
    kernel::limit(top, project, bytes, entries)
}

/// Takes the number of a volume back that is about to be removed. Its directory takes anything in afterwards, which removing needs.
pub(crate) fn let_go(path: &Path) -> Result<(), VolumeError> {
    let give_up = || -> io::Result<()> {
        let top = match open_dir(path) {
            // Not there, or nothing of ours.
            Err(_absent) => return Ok(()),
            Ok(top) => top,
        };
        if let Some((project, _)) = limited(&top)? {
            kernel::limit(&top, project, 0, 0)?;
        }
        match project(&top)? {
            Some(_) => kernel::give(&top, 0, false),
            None => Ok(()),
        }
    };
    give_up().map_err(failed("removed", path))
}

#[cfg(test)]
mod tests;
