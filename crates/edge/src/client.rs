//! One client's connection: serves its requests and ends it when told to.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use berth_certificate::ALPN_PROTOCOL;
use http::{HeaderValue, StatusCode, Version, header};
use hyper::rt::Executor;
use hyper::server::conn as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::Http1;
use crate::access_log::Line;
use crate::client_stream::{ClientStream, Progress};
use crate::coalescing::{Coalescing, Settling};
use crate::fleet::Named;
use crate::forward::{Tried, forward};
use crate::http1::{self, ClientSocket, GivenUp};
use crate::patience::{Patience, TooSlow, Waiting};
use crate::taking::{OfStreams, Streams};
use crate::tls::H2;
use crate::worker::Worker;

/// A request's head is at most so long; beyond it hyper answers 431. More than 100 headers are answered so too.
const HEAD_MAX: usize = 32 << 10;
/// hyper's buffer for one direction of one connection.
const BUFFER_MAX: usize = 64 << 10;
/// The same of a request of HTTP/2, where a header counts for 32 bytes more than it is long (RFC 9113, 6.5.2).
const FRAMES_HEAD_MAX: u32 = 40 << 10;
/// So many requests of one connection are answered at a time. Browsers want a hundred; each may hold a request and a response's buffer.
const STREAMS_MAX: u32 = 128;
/// So many requests may be taken back before they were looked at, or be ended by us for the client's fault, before the connection is ended: what
/// the attacks called rapid reset (CVE-2023-44487) and MadeYouReset (CVE-2025-8671) live on.
const RESETS_MAX: usize = 32;
/// How many bytes of one request's body, and of all of a connection's, are on their way to us at most before somebody takes them.
const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much a client may still send, and for how long, after a response that did not wait for its request's end.
const LINGER_MAX: usize = 1 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How long a client may take to hear that its connection ends where the place is needed: from the other side of the world, and once more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where a connection comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Through a listener that everybody reaches.
    Outside {
        /// The address it came from.
        peer: HeaderValue,
        /// The name that a client of HTTPS asked for in its handshake, in lower case.
        secure: Option<String>,
    },
    /// From an instance, to an app of its project.
    Inside {
        /// The calling app's own address in the project.
        peer: HeaderValue,
        /// The calling app's name.
        caller: HeaderValue,
        /// The app that it calls.
        target: Named,
    },
}

impl Origin {
    /// The address that the connection came from; of one from an instance, that of its app.
    pub(crate) const fn peer(&self) -> &HeaderValue {
        match self {
            Self::Outside { peer, .. } | Self::Inside { peer, .. } => peer,
        }
    }
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After the request that is being answered, if any.
    Gracefully,
    /// At once.
    AtOnce,
}

/// What the worker knows of a client's connection.
#[derive(Debug, Default)]
pub(crate) struct Client {
    progress: Arc<Progress>,
    /// Requests that are being answered.
    busy: Rc<Cell<usize>>,
    /// The same one by one, of a client that speaks HTTP/2.
    streams: Streams,
    waiting: RefCell<Waiting>,
    end: Cell<Option<End>>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    /// Ends the connection when it was too slow for too long.
    pub(crate) fn look(&self, span: Duration, patience: &Patience) {
        self.streams.look(span, patience.stall);
        let seen = self.progress.look();
        let (slow, outstays) = {
            let mut waiting = self.waiting.borrow_mut();
            let slow = waiting.look(seen, self.busy.get() > 0, span, patience);
            (slow, waiting.outstays(patience.head))
        };
        match slow {
            Some(TooSlow::Head | TooSlow::Stall) => self.end(End::AtOnce),
            _ if outstays => self.end(End::AtOnce),
            Some(TooSlow::Idle) => self.end(End::Gracefully),
            None => {}
        }
    }

