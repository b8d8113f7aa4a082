//! How edge gets sockets of an instance's own network.
//!
//! A socket belongs for ever to the network that it was made in. So the shim, which is in the instance's, makes TCP sockets that are not
//! connected yet and hands them over a Unix socket, which a path leads to from any network. Edge connects them to the instance's
//! loopback and needs no privilege for it.
//!
//! Whoever is connected writes one byte, how many it wants; the shim answers with one byte, how many there are, and with that many
//! descriptors attached to it. It is asked again only once the answer has been read.
//!
//! The other way round, from the instance to other apps, edge asks for a listening socket at a port of the addresses that names lead to, with
//! three bytes. With the answer comes whose instance it is: the shim knows it, and nobody within the instance has a say in it.

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
/// The longest question.
pub const QUESTION_MAX: usize = 3;
/// What a question for a listening socket begins with; no number of sockets.
const LISTENER: u8 = 0xD0;
/// The longest id of an instance that is told.
const ID_MAX: usize = 1_024;

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

/// What a listening socket at `port` is asked for with; nought asks for none, only whose instance it is.
#[must_use]
pub fn listener_request(port: u16) -> [u8; 3] {
    let [low, high] = port.to_le_bytes();
    [LISTENER, low, high]
}

/// At which port `request` asks for a listening socket; `None` when it does not.
#[must_use]
pub fn asked_listener(request: &[u8]) -> Option<u16> {
    match request {
        [LISTENER, low, high] => Some(u16::from_le_bytes([*low, *high])),
        _ => None,
    }
}

/// Answers that the instance is `instance`, with `listener` if there is one, without waiting.
///
/// # Errors
/// What the system says, also that the other side does not read.
pub fn answer_listener(to: impl AsFd, instance: &str, listener: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let given: Vec<BorrowedFd<'_>> = listener.into_iter().collect();
    let text = instance.as_bytes().get(..instance.len().min(ID_MAX)).unwrap_or_default();
    let length = u16::try_from(text.len()).unwrap_or(0).to_le_bytes();
    send(to, &given, &[&[u8::from(listener.is_some())], &length, text]).map(drop)
}

/// Takes an answer about a listening socket: whose instance it is, and the socket. Waits for it only if `from` does.
///
/// # Errors
/// Those of [`receive`].
pub fn receive_listener(from: impl AsFd) -> io::Result<(String, Option<OwnedFd>)> {
    let mut bytes = [0; 3 + ID_MAX];
    let (read, mut sockets) = take(from, &mut bytes)?;
    let text = match bytes.get(..read) {
        Some([count, low, high, text @ ..])
            if usize::from(*count) == sockets.len()
                && usize::from(u16::from_le_bytes([*low, *high])) == text.len() =>
        {
            String::from_utf8(text.to_vec()).ok()
        }
        _ => None,
    };
    text.map(|text| (text, sockets.pop())).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Answers with `sockets`, at most [`MOST`], without waiting.
///
/// # Errors
/// What the system says, also that the other side does not read.
pub fn answer(to: impl AsFd, sockets: &[OwnedFd]) -> io::Result<()> {
    let sockets = sockets.get(..sockets.len().min(MOST)).unwrap_or_default();
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    send(to, &borrowed, &[&[u8::try_from(sockets.len()).unwrap_or(0)]]).map(drop)
}

/// Sends `pieces` with descriptors attached, without waiting. Gives how many bytes were taken.
pub(crate) fn send(to: impl AsFd, attached: &[BorrowedFd<'_>], pieces: &[&[u8]]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !attached.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(attached));
        debug_assert!(fits, "the space is for the greatest number");
    }
    let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    Ok(sendmsg(to, &pieces, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// Takes an answer. Waits for it only if `from` does. The sockets do not block and do not outlive an exec.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the shim is gone, [`io::ErrorKind::InvalidData`] when some of what it sent did not arrive, as
/// happens without descriptors left; else what the system says.
pub fn receive(from: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut count = [0];
    let (_, sockets) = take(from, &mut count)?;
    if sockets.len() == usize::from(count[0]) { Ok(sockets) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads what is there into `bytes`, and takes the descriptors that are attached to it.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] at the end, else what the system says.
pub fn take(from: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(bytes)];
    let read = recvmsg(from, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((read, sockets)) }
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
    fn a_listener_comes_with_whose_it_is() {
        let (shim, edge) = UnixStream::pair().unwrap();
        let made = TcpListener::bind("127.0.0.1:0").unwrap();
        answer_listener(&shim, "default/default/shop/web.7", Some(made.as_fd())).unwrap();
        let (id, listener) = receive_listener(&edge).unwrap();
        assert_eq!(id, "default/default/shop/web.7");
        let listener = TcpListener::from(listener.unwrap());
        assert_eq!(listener.local_addr().unwrap(), made.local_addr().unwrap());
        answer_listener(&shim, "a/b/c/worker.1", None).unwrap();
        assert!(matches!(receive_listener(&edge).unwrap(), (id, None) if id == "a/b/c/worker.1"));
        // An answer to another question is none to this one.
        answer(&shim, &[]).unwrap();
        assert_eq!(receive_listener(&edge).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(shim);
        assert_eq!(receive_listener(&edge).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(asked_listener(&listener_request(5_432)), Some(5_432));
        for wrong in [&[0xD0][..], &[0xD0, 1], &[1, 1, 1], &[0xD0, 1, 1, 1], &[]] {
            assert_eq!(asked_listener(wrong), None);
            assert!(asked(wrong).is_none());
        }
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
