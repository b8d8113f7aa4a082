//! The way into an app's namespaces for what is to run beside it, as `runc exec` has it.
//!
//! The namespaces are held by descriptors that the app's own process opened before it was the app: nothing is looked up by a process id, and
//! no right over other processes is needed. Whoever goes in has closed everything else before (CVE-2024-21626), cannot be looked into
//! by anybody until it is the program that it runs (CVE-2016-9962), and is the shim, which is sealed, for `/proc/self/exe` (CVE-2019-5736).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use berth_shim::wire::Step;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::app::{Failed, at};

/// The namespaces of an app, in the order in which they are entered. That of mounts comes late, since it takes the root away, and that of
/// processes is entered by the next fork alone.
const KINDS: [&str; 5] = ["cgroup", "ipc", "uts", "mnt", "pid"];
/// The app's own users, where it has some; entered last, by what was forked.
const USERS: &str = "user";

/// The namespaces of an app that runs.
#[derive(Debug)]
pub(crate) struct Namespaces(Vec<OwnedFd>);

impl Namespaces {
    /// Says `word` to the shim, with the namespaces of this process attached: those of the app that it is about to be. Where they are not
    /// to be had nothing is attached, and nobody goes in.
    pub(super) fn send_own(to: &OwnedFd, word: u8) -> io::Result<()> {
        let open = |kind: &&str| File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from);
        let own: io::Result<Vec<OwnedFd>> = KINDS.iter().chain([&USERS]).map(open).collect();
        let own = own.unwrap_or_default();
        let attached: Vec<BorrowedFd<'_>> = own.iter().map(OwnedFd::as_fd).collect();
        send(to, word, &attached)
    }

    /// Those that came with a message; `None` when they are not all there.
    pub(super) fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        (descriptors.len() == KINDS.len() + 1).then_some(Self(descriptors))
    }

    /// All of them, to be kept open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter()
    }

    /// Goes into all but the users'. Of the processes only what is forked from here on is.
    pub(crate) fn enter(&self) -> Result<(), Failed> {
        let all = self.0.iter().take(KINDS.len());
        all.into_iter().try_for_each(join).map_err(at(Step::Namespaces))
    }

    /// Goes to the app's own users. This process has every capability over them, as the app's had when it began.
    pub(crate) fn enter_users(&self) -> Result<(), Failed> {
        let users = self.0.last().ok_or((Step::Namespaces, libc::EINVAL))?;
        join(users).map_err(at(Step::Namespaces))
    }
}

pub(super) fn join(namespace: &OwnedFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?)
}

/// Says `word` with what is attached to it, as many as an app has namespaces at most.
pub(super) fn send(to: &OwnedFd, word: u8, attached: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KINDS.len() + 1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !attached.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(attached));
        debug_assert!(fits, "the space is for all of them");
    }
    sendmsg(to, &[IoSlice::new(&[word])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A message on `socket`, its sender as we know him, and what is attached to it.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<u32>, Vec<OwnedFd>)> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(KINDS.len() + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(buffer)];
    let read = recvmsg(socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let (mut sender, mut attached) = (None, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(more) => attached.extend(more),
            RecvAncillaryMessage::ScmCredentials(who) => {
                sender = u32::try_from(who.pid.as_raw_pid()).ok();
            }
            _ => {}
        }
    }
    Ok((read, sender, attached))
}
