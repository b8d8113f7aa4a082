//! Whether the daemon that makes containers is there, and what is made up for when it is back.
//!
//! Instances need it to be started and removed, and for nothing between: their shims are spoken to without it. So its death is no death of
//! theirs, unless it takes them along. It is noticed by a connection that nothing is sent on, and that ends with the daemon.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Inner, blocking};
use crate::error::RuntimeError;
use crate::instance::RuntimeEvent;

/// How long it is waited until a daemon that is away is looked for again.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of the daemon. Its watch ends with this.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    away: Mutex<bool>,
    owes: Arc<Notify>,
    watch: Mutex<Option<Watch>>,
}

#[derive(Debug)]
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Attendance {
    /// Whether it did not answer when it was last asked.
    pub(super) fn is_away(&self) -> bool {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it swept when it answers again.
    pub(super) fn owe(&self) {
        self.owes.notify_one();
    }

    /// Notes whether it is away, and gives whether it was before.
    fn note(&self, away: bool) -> bool {
        std::mem::replace(&mut *self.away.lock().unwrap_or_else(PoisonError::into_inner), away)
    }
}

impl Inner {
    /// Watches over the daemon from now on, where there is one.
    pub(super) fn attend(self: &Arc<Self>) {
        if let Some(containers) = &self.containers {
            let watch = Watch(tokio::spawn(watch(Arc::downgrade(self))));
            *containers.attendance.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        }
    }

    /// Asks the daemon for a sign of life and, where that is due, has it remove what it has of instances that are no more. Gives whether
    /// it answered and nothing is due any more. Blocks.
    fn attend_once(&self, due: bool) -> bool {
        let Some(containers) = &self.containers else { return true };
        if let Err(error) = containers.ask() {
            if !containers.attendance.note(true) {
                tracing::error!(%error, "Docker does not answer; nothing is started until it is back");
            }
            return false;
        }
        let was_away = containers.attendance.note(false);
        if was_away {
            tracing::info!(daemon = containers.daemon(), "Docker answers again");
            // Whatever could not be done meanwhile is tried again.
            for id in self.entries().keys() {
                drop(self.events.send(RuntimeEvent::Changed(id.clone())));
            }
        }
        let swept: Result<(), RuntimeError> =
            if due || was_away { containers.sweep(|| self.recorded()) } else { Ok(()) };
        if let Err(error) = &swept {
            tracing::warn!(%error, "what Docker has of instances that are no more was not removed");
        }
        swept.is_ok()
    }
}

/// Holds nothing of the runtime while it waits: who drops that ends this.
async fn watch(inner: Weak<Inner>) {
    let mut due = false;
    while let Some(there) = inner.upgrade() {
        let Some(containers) = &there.containers else { return };
        let (socket, owes) = (containers.socket().to_owned(), Arc::clone(&containers.attendance.owes));
        due = !blocking(move || there.attend_once(due)).await;
        if !due {
            tokio::select! {
                () = until_gone(&socket) => {}
                () = owes.notified() => {}
            }
            due = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for the end of a connection, which some daemons end after minutes in which nothing was said.
async fn until_gone(socket: &Path) {
    if let Ok(mut line) = UnixStream::connect(socket).await {
        // Nothing is asked, so that nothing comes but the end.
        drop(line.read(&mut [0]).await);
    }
}
