//! What the journal logs.

use std::path::Path;

use crate::error::AppendError;
use crate::record::Epoch;

/// An append failed; the decider has to begin anew.
pub(crate) fn epoch_failed(epoch: Epoch, error: &AppendError) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%epoch, %error, source, "an append failed, the journal refuses the rest of its epoch");
}

/// The write-ahead log could not be folded into the database. It grows until it can.
pub(crate) fn checkpoint_failed(error: &rusqlite::Error) {
    tracing::warn!(%error, "cannot fold the write-ahead log into the journal's database, will try again");
}

/// The process ends.
pub(crate) fn fatal(what: &str, error: &rusqlite::Error) {
    tracing::error!(%error, "the journal ends this process: {what}");
}

/// A snapshot is not used.
pub(crate) fn snapshot_ignored(path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), why, "ignoring a snapshot, the journal will be replayed");
}

/// A file that is of no use any more could not be deleted.
pub(crate) fn leftover(path: &Path, error: &std::io::Error) {
    tracing::warn!(path = %path.display(), %error, "cannot delete a file that is of no use any more");
}
