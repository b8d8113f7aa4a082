//! The thread that writes: it gathers what waits into one transaction, commits once and answers all.

use std::cell::Cell;

use berth_spec::Timestamp;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::append::{Append, Committed, Idempotency};
use crate::database::{Fold, cause, checkpoint, commit, is_full, rollback, survive_or_die};
use crate::error::{AdvanceError, AppendError, CloseError, PurgeError};
use crate::events;
use crate::read::{stream_version, to_sql};
use crate::record::{Epoch, EpochStart, Position};
use crate::schema;

/// Most bytes in one append, about. An event is a decision, not a file: the largest carry a manifest or a
/// configuration, which are refused far below this.
pub const MAX_APPEND_BYTES: usize = 1 << 20;

/// Most appends waiting for the writer; further callers wait for a [`crate::Permit`]. They cost at most this
/// many times [`MAX_APPEND_BYTES`], 64 MiB, and in practice some 100 KiB. While one group is synced the next
/// gathers here, and the writer keeps taking while it writes, so this need not be as large as a group.
pub const QUEUED_APPENDS: usize = 64;

/// Most appends in one transaction. The cost of an fdatasync is spread over a few dozen already; the bound is
/// for the first of a group, which waits until the last is written: 256 small appends take some 7 ms.
pub const GROUP_APPENDS: usize = 256;

/// No further append joins a transaction that has this many bytes: it bounds that same wait, and the pages
/// that spill from the cache into the write-ahead log before the commit.
pub const GROUP_BYTES: usize = 4 << 20;

/// The write-ahead log is folded into the database beyond this many pages (4 MiB), as SQLite would by
/// default. Every reader's look-up and every start pays for a longer one.
const FOLD_AT_PAGES: i32 = 1_000;

/// Idempotency records deleted in one transaction, between which appends have their turn: some milliseconds.
const PURGED_AT_ONCE: i64 = 1_000;

type Reply = oneshot::Sender<Result<Committed, AppendError>>;

/// What the writer is asked for. They are carried out in the order of the queue.
#[derive(Debug)]
pub(crate) enum Command {
    Append {
        append: Box<Append>,
        reply: Reply,
    },
    BeginEpoch {
        reply: oneshot::Sender<EpochStart>,
    },
    /// Deletes some records older than `before` and answers whether there may be more.
    Purge {
        before: Timestamp,
        reply: oneshot::Sender<Result<Purged, PurgeError>>,
    },
    /// Brings the database to another format, for good.
    Advance {
        to: u32,
        reply: oneshot::Sender<Result<u32, AdvanceError>>,
    },
}

/// What one round of purging did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purged {
    pub(crate) count: u64,
    pub(crate) more: bool,
}

pub(crate) struct Writer {
    connection: Connection,
    inbox: mpsc::Receiver<Command>,
    head: watch::Sender<Position>,
    format: watch::Sender<u32>,
    /// The epoch whose appends are accepted; none before the first, and none after a failure.
    epoch: Option<Epoch>,
    epochs_begun: u64,
}

/// Appends that are written but not committed.
struct Group {
    /// Position of the last event written.
    tail: Position,
    bytes: usize,
    began: bool,
    accepted: Vec<(Committed, Reply)>,
}