    pub(crate) fn end(&self, end: End) {
        if end == End::Gracefully {
            self.waiting.borrow_mut().tell();
        }
        self.end.set(Some(end));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// How it gets on.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The streams of one that speaks HTTP/2.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Counts a request as being answered.
    pub(crate) fn busy(&self) -> Busy {
        Busy::new(&self.busy)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.busy.get() == 0
    }

    /// Ends it so that another one has its place: at once where it was told to end and had the time to.
    pub(crate) fn shed(&self) {
        let was_told = self.waiting.borrow().was_told(FAREWELL);
        self.end(if was_told { End::AtOnce } else { End::Gracefully });
    }

    /// Whether it was served and waits for a next request. Who has not said anything yet is about to.
    pub(crate) fn may_be_shed(&self) -> bool {
        self.is_idle() && self.waiting.borrow().kind() == Some(TooSlow::Idle)
    }

    /// How long it has been in the state that it is in.
    pub(crate) fn age(&self) -> Duration {
        self.waiting.borrow().age()
    }
}

/// Counts a request as being answered.
pub(crate) struct Busy(Rc<Cell<usize>>);

impl Busy {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Serves a connection of HTTP/1 until it ends.
pub(crate) async fn serve<S: ClientSocket>(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    socket: S,
    origin: Rc<Origin>,
) {
    let mut given = GivenUp { socket, unread: Vec::new(), tried: Tried::default() };
    let closing = Cell::new(false);
    if worker.http1() == Http1::Own {
        let served = pin!(http1::serve(worker, &client, given.socket, &origin, &closing));
        match drive(&client, served, |_| closing.set(true)).await {
            Some(Some(unfinished)) => given = unfinished,
            Some(None) | None => return,
        }
    }
    // Large, and not there for most connections.
    Box::pin(serve_by_hyper(worker, client, given, origin, closing)).await;
}

/// Once the connection is `closing` it ends after the request of which something came already, if there is one.
async fn serve_by_hyper<S>(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    given: GivenUp<S>,
    origin: Rc<Origin>,
    closing: Cell<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = ClientStream::new(given.socket, given.unread, Arc::clone(&client.progress));
    // What was tried was so with the first request that there is.
    let tried = Cell::new(given.tried);
    let service = service_fn(|request| async {
        let busy = client.busy();
        let mut response = forward(worker, &origin, request, tried.take()).await;
        response.body_mut().hold(busy, None);
        if closing.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let mut connection = server::http1::Builder::new()
        .max_header_size(HEAD_MAX)
        .max_buf_size(BUFFER_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let end = |connection: Pin<&mut _>| {
        closing.set(true);
        // hyper would close at once and drop what it has of a head, which its client means to be answered.
        if !client.progress.is_in_head() {
            server::http1::UpgradeableConnection::graceful_shutdown(connection);
        }
    };
    let outcome = drive(&client, Pin::new(&mut connection), end).await;
    if let Some(Err(error)) = &outcome
        && error.is_parse()
    {
        log_refused(worker, &origin, if error.is_parse_too_large() { 431 } else { 400 });
    }
    if outcome.is_some()
        && let Some(parts) = connection.into_parts()
        && let Some(socket) = parts.io.into_inner().unread()
    {
        linger(socket).await;
    }
}

/// Serves a connection that came by TLS, by what was agreed on in the handshake.
pub(crate) async fn serve_secure(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    stream: Box<TlsStream<TcpStream>>,
    peer: HeaderValue,
) {
    let session = stream.get_ref().1;
    // Without a name no certificate was chosen, and no handshake came to its end.
    let Some(name) = session.server_name().map(str::to_ascii_lowercase) else { return };
    let frames = match session.alpn_protocol() {
        None => false,
        // Its client has seen the certificate, which is all that it came for.
        Some(protocol) if protocol == ALPN_PROTOCOL => return,
        Some(protocol) => protocol == H2,
    };
    let origin = Rc::new(Origin::Outside { peer, secure: Some(name) });
    if frames {
        Box::pin(serve_frames(worker, client, stream, origin)).await;
    } else {
        serve(worker, client, stream, origin).await;
    }
}

/// Serves a connection of HTTP/2 until it ends.
pub(crate) async fn serve_frames<S>(worker: &Rc<Worker>, client: Rc<Client>, socket: S, origin: Rc<Origin>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = ClientStream::of_frames(socket, Arc::clone(&client.progress));
    let stream = Coalescing::new(stream, worker.buffers());
    let (serving, served) = (Rc::clone(worker), Rc::clone(&client));
    let service = service_fn(move |request| {
        let (worker, client, origin) = (Rc::clone(&serving), Rc::clone(&served), Rc::clone(&origin));
        // Boxed: hyper moves a stream's future several times until its task has it, and what answers a request takes up kilobytes.
        Box::pin(async move {
            let (busy, taking) = (client.busy(), client.streams.current());
            let mut response = forward(&worker, &origin, request, Tried::default()).await;
            response.body_mut().hold(busy, taking);
            Ok::<_, Infallible>(response)
        })
    });
    let connection = server::http2::Builder::new(OfStreams::new(worker, &client))
        .max_header_list_size(FRAMES_HEAD_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream.clone()), service);
    let connection = pin!(Settling::new(connection, stream));
    // Whoever broke off, or spoke nonsense, hears of it by the frame that ends the connection.
    let _ended = drive(&client, connection, |it| it.connection().graceful_shutdown()).await;
}

/// Runs what a connection does besides reading and writing on the thread that serves it.
#[derive(Clone)]
pub(crate) struct OnThread(Rc<Worker>);

impl OnThread {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        Self(Rc::clone(worker))
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThread {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Drives a connection to its end, or until the worker ends it at once: nothing then.
pub(crate) async fn drive<C: Future>(
    client: &Client,
    mut connection: Pin<&mut C>,
    end_gracefully: impl Fn(Pin<&mut C>),
) -> Option<C::Output> {
    poll_fn(|cx| {
        {
            let mut waker = client.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        match client.end.take() {
            None => {}
            Some(End::Gracefully) => end_gracefully(connection.as_mut()),
            Some(End::AtOnce) => return Poll::Ready(None),
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Of what cannot be read there is little to say.
pub(crate) fn log_refused(worker: &Worker, origin: &Origin, status: u16) {
    worker.log(&Line {
        at: worker.now(),
        took: Duration::ZERO,
        client: origin.peer().as_bytes(),
        host: b"-",
        method: "-",
        path: "-",
        version: Version::HTTP_11,
        status,
        bytes: 0,
        cut: false,
        instance: "-",
        id: "-",
    });
}

/// Takes in what a client still sends. Closing a socket with unread bytes in it resets the connection, and the client
/// may then lose the response that said why.
pub(crate) async fn linger(mut socket: impl AsyncRead + Unpin) {
    // Not in the future itself, which every connection would have room for.
    let mut scratch = vec![0; 8 << 10];
    let mut left = LINGER_MAX;
    let discard = async {
        while left > 0 {
            match socket.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    // At the end of the time the client has read the response or never will.
    let _timed_out = tokio::time::timeout(LINGER_TIME, discard).await.is_err();
}
