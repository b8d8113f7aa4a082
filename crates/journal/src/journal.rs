//! The journal's handle: opening, appending, reading, closing.

use std::error::Error;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use berth_spec::Timestamp;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::append::{Append, Permit, Ticket};
use crate::database::{self, Fold, Readers, cause, unreadable};
use crate::error::{AdvanceError, BackupError, CloseError, OpenError, PurgeError, ReadError, ReplayError};
use crate::read;
use crate::record::{EpochStart, EventRef, Idempotent, Position, Recorded, StreamName, Version};
use crate::schema;
use crate::subscription::Subscription;
use crate::writer::{Command, QUEUED_APPENDS, Writer};

/// SQLite's default, written down because a quota in bytes is turned into pages.
const PAGE_BYTES: u64 = 4096;

/// How to open a journal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Most bytes the database may have, rounded down to pages; beyond it appends fail with
    /// [`crate::AppendError::Full`]. It never makes an existing database unusable: one that is larger just
    /// cannot grow. `None` leaves it to the disk.
    pub max_bytes: Option<u64>,
}

/// An open journal. Methods that read block the current thread for as long as the disk takes.
///
/// Dropping it writes and answers what is in the queue, and waits for that: some milliseconds.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    readers: Arc<Readers>,
    head: watch::Receiver<Position>,
    format: watch::Receiver<u32>,
    /// Present until the journal closes.
    running: Option<Running>,
    /// Held until the writer is gone.
    _lock: Lock,
}

#[derive(Debug)]
struct Running {
    queue: mpsc::Sender<Command>,
    thread: JoinHandle<Result<(), CloseError>>,
}

