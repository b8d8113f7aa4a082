//! A client's socket: passes on only strict HTTP and shows how it gets on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::{ClientSocket, Pipe};
use crate::strict::{Phase, Scanner};

/// What passed on a client's connection, for the sweeper that ends the ones that are too slow.
///
/// Atomics although one thread alone touches it: hyper demands of a stream that may be upgraded that it can be sent.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    phase: AtomicU8,
    heads: AtomicU32,
    moved: AtomicBool,
    wants_read: AtomicBool,
    wants_write: AtomicBool,
}

/// What a connection did since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What the client is in the middle of.
    pub(crate) phase: Phase,
    /// How many heads came so far.
    pub(crate) heads: u32,
    /// Whether any byte moved, in either direction.
    pub(crate) moved: bool,
    /// Whether we wait for the client's bytes.
    pub(crate) wants_read: bool,
    /// Whether we wait for the client to take ours.
    pub(crate) wants_write: bool,
}

impl Progress {
    /// What happened since the last look.
    pub(crate) fn look(&self) -> Seen {
        Seen {
            phase: match self.phase.load(Relaxed) {
                0 => Phase::Idle,
                1 => Phase::Head,
                2 => Phase::Body,
                _ => Phase::Raw,
            },
            heads: self.heads.load(Relaxed),
            moved: self.moved.swap(false, Relaxed),
            wants_read: self.wants_read.load(Relaxed),
            wants_write: self.wants_write.load(Relaxed),
        }
    }

    /// Frames came: the client has begun to speak, and whether it is in the middle of something the requests tell.
    fn moved_frames(&self) {
        self.heads.store(1, Relaxed);
        self.moved.store(true, Relaxed);
    }

    fn read(&self, scanner: &Scanner) {
        self.set_phase(scanner.phase());
        self.heads.store(scanner.heads(), Relaxed);
        self.moved.store(true, Relaxed);
    }

    /// The client is in the middle of this.
    pub(crate) fn set_phase(&self, phase: Phase) {
        let phase = match phase {
            Phase::Idle => 0,
            Phase::Head => 1,
            Phase::Body => 2,
            Phase::Raw => 3,
        };
        self.phase.store(phase, Relaxed);
    }

    /// Whether a head has begun to come and is not complete.
    pub(crate) fn is_in_head(&self) -> bool {
        self.phase.load(Relaxed) == 1
    }

    /// One more head is complete.
    pub(crate) fn head_came(&self) {
        self.heads.store(self.heads.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// A head was refused. What hyper got of it ends in a NUL byte; the end of a head makes hyper look at it.
    EndHead,
    /// A body was refused: hyper hears of an error.
    BadBody,
    /// Nothing comes any more.
    Closed,
}

/// Who reads what passes.
#[derive(Debug)]
enum Reader {
    /// hyper, of HTTP/1, and the scanner before it.
    Strict(Scanner),
    /// hyper, of HTTP/2, whose frames leave nothing open about where a request ends.
    Frames,
    /// Our own codec, which is strict and says itself what the client is in the middle of.
    Codec,
}

/// A client's socket.
///
/// A refused head is not answered here. Its offending byte is replaced by NUL, which hyper takes nowhere in a head, so
/// that hyper answers 400 itself, after the answers to the requests before.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    socket: S,
    /// What somebody else has read already, which comes first.
    first: Vec<u8>,
    reader: Reader,
    gate: Gate,
    progress: Arc<Progress>,
}

impl<S> ClientStream<S> {
    /// A client that speaks HTTP/1, and began by the bytes in `first`.
    pub(crate) fn new(socket: S, first: Vec<u8>, progress: Arc<Progress>) -> Self {
        Self { socket, first, reader: Reader::Strict(Scanner::new()), gate: Gate::Open, progress }
    }

    /// A client that speaks HTTP/2.
    pub(crate) fn of_frames(socket: S, progress: Arc<Progress>) -> Self {
        Self { socket, first: Vec::new(), reader: Reader::Frames, gate: Gate::Open, progress }
    }

    /// A client of our own codec.
    pub(crate) fn decoded(socket: S, progress: Arc<Progress>) -> Self {
        Self { socket, first: Vec::new(), reader: Reader::Codec, gate: Gate::Open, progress }
    }

