//! The way from the app to other apps: a network beside the app's, in which there is nothing but what edge accepts.
//!
//! The addresses that names lead to are all in there, at one end of a pair of interfaces whose other end the app has. So our listening
//! sockets clash with no port of the app's, which they would within its own network: an app that listens on all addresses has those of
//! its loopback too. Connections wait in their queues while no edge is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};

use berth_shim::beside::{self, PORTS};
use berth_shim::config::{self, StartConfig};
use berth_shim::netlink::Netlink;
use rustix::thread::LinkNameSpaceType;

use crate::{network, system};

/// How many connections wait for edge at one port. Beyond it the kernel has the app try again.
const WAITING: i32 = 128;

/// What is tried where it is asked whether there can be such a way.
const TRIAL: config::Internal = config::Internal {
    network: Ipv4Addr::new(198, 19, 0, 0),
    bits: 17,
    own: Ipv4Addr::new(198, 19, 128, 1),
    gateway: Ipv4Addr::new(198, 19, 128, 2),
    ports: Vec::new(),
};

/// The sockets in that network. It is there as long as one of them is.
#[derive(Debug)]
pub(crate) struct Internal {
    listeners: BTreeMap<u16, OwnedFd>,
    spare: Vec<OwnedFd>,
}

impl Internal {
    /// What the configuration says: `None` for no way to others. On an error this process may be in another network than before, and has to
    /// end.
    pub(crate) fn of(config: &StartConfig) -> io::Result<Option<Self>> {
        let Some(way) = &config.internal else { return Ok(None) };
        let spare = if config.beside.is_empty() {
            make(way)?
        } else {
            config.beside.iter().map(|number| system::inherited(*number)).collect::<io::Result<_>>()?
        };
        Self::listening(spare, way).map(Some)
    }

    fn listening(spare: Vec<OwnedFd>, way: &config::Internal) -> io::Result<Self> {
        let mut internal = Self { listeners: BTreeMap::new(), spare };
        for port in way.ports.iter().take(PORTS) {
            internal.listener(*port)?;
        }
        Ok(internal)
    }

    /// The listening socket at `port` of all addresses that names lead to: the one that there is, so that what waits there is not lost
    /// when another edge asks.
    pub(crate) fn listener(&mut self, port: u16) -> io::Result<&OwnedFd> {
        if !self.listeners.contains_key(&port) {
            let socket = self.spare.pop().ok_or(io::ErrorKind::StorageFull)?;
            rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
            rustix::net::listen(&socket, WAITING)?;
            self.listeners.insert(port, socket);
        }
        self.listeners.get(&port).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Makes the network beside the one that this process is in, the way there, and sockets there.
fn make(way: &config::Internal) -> io::Result<Vec<OwnedFd>> {
    let home = File::open("/proc/self/ns/net")?;
    network::unshare()?;
    let made = Netlink::open().and_then(|beyond| {
        let sockets: io::Result<Vec<OwnedFd>> = (0..PORTS).map(|_| system::tcp_socket()).collect();
        Ok((beyond, sockets?))
    });
    rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    let (mut beyond, sockets) = made?;
    beside::lay(&mut beyond, &mut Netlink::open()?, home.as_fd(), way)?;
    Ok(sockets)
}

/// Tries all of it, in a process that does nothing else.
pub(crate) fn attempt() -> io::Result<()> {
    network::enter(None)?;
    Internal::listening(make(&TRIAL)?, &TRIAL)?.listener(80).map(drop)
}
