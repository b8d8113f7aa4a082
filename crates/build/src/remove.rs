//! Removing a directory whatever is in it: made deep, unreadable or huge by someone who wishes us ill.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Opens the directory at `path` itself, not where a link at its end leads.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_dir_at(rustix::fs::CWD, path)?)
}

/// Opens a directory below `dir` without following a link at its end.
pub(crate) fn open_dir_at(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The names in `dir` and what they name, `.` and `..` left out.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            known => known,
        };
        names.push((name.to_owned(), kind));
    }
    Ok(names)
}

/// Removes what is at `path`, a directory or anything else. Nothing there is fine.
///
/// A directory below the top is emptied by moving the directories in it up beside it, so that neither our stack nor our
/// descriptors nor the length of a path limit how deep it may be.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let is_dir = match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        found => FileType::from_raw_mode(found?.st_mode) == FileType::Directory,
    };
    if !is_dir {
        return std::fs::remove_file(path);
    }
    make_writable(rustix::fs::CWD, path)?;
    let top = open_dir(path)?;
    let mut moved = 0_u64;
    loop {
        let found = names(&top)?;
        if found.is_empty() {
            break;
        }
        for (name, kind) in found {
            if kind == FileType::Directory {
                empty(top.as_fd(), &name, &mut moved)?;
                rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
            } else {
                rustix::fs::unlinkat(&top, &name, AtFlags::empty())?;
            }
        }
    }
    std::fs::remove_dir(path)
}

/// Empties the directory `name` of `top`: files go, directories move up into `top`.
fn empty(top: BorrowedFd<'_>, name: &CString, moved: &mut u64) -> io::Result<()> {
    make_writable(top, name)?;
    let dir = open_dir_at(top, name)?;
    for (inner, kind) in names(&dir)? {
        if kind != FileType::Directory {
            rustix::fs::unlinkat(&dir, &inner, AtFlags::empty())?;
            continue;
        }
        // To move a directory is to change its `..`, which takes the right to write to it.
        make_writable(&dir, &inner)?;
        loop {
            let fresh = format!(".gone-{moved}");
            *moved += 1;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&dir, &inner, top, fresh.as_str(), flags) {
                Err(Errno::EXIST) => {}
                done => break done?,
            }
        }
    }
    Ok(())
}

/// Gives us the right to change a directory of ours that lacks it. Root needs none. The name was seen to be a
/// directory and nothing runs in it any more, so the change cannot be led elsewhere by a link.
pub(crate) fn make_writable(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_deep_unreadable_tree_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "x").unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        // Deeper than a path may be long and than we may have descriptors.
        let mut at = open_dir(&top).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open_dir_at(&at, "deeper").unwrap();
        }
        fs::write(top.join(".gone-0"), "taken").unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/c"), "x").unwrap();
        symlink(&outside, top.join("a/b/out")).unwrap();
        symlink(&outside, top.join("out")).unwrap();
        fs::set_permissions(top.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o500)).unwrap();
        remove_all(&top).unwrap();
        remove_all(&top).unwrap();
        assert!(!top.try_exists().unwrap());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        symlink(&outside, &top).unwrap();
        remove_all(&top).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
}
