//! What the codec reads from and writes to, and the buffers between.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What is read at a time. A head and a short body fit in.
pub(crate) const BUFFER: usize = 16 << 10;
/// What is read at a time of a long body: fewer system calls for it.
pub(crate) const LARGE_BUFFER: usize = 256 << 10;
/// So many buffers are kept for what comes next, 4 MiB of each size.
const KEPT_MAX: usize = (4 << 20) / BUFFER;
const LARGE_KEPT_MAX: usize = (4 << 20) / LARGE_BUFFER;
/// So many large ones are on loan at most, 16 MiB. A client has one for as long as it takes a long body, and those who read slowly would have gigabytes.
const LARGE_LENT_MAX: usize = (16 << 20) / LARGE_BUFFER;

/// A client's socket, which can be waited for without a buffer.
pub(crate) trait ClientSocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Comes true when reading may bring something.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The socket itself, where what is written to it goes out as it is.
    fn plain(&self) -> Option<&TcpStream>;
}

impl ClientSocket for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Boxed: it has a kilobyte of its own, and each future that it passes through would have room for it.
impl ClientSocket for Box<TlsStream<TcpStream>> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.get_ref();
        // What was decrypted already is not in the socket any more.
        if session.wants_read() { socket.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// Reads what there is into the free part of `buffer`.
pub(crate) fn poll_read(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    debug_assert!(buffer.len() < buffer.capacity(), "a full buffer would grow");
    pin!(socket.read_buf(buffer)).poll(cx)
}

/// One thread's buffers that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    usual: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    /// How many large ones are on loan.
    large_lent: Cell<usize>,
}

impl Buffers {
    /// An empty buffer, which comes back when it is dropped.
    pub(crate) fn get(self: &Rc<Self>) -> Buffer {
        let bytes = self.usual.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER));
        Buffer { bytes, large: false, from: Rc::clone(self) }
    }

    /// A large one, unless as many are on loan as may be.
    pub(crate) fn get_large(self: &Rc<Self>) -> Option<Buffer> {
        let lent = self.large_lent.get();
        if lent >= LARGE_LENT_MAX {
            return None;
        }
        self.large_lent.set(lent + 1);
        let bytes = self.large.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LARGE_BUFFER));
        Some(Buffer { bytes, large: true, from: Rc::clone(self) })
    }
}

/// A buffer on loan.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Whether it was lent as a large one.
    large: bool,
    from: Rc<Buffers>,
}

impl Buffer {
    /// The bytes, for good.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.large {
            self.from.large_lent.set(self.from.large_lent.get() - 1);
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let (kept, max) = match bytes.capacity() {
            BUFFER => (&self.from.usual, KEPT_MAX),
            LARGE_BUFFER => (&self.from.large, LARGE_KEPT_MAX),
            // One that grew, or was given away.
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < max {
            kept.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_large_buffers_are_on_loan_than_may_be() {
        let buffers = Rc::<Buffers>::default();
        let mut lent: Vec<Buffer> = std::iter::from_fn(|| buffers.get_large()).collect();
        assert_eq!(lent.len(), LARGE_LENT_MAX);
        assert_eq!(buffers.get().capacity(), BUFFER, "there are others");
        assert_eq!(lent.pop().unwrap().into_bytes().capacity(), LARGE_BUFFER);
        assert!(buffers.get_large().is_some(), "one that was given away is not on loan");
        drop(lent);
        assert_eq!((buffers.large_lent.get(), buffers.large.borrow().len()), (0, LARGE_KEPT_MAX));
    }
}
