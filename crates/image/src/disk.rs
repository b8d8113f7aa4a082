//! What is left free on a disk: the journal and every volume are on the same one.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// After how many written bytes the disk is looked at again.
pub(crate) const LOOK: u64 = 64 << 20;

/// Whether so many bytes more leave `reserve` free, on the file system that `on` is on.
///
/// # Errors
/// [`Errno::NOSPC`] when they do not, and what the system says when it does not tell.
pub(crate) fn leaves(on: impl AsFd, reserve: u64, more: u64) -> Result<(), Errno> {
    let disk = rustix::fs::fstatvfs(on)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < reserve.saturating_add(more) { Err(Errno::NOSPC) } else { Ok(()) }
}
