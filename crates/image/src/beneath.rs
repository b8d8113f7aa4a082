//! Paths that a stranger chose, below a directory of ours.
//!
//! The kernel itself holds them in (`openat2`, Linux 5.6): a path that leads up and out, through a symbolic link or through one of
//! `/proc`'s is an error there, not a thing to be checked for here and changed before it is used.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What every look-up is held to.
const HELD: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory of ours by its path.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens what lies at `path` below `root`. An empty path is `root` itself.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), HELD) {
            // Somebody renamed something meanwhile, and the kernel could not be sure.
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
}

/// What `name` in `dir` is; a link is not followed. None when there is nothing.
pub(crate) fn look(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is the device that hides what is below it in an overlay.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What it is.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Removes `name` in `dir` with all that is in it. Nothing there is fine.
///
/// Directories within are moved up beside it first, so that neither our stack nor our descriptors limit how deep they may be.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match look(dir, name)? {
        None => return Ok(()),
        Some(stat) if kind(&stat) != FileType::Directory => {
            return Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?);
        }
        Some(_) => {}
    }
    let top = open_writable(dir, name)?;
    let mut moved = 0_u64;
    loop {
        let found = names(&top)?;
        if found.is_empty() {
            break;
        }
        for (inner, is_dir) in found {
            if is_dir {
                let below = open_writable(top.as_fd(), inner.as_bytes())?;
                lift(below.as_fd(), top.as_fd(), &mut moved)?;
                rustix::fs::unlinkat(&top, &inner, AtFlags::REMOVEDIR)?;
            } else {
                rustix::fs::unlinkat(&top, &inner, AtFlags::empty())?;
            }
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Empties `dir`: files go, directories move up into `top`.
fn lift(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    for (inner, is_dir) in names(dir)? {
        if !is_dir {
            rustix::fs::unlinkat(dir, &inner, AtFlags::empty())?;
            continue;
        }
        // To move a directory is to change its `..`, which takes the right to write to it.
        drop(open_writable(dir, inner.as_bytes())?);
        loop {
            let fresh = format!(".gone-{moved}");
            *moved += 1;
            match rustix::fs::renameat_with(
                dir,
                &inner,
                top,
                fresh.as_str(),
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                done => break done?,
            }
        }
    }
    Ok(())
}

/// Opens the directory `name`; an ordinary user gives himself the right to change it first, which root needs not.
fn open_writable(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !rustix::process::geteuid().is_root() {
        rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(rustix::fs::openat(dir, name, OFlags::RDONLY | flags, Mode::empty())?)
}

fn names(dir: impl AsFd) -> io::Result<Vec<(CString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => {
                look(&dir, name.to_bytes())?.is_some_and(|stat| kind(&stat) == FileType::Directory)
            }
            known => known == FileType::Directory,
        };
        names.push((name.to_owned(), is_dir));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("a")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink("a", inside.join("b")).unwrap();
        let root = open_root(&inside).unwrap();
        let found = |path: &str| open(&root, path.as_bytes(), OFlags::PATH).map(drop);
        assert_eq!([found(""), found("a"), found("a/..")], [Ok(()); 3]);
        for (path, error) in [
            ("..", Errno::XDEV),
            ("a/../..", Errno::XDEV),
            ("/etc", Errno::XDEV),
            ("../secret", Errno::XDEV),
            ("up/secret", Errno::LOOP),
            ("b", Errno::LOOP),
            ("b/c", Errno::LOOP),
            ("c", Errno::NOENT),
        ] {
            assert_eq!(found(path), Err(error), "{path}");
        }
    }

    #[test]
    fn a_deep_tree_is_removed_and_nothing_that_it_links_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/x"), "x").unwrap();
        fs::create_dir(dir.path().join("top")).unwrap();
        let root = open_root(dir.path()).unwrap();
        let mut at = open_root(&dir.path().join("top")).unwrap();
        for _ in 0..2_000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open(&at, b"deeper", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        }
        symlink("../outside", dir.path().join("top/out")).unwrap();
        fs::write(dir.path().join("top/.gone-0"), "taken").unwrap();
        remove(root.as_fd(), b"top").unwrap();
        remove(root.as_fd(), b"top").unwrap();
        assert!(dir.path().join("outside/x").try_exists().unwrap());
        assert!(!dir.path().join("top").try_exists().unwrap());
    }
}
