//! HTTP/2 to instances: connections that carry many requests at a time.
//!
//! Each thread has its own, as it has of HTTP/1. A request takes a place on one that has room, by what the instance allows and by what edge allows
//! itself, and else on a new one. Windows are so that all places of a connection may be full of what clients do not take, and none holds up another.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;

use crate::app_body::AppBody;
use crate::backend::InFlight;
use crate::client::OnThread;
use crate::fleet::Fleet;
use crate::http1;
use crate::http1::client::NoAnswer;
use crate::request_body::RequestBody;
use crate::upstream::{Sender, UpstreamStream};
use crate::worker::Worker;

/// So many requests ride one connection at most, also where the instance would take more.
const PLACES_MAX: u32 = 64;
/// What a connection is taken to allow until the instance has said it: a number that no instance says, so that it is seen whether it has.
const UNSAID: usize = 0x7fff_fff1;
/// How long others wait for it to say so, before they make a connection of their own. It is the first thing that it has to send (RFC 9113, 3.4).
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
/// How often they look.
const LOOK: Duration = Duration::from_millis(1);
/// How much of one answer, and of all of a connection's, is on its way to us at most before its client takes it.
const WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = WINDOW * PLACES_MAX;
/// hyper's buffer for what goes to the instance on one stream.
const BUFFER_MAX: usize = 64 << 10;
/// The head of an answer is at most so long, where a header counts for 32 bytes more than it is.
const HEAD_MAX: u32 = 64 << 10;
/// How long nothing may come on a connection with requests under way before the instance is asked whether it is there. Servers of gRPC close the
/// connection of who asks more often than every five minutes. That an instance has died its socket says at once.
const PING_AFTER: Duration = Duration::from_secs(330);
/// How long it may take to say that it is.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long a connection is kept that nobody rides.
const IDLE_MAX: Duration = Duration::from_secs(60);

type Connection = http2::Connection<TokioIo<UpstreamStream>, RequestBody, OnThread>;

/// A way to send one request.
pub(crate) enum Channel {
    /// A connection of HTTP/1, which is its own for as long as it lasts.
    Own(Sender),
    /// The same, whose answer is read by our own codec: there until the request is sent.
    Direct(Option<UpstreamStream>),
    /// A place on one of HTTP/2.
    Shared(Ride),
}

/// Why there is no answer.
#[derive(Default)]
pub(crate) struct Failed {
    /// The request, where no byte of it was written.
    pub(crate) returned: Option<Request<RequestBody>>,
    /// The request, where it was written and nothing came.
    pub(crate) unanswered: Option<Request<RequestBody>>,
    /// What came is no answer of HTTP.
    pub(crate) malformed: bool,
    /// The instance said that it did nothing with it: it closes the connection in good order, or took no further stream.
    pub(crate) unprocessed: bool,
}

impl Channel {
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Whether a request that failed is gone: one that our own codec sends it only looks at.
    pub(crate) fn keeps_no_request(&self) -> bool {
        !matches!(self, Self::Direct(_))
    }

