//! What a network refuses to send to, which addresses are its own, and what changes about its links and routes.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::{
    ACK, CREATE, DONE, DUMP, ERROR, EXCLUSIVE, GET_ROUTE, IPV4, Message, NEW_LINK, NEW_ROUTE, Netlink,
};
use super::{ON_LINK, REMOVE_ROUTE, route_head};

// From linux/rtnetlink.h, linux/fib_rules.h, linux/in.h and linux/if.h.
const LOCAL: u8 = 2;
const UNREACHABLE: u8 = 7;
const NEW_RULE: u16 = 32;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The table of routes that only rules lead to. Nobody else makes any in the network of an instance.
const EXCEPTIONS: u8 = 53;
const LINKS: u32 = 0x1;
const IPV4_ROUTES: u32 = 0x40;
const LOWER_UP: u32 = 0x1_0000;
/// Where a message's own head begins.
const HEAD: usize = 16;

/// An address and how many of its bits count.
pub type Prefix = (Ipv4Addr, u8);

impl Netlink {
    /// Has nothing be sent to `prefix`, unless something else says where a part of it is: whoever tries hears that there is no way.
    /// Whether nothing had been said of just this prefix before; if something had, that stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn refuse(&mut self, prefix: Prefix) -> io::Result<bool> {
        match self.ask(unreachable(NEW_ROUTE, CREATE | EXCLUSIVE, prefix)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    /// Has what goes to `port` of `address` by UDP and TCP leave through `gateway`, behind the interface `index`, whatever else is said of the address. Since
    /// Linux 4.17.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn except(
        &mut self,
        index: u32,
        (address, port): (Ipv4Addr, u16),
        gateway: Ipv4Addr,
    ) -> io::Result<()> {
        let mut head = route_head(0, 0, ON_LINK);
        if let Some(table) = head.get_mut(4) {
            *table = EXCEPTIONS;
        }
        let mut route = Message::new(NEW_ROUTE, CREATE, &head);
        route.attribute(5, &gateway.octets());
        route.attribute(4, &index.to_ne_bytes());
        match self.ask(route) {
            // There was one such address before.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for protocol in [TCP, UDP] {
            // To that table, for one address.
            let head = [IPV4, 32, 0, 0, EXCEPTIONS, 0, 0, 1, 0, 0, 0, 0];
            let mut rule = Message::new(NEW_RULE, CREATE | EXCLUSIVE, &head);
            rule.attribute(1, &address.octets());
            rule.attribute(22, &[protocol]);
            rule.attribute(24, &[port.to_ne_bytes(), port.to_ne_bytes()].concat());
            self.ask(rule)?;
        }
        Ok(())
    }

    /// Takes back that `prefix` is refused.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn refuse_no_more(&mut self, prefix: Prefix) -> io::Result<()> {
        self.ask(unreachable(REMOVE_ROUTE, 0, prefix))
    }

    /// Every IPv4 address that this network takes for its own, whatever interface or table has it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn own_addresses(&mut self) -> io::Result<BTreeSet<Prefix>> {
        self.sequence += 1;
        let mut message = Message::new(GET_ROUTE, DUMP, &[&[IPV4][..], &[0; 11]].concat());
        message.flags &= !ACK;
        send(&self.socket, &message.finish(self.sequence), SendFlags::empty())?;
        let (mut found, mut answer) = (BTreeSet::new(), vec![0; 64 << 10]);
        loop {
            let (_, length) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            for message in messages(answer.get(..length).unwrap_or_default()) {
                match message.kind {
                    _ if message.sequence != self.sequence => {}
                    NEW_ROUTE => found.extend(own(message.body)),
                    DONE => return Ok(found),
                    ERROR => return Err(io::Error::other("the kernel does not list its routes")),
                    _ => {}
                }
            }
        }
    }
}

/// Hears what changes in the network that the thread was in which opened it.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Hears of routes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn routes() -> io::Result<Self> {
        Self::open(IPV4_ROUTES)
    }

    /// Hears of links.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links() -> io::Result<Self> {
        Self::open(LINKS)
    }

    fn open(groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Takes what was said, and tells whether it may have changed which addresses are the network's own.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn own_addresses_changed(&self) -> io::Result<bool> {
        let is_own = |message: &Said<'_>| {
            matches!(message.kind, NEW_ROUTE | REMOVE_ROUTE) && message.body.get(7) == Some(&LOCAL)
        };
        self.any(is_own)
    }

    /// Takes what was said, and tells whether somebody is at the other end of the interface `index` since.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn came_up(&self, index: u32) -> io::Result<bool> {
        let word = |body: &[u8], at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let is_up = |message: &Said<'_>| {
            let flags = word(message.body, 8).filter(|_| word(message.body, 4) == Some(index));
            message.kind == NEW_LINK && flags.is_some_and(|flags| flags & LOWER_UP != 0)
        };
        self.any(is_up)
    }

    /// Whether something of the kind was said. What was missed for want of room may have been.
    fn any(&self, wanted: impl Fn(&Said<'_>) -> bool) -> io::Result<bool> {
        let (mut any, mut said) = (false, vec![0; 64 << 10]);
        loop {
            match recv(&self.socket, &mut said[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    any |= messages(said.get(..length).unwrap_or_default()).any(|message| wanted(&message));
                }
                Err(rustix::io::Errno::NOBUFS) => any = true,
                Err(rustix::io::Errno::AGAIN) => return Ok(any),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The order about a route that leads nowhere.
fn unreachable(kind: u16, flags: u16, (address, bits): Prefix) -> Message {
    let mut head = route_head(bits, 0, 0);
    if let Some(kind) = head.get_mut(7) {
        *kind = UNREACHABLE;
    }
    let mut message = Message::new(kind, flags, &head);
    message.attribute(1, &address.octets());
    message
}

/// A message of the kernel's.
struct Said<'a> {
    kind: u16,
    sequence: u32,
    /// What follows the head that all messages have.
    body: &'a [u8],
}

/// The messages that stand one after the other in `bytes`.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Said<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let body = bytes.get(HEAD..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Said { kind, sequence, body })
    })
}

/// The address of a route that says that it is the network's own.
fn own(route: &[u8]) -> Option<Prefix> {
    let (head, mut rest) = route.split_at_checked(12)?;
    let bits = *head.get(1)?;
    if head.get(7) != Some(&LOCAL) {
        return None;
    }
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        if u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) == 1 {
            let octets = <[u8; 4]>::try_from(rest.get(4..8)?).ok()?;
            return Some((Ipv4Addr::from(octets), bits));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_machine_tells_its_loopback() {
        let found = Netlink::open().unwrap().own_addresses().unwrap();
        assert!(found.contains(&(Ipv4Addr::new(127, 0, 0, 0), 8)), "{found:?}");
    }

    #[test]
    fn own_addresses_are_found_among_other_routes() {
        let route = |kind: u8| {
            let mut message = Message::new(NEW_ROUTE, 0, &[IPV4, 32, 0, 0, 255, 2, 254, kind, 0, 0, 0, 0]);
            message.attribute(4, &7_u32.to_ne_bytes());
            message.attribute(1, &[192, 0, 2, 1]);
            message.finish(3)
        };
        let bytes = [route(LOCAL), route(1)].concat();
        let found: Vec<Prefix> = messages(&bytes).filter_map(|message| own(message.body)).collect();
        assert_eq!(found, [(Ipv4Addr::new(192, 0, 2, 1), 32)]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(bytes: Vec<u8>) {
            assert!(messages(&bytes).filter_map(|message| own(message.body)).count() <= bytes.len());
        }
    }
}
