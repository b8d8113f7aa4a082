//! How edge gets sockets of an instance's own network.
//!
//! A socket belongs for ever to the network that it was made in. So the shim, which is in the instance's, makes TCP sockets that are not
//! connected yet and hands them over a Unix socket, which a path leads to from any network. Edge connects them to the instance's
//! loopback and needs no privilege for it.
//!
//! Whoever is connected writes one byte, how many it wants; the shim answers with one byte, how many there are, and with that many
//! descriptors attached to it. It is asked again only once the answer has been read.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The most sockets of one answer.
pub const MOST: usize = 16;
/// The digits of a name.
const DIGITS: usize = 12;

/// Whether `name` names a dial socket: so many hexadecimal digits in lower case. A name comes out of a snapshot and becomes part of a
/// path, so nothing else may be in it.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() == DIGITS && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is asked with: one byte, for at least one socket and at most [`MOST`].
#[must_use]
pub fn request(count: usize) -> [u8; 1] {
    [u8::try_from(count.clamp(1, MOST)).unwrap_or(1)]
}

/// How many sockets `request` asks for; `None` when it is no request.
#[must_use]
pub fn asked(request: &[u8]) -> Option<usize> {
    match request {
        [count] => Some(usize::from(*count)).filter(|count| (1..=MOST).contains(count)),
        _ => None,
    }
}

/// Answers with `sockets`, at most [`MOST`], without waiting.
///
/// # Errors
/// What the system says, also that the other side does not read.
pub fn answer(to: impl AsFd, sockets: &[OwnedFd]) -> io::Result<()> {
    let sockets = sockets.get(..sockets.len().min(MOST)).unwrap_or_default();
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(&borrowed));
        debug_assert!(fits, "the space is for the greatest number");
    }
    let count = [u8::try_from(sockets.len()).unwrap_or(0)];
    sendmsg(to, &[IoSlice::new(&count)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Takes an answer. Waits for it only if `from` does. The sockets do not block and do not outlive an exec.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the shim is gone, [`io::ErrorKind::InvalidData`] when some of what it sent did not arrive, as
/// happens without descriptors left; else what the system says.
pub fn receive(from: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut count = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut count)];
    let read = recvmsg(from, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if sockets.len() == usize::from(count[0]) => Ok(sockets),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_sent_arrives_and_the_end_is_told() {
        let (shim, edge) = UnixStream::pair().unwrap();
        let made: Vec<OwnedFd> =
            (0..MOST).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect();
        answer(&shim, &made).unwrap();
        answer(&shim, &[]).unwrap();
        drop(shim);
        let got: Vec<TcpListener> = receive(&edge).unwrap().into_iter().map(TcpListener::from).collect();
        let ports = |listeners: &[TcpListener]| -> Vec<u16> {
            listeners.iter().map(|it| it.local_addr().unwrap().port()).collect()
        };
        let made: Vec<TcpListener> = made.into_iter().map(TcpListener::from).collect();
        assert_eq!(ports(&got), ports(&made));
        assert!(receive(&edge).unwrap().is_empty());
        assert_eq!(receive(&edge).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn only_whole_requests_and_whole_names_count() {
        assert_eq!([&[0][..], &[17], &[1, 1], &[]].map(asked), [None; 4]);
        assert_eq!((asked(&request(1)), asked(&request(999))), (Some(1), Some(MOST)));
        assert!(is_name("0123456789ab"));
        for bad in ["", "0123456789a", "0123456789abc", "../../../etc", "0123456789aB", "0123456789a/"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
