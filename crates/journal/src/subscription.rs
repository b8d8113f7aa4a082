//! Following the journal: first what is on disk, then what comes, without a hole and without a repeat.
//!
//! The writer announces only the head. A subscription remembers where it stands and reads from disk whenever
//! the head is beyond that, at the start as later on. So there is no hand-over from catching up to following
//! in which an event could be lost or doubled, a slow subscriber costs neither memory nor the writer's time,
//! and what was just written is still in the kernel's page cache. Rejected: a broadcast of the events, which
//! needs all of that handled.

use std::sync::Arc;

use tokio::sync::watch;

use crate::database::Readers;
use crate::error::ReadError;
use crate::record::{Position, Recorded};

/// A place in the journal that moves on with it. It does not keep the journal open.
#[derive(Debug)]
pub struct Subscription {
    readers: Arc<Readers>,
    head: watch::Receiver<Position>,
    next: Position,
}

impl Subscription {
    pub(crate) fn new(readers: Arc<Readers>, head: watch::Receiver<Position>, from: Position) -> Self {
        Self { readers, head, next: from.max(Position(1)) }
    }

    /// The position of the next event that this will give.
    #[must_use]
    pub fn position(&self) -> Position {
        self.next
    }

    /// Waits until there is something to [`Self::take`]; false when the journal was closed and everything was
    /// taken. Nothing is lost when the future is dropped.
    pub async fn ready(&mut self) -> bool {
        loop {
            if *self.head.borrow_and_update() >= self.next {
                return true;
            }
            if self.head.changed().await.is_err() {
                return *self.head.borrow() >= self.next;
            }
        }
    }

    /// At most `limit` events, those that are there; none when it has caught up. Reads from disk on the
    /// current thread.
    ///
    /// # Errors
    /// When the disk cannot be read or what is on it is damaged. The subscription stays where it was.
    pub fn take(&mut self, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        let head = *self.head.borrow();
        let events = self.readers.list(self.next, head, limit)?;
        for event in &events {
            if event.position != self.next {
                let what = format!("event {} is missing before {}", self.next, event.position);
                self.next = events.first().map_or(self.next, |first| first.position.min(self.next));
                return Err(ReadError::Damaged { what });
            }
            self.next = self.next.next();
        }
        Ok(events)
    }

    /// [`Self::ready`], then [`Self::take`]; `None` when the journal was closed and everything was taken.
    /// Reads on the current thread: for a task that stays within some hundred events at a time, which take
    /// less than a millisecond.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub async fn next(&mut self, limit: usize) -> Result<Option<Vec<Recorded>>, ReadError> {
        if self.ready().await { self.take(limit).map(Some) } else { Ok(None) }
    }
}
