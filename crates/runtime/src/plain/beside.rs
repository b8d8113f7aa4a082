//! The network beside an instance's, for one whose shim may not make it: that of a container has no right to networks.
//!
//! It is made with its sockets before the container is, so that these are handed over with everything else, and is joined with the
//! container's network once that is there.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use berth_routing::names;
use berth_shim::beside::{self, PORTS};
use berth_shim::config::Internal;
use berth_shim::netlink::Netlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::namespace;

/// Such a network that leads nowhere yet.
#[derive(Debug)]
pub(super) struct Beside {
    way: Internal,
    /// What is spoken with about it.
    beyond: Netlink,
    _network: OwnedFd,
}

impl Beside {
    /// Makes one, and the sockets at which edge will accept. Blocks.
    pub(super) fn make(way: &Internal) -> io::Result<(Self, Vec<OwnedFd>)> {
        let (network, (beyond, sockets)) = namespace::in_new_network(|| {
            // The shim, which binds them, has no right to low ports.
            fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
            let sockets: io::Result<Vec<OwnedFd>> = (0..PORTS).map(|_| socket()).collect();
            Ok((Netlink::open()?, sockets?))
        })?;
        Ok((Self { way: way.clone(), beyond, _network: network }, sockets))
    }

    /// Has `network`, which has a loopback and perhaps a way out, lead there. Blocks.
    pub(super) fn join(mut self, network: BorrowedFd<'_>) -> io::Result<()> {
        let mut here = namespace::netlink_of(network)?;
        beside::lay(&mut self.beyond, &mut here, network, &self.way)
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// The way to other apps, with these ports open from the beginning.
pub(super) fn way(ports: Vec<u16>) -> Internal {
    Internal {
        network: names::NETWORK,
        bits: names::NETWORK_BITS,
        own: names::OWN,
        gateway: names::GATEWAY,
        ports,
    }
}

/// Whether all of it can be had here; it is tried, and leaves nothing. Blocks.
pub(super) fn is_possible() -> bool {
    let tried = || {
        let (beside, _sockets) = Beside::make(&way(Vec::new()))?;
        let (home, ()) = namespace::in_new_network(|| Ok(()))?;
        beside.join(home.as_fd())
    };
    let tried: io::Result<()> = tried();
    if let Err(error) = &tried {
        tracing::warn!(%error, "apps in containers have no names for each other here");
    }
    tried.is_ok()
}
