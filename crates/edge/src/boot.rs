//! Reads the snapshot that control left, and nothing else: that is all edge starts from.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use berth_routing::Snapshot;
use berth_routing::wire::FRAME_MAX;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use thiserror::Error;

/// Why the snapshot could not be read.
#[derive(Debug, Error)]
pub(crate) enum BootError {
    #[error("routing/current.json cannot be read")]
    Io(#[from] io::Error),
    #[error("routing/current.json is not a snapshot")]
    Json(#[from] serde_json::Error),
}

/// The snapshot in the directory, `None` when control never wrote one.
pub(crate) fn snapshot(routing: BorrowedFd<'_>) -> Result<Option<Snapshot>, BootError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match openat(routing, "current.json", flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(BootError::Io(error.into())),
    };
    let mut text = Vec::new();
    file.take(FRAME_MAX.into()).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}
