//! What can go wrong with a volume.

use std::io;
use std::path::{Path, PathBuf};

/// Something could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The system refused.
    #[error("the volume at {} cannot be {attempt}", path.display())]
    Io {
        /// What was tried: `made`, `listed`.
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a directory: somebody who may write to the home put something else there.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
}

impl VolumeError {
    /// Whether the disk has no room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }
}

/// For `map_err`: `attempt` failed at `path`.
pub(crate) fn failed<E: Into<io::Error>>(
    attempt: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> VolumeError {
    move |source| VolumeError::Io { attempt, path: path.to_owned(), source: source.into() }
}
