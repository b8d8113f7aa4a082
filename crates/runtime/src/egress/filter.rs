//! The platform's table in the machine's packet filter: put there by nft, and left alone for as long as nobody has changed the filter.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use berth_process::{Launch, Program, Stdio};
use rustix::fs::MemfdFlags;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

// From linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
const REQUEST: u16 = 0x1;
const GET_GENERATION: u16 = 10 << 8 | 16;
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// The attribute that has the generation, a number in network order.
const GENERATION: u16 = 1;
/// A message's head, and what netfilter's messages begin with: family, version, resource.
const HEAD: usize = 16 + 4;

/// What is in the packet filter, as far as we have put it there.
#[derive(Debug, Default)]
pub(super) struct Filter {
    applied: Mutex<Option<Applied>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Applied {
    rules: String,
    /// The filter's generation once they were in. The kernel counts it on with every change that anybody makes.
    generation: u32,
}

impl Filter {
    /// Has `rules` be in the filter. nft takes longer than all the rest of a start, so it is not asked while the filter is of the generation that it
    /// had when they were put in. Blocks.
    pub(super) fn hold(&self, rules: String) -> io::Result<()> {
        // Held while nft works: of starts at the same time one has to wait for the other's rules anyway.
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let before = generation()?;
        if applied.as_ref().is_some_and(|applied| applied.generation == before && applied.rules == rules) {
            return Ok(());
        }
        *applied = None;
        load(&rules)?;
        // A step further and no more: then nobody else has changed anything in between.
        let after = generation()?;
        if next(before) == after {
            *applied = Some(Applied { rules, generation: after });
        }
        Ok(())
    }
}

/// The generation after `generation`: nought is passed over.
fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// Has the packet filter take `rules`, all of them or none. Blocks.
pub(super) fn load(rules: &str) -> io::Result<()> {
    let memory =
        |name: &str| Ok::<_, io::Error>(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?));
    let (mut input, mut said) = (memory("berth-rules")?, memory("berth-nft")?);
    input.write_all(rules.as_bytes())?;
    input.rewind()?;
    let launch = Launch::new(Program::Nft).args(["-f", "-"]).dir("/");
    let launch = launch.stdin(Stdio::Fd(input.into())).stderr(Stdio::Fd(said.try_clone()?.into()));
    let status = launch.start().map_err(io::Error::other)?.wait()?;
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    said.rewind()?;
    said.read_to_string(&mut words)?;
    Err(io::Error::other(format!("nft ended with {status}: {}", words.trim())))
}

/// The generation of the filter of the network that the calling thread is in.
fn generation() -> io::Result<u32> {
    let kind = SocketType::RAW;
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    let length = u32::try_from(HEAD).expect("it is a small number");
    let head = [
        &length.to_ne_bytes()[..],
        &GET_GENERATION.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &[0; 8],
    ];
    send(&socket, &head.concat(), SendFlags::empty())?;
    let mut answer = [0; 1_024];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let said = answer.get(..length).unwrap_or_default();
    parse(said).ok_or_else(|| io::Error::other("the packet filter does not tell its generation"))
}

/// The generation that the kernel's answer tells.
fn parse(answer: &[u8]) -> Option<u32> {
    if u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) != NEW_GENERATION {
        return None;
    }
    let mut rest = answer.get(HEAD..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        if kind == GENERATION {
            return Some(u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_generation_is_found_among_other_attributes() {
        let head = [&[0; 4][..], &NEW_GENERATION.to_ne_bytes(), &[0; 14]].concat();
        let name = [&7_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), b"nft", &[0]].concat();
        let number = [&8_u16.to_ne_bytes()[..], &GENERATION.to_ne_bytes(), &9_u32.to_be_bytes()].concat();
        assert_eq!(parse(&[&head[..], &name, &number].concat()), Some(9));
        assert_eq!(parse(&[&head[..], &name].concat()), None);
        assert_eq!((next(7), next(u32::MAX)), (8, 1));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(answer: Vec<u8>) {
            parse(&answer);
        }
    }
}
