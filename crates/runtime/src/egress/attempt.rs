//! Tries whether what leaves an instance gets past the rules of others in the machine's packet filter.
//!
//! It is sent like an app's: from a network of its own, over a pair of interfaces, to where the default route leads. Whether it would have left
//! is what our rules count of it behind everybody else's. It does not leave, since they drop it then.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};

use berth_clock::{Clock, random_bytes};
use berth_shim::netlink::Netlink;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::rules::{PASSED, TRIED};
use super::{TRY_PREFIX, filter, nftables, pair};
use crate::namespace;

/// Where it is sent: an address of a network for documentation (RFC 5737), at the port that most of what apps send goes to.
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 253), 443);
/// How long it is waited between two looks, in nanoseconds.
const PAUSE: i64 = 5_000_000;
/// Looks until it is clear that nothing was sent: there is no route.
const LOOKS: u32 = 200;
/// Looks until what was sent has been dropped. The kernel asks one chain after the other without a pause, unless a program decides for one.
const LOOKS_UNTIL_DROPPED: u32 = 20;

/// Whether what an instance would send is dropped or refused by rules that are not ours; `table` has ours. Where nothing is sent, since there is
/// nowhere to send it to, nothing is dropped. Blocks.
pub(super) fn is_blocked(table: &str, clock: &dyn Clock) -> io::Result<bool> {
    let before = Counted::of(table)?;
    let (network, (there, socket)) = namespace::in_new_network(|| Ok((Netlink::open()?, stream()?)))?;
    let name = format!("{TRY_PREFIX}{:08x}", u32::from_le_bytes(random_bytes(clock)));
    pair::lay(&name, network.as_fd(), there, clock)?;
    if !filter::passes_on()? {
        // Of this interface alone: of all of them there is no need before there are instances.
        fs::write(format!("/proc/sys/net/ipv4/conf/{name}/forwarding"), "1")?;
    }
    match rustix::net::connect(&socket, &NOBODY) {
        Err(Errno::INPROGRESS) => {}
        sent => return Ok(sent.map(|()| false)?),
    }
    for look in 0..LOOKS {
        let refused = answered(&socket, if look == 0 { 0 } else { PAUSE })?;
        let now = Counted::of(table)?;
        if now.passed > before.passed {
            return Ok(false);
        }
        let was_sent = now.tried > before.tried;
        if refused || (was_sent && look >= LOOKS_UNTIL_DROPPED) {
            return Ok(was_sent);
        }
    }
    Ok(false)
}

/// What our rules have counted.
struct Counted {
    tried: u64,
    passed: u64,
}

impl Counted {
    fn of(table: &str) -> io::Result<Self> {
        let of = |counter| nftables::packets(table, counter);
        Ok(Self { tried: of(TRIED)?, passed: of(PASSED)? })
    }
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// Whether anything came back, within so many nanoseconds. Nobody is there, so that it would be a refusal.
fn answered(socket: &OwnedFd, within: i64) -> io::Result<bool> {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    match rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: within })) {
        Err(Errno::INTR) => Ok(false),
        count => Ok(count? > 0),
    }
}
