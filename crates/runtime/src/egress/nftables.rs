//! What the kernel is asked about its packet filter, and hears of: as much of nfnetlink as that takes. Changes are made by nft.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

// From linux/netlink.h, linux/rtnetlink.h, linux/netfilter.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
const REQUEST: u16 = 0x1;
const ERROR: u16 = 2;
const INET: u8 = 1;
const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = 10 << 8 | 1;
const NEW_GENERATION: u16 = 10 << 8 | 15;
const GET_GENERATION: u16 = 10 << 8 | 16;
const NEW_OBJECT: u16 = 10 << 8 | 18;
const GET_OBJECT: u16 = 10 << 8 | 19;
const COUNTER: u32 = 1;
/// The groups that hear of the filter's changes, and of what is said of interfaces, among it whether packets are passed on.
const FILTER_GROUP: u32 = 1 << 6;
const FORWARDING_GROUP: u32 = 1 << 23;
/// A message's head, and what netfilter's messages begin with: family, version, resource.
const HEAD: usize = 16 + 4;
/// What of an attribute's kind says how its value is written.
const NOT_KIND: u16 = 0xC000;

/// The filter's generation, in the network that the calling thread is in. The kernel counts it on with every change that anybody makes.
pub(super) fn generation() -> io::Result<u32> {
    let answer = ask(GET_GENERATION, NEW_GENERATION, &[])?;
    let told = answer.as_deref().and_then(|answer| attribute(answer, 1)).and_then(word);
    told.ok_or_else(|| io::Error::other("the packet filter does not tell its generation"))
}

/// Whether the table `name` is there.
pub(super) fn has_table(name: &str) -> io::Result<bool> {
    Ok(ask(GET_TABLE, NEW_TABLE, &text(1, name))?.is_some())
}

/// How many packets the counter `name` of `table` has seen.
pub(super) fn packets(table: &str, name: &str) -> io::Result<u64> {
    let what = [text(1, table), text(2, name), put(3, &COUNTER.to_be_bytes())].concat();
    let answer = ask(GET_OBJECT, NEW_OBJECT, &what)?;
    let counted = answer.as_deref().and_then(|answer| attribute(attribute(answer, 4)?, 2));
    let counted = counted.and_then(|number| Some(u64::from_be_bytes(number.get(..8)?.try_into().ok()?)));
    counted.ok_or_else(|| io::Error::other(format!("the packet filter does not tell its counter {name}")))
}

/// Asks, and gives the attributes of the answer, a message of the kind `wanted`; `None` where there is no such thing.
fn ask(kind: u16, wanted: u16, what: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let flags = SocketFlags::CLOEXEC;
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    let length = u32::try_from(HEAD + what.len()).expect("what is asked is short");
    let question = [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &[0; 4],
        &[INET, 0, 0, 0],
        what,
    ];
    send(&socket, &question.concat(), SendFlags::empty())?;
    let mut answer = vec![0; 8 << 10];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match told(answer.get(..length).unwrap_or_default(), wanted) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        told => told.map(|attributes| Some(attributes.to_vec())),
    }
}

/// The attributes of the kernel's answer, or what it says instead.
fn told(answer: &[u8], wanted: u16) -> io::Result<&[u8]> {
    let kind = answer.get(4..6).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)));
    let error = answer.get(16..20).and_then(|error| Some(i32::from_ne_bytes(error.try_into().ok()?)));
    match (kind, error) {
        (Some(ERROR), Some(error)) if error < 0 => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        (Some(kind), _) if kind == wanted => Ok(answer.get(HEAD..).unwrap_or_default()),
        _ => Err(io::Error::other("the packet filter answers something else")),
    }
}

/// The value of the attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & !NOT_KIND;
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// A number in network order.
fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    put(kind, &[value.as_bytes(), &[0]].concat())
}

fn put(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("what is asked is short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Hears of changes in the network that the thread was in which opened it: of its packet filter, and of whether it passes packets on.
#[derive(Debug)]
pub(super) struct Changes {
    filter: OwnedFd,
    forwarding: OwnedFd,
}

/// What may have been changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) filter: bool,
    /// Whether packets are passed on. Also told when an interface goes.
    pub(super) forwarding: bool,
}

impl Changes {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            filter: member(Some(NETFILTER), FILTER_GROUP)?,
            forwarding: member(None, FORWARDING_GROUP)?,
        })
    }

    /// Waits until something was changed, for at most `limit`. `None` once the other end of `end` is closed.
    pub(super) fn wait(&self, end: BorrowedFd<'_>, limit: Option<&Timespec>) -> io::Result<Option<Changed>> {
        let readable = PollFlags::IN;
        let mut polled = [
            PollFd::from_borrowed_fd(end, readable),
            PollFd::new(&self.filter, readable),
            PollFd::new(&self.forwarding, readable),
        ];
        match rustix::event::poll(&mut polled, limit) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Some(Changed { filter: false, forwarding: false })),
            Err(error) => return Err(error.into()),
        }
        let [ended, filter, forwarding] = polled.map(|it| !it.revents().is_empty());
        if ended {
            return Ok(None);
        }
        // What was said is of no interest: how it is now is asked.
        passed_over(&self.filter)?;
        passed_over(&self.forwarding)?;
        Ok(Some(Changed { filter, forwarding }))
    }
}

/// A socket that hears what is said to a group.
fn member(protocol: Option<Protocol>, group: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, group))?;
    Ok(socket)
}

/// Takes everything that was said.
fn passed_over(socket: &OwnedFd) -> io::Result<()> {
    let mut said = vec![0; 8 << 10];
    loop {
        match recv(socket, &mut said[..], RecvFlags::empty()) {
            // What was missed for want of room is no different from what is passed over.
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(kind: u16, rest: &[u8]) -> Vec<u8> {
        [&[0; 4][..], &kind.to_ne_bytes(), &[0; 10], rest].concat()
    }

    #[test]
    fn a_generation_is_found_among_other_attributes() {
        let (name, number) = (text(3, "nft"), put(1, &9_u32.to_be_bytes()));
        let of = |attributes: &[u8]| {
            let answer = answer(NEW_GENERATION, &[&[0; 4], attributes].concat());
            attribute(told(&answer, NEW_GENERATION).unwrap(), 1).and_then(word)
        };
        assert_eq!(of(&[name.clone(), number].concat()), Some(9));
        assert_eq!(of(&name), None);
    }

    #[test]
    fn a_counter_is_found_in_what_is_nested() {
        let data = [put(1, &84_u64.to_be_bytes()), put(2, &3_u64.to_be_bytes())].concat();
        let bytes = [text(1, "berth_x"), put(4 | 0x8000, &data)].concat();
        assert_eq!(attribute(attribute(&bytes, 4).unwrap(), 2), Some(&3_u64.to_be_bytes()[..]));
    }

    #[test]
    fn what_is_not_there_is_no_failure_and_what_is_refused_is() {
        let refused = |error: i32| told(&answer(ERROR, &error.to_ne_bytes()), NEW_TABLE).unwrap_err().kind();
        assert_eq!(refused(-2), io::ErrorKind::NotFound);
        assert_eq!(refused(-1), io::ErrorKind::PermissionDenied);
        assert!(told(&answer(NEW_OBJECT, &[]), NEW_TABLE).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(answer: Vec<u8>, kind: u16) {
            if let Ok(attributes) = told(&answer, kind) {
                attribute(attributes, 1).and_then(word);
            }
            attribute(&answer, kind);
        }
    }
}
