//! What edge allows and how long it waits.

use std::time::Duration;

use crate::patience::Patience;

/// What edge allows and how long it waits. [`Limits::default`] is meant for production.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a client may take.
    pub patience: Patience,
    /// Client connections of one thread. Beyond it new ones wait in the listener's queue, which costs us nothing, and
    /// idle ones are ended to make room.
    pub connections: usize,
    /// How long connecting to an instance may take before another is tried.
    pub connect: Duration,
    /// How long requests in flight may take to end once edge was told to stop.
    pub drain: Duration,
    /// The same where another edge has the listeners, and nobody waits for this one to end.
    pub drain_beside: Duration,
    /// How long idle connections are kept open after that.
    pub drain_idle: Duration,
    /// How often slow clients and idle connections are looked for.
    pub tick: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            // Each takes about 6 KiB idle and two file descriptors when busy.
            connections: 16_384,
            connect: Duration::from_secs(2),
            drain: Duration::from_secs(30),
            drain_beside: Duration::from_secs(600),
            drain_idle: Duration::from_secs(5),
            tick: Duration::from_millis(250),
        }
    }
}

impl Limits {
    /// The same, with no more connections than `files` file descriptors allow for `threads` threads: one for the
    /// client and one for the instance, and a part for everything else: each instance has a few for what it sends to others.
    pub(crate) fn within(self, files: u64, threads: usize) -> Self {
        let others = (files / 4).clamp(256, 8_192);
        let files = usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX);
        Self { connections: self.connections.min(files / 2 / threads.max(1)).max(1), ..self }
    }
}
