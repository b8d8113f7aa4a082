//! Threads in other networks than the rest of the process: what is to be made in one is made by a thread that ends with it.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use berth_shim::netlink::Netlink;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Does `work` in a network of its own, in which nothing is up, and gives that network. It is there as long as somebody holds it or is in it.
pub(crate) fn in_new_network<T: Send>(
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(OwnedFd, T)> {
    on_own_thread(|| {
        unshare()?;
        Ok((File::open("/proc/thread-self/ns/net")?.into(), work()?))
    })
}

/// What is spoken with about `network`.
pub(crate) fn netlink_of(network: BorrowedFd<'_>) -> io::Result<Netlink> {
    on_own_thread(|| {
        rustix::thread::move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
        Netlink::open()
    })
}

/// Moves this thread into a network of its own.
#[expect(
    unsafe_code,
    reason = "only the calling thread moves, and shares nothing that a network of its own would change"
)]
fn unshare() -> io::Result<()> {
    // SAFETY: neither files nor memory are unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

/// Does what moves a thread into another network, on one that ends with it: whoever has been in another network is of no use to anybody
/// else.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
