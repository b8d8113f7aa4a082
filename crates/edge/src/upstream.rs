//! Connections to instances, and each thread's pool of idle ones.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_routing::balance;
use bytes::BufMut;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::backend::{Backend, Open};
use crate::dial::Dialers;
use crate::fleet::Fleet;
use crate::http1::Pipe;
use crate::request_body::RequestBody;

/// What requests to one backend are sent on.
pub(crate) type Sender = http1::SendRequest<RequestBody>;
/// The future that moves the bytes of one connection.
pub(crate) type Connection = http1::Connection<TokioIo<UpstreamStream>, RequestBody>;

/// So many idle connections to one backend are kept in each thread: as many as it had requests at once, and they are
/// gone 1.5 s later. The bound is there for the memory of a burst.
const IDLE_COUNT_MAX: usize = 1_024;

/// A socket to an instance, counted as open for as long as it exists.
#[derive(Debug)]
pub(crate) struct UpstreamStream {
    socket: TcpStream,
    _open: Open,
}

impl UpstreamStream {
    /// Comes true when reading may bring something.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(cx)
    }

    /// Takes what there is into `pipe`, which is empty, at most `max` bytes.
    pub(crate) fn poll_fill(
        &self,
        pipe: &mut Pipe,
        max: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        pipe.poll_fill(&self.socket, max, cx)
    }

    /// Reads what there is.
    pub(crate) fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        self.socket.try_read_buf(buffer)
    }
}

/// Connects to `backend` for HTTP.
pub(crate) async fn connect(
    backend: &Arc<Backend>,
    dialers: &RefCell<Dialers>,
    routed: bool,
    now: Duration,
    limit: Duration,
) -> io::Result<(Sender, Connection)> {
    let stream = open(backend, dialers, routed, now, limit).await?;
    http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
}

/// Connects to `backend`, which has a dialer of its own among `dialers` while it is `routed` to.
pub(crate) async fn open(
    backend: &Arc<Backend>,
    dialers: &RefCell<Dialers>,
    routed: bool,
    now: Duration,
    limit: Duration,
) -> io::Result<UpstreamStream> {
    let open = Open::new(backend);
    let (dialer, batch) = dialers.borrow_mut().of(backend.key, routed, now);
    let socket = tokio::time::timeout(limit, backend.place.connect_by(&dialer, batch))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    socket.set_nodelay(true)?;
    Ok(UpstreamStream { socket, _open: open })
}

/// A connection that can be kept for the next request.
pub(crate) trait Pooled {
    /// Whether the instance has closed it, as far as this thread has heard.
    fn is_closed(&self) -> bool;
}

impl Pooled for Sender {
    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }
}

impl Pooled for UpstreamStream {
    fn is_closed(&self) -> bool {
        // No system call while nothing came since the last answer. What does come unasked is no answer either.
        !matches!(self.socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

struct Idle<C> {
    connection: C,
    since: Duration,
}

/// One thread's idle connections, by backend, the one used last at the back.
pub(crate) struct Pool<C> {
    idle: BTreeMap<u64, VecDeque<Idle<C>>>,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: BTreeMap::new() }
    }
}

impl<C: Pooled> Pool<C> {
    /// An idle connection to `backend`, the one used last, that a request may ride at `now`.
    pub(crate) fn take(&mut self, backend: u64, repeatable: bool, now: Duration) -> Option<C> {
        let idle = self.idle.get_mut(&backend)?;
        while let Some(last) = idle.pop_back() {
            if last.connection.is_closed() {
                continue;
            }
            if balance::may_ride(repeatable, now.saturating_sub(last.since)) {
                return Some(last.connection);
            }
            // Those before it idle for longer still; they and it may serve a request that can be repeated.
            idle.push_back(last);
            return None;
        }
        None
    }

    /// Keeps a connection whose last response has ended.
    pub(crate) fn put(&mut self, backend: u64, connection: C, now: Duration) {
        let idle = self.idle.entry(backend).or_default();
        if !connection.is_closed() && idle.len() < IDLE_COUNT_MAX {
            idle.push_back(Idle { connection, since: now });
        }
    }

    /// Closes what has idled for too long by `now`.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.idle.retain(|_, idle| {
            while idle.front().is_some_and(|first| {
                first.connection.is_closed() || !balance::may_ride(true, now.saturating_sub(first.since))
            }) {
                idle.pop_front();
            }
            !idle.is_empty()
        });
    }

    /// Closes the connections to what `fleet` does not route to.
    pub(crate) fn keep_routed(&mut self, fleet: &Fleet) {
        self.idle.retain(|backend, _| fleet.routes(*backend));
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
