//! Hands the listeners to a new supervisor, when the one that bound them has died.
//!
//! One message: a line of JSON that says how many sockets come, with the sockets attached to its bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the message.
const VERSION: u32 = 1;
/// The kernel's own bound on descriptors in one message (SCM_MAX_FD).
const LISTENERS_MAX: usize = 253;
/// The message is a short line.
const MESSAGE_MAX: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    version: u32,
    listeners: usize,
    /// How many of them, the last ones, are for HTTPS. A version that does not know of it takes them for others, which do not listen where it wants to.
    #[serde(default)]
    secure: usize,
}

/// Listeners that change hands.
#[derive(Debug)]
pub struct Listeners<S = OwnedFd> {
    /// Those for HTTP.
    pub plain: Vec<S>,
    /// Those for HTTPS.
    pub secure: Vec<S>,
}

/// None.
impl<S> Default for Listeners<S> {
    fn default() -> Self {
        Self { plain: Vec::new(), secure: Vec::new() }
    }
}

/// Why listeners could not be handed over.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// The socket failed.
    #[error("the handover socket failed")]
    Io(#[from] io::Error),
    /// The other side is neither root nor the owner.
    #[error("the user {uid} may not take the listeners over")]
    NotAllowed {
        /// Who it is.
        uid: u32,
    },
    /// What came is not a handover.
    #[error("the handover is of a version or form that this program does not read")]
    Message,
}

/// Sends `listeners` to `peer` if that is root's, `owner`'s or this process's own.
pub(crate) fn send(peer: &UnixStream, owner: u32, listeners: &Listeners) -> Result<(), HandoverError> {
    let uid = rustix::net::sockopt::socket_peercred(peer).map_err(io::Error::from)?.uid.as_raw();
    if uid != 0 && uid != owner && uid != rustix::process::geteuid().as_raw() {
        return Err(HandoverError::NotAllowed { uid });
    }
    let secure = listeners.secure.len().min(LISTENERS_MAX / 2);
    let plain = listeners.plain.len().min(LISTENERS_MAX - secure);
    let message = Message { version: VERSION, listeners: plain + secure, secure };
    let mut line = serde_json::to_vec(&message).map_err(io::Error::other)?;
    line.push(b'\n');
    let sent = listeners.plain.iter().take(plain).chain(listeners.secure.iter().take(secure));
    let fds: Vec<BorrowedFd<'_>> = sent.map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is for the greatest number");
    // The line is shorter than any socket buffer, so it goes at once and as a whole.
    sendmsg(peer, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
    Ok(())
}

/// Takes the listeners over from the edge at the other end of `edge`, a connection to its `handover.sock`.
///
/// # Errors
/// [`HandoverError`] when the edge refuses or is of another version.
pub fn receive(edge: &UnixStream) -> Result<Listeners<TcpListener>, HandoverError> {
    let mut line = [0; MESSAGE_MAX];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut line)];
    let count =
        recvmsg(edge, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC).map_err(io::Error::from)?.bytes;
    let mut listeners = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            listeners.extend(fds.map(TcpListener::from));
        }
    }
    let line = line.get(..count).unwrap_or_default();
    match serde_json::from_slice::<Message>(line) {
        Ok(message) if message.version == VERSION && message.listeners == listeners.len() => {
            let plain = listeners.len().checked_sub(message.secure).ok_or(HandoverError::Message)?;
            let secure = listeners.split_off(plain);
            Ok(Listeners { plain: listeners, secure })
        }
        Ok(_) | Err(_) => Err(HandoverError::Message),
    }
}
