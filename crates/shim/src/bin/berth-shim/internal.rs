//! The way from the app to other apps: a network beside the app's, in which there is nothing but what edge accepts.
//!
//! The addresses that names lead to are all in there, at one end of a pair of interfaces whose other end the app has. So our listening
//! sockets clash with no port of the app's, which they would within its own network: an app that listens on all addresses has those of
//! its loopback too. Connections wait in their queues while no edge is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use berth_shim::config;
use berth_shim::netlink::{End, Mac, Netlink};
use rustix::thread::LinkNameSpaceType;

use crate::{network, system};

/// How many ports there may be. A socket for each is made at the beginning, since nothing gets into that network later.
const PORTS: usize = 16;
/// How many connections wait for edge at one port. Beyond it the kernel has the app try again.
const WAITING: i32 = 128;

const HERE: End<'static> = End { name: "berth0", mac: MAC_HERE };
const BEYOND: End<'static> = End { name: "apps", mac: MAC_BEYOND };
/// The second bit says that they are made up. Each is alone with the other.
const MAC_HERE: Mac = [0x02, 0xBE, 0x47, 2, 0, 1];
const MAC_BEYOND: Mac = [0x02, 0xBE, 0x47, 2, 0, 2];

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
    /// Makes the network beside the one that this process is in. On an error this process may be in another network than before, and has to
    /// end.
    pub(crate) fn open(way: &config::Internal) -> io::Result<Self> {
        let home = File::open("/proc/self/ns/net")?;
        network::unshare()?;
        let made = beyond(way, home.as_fd());
        rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut internal = Self { listeners: BTreeMap::new(), spare: made? };
        lead_there(way)?;
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

/// Makes the pair of interfaces and the other end of it, which this process is in, and sockets there.
fn beyond(way: &config::Internal, home: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut netlink = Netlink::open()?;
    netlink.add_pair(&BEYOND, &HERE, home)?;
    let (loopback, link) = (netlink.index("lo")?, netlink.index(BEYOND.name)?);
    netlink.raise(loopback)?;
    netlink.raise(link)?;
    netlink.add_local_route(loopback, (way.network, way.bits))?;
    netlink.add_host_route(link, way.own)?;
    netlink.add_neighbour(link, way.own, MAC_HERE)?;
    (0..PORTS).map(|_| system::tcp_socket()).collect()
}

/// Has the app's network, which this process is in, send there.
fn lead_there(way: &config::Internal) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let link = netlink.index(HERE.name)?;
    netlink.raise(link)?;
    netlink.add_address(link, way.own)?;
    netlink.add_neighbour(link, way.gateway, MAC_BEYOND)?;
    netlink.add_route(link, (way.network, way.bits), way.gateway)
}

/// Tries all of it, in a process that does nothing else.
pub(crate) fn attempt() -> io::Result<()> {
    network::enter(None)?;
    Internal::open(&TRIAL)?.listener(80).map(drop)
}
