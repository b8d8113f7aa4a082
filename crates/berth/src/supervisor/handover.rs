//! Taking the listeners from an edge that has outlived its supervisor.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// The most descriptors that one message carries (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 253;
/// An edge that does not answer for this long is wedged.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the edge behind `handover.sock` for its listeners. It sends them on accepting us, and then ends the connection.
///
/// # Errors
/// When nobody answers: the edge is gone, or hangs.
pub(crate) fn ask(run_dir: &Path) -> io::Result<Vec<TcpListener>> {
    let stream = UnixStream::connect(run_dir.join("handover.sock"))?;
    let mut listeners = Vec::new();
    loop {
        wait_readable(&stream)?;
        let mut byte = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                listeners.extend(descriptors.map(TcpListener::from));
            }
        }
        if received.bytes == 0 {
            return Ok(listeners);
        }
    }
}

fn wait_readable(stream: &UnixStream) -> io::Result<()> {
    let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&limit))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixListener;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    #[test]
    fn listeners_arrive_alive() {
        let run = tempfile::tempdir().unwrap();
        let door = UnixListener::bind(run.path().join("handover.sock")).unwrap();
        let kept: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = kept.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let edge = std::thread::spawn(move || {
            let (peer, _) = door.accept().unwrap();
            let descriptors: Vec<BorrowedFd<'_>> = kept.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
            rustix::net::sendmsg(&peer, &[IoSlice::new(b"L")], &mut ancillary, SendFlags::empty()).unwrap();
        });
        let listeners = ask(run.path()).unwrap();
        edge.join().unwrap();
        let found: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_eq!(found, addresses);
    }

    #[test]
    fn nobody_there_is_an_error() {
        let run = tempfile::tempdir().unwrap();
        assert!(ask(run.path()).is_err());
        drop(UnixListener::bind(run.path().join("handover.sock")).unwrap());
        assert!(ask(run.path()).is_err());
    }
}
