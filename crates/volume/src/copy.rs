//! A copy of a tree that a stranger made: by sharing its blocks where the file system can, else byte by byte.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::walk::{DEPTH_MAX, names, open_dir_at, too_deep};

/// How much is copied at once.
const PIECE: usize = 1 << 20;
/// The longest list of names of attributes, and the longest value, as the kernel has them.
const ATTRIBUTES_MAX: usize = 64 << 10;
/// What the names of attributes begin with that programs set.
const OF_USERS: &[u8] = b"user.";

/// A copy that is being made.
struct Copy<'t> {
    /// The directory that the copy is in.
    top: BorrowedFd<'t>,
    /// How many bytes of the disk are left alone.
    reserve: u64,
    /// Whether blocks can be shared, as far as is known.
    shares: bool,
    /// The first name of each file that has several.
    several: BTreeMap<(u64, u64), Vec<u8>>,
}

/// A directory that is being copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    left: Vec<CString>,
    /// Its path below the top, with a `/` at its end.
    path: Vec<u8>,
    /// What it is to be like once everything is in it; `None` for the top.
    like: Option<Stat>,
}

/// Copies everything in `from` into `to`, which is empty: files, folders, links, pipes; their modes, times, owners and attributes of
/// users. A file with several names stays one. Sockets are left out: nobody listens at a copy.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::StorageFull`] when less than `reserve` bytes of the disk would be left.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, reserve: u64) -> io::Result<()> {
    let mut copy = Copy { top: to, reserve, shares: true, several: BTreeMap::new() };
    let top = Level {
        from: from.try_clone_to_owned()?,
        to: to.try_clone_to_owned()?,
        left: names(from)?,
        path: Vec::new(),
        like: None,
    };
    let mut open = vec![top];
    while let Some(level) = open.last_mut() {
        let Some(name) = level.left.pop() else {
            if let Some(Level { to, like: Some(stat), .. }) = open.pop() {
                dress(&to, &stat)?;
            }
            continue;
        };
        let stat = match rustix::fs::statat(&level.from, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            found => found?,
        };
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let below = copy.folder(level, &name, stat)?;
            if open.len() >= DEPTH_MAX {
                return Err(too_deep());
            }
            open.push(below);
        } else {
            copy.entry(level, &name, &stat)?;
        }
    }
    Ok(rustix::fs::syncfs(to)?)
}

