//! As much of rtnetlink(7) as the networks of instances take: a pair of interfaces, an address, routes, neighbours.
//!
//! By hand, since the crates for it bring an async stack of their own for what are six messages. Each is sent with the order to answer, and the
//! answer is waited for; the kernel gives it before the send returns. Every error is what the kernel says.

mod routes;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

pub use routes::{Prefix, Watch};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

// From linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/veth.h and linux/neighbour.h.
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REMOVE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const ACK: u16 = 0x4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const IPV4: u8 = 2;
const UP: u32 = 1;
const PERMANENT: u16 = 0x80;
const ON_LINK: u32 = 4;
const NESTED: u16 = 0x8000;

/// An interface's hardware address.
pub type Mac = [u8; 6];

/// A connection to the kernel about one network: that of the thread which opened it, for as long as it lives.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// One end of a pair.
#[derive(Debug)]
pub struct End<'a> {
    /// What it is called, in at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
}

impl Netlink {
    /// Opens one about the network that the calling thread is in. The protocol is nought: links, addresses, routes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        // The kernel, which is nobody's process.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Speaks over a connection that somebody else opened, about the network that he was in.
    #[must_use]
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket, sequence: 0 }
    }

    /// Hands the connection on.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Makes a pair of interfaces, both down, since neither can be up before the other is there: `here`, and `there` in the network `network`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_pair(&mut self, here: &End<'_>, there: &End<'_>, network: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_head(0, 0));
        message.end(here);
        message.nested(18, |info| {
            info.attribute(1, b"veth");
            info.nested(2, |data| {
                data.nested(1, |peer| {
                    peer.bytes.extend_from_slice(&link_head(0, 0));
                    peer.end(there);
                    peer.attribute(28, &network.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.ask(message)
    }

    /// Brings the interface `index` up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn raise(&mut self, index: u32) -> io::Result<()> {
        self.ask(Message::new(NEW_LINK, 0, &link_head(index, UP)))
    }

    /// Gives the interface `index` this hardware address, which makes it forget its neighbours, and has it take packets of `mtu` bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_link(&mut self, index: u32, mac: Mac, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, 0, &link_head(index, 0));
        message.attribute(1, &mac);
        message.attribute(4, &mtu.to_ne_bytes());
        self.ask(message)
    }

    /// Gives the interface `index` an address of its own, with nobody beside it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        let head = [&[IPV4, 32, 0, 0][..], &index.to_ne_bytes()].concat();
        let mut message = Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &head);
        message.attribute(2, &address.octets());
        message.attribute(1, &address.octets());
        self.ask(message)
    }

    /// Has everything go through `gateway`, which is behind the interface `index` though no address there says so.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &route_head(0, 0, ON_LINK));
        message.attribute(5, &gateway.octets());
        message.attribute(4, &index.to_ne_bytes());
        self.ask(message)
    }

    /// Has what goes to `address` leave by the interface `index`; an error when there is such a route, whoever made it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or what else the kernel says.
    pub fn add_host_route(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        // The scope of a link.
        let mut message = Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &route_head(32, 253, 0));
        message.attribute(1, &address.octets());
        message.attribute(4, &index.to_ne_bytes());
        self.ask(message)
    }

    /// Has what goes to the network of `address` and so many `bits` go through `gateway`, which is behind the interface `index`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_route(
        &mut self,
        index: u32,
        (address, bits): (Ipv4Addr, u8),
        gateway: Ipv4Addr,
    ) -> io::Result<()> {
        let mut message = Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &route_head(bits, 0, ON_LINK));
        message.attribute(1, &address.octets());
        message.attribute(5, &gateway.octets());
        message.attribute(4, &index.to_ne_bytes());
        self.ask(message)
    }

    /// Has every address of the network of `address` and so many `bits` be one of this network's own, at the interface `index`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_local_route(&mut self, index: u32, (address, bits): (Ipv4Addr, u8)) -> io::Result<()> {
        // The local table, the scope of a host, a route that ends here.
        let head = [&[IPV4, bits, 0, 0, 255, 4, 254, 2][..], &0_u32.to_ne_bytes()].concat();
        let mut message = Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &head);
        message.attribute(1, &address.octets());
        message.attribute(4, &index.to_ne_bytes());
        self.ask(message)
    }

    /// Says for ever which hardware address `address` has, so that nobody asks: a question that is asked before the other end is up is
    /// asked again only a second later.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_neighbour(&mut self, index: u32, address: Ipv4Addr, mac: Mac) -> io::Result<()> {
        let head = [&[IPV4, 0, 0, 0][..], &index.to_ne_bytes(), &PERMANENT.to_ne_bytes(), &[0, 0]].concat();
        let mut message = Message::new(NEW_NEIGHBOUR, CREATE | EXCLUSIVE, &head);
        message.attribute(1, &address.octets());
        message.attribute(2, &mac);
        self.ask(message)
    }

    /// The number of the interface called `name`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, name)?)
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        send(&self.socket, &message.finish(self.sequence), SendFlags::empty())?;
        let mut answer = [0; 1_024];
        loop {
            let (_, length) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            if let Some(outcome) = outcome(answer.get(..length).unwrap_or_default(), self.sequence) {
                return outcome;
            }
        }
    }
}