    /// Sends `request`, which is in the form of HTTP/1. To drop the future takes it back.
    pub(crate) async fn send(
        &mut self,
        worker: &Worker,
        mut request: Request<RequestBody>,
    ) -> Result<Response<AppBody>, Box<Failed>> {
        let ride = match self {
            Self::Own(sender) => {
                let sent = sender.try_send_request(request).await;
                return sent.map(|answer| answer.map(AppBody::Hyper)).map_err(|mut error| {
                    let malformed = error.error().is_parse();
                    Box::new(Failed { returned: error.take_message(), malformed, ..Failed::default() })
                });
            }
            Self::Direct(stream) => {
                let stream = stream.take().ok_or_else(Box::default)?;
                return match http1::client::ask(worker, stream, &request).await {
                    Ok(answer) => Ok(answer.map(AppBody::Own)),
                    Err(NoAnswer { began, malformed }) => {
                        let unanswered = (!began).then_some(request);
                        Err(Box::new(Failed { unanswered, malformed, ..Failed::default() }))
                    }
                };
            }
            Self::Shared(ride) => ride,
        };
        to_frames(&mut request);
        let sent = ride.line.sender.clone().try_send_request(request).await;
        sent.map(|answer| answer.map(AppBody::Hyper)).map_err(|mut error| {
            let mut returned = error.take_message();
            returned.iter_mut().for_each(from_frames);
            let unprocessed = is_unprocessed(error.error());
            if returned.is_some() || unprocessed == Some(Unprocessed::Closing) {
                ride.line.closing.set(true);
            }
            Box::new(Failed { returned, unprocessed: unprocessed.is_some(), ..Failed::default() })
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unprocessed {
    /// It takes no further requests on this connection, and this one came after the last that it takes.
    Closing,
    /// It has as many streams as it may have.
    Refused,
}

/// Whether an instance has said that it did nothing with a request (RFC 9113, 8.7).
fn is_unprocessed(error: &hyper::Error) -> Option<Unprocessed> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            // Streams that it does take it lets come to their end, and those see no such error.
            return if error.is_go_away() && error.is_remote() {
                Some(Unprocessed::Closing)
            } else {
                let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
                (refused && error.is_remote()).then_some(Unprocessed::Refused)
            };
        }
        source = cause.source();
    }
    None
}

/// Names the host where HTTP/2 has it, and leaves out what speaks of a connection.
fn to_frames(request: &mut Request<RequestBody>) {
    let host = request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::UPGRADE);
    let authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(authority) = authority {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    *request.version_mut() = Version::HTTP_2;
}

/// The other way round, for a request that goes elsewhere.
fn from_frames(request: &mut Request<RequestBody>) {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(Uri::default, Uri::from);
    *request.version_mut() = Version::HTTP_11;
}

/// One connection. It is closed when nobody has it any more, after what is under way.
struct Line {
    sender: http2::SendRequest<RequestBody>,
    /// Driven by a task of its own, and asked what the instance allows.
    connection: Rc<RefCell<Pin<Box<Connection>>>>,
    riding: Cell<usize>,
    /// Whether the instance has begun to close it.
    closing: Cell<bool>,
    idle_since: Cell<Option<Duration>>,
}

impl Line {
    fn is_over(&self) -> bool {
        self.closing.get() || self.sender.is_closed()
    }

    /// Whether the instance has not said yet how many requests it takes.
    fn is_unsettled(&self) -> bool {
        !self.is_over() && self.connection.borrow().current_max_send_streams() == UNSAID
    }

    /// Whether another request has room. Of an instance that has not said yet how many it takes it is known that it takes one.
    fn has_room(&self) -> bool {
        let allowed = match self.connection.borrow().current_max_send_streams() {
            UNSAID => 1,
            said => said.min(PLACES_MAX as usize),
        };
        !self.is_over() && self.riding.get() < allowed
    }
}

/// A place on a connection, for one request.
pub(crate) struct Ride {
    line: Rc<Line>,
}

impl Ride {
    fn on(line: &Rc<Line>) -> Self {
        line.riding.set(line.riding.get() + 1);
        line.idle_since.set(None);
        Self { line: Rc::clone(line) }
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        self.line.riding.set(self.line.riding.get() - 1);
    }
}

/// The connections of one thread to one instance: as many as the requests that it has at a time need.
#[derive(Default)]
pub(crate) struct Lot {
    lines: RefCell<Vec<Rc<Line>>>,
    /// Held by who connects; those who wait for it find what was made, or that there was nothing.
    connecting: Mutex<()>,
    failures: Cell<u64>,
    failure: Cell<Option<(io::ErrorKind, Option<i32>)>>,
}

impl Lot {
    fn place(&self) -> Option<Ride> {
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| !line.is_over());
        lines.iter().find(|line| line.has_room()).map(Ride::on)
    }

