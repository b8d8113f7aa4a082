//! What the streams of an HTTP/2 connection write at one time goes out at one time.
//!
//! The library flushes after every frame of more than 256 bytes, so that of a dozen answers that are ready together each would have a record of TLS
//! and a system call of its own. Here a flush only takes note while there is room; what waits goes out when the connection's task has done all that it can
//! do, which is before the thread looks at anything else. Nothing waits for a timer as Nagle's algorithm (RFC 896) has it wait.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::{BUFFER, Buffer, Buffers};

/// A client's stream that keeps together what is written. Its clones are the same.
pub(crate) struct Coalescing<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    stream: S,
    buffers: Rc<Buffers>,
    /// What is to go out. On loan while there is something, so that an idle connection has none.
    waiting: Option<Buffer>,
    /// How much of it did.
    gone: usize,
    /// Whether the client did not take all of it.
    stuck: bool,
}

impl<S> Clone for Coalescing<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> Coalescing<S> {
    pub(crate) fn new(stream: S, buffers: &Rc<Buffers>) -> Self {
        let buffers = Rc::clone(buffers);
        Self(Rc::new(RefCell::new(Inner { stream, buffers, waiting: None, gone: 0, stuck: false })))
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    /// Keeps `pieces` for later where they fit in, and says how long they are.
    fn keep(&mut self, pieces: &[IoSlice<'_>]) -> Option<usize> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        if len > BUFFER - self.waiting.as_ref().map_or(0, |waiting| waiting.len()) {
            return None;
        }
        let waiting = self.waiting.get_or_insert_with(|| self.buffers.get());
        pieces.iter().for_each(|piece| waiting.extend_from_slice(piece));
        Some(len)
    }

    /// Writes what waits.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting) = &self.waiting {
            let left = waiting.get(self.gone..).unwrap_or_default();
            if left.is_empty() {
                self.waiting = None;
                self.gone = 0;
                break;
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gone += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the client get all that was written.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let settled = match self.poll_empty(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(cx),
            other => other,
        };
        self.stuck = settled.is_pending();
        settled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if let Some(kept) = inner.keep(pieces) {
            return Poll::Ready(Ok(kept));
        }
        ready!(inner.poll_empty(cx))?;
        match inner.keep(pieces) {
            Some(kept) => Poll::Ready(Ok(kept)),
            // Without a copy.
            None => Pin::new(&mut inner.stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.waiting.is_some() && !inner.stuck {
            return Poll::Ready(Ok(()));
        }
        inner.poll_settle(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_empty(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

pin_project! {
    /// A connection, after whose every turn goes out what it wrote to `stream`. It ends with `connection`, or when the client cannot be written to.
    pub(crate) struct Settling<C, S> {
        #[pin]
        connection: C,
        stream: Coalescing<S>,
    }
}

impl<C, S> Settling<C, S> {
    pub(crate) fn new(connection: C, stream: Coalescing<S>) -> Self {
        Self { connection, stream }
    }

    pub(crate) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future, S: AsyncWrite + Unpin> Future for Settling<C, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let over = this.connection.poll(cx).is_ready();
        let mut inner = this.stream.0.borrow_mut();
        // Otherwise the connection has flushed by itself. What TLS has and the client does not is stuck, too: the connection was told that it had gone.
        let is_due = inner.waiting.is_some() || inner.stuck;
        let broken = is_due && matches!(inner.poll_settle(cx), Poll::Ready(Err(_)));
        if over || broken { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// What a client that takes `room` at a time had after each turn of a connection that writes and flushes `pieces`.
    async fn turns(room: usize, pieces: &[&[u8]]) -> Vec<usize> {
        let (ours, mut client) = duplex(room);
        let stream = Coalescing::new(ours, &Rc::default());
        let mut writer = stream.clone();
        let mut connection = pin!(Settling::new(
            async move {
                for piece in pieces {
                    writer.write_all(piece).await.unwrap();
                    writer.flush().await.unwrap();
                }
                std::future::pending::<()>().await;
            },
            stream
        ));
        let (all, mut came) = (pieces.concat(), Vec::new());
        let mut seen = Vec::new();
        while came.len() < all.len() {
            poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_pending())).await;
            let mut part = vec![0; room];
            let count = client.read(&mut part).await.unwrap();
            came.extend_from_slice(&part[..count]);
            seen.push(count);
        }
        assert_eq!(came, all);
        assert!(connection.stream.0.borrow().waiting.is_none(), "an idle connection has no buffer");
        seen
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_goes_out_at_once() {
        assert_eq!(turns(64 << 10, &[&[1; 300], &[2; 1_024], &[3; 9]]).await, [1_333]);
    }

    #[tokio::test]
    async fn what_does_not_fit_goes_before_what_comes_after_it() {
        assert_eq!(
            turns(64 << 10, &[&[1; 300], &[2; BUFFER], &[3; BUFFER + 1]]).await,
            [300 + 2 * BUFFER + 1]
        );
    }

    #[tokio::test]
    async fn a_client_that_takes_little_by_little_has_all_of_it() {
        assert_eq!(turns(1_000, &[&[1; 1_500], &[2; 1_500]]).await, [1_000, 1_000, 1_000]);
        let long = turns(1_000, &[&[1; 1_500], &[2; BUFFER], &[3; 40_000], &[4; 5]]).await;
        assert!(long.len() >= 57, "{long:?}");
    }

    /// Takes all that is written at once, as TLS does, and sends it when it is flushed for the second time.
    #[derive(Default)]
    struct Holding {
        flushes: usize,
    }

    impl AsyncWrite for Holding {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes < 2 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_tls_holds_back_goes_out_though_the_connection_asks_no_more() {
        let stream = Coalescing::new(Holding::default(), &Rc::default());
        let mut writer = stream.clone();
        let once = async move {
            writer.write_all(b"an answer").await.unwrap();
            writer.flush().await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut connection = pin!(Settling::new(once, stream));
        for flushes in [1, 2, 2] {
            poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_pending())).await;
            assert_eq!(connection.stream.0.borrow().stream.flushes, flushes);
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_is_not_written_to_for_ever() {
        let (ours, client) = duplex(1_000);
        let stream = Coalescing::new(ours, &Rc::default());
        let mut writer = stream.clone();
        let written = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&written);
        let endless = async move {
            while writer.write_all(&[0; 512]).await.and(writer.flush().await).is_ok() {
                *counted.borrow_mut() += 512;
            }
            std::future::pending::<()>().await;
        };
        let mut connection = pin!(Settling::new(endless, stream));
        for _ in 0..5 {
            poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_pending())).await;
        }
        assert!(*written.borrow() <= BUFFER + 1_000, "{}", written.borrow());
        drop::<DuplexStream>(client);
        poll_fn(|cx| connection.as_mut().poll(cx)).await;
    }
}
