//! One client's connection: serves its requests and ends it when told to.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::access_log::Line;
use crate::client_stream::{ClientStream, Progress};
use crate::fleet::Named;
use crate::forward::forward;
use crate::patience::{Patience, TooSlow, Waiting};
use crate::worker::Worker;

/// A request's head is at most so long; beyond it hyper answers 431. More than 100 headers are answered so too.
const HEAD_MAX: usize = 32 << 10;
/// hyper's buffer for one direction of one connection.
const BUFFER_MAX: usize = 64 << 10;
/// How much a client may still send, and for how long, after a response that did not wait for its request's end.
const LINGER_MAX: usize = 1 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Where a connection comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Through a listener that everybody reaches.
    Outside {
        /// The address it came from.
        peer: HeaderValue,
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
    waiting: RefCell<Waiting>,
    end: Cell<Option<End>>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    /// Ends the connection when it was too slow for too long.
    pub(crate) fn look(&self, span: Duration, patience: &Patience) {
        let seen = self.progress.look();
        match self.waiting.borrow_mut().look(seen, self.busy.get() > 0, span, patience) {
            None => {}
            Some(TooSlow::Idle) => self.end(End::Gracefully),
            Some(TooSlow::Head | TooSlow::Stall) => self.end(End::AtOnce),
        }
    }

    pub(crate) fn end(&self, end: End) {
        self.end.set(Some(end));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.busy.get() == 0
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

/// Serves the connection until it ends.
pub(crate) async fn serve(worker: &Rc<Worker>, client: Rc<Client>, socket: TcpStream, origin: Origin) {
    let stream = ClientStream::new(socket, Arc::clone(&client.progress));
    let service = service_fn(|request| {
        let busy = Busy::new(&client.busy);
        let origin = &origin;
        async move {
            let mut response = forward(worker, origin, request).await;
            response.body_mut().hold(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new()
        .max_header_size(HEAD_MAX)
        .max_buf_size(BUFFER_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let outcome = poll_fn(|cx| {
        {
            let mut waker = client.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        match client.end.take() {
            None => {}
            Some(End::Gracefully) => Pin::new(&mut connection).graceful_shutdown(),
            Some(End::AtOnce) => return Poll::Ready(None),
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    if let Some(Err(error)) = &outcome
        && error.is_parse()
    {
        log_refused(worker, if error.is_parse_too_large() { 431 } else { 400 });
    }
    if outcome.is_some()
        && let Some(parts) = connection.into_parts()
        && let Some(socket) = parts.io.into_inner().unread()
    {
        linger(socket).await;
    }
}

fn log_refused(worker: &Worker, status: u16) {
    let at = worker.now();
    let (host, took, bytes) = (&b"-"[..], Duration::ZERO, 0);
    worker.log(&Line {
        at,
        took,
        host,
        method: "-",
        path: "-",
        status,
        bytes,
        cut: false,
        instance: "-",
        id: "-",
    });
}

/// Takes in what a client still sends. Closing a socket with unread bytes in it resets the connection, and the client
/// may then lose the response that said why.
async fn linger(mut socket: TcpStream) {
    let mut scratch = [0; 8 << 10];
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