impl Journal {
    /// Opens the journal in `dir`, making both if need be.
    ///
    /// Whatever a reader can see afterwards is durable, also what a crash left committed but not synced: the
    /// write-ahead log is synced and folded into the database first.
    ///
    /// # Errors
    /// When it is open already, in this process or another, is of a newer format, belongs to something else,
    /// or when the disk refuses.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file_error(dir))?;
        let lock = Lock::take(dir)?;
        let path = dir.join("journal.db");
        // Made before SQLite opens it, which would use 0644; the files beside it get the same mode. Never
        // open this file by other means while SQLite has it open: closing it would drop SQLite's locks, which
        // belong to the process.
        match private().write(true).create_new(true).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error(&path)(error)),
        }
        let mut connection = open_database(&path, options)?;
        let format = schema::migrate(&mut connection, &path)?;
        let broken = |error| OpenError::Database { source: cause(error) };
        let folded = database::checkpoint(&connection, Fold::Everything).map_err(broken)?;
        debug_assert!(folded, "nobody else has the database open");
        // SQLite syncs the directory too but does not look at the answer.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(file_error(dir))?;
        let (announce, head) = watch::channel(read::head(&connection).map_err(broken)?);
        let (queue, inbox) = mpsc::channel(QUEUED_APPENDS);
        let (announce_format, format) = watch::channel(format);
        let writer = Writer::new(connection, inbox, announce, announce_format);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(|| writer.run());
        let running = Some(Running { queue, thread: thread.map_err(file_error(dir))? });
        let readers = Arc::new(Readers::new(path));
        Ok(Self { dir: dir.to_owned(), readers, head, format, running, _lock: lock })
    }

    /// The latest durable event.
    #[must_use]
    pub fn head(&self) -> Position {
        *self.head.borrow()
    }

    /// The format that the journal is written in: programs that know it can read the journal.
    #[must_use]
    pub fn format(&self) -> u32 {
        *self.format.borrow()
    }

    /// The newest format that this program knows, in which a new journal begins.
    #[must_use]
    pub fn newest_format() -> u32 {
        schema::newest()
    }

    /// Brings the journal to format `to`, unless it is there or beyond; gives the format that it has then, durably.
    /// Programs that do not know it cannot open the journal any more.
    ///
    /// # Errors
    /// When this program does not know the format, or the database cannot write.
    pub async fn advance(&self, to: u32) -> Result<u32, AdvanceError> {
        self.ask(|reply| Command::Advance { to, reply }).await
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins an epoch. Appends of earlier ones that are in the queue are answered first; later ones are
    /// refused.
    pub async fn begin_epoch(&self) -> EpochStart {
        self.ask(|reply| Command::BeginEpoch { reply }).await
    }

    /// Waits for a place in the queue. A decider takes it before it decides.
    pub async fn reserve(&self) -> Permit<'_> {
        let place = self.queue().reserve().await;
        Permit { place: place.expect("the writer takes from the queue for as long as the journal is open") }
    }

    /// [`Self::reserve`] and [`Permit::append`] in one. When the future is dropped before it gives a ticket,
    /// nothing is appended.
    pub async fn append(&self, append: Append) -> Ticket {
        self.reserve().await.append(append)
    }

    /// Deletes idempotency records that were made before `before`; gives their number. Appends have their
    /// turn in between.
    ///
    /// # Errors
    /// When the database cannot write.
    pub async fn purge_idempotency(&self, before: Timestamp) -> Result<u64, PurgeError> {
        let mut count = 0;
        loop {
            let purged = self.ask(|reply| Command::Purge { before, reply }).await?;
            count += purged.count;
            if !purged.more {
                return Ok(count);
            }
        }
    }

    /// What the request with this key led to, if it was committed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn idempotent(&self, scope: &str, key: &str) -> Result<Option<Idempotent>, ReadError> {
        self.readers.idempotent(scope, key)
    }

    /// Events from `from` on, in order, at most `limit` and about 4 MiB. Empty only at the end.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read(&self, from: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.readers.list(from, self.head(), limit)
    }

    /// Events of one stream from version `from` on, with the same limits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.readers.list_stream(stream, from, limit)
    }

    /// The latest events before `before`, or the latest of all; newest first, with the same limits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read_back(&self, before: Option<Position>, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.readers.list_back(before, limit)
    }

    /// As [`Self::read_back`], of one stream.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read_stream_back(
        &self,
        stream: &StreamName,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.readers.list_stream_back(stream, before, limit)
    }

    /// The version of a stream, as far as it is durable.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn stream_version(&self, stream: &StreamName) -> Result<Version, ReadError> {
        self.readers.stream_version(stream)
    }

    /// Shows every event from `from` to `to`, or to the head if that comes first, to `visit`, in order; gives
    /// their number. Nothing is copied. `visit` should not dwell: up to 4,096 events are read in one
    /// transaction.
    ///
    /// # Errors
    /// When the database cannot be read, when an event is missing, or when `visit` fails.
    pub fn replay<E: Error + 'static>(
        &self,
        from: Position,
        to: Position,
        visit: impl FnMut(EventRef<'_>) -> Result<(), E>,
    ) -> Result<u64, ReplayError<E>> {
        self.readers.replay(from, to.min(self.head()), visit)
    }

    /// Follows the journal from `from` on.
    #[must_use]
    pub fn subscribe(&self, from: Position) -> Subscription {
        Subscription::new(Arc::clone(&self.readers), self.head.clone(), from)
    }

    /// Copies the journal to `path`, which must not exist, while it is in use: all that is durable when it
    /// starts. The copy can be put in the place of `journal.db`. It is made beside `path` under another name,
    /// so that what is at `path` is whole. Gives the position of the last event in it.
    ///
    /// # Errors
    /// When something is there already or the copy cannot be made.
    pub fn backup_to(&self, path: &Path) -> Result<Position, BackupError> {
        if path.try_exists().map_err(|source| BackupError::File { path: path.to_owned(), source })? {
            return Err(BackupError::Exists { path: path.to_owned() });
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = Path::new(&unfinished);
        let done = self.copy_to(unfinished, path);
        if done.is_err()
            && let Err(error) = fs::remove_file(unfinished)
        {
            crate::events::leftover(unfinished, &error);
        }
        done
    }

    fn copy_to(&self, unfinished: &Path, path: &Path) -> Result<Position, BackupError> {
        let file_error = |source| BackupError::File { path: path.to_owned(), source };
        // SQLite takes an empty file as a target, and so keeps its mode.
        let file = private().write(true).create(true).truncate(true).open(unfinished).map_err(file_error)?;
        let target =
            unfinished.to_str().ok_or_else(|| file_error(io::Error::other("its name is not UTF-8")))?;
        let copy =
            |connection: &Connection| connection.execute("VACUUM INTO ?1", [target]).map_err(unreadable);
        self.readers.with(copy).map_err(|error| match error {
            ReadError::Database { source } => BackupError::Database { source },
            damaged @ ReadError::Damaged { .. } => BackupError::Database { source: Arc::new(damaged) },
        })?;
        file.sync_all().map_err(file_error)?;
        let head = database::open_copy(target)
            .and_then(|copy| read::head(&copy))
            .map_err(|error| BackupError::Database { source: cause(error) })?;
        fs::rename(unfinished, path).map_err(file_error)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(file_error)?;
        Ok(head)
    }

    /// Checks everything: the database's structure, that positions have no hole, and that versions in each
    /// stream have none. Gives what is wrong, in words. Reads the whole database.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn check(&self) -> Result<Vec<String>, ReadError> {
        self.readers.with(|connection| read::problems(connection).map_err(unreadable))
    }

    /// Closes the journal as dropping it does, and says whether all went well.
    ///
    /// # Errors
    /// When the write-ahead log could not be folded into the database. Nothing is lost then.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), CloseError> {
        let Some(Running { queue, thread }) = self.running.take() else { return Ok(()) };
        // The writer ends when the queue is empty and has no sender, and its connection is then the last:
        // SQLite tidies up.
        self.readers.clear();
        drop(queue);
        thread.join().expect("a panic of the writer has ended the process")
    }

    fn queue(&self) -> &mpsc::Sender<Command> {
        &self.running.as_ref().expect("only closing, which takes the journal, ends the writer").queue
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, answer) = oneshot::channel();
        self.reserve().await.place.send(command(reply));
        answer.await.expect("the writer answers every command that it was sent")
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the journal did not close cleanly");
        }
    }
}

/// The claim on a directory.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("journal.lock");
        let file_error = |source| OpenError::File { path: path.clone(), source };
        let file = private().write(true).create(true).truncate(false).open(&path).map_err(file_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(file_error(source)),
        }
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a program that another thread is just starting has a copy of it until
    /// its exec.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the journal");
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn open_database(path: &Path, options: Options) -> Result<Connection, OpenError> {
    let open = || -> rusqlite::Result<Connection> {
        let connection = database::open_writer(path)?;
        if let Some(bytes) = options.max_bytes {
            let pages =
                i64::try_from(bytes / PAGE_BYTES).unwrap_or(i64::MAX).clamp(1, i64::from(u32::MAX - 1));
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        Ok(connection)
    };
    open().map_err(|error| OpenError::Database { source: cause(error) })
}
