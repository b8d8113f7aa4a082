//! The logs of instances.

use std::io;
use std::path::Path;
use std::time::Duration;

use berth_shim::segment::{Batch, Cursor, Segments};

/// How often a follower looks for more. There is no event for it: the shim must not know of readers.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Bytes that a follower takes at once.
const FOLLOW_BYTES: usize = 256 << 10;

/// The log of one instance. It may not exist yet, and it may be written to.
#[derive(Debug, Clone)]
pub struct InstanceLog {
    segments: Segments,
}

impl InstanceLog {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { segments: Segments::new(dir) }
    }

    /// The numbers of the segments that exist.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn segments(&self) -> io::Result<Vec<u64>> {
        self.segments.list()
    }

    /// Records from `from` on, about `most` bytes of them. Reads files: not for an async task.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn read(&self, from: Cursor, most: usize) -> io::Result<Batch> {
        self.segments.read(from, most)
    }

    /// The last `count` records. Reads files: not for an async task.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn tail(&self, count: usize) -> io::Result<Batch> {
        self.segments.tail(count)
    }

    /// Follows the log from `from` on.
    #[must_use]
    pub fn follow(&self, from: Cursor) -> Follow {
        Follow { log: self.clone(), from }
    }
}

/// A reader that waits for more.
#[derive(Debug)]
pub struct Follow {
    log: InstanceLog,
    from: Cursor,
}

impl Follow {
    /// The next records, at least one; waits for them. May be given up at any time and called again.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub async fn next(&mut self) -> io::Result<Batch> {
        loop {
            let (log, from) = (self.log.clone(), self.from);
            let read = tokio::task::spawn_blocking(move || log.read(from, FOLLOW_BYTES));
            let batch = read.await.map_err(io::Error::other)??;
            self.from = batch.next;
            if !batch.records.is_empty() {
                return Ok(batch);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
