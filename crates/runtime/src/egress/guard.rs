//! Sees to it that the rules about instances stay in the packet filter, and knows whether those of others let instances out.
//!
//! The kernel tells of every change of the filter. So a firewall that is loaded anew takes the rules away for as long as it takes us to hear of it
//! and nft to load them, and what it drops is known without a start of ours.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use berth_clock::Clock;
use rustix::event::Timespec;
use rustix::pipe::PipeFlags;

use super::filter::{self, Filter};
use super::nftables::Changes;
use super::{attempt, firewall};

/// How long the filter has been left alone before it is tried again: a firewall that starts changes it many times. Also how long it takes until
/// what could not be put back is put back again.
const QUIET: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What is watched over.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) filter: Filter,
    clock: Arc<dyn Clock>,
    /// What drops what instances send, in words, if anything does.
    blocked: Mutex<Option<String>>,
}

impl Kept {
    pub(super) fn new(filter: Filter, clock: Arc<dyn Clock>) -> Self {
        Self { filter, clock, blocked: Mutex::default() }
    }

    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries whether what instances send gets out; `table` has our rules. Blocks.
    pub(super) fn look(&self, table: &str) -> io::Result<()> {
        let blocked = if attempt::is_blocked(table, &*self.clock)? {
            // What drops it is known, even where nobody can say who that is.
            Some(firewall::told(&filter::listed().unwrap_or_default(), firewall::has_ufw()))
        } else {
            None
        };
        let mut known = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &blocked) {
            (None, Some(why)) => tracing::error!(why, "nothing gets out of instances"),
            (Some(_), None) => tracing::info!("instances get out again"),
            _ => {}
        }
        *known = blocked;
        Ok(())
    }
}

/// The thread that watches. It ends with this, once it has done what it is at.
#[derive(Debug)]
pub(super) struct Guard {
    thread: Option<JoinHandle<()>>,
    /// Never written to: it is heard when it is closed.
    end: Option<OwnedFd>,
}

impl Guard {
    /// Watches over the network that the calling thread is in.
    pub(super) fn start(kept: &Arc<Kept>) -> io::Result<Self> {
        let (changes, kept) = (Changes::listen()?, Arc::clone(kept));
        let (ended, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let work = move || {
            if let Err(error) = watch(&kept, &changes, ended.as_fd()) {
                tracing::error!(%error, "nobody watches over the packet filter any more");
            }
        };
        let thread = std::thread::Builder::new().name("packet-filter".to_owned()).spawn(work)?;
        Ok(Self { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.end.take());
        // Else it could put back what is taken away after this.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn watch(kept: &Kept, changes: &Changes, ended: BorrowedFd<'_>) -> io::Result<()> {
    let (mut owes, mut untried) = (false, false);
    loop {
        let limit = (owes || untried).then_some(&QUIET);
        let Some(changed) = changes.wait(ended, limit)? else { return Ok(()) };
        // A try makes no rules. Its interface goes, which is told with what is passed on: after that one no other is due.
        untried |= changed.filter;
        if changed.filter || changed.forwarding || owes {
            owes = !restored(kept, owes);
        } else if std::mem::take(&mut untried) && kept.filter.holds() {
            // Where the rules are gone again, that is the next change.
            if let Err(error) = kept.look(kept.filter.table()) {
                tracing::debug!(%error, "whether anything gets out of instances could not be tried");
            }
        }
    }
}

/// Puts back what is gone, and gives whether nothing is any more. A failure `again` is not told anew.
fn restored(kept: &Kept, again: bool) -> bool {
    let restored = kept.filter.restore();
    if let Err(error) = restored.as_ref()
        && !again
    {
        tracing::error!(%error, "the rules about instances are not in the packet filter; this is tried again");
    }
    restored.is_ok()
}
