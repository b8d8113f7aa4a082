//! Going through a tree that a stranger made, while he may still change it.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// How deep a tree may be: each level holds a descriptor, of which a process has a thousand. Programs seldom go beyond twenty.
pub(crate) const DEPTH_MAX: usize = 256;

/// What a volume takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files, links and directories in it.
    pub entries: u64,
}

/// Something in a tree.
pub(crate) struct Found<'a> {
    /// The directory that it is in.
    pub(crate) dir: BorrowedFd<'a>,
    /// What it is called there.
    pub(crate) name: &'a CStr,
    /// Its path below the top.
    pub(crate) path: &'a [u8],
    /// What it was when it was looked at; a link itself, not what it leads to.
    pub(crate) stat: Stat,
}

/// Opens a directory of ours, and nothing that a link leads to.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_dir_at(CWD, path)?)
}

pub(crate) fn open_dir_at(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The names in a directory.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Shows everything below `top` to `visit`, a directory before what is in it. What is gone by the time it is looked at is passed over.
pub(crate) fn walk(
    top: BorrowedFd<'_>,
    mut visit: impl FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut open = vec![(top.try_clone_to_owned()?, names(top)?, Vec::new())];
    while let Some((dir, left, above)) = open.last_mut() {
        let Some(name) = left.pop() else {
            open.pop();
            continue;
        };
        let stat = match rustix::fs::statat(&*dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            found => found?,
        };
        let is_folder = FileType::from_raw_mode(stat.st_mode).is_dir();
        let mut path = [above.as_slice(), name.to_bytes()].concat();
        visit(&Found { dir: dir.as_fd(), name: &name, path: &path, stat })?;
        if !is_folder {
            continue;
        }
        match open_dir_at(&*dir, &name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            below => {
                if open.len() >= DEPTH_MAX {
                    return Err(too_deep());
                }
                let below = below?;
                let names = names(&below)?;
                path.push(b'/');
                open.push((below, names, path));
            }
        }
    }
    Ok(())
}

pub(crate) fn too_deep() -> io::Error {
    io::Error::other(format!("it has folders that are more than {DEPTH_MAX} deep"))
}

/// What everything below `top` takes. A file with several names counts once.
pub(crate) fn measure(top: BorrowedFd<'_>) -> io::Result<Used> {
    let mut used = Used::default();
    let mut several = BTreeSet::new();
    walk(top, |Found { stat, .. }| {
        used.entries += 1;
        let is_folder = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_folder || stat.st_nlink < 2 || several.insert((stat.st_dev, stat.st_ino)) {
            used.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
        Ok(())
    })?;
    Ok(used)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_linked_is_counted_once_and_what_is_outside_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(inside.join("a/file"), [1; 8_192]).unwrap();
        let once = measure(open_dir(&inside).unwrap().as_fd()).unwrap();
        fs::hard_link(inside.join("a/file"), inside.join("a/b/again")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/huge"), [1; 100_000]).unwrap();
        symlink("../outside", inside.join("out")).unwrap();
        symlink("/", inside.join("top")).unwrap();
        let twice = measure(open_dir(&inside).unwrap().as_fd()).unwrap();
        assert_eq!((once.entries, twice.entries), (3, 6));
        assert!(twice.bytes < once.bytes + 50_000, "{once:?} {twice:?}");
        open_dir(&inside.join("out")).unwrap_err();
    }

    #[test]
    fn a_tree_that_is_too_deep_is_an_error_and_no_overflow() {
        let dir = tempfile::tempdir().unwrap();
        let top = open_dir(dir.path()).unwrap();
        let mut at = top.try_clone().unwrap();
        for _ in 0..1_000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open_dir_at(&at, "deeper").unwrap();
        }
        let error = measure(top.as_fd()).unwrap_err().to_string();
        assert!(error.contains("more than 256 deep"), "{error}");
        berth_build::remove_all(&dir.path().join("deeper")).unwrap();
    }
}