    /// What is known of how the client gets on.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The socket, to be read by somebody else.
    pub(crate) fn into_socket(self) -> S {
        self.socket
    }

    /// The socket, when the client may still be sending something that nobody will read.
    pub(crate) fn unread(self) -> Option<S> {
        let between = match self.reader {
            Reader::Strict(scanner) => scanner.is_between(),
            Reader::Frames | Reader::Codec => true,
        };
        (self.gate != Gate::Open || !between).then_some(self.socket)
    }
}

impl<S: ClientSocket> ClientStream<S> {
    /// Comes true when reading may bring something.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    /// Whether bytes go out as they are, so that a pipe can be emptied into it.
    pub(crate) fn is_plain(&self) -> bool {
        self.socket.plain().is_some()
    }

    /// Writes what the client takes of what is in `pipe`.
    pub(crate) fn poll_empty(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(socket) = self.socket.plain() else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        self.written(pipe.poll_empty(socket, cx))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.gate {
            Gate::Open => {}
            Gate::EndHead => {
                const END: &[u8] = b"\r\n\r\n";
                buffer.put_slice(END.get(..buffer.remaining().min(END.len())).unwrap_or_default());
                this.gate = Gate::Closed;
                return Poll::Ready(Ok(()));
            }
            Gate::BadBody => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            Gate::Closed => return Poll::Ready(Ok(())),
        }
        let before = buffer.filled().len();
        if this.first.is_empty() {
            let Poll::Ready(outcome) = Pin::new(&mut this.socket).poll_read(cx, buffer) else {
                this.progress.wants_read.store(true, Relaxed);
                return Poll::Pending;
            };
            this.progress.wants_read.store(false, Relaxed);
            outcome?;
        } else {
            let taken = this.first.len().min(buffer.remaining());
            buffer.put_slice(this.first.get(..taken).unwrap_or_default());
            this.first.drain(..taken);
        }
        let fresh = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let scanner = match &mut this.reader {
            Reader::Strict(scanner) => scanner,
            Reader::Frames => {
                this.progress.moved_frames();
                return Poll::Ready(Ok(()));
            }
            Reader::Codec => {
                this.progress.moved.store(true, Relaxed);
                return Poll::Ready(Ok(()));
            }
        };
        let scanned = scanner.scan(fresh);
        this.progress.read(scanner);
        let Err(refusal) = scanned else { return Poll::Ready(Ok(())) };
        if refusal.in_head {
            if let Some(byte) = fresh.get_mut(refusal.at) {
                *byte = 0;
            }
            buffer.set_filled(before + refusal.at + 1);
            this.gate = Gate::EndHead;
        } else {
            buffer.set_filled(before + refusal.at);
            this.gate = Gate::BadBody;
            if refusal.at == 0 {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> ClientStream<S> {
    /// TLS takes what is written into a buffer of its own, so that who takes nothing is seen by what is flushed. Our codec does nothing besides: when it asks again,
    /// the socket has taken something. hyper asks for other reasons too, and its next write waits.
    fn flushed(&self, outcome: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if matches!(self.reader, Reader::Codec)
            && self.progress.wants_write.swap(outcome.is_pending(), Relaxed)
        {
            self.progress.moved.store(true, Relaxed);
        }
        outcome
    }

    fn written(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.progress.wants_write.store(outcome.is_pending(), Relaxed);
        let count = ready!(outcome)?;
        self.progress.moved.store(true, Relaxed);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write_vectored(cx, pieces);
        this.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_flush(cx);
        this.flushed(outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_shutdown(cx);
        this.flushed(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes what is written into a buffer at once, as TLS does, and flushes nothing.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_client_of_tls_that_takes_nothing_is_seen() {
        let progress = Arc::<Progress>::default();
        let mut stream = ClientStream::decoded(Stuck, Arc::clone(&progress));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut stream).poll_write(&mut cx, b"all of it").is_ready());
        assert!(!progress.look().wants_write);
        assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_pending());
        let seen = progress.look();
        assert!(seen.wants_write && !seen.moved, "nothing came of it");
        assert!(Pin::new(&mut stream).poll_shutdown(&mut cx).is_pending());
        assert!(progress.look().wants_write);
    }
}
