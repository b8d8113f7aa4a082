//! What a directory weighs on the disk, whatever is in it and whoever changes it meanwhile.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType};

use crate::remove::{names, open_dir, open_dir_at};

/// Deeper directories are not weighed; sealing refuses them.
const DEPTH_MAX: usize = 128;
/// Every file weighs at least so much: a million empty ones fill a disk, too.
const LEAST: u64 = 4096;

/// The bytes of the directory at `path`, up to where they pass `limit`. A file with several names weighs its part for each. What cannot
/// be read, or is gone by the time it is looked at, weighs nothing. Nothing is followed.
pub(crate) fn weigh(path: &Path, limit: u64) -> u64 {
    let mut total = 0;
    if let Ok(dir) = open_dir(path) {
        weigh_dir(dir.as_fd(), 0, limit, &mut total);
    }
    total
}

fn weigh_dir(dir: BorrowedFd<'_>, depth: usize, limit: u64, total: &mut u64) {
    for (name, kind) in names(dir).unwrap_or_default() {
        if *total > limit || depth > DEPTH_MAX {
            return;
        }
        if let Ok(stat) = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            let bytes = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
            let names = if kind == FileType::Directory { 1 } else { stat.st_nlink.max(1) };
            *total = total.saturating_add(bytes.max(LEAST) / names);
        }
        if kind == FileType::Directory
            && let Ok(below) = open_dir_at(dir, &name)
        {
            weigh_dir(below.as_fd(), depth + 1, limit, total);
        }
    }
}

/// The bytes that are left on the disk of `path`; nothing when it cannot be told.
pub(crate) fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