    /// A place on a connection whose instance has yet to say what it takes, once it has. Of many requests that come at once each would make one otherwise.
    async fn settled_place(&self) -> Option<Ride> {
        let settling = async {
            loop {
                if let Some(ride) = self.place() {
                    return Some(ride);
                }
                if !self.lines.borrow().iter().any(|line| line.is_unsettled()) {
                    return None;
                }
                // wait: for the first frame of the instance. hyper reads it in a task of its own, which tells nobody.
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(SETTLED_WITHIN, settling).await.ok().flatten()
    }

    /// Why somebody else's connecting failed while this one waited for it.
    fn failed_since(&self, failures: u64) -> Option<io::Error> {
        let (kind, raw) = self.failure.get().filter(|_| self.failures.get() != failures)?;
        Some(raw.map_or_else(|| kind.into(), io::Error::from_raw_os_error))
    }
}

/// All of one thread's, by backend. Bounded by what is routed, and by the requests that are under way.
#[derive(Default)]
pub(crate) struct Lines(BTreeMap<u64, Rc<Lot>>);

impl Lines {
    /// Those to one backend. To one that is not routed to they last as long as the request that they are made for.
    fn of(&mut self, backend: u64, routed: bool) -> Rc<Lot> {
        if routed { Rc::clone(self.0.entry(backend).or_default()) } else { Rc::default() }
    }

    /// Closes what nobody rode for long.
    pub(crate) fn expire(&mut self, now: Duration) {
        for lot in self.0.values() {
            lot.lines.borrow_mut().retain(|line| {
                if line.riding.get() > 0 {
                    return !line.is_over();
                }
                let since = line.idle_since.get().unwrap_or(now);
                line.idle_since.set(Some(since));
                !line.is_over() && now.saturating_sub(since) < IDLE_MAX
            });
        }
    }

    /// Lets go of those to what `fleet` does not route to: they are closed once what rides them has ended.
    pub(crate) fn keep_routed(&mut self, fleet: &Fleet) {
        self.0.retain(|backend, _| fleet.routes(*backend));
    }
}

/// A place for a request that was counted in `lease`, and whether it is on a connection that served others before.
pub(crate) async fn ride(worker: &Rc<Worker>, lease: &InFlight) -> io::Result<(Ride, bool)> {
    let backend = lease.backend().key;
    let lot = worker.lines().borrow_mut().of(backend, worker.routes(backend));
    let failures = lot.failures.get();
    if let Some(ride) = lot.place() {
        return Ok((ride, true));
    }
    let _turn = lot.connecting.lock().await;
    if let Some(ride) = lot.settled_place().await {
        return Ok((ride, true));
    }
    // Where nobody listens each who waits would otherwise wait for all before him.
    if let Some(error) = lot.failed_since(failures) {
        return Err(error);
    }
    match connect(worker, lease).await {
        Ok(line) => {
            let ride = Ride::on(&line);
            lot.lines.borrow_mut().push(line);
            Ok((ride, false))
        }
        Err(error) => {
            lot.failures.set(lot.failures.get() + 1);
            lot.failure.set(Some((error.kind(), error.raw_os_error())));
            Err(error)
        }
    }
}

async fn connect(worker: &Rc<Worker>, lease: &InFlight) -> io::Result<Rc<Line>> {
    let stream = worker.open(lease).await?;
    let handshake = http2::Builder::new(OnThread::new(worker))
        .timer(TokioTimer::new())
        .initial_max_send_streams(UNSAID)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER_MAX)
        .max_header_list_size(HEAD_MAX)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    let connection = Rc::new(RefCell::new(Box::pin(connection)));
    let driven = Rc::clone(&connection);
    worker.spawn(async move {
        // Whoever waits for an answer on it hears of the failure there.
        let _heard_there = poll_fn(|cx| driven.borrow_mut().as_mut().poll(cx)).await;
    });
    let (riding, closing, idle_since) = (Cell::new(0), Cell::new(false), Cell::new(None));
    Ok(Rc::new(Line { sender, connection, riding, closing, idle_since }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_back_is_as_it_was() {
        for (target, host) in [("/a?b=c", "shop.localhost:8080"), ("*", "shop.com"), ("/", "[::1]:80")] {
            let mut request = Request::options(target)
                .header("host", host)
                .header("te", "trailers")
                .body(RequestBody::empty())
                .unwrap();
            to_frames(&mut request);
            assert_eq!(request.uri().authority().map(Authority::as_str), Some(host));
            assert!(!request.headers().contains_key("host"));
            from_frames(&mut request);
            assert_eq!((request.uri().to_string(), request.version()), (target.to_owned(), Version::HTTP_11));
            assert_eq!(
                (&request.headers()["host"], &request.headers()["te"]),
                (&HeaderValue::from_str(host).unwrap(), &HeaderValue::from_static("trailers"))
            );
        }
    }
}
