//! Sees to it that the rules about instances stay in the packet filter.
//!
//! The kernel tells of every change of the filter. So a firewall that is loaded anew takes the rules away for as long as it takes us to hear of it
//! and nft to load them.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::Timespec;
use rustix::pipe::PipeFlags;

use super::filter::Filter;
use super::nftables::Changes;

/// How long it takes until what could not be put back is put back again.
const AGAIN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The thread that watches. It ends with this, once it has done what it is at.
#[derive(Debug)]
pub(super) struct Guard {
    thread: Option<JoinHandle<()>>,
    /// Never written to: it is heard when it is closed.
    end: Option<OwnedFd>,
}

impl Guard {
    /// Watches over the network that the calling thread is in.
    pub(super) fn start(filter: &Arc<Filter>) -> io::Result<Self> {
        let (changes, filter) = (Changes::listen()?, Arc::clone(filter));
        let (ended, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let work = move || {
            if let Err(error) = watch(&filter, &changes, ended.as_fd()) {
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

fn watch(filter: &Filter, changes: &Changes, ended: BorrowedFd<'_>) -> io::Result<()> {
    let mut owes = false;
    while changes.wait(ended, owes.then_some(&AGAIN))?.is_some() {
        owes = !restored(filter, owes);
    }
    Ok(())
}

/// Puts back what is gone, and gives whether nothing is any more. A failure `again` is not told anew.
fn restored(filter: &Filter, again: bool) -> bool {
    let restored = filter.restore();
    if let Err(error) = restored.as_ref()
        && !again
    {
        tracing::error!(%error, "the rules about instances are not in the packet filter; this is tried again");
    }
    restored.is_ok()
}
