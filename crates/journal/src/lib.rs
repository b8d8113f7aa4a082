//! Append-only event log with a global order, on SQLite.
//!
//! The journal stores bytes, not domain types: a stream name, a kind, a schema number, a body, and who, when
//! and why. Nothing of SQLite shows in this interface, so that another database can stand behind it.
//!
//! One [`Journal`] owns a directory. A thread of its own is the only writer; it gathers the appends that are
//! waiting into one transaction and answers each [`Ticket`] after the disk has confirmed that transaction.
//! Readers use read-only connections and never wait for the writer.
//!
//! # Deciding ahead of the disk
//!
//! A single decider need not wait for the disk between two decisions. It calls [`Journal::begin_epoch`],
//! folds the events up to [`EpochStart::head`], and then decides on its own speculative state. Positions are
//! dense and given in the order of the calls to [`Permit::append`], so it knows them before they are durable:
//! the first event of the epoch gets `head + 1`, each further event the next number. Putting the number into
//! [`Append::first`] has it verified. Whatever is shown to the outside waits for the ticket.
//!
//! When an append fails, everything decided after it rests on a state that never became durable. The writer
//! therefore refuses all later appends of that epoch; the decider drops its state, begins the next epoch and
//! folds again.
#![deny(clippy::wildcard_enum_match_arm)]
#![warn(missing_docs)]

mod append;
mod database;
mod error;
mod events;
mod journal;
mod read;
mod record;
mod schema;
mod snapshot;
mod subscription;
mod writer;

pub use append::{Append, Committed, Idempotency, Meta, NewEvent, Permit, Ticket};
pub use error::{
    AdvanceError, AppendError, BackupError, CloseError, OpenError, PurgeError, ReadError, ReplayError,
    SnapshotError,
};
pub use journal::{Journal, Options};
pub use record::{
    Epoch, EpochStart, EventRef, Idempotent, Position, Recorded, StreamName, StreamNameError, Version,
};
pub use snapshot::Snapshot;
pub use subscription::Subscription;
pub use writer::{GROUP_APPENDS, GROUP_BYTES, MAX_APPEND_BYTES, QUEUED_APPENDS};