impl Copy<'_> {
    fn folder(&self, level: &Level, name: &CStr, stat: Stat) -> io::Result<Level> {
        rustix::fs::mkdirat(&level.to, name, Mode::RWXU)?;
        let (from, to) = (open_dir_at(&level.from, name)?, open_dir_at(&level.to, name)?);
        copy_attributes(&from, &to)?;
        let left = names(&from)?;
        let path = [&level.path[..], name.to_bytes(), b"/"].concat();
        Ok(Level { from, to, left, path, like: Some(stat) })
    }

    fn entry(&mut self, level: &Level, name: &CStr, stat: &Stat) -> io::Result<()> {
        let (from, to) = (&level.from, &level.to);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let id = (stat.st_dev, stat.st_ino);
                if let Some(first) = self.several.get(&id)
                    && rustix::fs::linkat(self.top, &first[..], to, name, AtFlags::empty()).is_ok()
                {
                    return Ok(());
                }
                self.file(level, name, stat)?;
                if stat.st_nlink > 1 {
                    self.several.insert(id, [&level.path[..], name.to_bytes()].concat());
                }
                Ok(())
            }
            FileType::Symlink => {
                let leads_to = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&leads_to, to, name)?;
                give(to, name, stat)?;
                Ok(rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            FileType::Fifo => {
                rustix::fs::mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode), 0)?;
                give(to, name, stat)
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, level: &Level, name: &CStr, stat: &Stat) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(&level.from, name, flags, Mode::empty())?;
        if !FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode).is_file() {
            return Err(io::Error::other("a file became something else while it was copied"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = rustix::fs::openat(&level.to, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.shares = self.shares && rustix::fs::ioctl_ficlone(&to, &from).is_ok();
        if !self.shares {
            self.bytes(&from, &to)?;
        }
        copy_attributes(&from, &to)?;
        dress(&to, stat)
    }

    /// Copies what is written of a file; holes stay holes.
    fn bytes(&self, from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
        let length = rustix::fs::fstat(from)?.st_size;
        let length = u64::try_from(length).unwrap_or_default();
        let (reader, writer) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < length {
            at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                // Not known here: all of it is data.
                Err(Errno::INVAL) => at,
                data => data?,
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(at)).unwrap_or(length);
            while at < end {
                self.leave_room(to)?;
                let room = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let count = read_at(&reader, &mut piece[..room], at)?;
                if count == 0 {
                    break;
                }
                std::os::unix::fs::FileExt::write_all_at(&writer, &piece[..count], at)?;
                at += count as u64;
            }
            at = at.max(end);
        }
        Ok(rustix::fs::ftruncate(to, length)?)
    }

    fn leave_room(&self, to: &OwnedFd) -> io::Result<()> {
        let disk = rustix::fs::fstatvfs(to)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.reserve.saturating_add(PIECE as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn read_at(file: &File, piece: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, piece, at)
}

/// Gives a copy the owner of what it is a copy of; only root can, and for anybody else both are his.
fn give(dir: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Owner, mode and times, in an order in which none takes another away.
pub(crate) fn dress(fd: &OwnedFd, stat: &Stat) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        rustix::fs::fchown(fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(fd.as_fd(), &times(stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    let time =
        |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or_default() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    set_attributes(to, &attributes(from)?)
}

/// The attributes that programs set, by their names; those of the system and of security are not a volume's to have.
pub(crate) fn attributes(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0_u8; ATTRIBUTES_MAX];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        length => length?,
    };
    let all = list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let mut found = Vec::new();
    for name in all.filter(|name| name.starts_with(OF_USERS)) {
        let mut value = vec![0_u8; ATTRIBUTES_MAX];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

/// Gives a file attributes, of users alone.
pub(crate) fn set_attributes(file: &OwnedFd, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in attributes.iter().filter(|(name, _)| name.starts_with(OF_USERS)) {
        rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;
    use crate::walk::open_dir;

    fn copied(from: &Path, to: &Path) -> io::Result<()> {
        copy(open_dir(from).unwrap().as_fd(), open_dir(to).unwrap().as_fd(), 0)
    }

    #[test]
    fn a_copy_is_the_same_and_nothing_that_is_linked_to() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(from.join("a/file"), "some words").unwrap();
        fs::hard_link(from.join("a/file"), from.join("a/b/again")).unwrap();
        fs::set_permissions(from.join("a/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o550)).unwrap();
        symlink("../../secret", from.join("out")).unwrap();
        symlink("/etc/passwd", from.join("passwd")).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
        drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(from.join("a/file"), Some(12_345), Some(54_321)).unwrap();
        }
        copied(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/again")).unwrap(), "some words");
        let stat = |path: &str, top: &Path| {
            let stat = fs::symlink_metadata(top.join(path)).unwrap();
            (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec())
        };
        for path in ["a", "a/b", "a/file", "out", "sparse"] {
            assert_eq!(stat(path, &from), stat(path, &to), "{path}");
        }
        let ino = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
        assert_eq!(ino("a/file"), ino("a/b/again"));
        assert_eq!(fs::read_link(to.join("out")).unwrap(), Path::new("../../secret"));
        assert!(!to.join("socket").try_exists().unwrap());
        let sparse = fs::metadata(to.join("sparse")).unwrap();
        assert!(sparse.len() == 64 << 20 && sparse.blocks() * 512 < 1 << 20, "{}", sparse.blocks());
    }

    #[test]
    fn what_would_fill_the_disk_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        let (from, to) = (open_dir(&from).unwrap(), open_dir(&to).unwrap());
        // Where blocks are shared nothing is filled.
        let mut copy = Copy { top: to.as_fd(), reserve: u64::MAX, shares: false, several: BTreeMap::new() };
        let top = Level { from, to: to.try_clone().unwrap(), left: Vec::new(), path: Vec::new(), like: None };
        let stat = rustix::fs::statat(&top.from, "file", AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let error = copy.file(&top, c"file", &stat).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