/// What the kernel says of the question `sequence`; `None` when that was of another one.
fn outcome(answer: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != ERROR || word(8)? != sequence {
        return None;
    }
    Some(match word(16)?.cast_signed() {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    })
}

fn link_head(index: u32, flags: u32) -> Vec<u8> {
    [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &flags.to_ne_bytes()].concat()
}

/// The main table, made by an administrator, to one host or by one gateway.
fn route_head(destination_bits: u8, scope: u8, flags: u32) -> Vec<u8> {
    [&[IPV4, destination_bits, 0, 0, 254, 4, scope, 1][..], &flags.to_ne_bytes()].concat()
}

/// A message that is being made: a head, then attributes of a length, a kind and bytes, each at a multiple of four.
struct Message {
    kind: u16,
    flags: u16,
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, head: &[u8]) -> Self {
        Self { kind, flags: REQUEST | ACK | flags, bytes: head.to_vec() }
    }

    fn end(&mut self, end: &End<'_>) {
        self.attribute(3, &[end.name.as_bytes(), &[0]].concat());
        self.attribute(1, &end.mac);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("what is said here is short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self { kind: 0, flags: 0, bytes: Vec::new() };
        fill(&mut inner);
        self.attribute(kind | NESTED, &inner.bytes);
    }

    fn finish(self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(16 + self.bytes.len()).expect("what is said here is short");
        let head = [
            &length.to_ne_bytes()[..],
            &self.kind.to_ne_bytes(),
            &self.flags.to_ne_bytes(),
            &sequence.to_ne_bytes(),
            &[0; 4],
        ];
        [head.concat(), self.bytes].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stand_at_multiples_of_four() {
        let mut message = Message::new(NEW_LINK, CREATE, &[]);
        message.nested(18, |info| info.attribute(1, b"veth1"));
        let bytes = message.finish(7);
        assert_eq!(bytes.len(), 16 + 4 + 12);
        assert_eq!(bytes[0..4], 32_u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 16_u16.to_ne_bytes());
        assert_eq!(bytes[20..22], 9_u16.to_ne_bytes());
    }

    #[test]
    fn the_kernels_answer_is_understood_and_anothers_passed_over() {
        let answer = |kind: u16, sequence: u32, error: i32| {
            [
                &[0; 4][..],
                &kind.to_ne_bytes(),
                &[0; 2],
                &sequence.to_ne_bytes(),
                &[0; 4],
                &error.to_ne_bytes(),
            ]
            .concat()
        };
        assert!(outcome(&answer(ERROR, 3, 0), 3).unwrap().is_ok());
        let refused = outcome(&answer(ERROR, 3, -17), 3).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(outcome(&answer(ERROR, 2, 0), 3).is_none());
        assert!(outcome(&answer(NEW_LINK, 3, 0), 3).is_none());
        assert!(outcome(&[0; 10], 3).is_none());
    }
}