thread_local! {
    /// Pages in the write-ahead log after the latest commit of this thread. The hook takes no closure with
    /// state.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        inbox: mpsc::Receiver<Command>,
        head: watch::Sender<Position>,
        format: watch::Sender<u32>,
    ) -> Self {
        Self { connection, inbox, head, format, epoch: None, epochs_begun: 0 }
    }

    /// Works until every sender of the queue is gone and the queue is empty.
    pub(crate) fn run(mut self) -> Result<(), CloseError> {
        let _guard = AbortOnPanic;
        self.connection.wal_hook(Some(|_, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        let mut next = self.inbox.blocking_recv();
        while let Some(command) = next.take() {
            next = match command {
                Command::Append { append, reply } => self.write_group(*append, reply),
                Command::BeginEpoch { reply } => {
                    answer(reply, self.begin_epoch());
                    None
                }
                Command::Purge { before, reply } => {
                    answer(reply, self.purge(before));
                    None
                }
                Command::Advance { to, reply } => {
                    answer(reply, self.advance(to));
                    None
                }
            };
            self.fold_when_due();
            next = next.or_else(|| self.inbox.blocking_recv());
        }
        match checkpoint(&self.connection, Fold::Possible).map_err(survive_or_die) {
            Ok(_) => Ok(()),
            Err(error) => Err(CloseError { source: cause(error) }),
        }
    }

    /// Writes `append` and what waits behind it; returns a command that it took from the queue but that ends
    /// the group.
    fn write_group(&mut self, append: Append, reply: Reply) -> Option<Command> {
        let mut group = Group { tail: *self.head.borrow(), bytes: 0, began: false, accepted: Vec::new() };
        self.admit(&mut group, append, reply);
        let mut left_over = None;
        while group.accepted.len() < GROUP_APPENDS && group.bytes < GROUP_BYTES {
            match self.inbox.try_recv() {
                Ok(Command::Append { append, reply }) => self.admit(&mut group, *append, reply),
                Ok(
                    other @ (Command::BeginEpoch { .. } | Command::Purge { .. } | Command::Advance { .. }),
                ) => {
                    left_over = Some(other);
                    break;
                }
                Err(_empty_or_closed) => break,
            }
        }
        self.settle(group);
        left_over
    }

    fn admit(&mut self, group: &mut Group, append: Append, reply: Reply) {
        let epoch = append.epoch;
        if self.epoch != Some(epoch) {
            answer(reply, Err(AppendError::EpochOver { epoch }));
            return;
        }
        let written = match self.check(group, &append) {
            Ok(None) => self.write(group, &append),
            Ok(Some(refusal)) => {
                self.fail_epoch(&refusal);
                answer(reply, Err(refusal));
                return;
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(committed) => group.accepted.push((committed, reply)),
            Err(error) => {
                group
                    .accepted
                    .push((Committed { first: group.tail, last: group.tail, at: append.meta.at }, reply));
                self.abandon(group, error);
            }
        }
    }

    /// Everything that can be wrong with an append is found before its first row is written, so that those
    /// before it in the group can still be committed.
    fn check(&self, group: &mut Group, append: &Append) -> rusqlite::Result<Option<AppendError>> {
        let bytes = append.bytes();
        if bytes > MAX_APPEND_BYTES {
            return Ok(Some(AppendError::TooLarge { bytes, limit: MAX_APPEND_BYTES }));
        }
        let actual = group.tail.next();
        if let Some(expected) = append.first.filter(|first| *first != actual) {
            return Ok(Some(AppendError::Misplaced { expected, actual }));
        }
        if !group.began {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            group.began = true;
        }
        let actual = stream_version(&self.connection, append.stream.as_str())?;
        if actual != append.expected {
            let (stream, expected) = (append.stream.clone(), append.expected);
            return Ok(Some(AppendError::Conflict { stream, expected, actual }));
        }
        let Some(Idempotency { scope, key, .. }) = &append.idempotency else { return Ok(None) };
        let mut taken =
            self.connection.prepare_cached("SELECT 1 FROM idempotency WHERE scope = ?1 AND key = ?2")?;
        let taken = taken.exists(params![scope, key])?;
        Ok(taken.then(|| AppendError::DuplicateKey { scope: scope.clone(), key: key.clone() }))
    }

    fn write(&self, group: &mut Group, append: &Append) -> rusqlite::Result<Committed> {
        let meta = &append.meta;
        let first = group.tail.next();
        let mut version = append.expected;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO event (position, stream, version, kind, schema, at, actor, correlation, reason, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        for event in &append.events {
            group.tail = group.tail.next();
            version = version.plus(1);
            insert.execute(params![
                to_sql(group.tail.0),
                append.stream.as_str(),
                to_sql(version.0),
                event.kind,
                event.schema,
                to_sql(meta.at.0),
                meta.actor,
                meta.correlation,
                meta.reason,
                event.body,
            ])?;
        }
        if let Some(record) = &append.idempotency {
            let mut insert = self.connection.prepare_cached(
                "INSERT INTO idempotency (scope, key, request_hash, result, position, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            insert.execute(params![
                record.scope,
                record.key,
                record.request_hash,
                record.result,
                to_sql(group.tail.0),
                to_sql(meta.at.0),
            ])?;
        }
        group.bytes += append.bytes();
        Ok(Committed { first, last: group.tail, at: meta.at })
    }

    fn settle(&mut self, mut group: Group) {
        if group.began
            && let Err(error) = commit(&self.connection)
        {
            self.abandon(&mut group, error);
            return;
        }
        // First the head, then the answers: whoever was answered finds the head at least there.
        if group.tail != *self.head.borrow() {
            self.head.send_replace(group.tail);
        }
        for (committed, reply) in group.accepted {
            answer(reply, Ok(committed));
        }
    }

    /// Fails the whole group: SQLite may already have rolled back everything that it held.
    fn abandon(&mut self, group: &mut Group, error: rusqlite::Error) {
        let error = survive_or_die(error);
        rollback(&self.connection);
        let full = is_full(&error);
        let source = cause(error);
        let error = if full { AppendError::Full { source } } else { AppendError::Storage { source } };
        self.fail_epoch(&error);
        for (_, reply) in group.accepted.drain(..) {
            answer(reply, Err(error.clone()));
        }
        *group = Group { tail: *self.head.borrow(), bytes: 0, began: false, accepted: Vec::new() };
    }

    fn fail_epoch(&mut self, error: &AppendError) {
        if let Some(epoch) = self.epoch.take() {
            events::epoch_failed(epoch, error);
        }
    }

    fn begin_epoch(&mut self) -> EpochStart {
        self.epochs_begun += 1;
        let epoch = Epoch(self.epochs_begun);
        self.epoch = Some(epoch);
        EpochStart { epoch, head: *self.head.borrow() }
    }

    fn purge(&self, before: Timestamp) -> Result<Purged, PurgeError> {
        let purge = || -> rusqlite::Result<usize> {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            let sql = "DELETE FROM idempotency
                       WHERE rowid IN (SELECT rowid FROM idempotency WHERE at < ?1 LIMIT ?2)";
            let count =
                self.connection.prepare_cached(sql)?.execute(params![to_sql(before.0), PURGED_AT_ONCE])?;
            commit(&self.connection)?;
            Ok(count)
        };
        match purge().map_err(survive_or_die) {
            Ok(count) => {
                let more = i64::try_from(count).is_ok_and(|count| count == PURGED_AT_ONCE);
                Ok(Purged { count: u64::try_from(count).unwrap_or(u64::MAX), more })
            }
            Err(error) => {
                rollback(&self.connection);
                Err(PurgeError::Storage { source: cause(error) })
            }
        }
    }

    fn advance(&self, to: u32) -> Result<u32, AdvanceError> {
        let (from, known) = (*self.format.borrow(), schema::newest());
        if to > known {
            return Err(AdvanceError::Unknown { to, known });
        }
        if to <= from {
            return Ok(from);
        }
        let advance = || -> rusqlite::Result<()> {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            schema::advance(&self.connection, from, to)?;
            commit(&self.connection)
        };
        match advance().map_err(survive_or_die) {
            Ok(()) => {
                self.format.send_replace(to);
                Ok(to)
            }
            Err(error) => {
                rollback(&self.connection);
                Err(AdvanceError::Storage { source: cause(error) })
            }
        }
    }

    /// After the answers, so that nobody waits for it but those who come next.
    fn fold_when_due(&self) {
        if WAL_PAGES.get() >= FOLD_AT_PAGES {
            match checkpoint(&self.connection, Fold::Possible).map_err(survive_or_die) {
                Ok(_) => WAL_PAGES.set(0),
                Err(error) => events::checkpoint_failed(&error),
            }
        }
    }
}

/// A panic in the writer leaves appends of unknown outcome and nobody to answer further ones; the process
/// must not go on.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Whoever stopped waiting does not need the answer.
fn answer<T>(waiting: oneshot::Sender<T>, answer: T) {
    drop(waiting.send(answer).err());
}
