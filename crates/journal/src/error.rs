//! What can go wrong. The database's own errors appear only as sources, so that no caller depends on SQLite.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use crate::record::{Epoch, Position, StreamName, Version};

/// An error of the database behind the journal, shared by all who were hit by it.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("the journal in {} is in use by another process", dir.display())]
    InUse {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// A newer version of the program wrote it in a format that this one cannot read.
    #[error(
        "the journal has format {found}, which programs since format {readable_from} read; this one knows \
         formats up to {known}: start the newer version again"
    )]
    Newer {
        /// The journal's format.
        found: u32,
        /// The oldest format whose programs can read it.
        readable_from: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// The file is a database of something else.
    #[error("{} is not a journal: its application id is {application_id:#x}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it calls itself.
        application_id: i32,
    },
    /// A file or directory could not be made, locked or synced.
    #[error("cannot prepare {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("cannot open the journal's database")]
    Database {
        /// Why.
        source: Cause,
    },
}

/// An append is not in the journal and never will be. Whichever it is, its epoch is over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Somebody else wrote to the stream.
    #[error("stream {stream} is at version {actual}, not at {expected}")]
    Conflict {
        /// The stream.
        stream: StreamName,
        /// The version that the decider saw.
        expected: Version,
        /// The version it has.
        actual: Version,
    },
    /// Somebody else wrote to the journal.
    #[error("the next position is {actual}, not {expected}")]
    Misplaced {
        /// The position that the decider reckoned.
        expected: Position,
        /// The one it would get.
        actual: Position,
    },
    /// The idempotency key is taken.
    #[error("idempotency key {key:?} is already recorded in {scope:?}")]
    DuplicateKey {
        /// The key's scope.
        scope: String,
        /// The key.
        key: String,
    },
    /// The append is larger than [`crate::MAX_APPEND_BYTES`].
    #[error("the append has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An earlier append of the epoch failed, or a later epoch has begun.
    #[error("epoch {epoch} is over")]
    EpochOver {
        /// The append's epoch.
        epoch: Epoch,
    },
    /// The disk, or the journal's quota, is full.
    #[error("no space is left for the journal")]
    Full {
        /// The database's words.
        source: Cause,
    },
    /// The database could not write.
    #[error("the journal's database cannot write")]
    Storage {
        /// Why.
        source: Cause,
    },
    /// The writer went away without an answer. Only here the outcome is unknown; the SQLite writer never does
    /// it, because it answers everything in its queue before it ends and takes the process along when it
    /// fails.
    #[error("the journal's writer is gone")]
    Closed,
}

/// Reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database could not read.
    #[error("the journal's database cannot be read")]
    Database {
        /// Why.
        source: Cause,
    },
    /// What was read cannot have been written by a journal.
    #[error("the journal is damaged: {what}")]
    Damaged {
        /// What is wrong, and where.
        what: String,
    },
}

/// A replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E: Error + 'static> {
    /// The journal could not be read.
    #[error("the replay cannot read on")]
    Read {
        /// Why.
        source: ReadError,
    },
    /// The visitor refused an event.
    #[error("the event at {position} was refused")]
    Visit {
        /// The event.
        position: Position,
        /// The visitor's reason.
        source: E,
    },
}

/// Old idempotency records could not be deleted. Those already deleted stay so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PurgeError {
    /// The database could not write.
    #[error("the journal's database cannot delete old idempotency records")]
    Storage {
        /// Why.
        source: Cause,
    },
}

/// The journal could not be brought to another format. It has the one that it had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdvanceError {
    /// This program does not know the format.
    #[error("the journal cannot be brought to format {to}: this program knows formats up to {known}")]
    Unknown {
        /// The format that was asked for.
        to: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// The database could not write.
    #[error("the journal's database cannot be brought to another format")]
    Storage {
        /// Why.
        source: Cause,
    },
}

/// A backup could not be made. Nothing is left at its path.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is already there.
    #[error("{} exists already", path.display())]
    Exists {
        /// The backup's path.
        path: PathBuf,
    },
    /// The copy could not be made or synced.
    #[error("cannot write the backup to {}", path.display())]
    File {
        /// The backup's path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database could not be copied.
    #[error("cannot copy the journal's database")]
    Database {
        /// Why.
        source: Cause,
    },
}

/// A snapshot could not be written. The journal is as good without.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The position lies beyond the head, so that the state is not durable yet.
    #[error("a snapshot at {position} is ahead of the journal, which ends at {head}")]
    Ahead {
        /// The snapshot's position.
        position: Position,
        /// The journal's head.
        head: Position,
    },
    /// The event at the snapshot's position could not be read.
    #[error("cannot tie the snapshot to its event")]
    Event {
        /// Why.
        source: ReadError,
    },
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The journal is closed and everything acknowledged is safe, but tidying up failed.
#[derive(Debug, thiserror::Error)]
#[error("the journal closed without folding its write-ahead log into the database; the next start does that")]
pub struct CloseError {
    pub(crate) source: Cause,
}
