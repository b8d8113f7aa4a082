//! Connections to the database, and what to do about its errors.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::error::{Cause, ReadError};
use crate::events;

/// Page cache of the writer and of each reader, in KiB. The kernel's page cache stands behind them and is not
/// charged to us when memory is short; ours only has to hold the inner nodes of the indexes and the pages one
/// group dirties.
const WRITER_CACHE_KIB: i32 = 1024;
const READER_CACHE_KIB: i32 = 256;

/// Readers kept open. More than this many readers at once open further connections and close them when done:
/// how many that can be is bounded by the threads on which callers read, never by the length of a queue.
const IDLE_READERS: usize = 4;

/// The write-ahead log is cut back to this size, in bytes, when it starts over. Twice the size at which it is
/// folded into the database, so that it usually keeps its blocks and fdatasync has no new ones to record.
const KEPT_WAL_BYTES: u32 = 8 << 20;

/// Opens a finished copy that nobody writes to. Nothing is made beside it, as a reader of a write-ahead log would.
pub(crate) fn open_copy(path: &str) -> rusqlite::Result<Connection> {
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
}

/// Opens the only connection that writes.
pub(crate) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    harden(&connection, WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: each commit waits for the write-ahead log's fdatasync. NORMAL would sync only when the log is
    // folded.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", KEPT_WAL_BYTES)?;
    // SQLite's own checkpoint runs inside the commit, before anybody is answered, and swallows a failed
    // fsync.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    harden(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}

fn harden(connection: &Connection, cache_kib: i32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// How much of the write-ahead log a checkpoint shall fold into the database.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fold {
    /// What no reader still needs.
    Possible,
    /// Everything, and truncate the log; waits for readers for as long as the busy timeout.
    Everything,
}

/// Folds the write-ahead log into the database; true when all of it was.
pub(crate) fn checkpoint(connection: &Connection, fold: Fold) -> rusqlite::Result<bool> {
    let sql = match fold {
        Fold::Possible => "PRAGMA wal_checkpoint(PASSIVE)",
        Fold::Everything => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection.query_row(sql, [], |row| {
        let (busy, pages, folded): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!busy && pages == folded)
    })
}

/// Read-only connections, lent one at a time. A reader sees what is committed and synced, and never waits for
/// the writer.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::new(Vec::new()) }
    }

    /// Lends a connection to `work`.
    pub(crate) fn with<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<ReadError>,
    {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path).map_err(unreadable)?,
        };
        let done = work(&connection)?;
        let mut idle = self.idle();
        if idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        Ok(done)
    }

    /// Closes the idle connections.
    pub(crate) fn clear(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps an error so that its type does not show.
pub(crate) fn cause(error: rusqlite::Error) -> Cause {
    Arc::new(error)
}

/// Wraps an error met while reading.
pub(crate) fn unreadable(error: rusqlite::Error) -> ReadError {
    ReadError::Database { source: cause(error) }
}

/// Whether the disk, or the quota, is full.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Ends the process if `error` is a failed fsync.
///
/// After a failed fsync Linux marks the pages clean all the same and reports the error once. A second fsync
/// then succeeds though the bytes never reached the disk, and what we read back comes from memory: nothing
/// that this process can still observe tells it what is durable. Only starting over does: opening the journal
/// copies the write-ahead log into the database page by page, which dirties and syncs everything anew, or
/// finds it damaged.
pub(crate) fn survive_or_die(error: rusqlite::Error) -> rusqlite::Error {
    match extended_code(&error) {
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => {
            die("the disk failed to confirm a write", &error)
        }
        _ => error,
    }
}

/// Commits, or rolls back and says why, or ends the process.
///
/// The statement writes the log's frames, syncs, and then publishes them to the readers. A failed *write* of
/// a frame leaves the log without a whole commit frame, so the transaction is certainly gone. (SQLite repeats
/// the commit frame to fill the sector only on disks that may damage neighbours of a write, a property that
/// its Unix layer rules out.) A failure later on leaves it in doubt: the frame may be on disk, and a restart
/// would find events that were reported as failed. Then the process ends, nobody is answered, and the next
/// start finds out.
pub(crate) fn commit(connection: &Connection) -> rusqlite::Result<()> {
    let Err(error) = connection.execute_batch("COMMIT").map_err(survive_or_die) else { return Ok(()) };
    match extended_code(&error) {
        Some(ffi::SQLITE_FULL | ffi::SQLITE_IOERR_WRITE) => {
            rollback(connection);
            Err(error)
        }
        _ => die("it is unknown whether a transaction was committed", &error),
    }
}

/// Rolls back unless SQLite already did.
pub(crate) fn rollback(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        die("a failed transaction cannot be rolled back", &error);
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

fn die(what: &str, error: &rusqlite::Error) -> ! {
    events::fatal(what, error);
    // The log may be buffered or not set up; a lost line must not keep the process alive.
    drop(writeln!(std::io::stderr(), "berth: the journal ends this process: {what}: {error}"));
    std::process::abort()
}
