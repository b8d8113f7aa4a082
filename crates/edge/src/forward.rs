//! One request: find the app, pick an instance, send, and stream both ways.

mod errand;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use berth_routing::balance::is_idempotent;
use berth_routing::host::normalise;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use crate::Http1;
use crate::answer::{self, Reason, Wrong, refuse};
use crate::app_body::AppBody;
use crate::backend::InFlight;
use crate::before::{Before, before_the_app};
use crate::body::{Ending, ResponseBody};
use crate::cache::{self, Caching, Looked};
use crate::client::Origin;
use crate::grpc;
use crate::headers;
use crate::http1::response::is_event_stream;
use crate::http2::Channel;
use crate::record::Record;
use crate::request_body::{RequestBody, RequestState};
use crate::upgrade::{self, Tunnel};
use crate::worker::{Target, Worker};

use errand::{Errand, Sent, Spare};

/// What a client may put into one path and query.
pub(crate) const TARGET_MAX: usize = 8 << 10;

/// Whether no connection was made for a lack that is this machine's and says nothing of the instance.
pub(crate) fn is_our_own(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN];
    error.raw_os_error().is_some_and(|raw| lacks.iter().any(|lack| lack.raw_os_error() == raw))
}

/// What was tried with a request before it came here.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tried {
    /// It was sent, and the connection turned out to be closed: it may not be sent for nothing again.
    pub(crate) sent: bool,
    /// The backend that took no connection.
    pub(crate) unreachable: Option<u64>,
}

/// Answers `request`, which came from `origin`, and of which `before` was tried already.
///
/// What is waited for seldom is boxed, here and below: whoever calls moves the whole future into its own, and with it the room for all that it
/// may ever wait for.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    origin: &Origin,
    mut request: Request<Incoming>,
    before: Tried,
) -> Response<ResponseBody> {
    let speaks_grpc = request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers());
    let asks_upgrade = request.headers().contains_key(header::UPGRADE);
    let mut response = match prepare(worker, origin, &mut request) {
        Err(mut response) => {
            finish_head(worker, &mut response, asks_upgrade, 0);
            *response
        }
        Ok(Prepared { host, mut record, accept, client, hsts }) => {
            let accept = accept.as_ref();
            let admitted = target_of(origin, &host).and_then(|target| {
                let admitted = worker.admit_rate(&target, origin, &request, &mut record);
                admitted.map(|()| target).map_err(Reason::TooOften)
            });
            let mut response = match admitted {
                Err(reason) => refuse(reason, accept, record),
                Ok(target) => {
                    match cache::look(worker, origin, &target, &host, &mut request, &mut record).await {
                        Looked::Stored(hit) => hit.answer(record),
                        Looked::Refused(reason) => refuse(reason, accept, record),
                        Looked::Ask(caching) => {
                            let sent = send(worker, target, request, before, &mut record).await;
                            conclude(worker, sent, caching, client, record, accept).await
                        }
                    }
                }
            };
            finish_head(worker, &mut response, asks_upgrade, hsts);
            response
        }
    };
    if speaks_grpc {
        grpc::speak(&mut response);
    }
    response
}

/// A request whose head is as the app is to have it.
struct Prepared {
    host: HeaderValue,
    record: Box<Record>,
    accept: Option<HeaderValue>,
    /// The client's side of another protocol, and which that is to be.
    client: Option<(OnUpgrade, HeaderValue)>,
    /// See [`Before::Go`].
    hsts: u32,
}

/// Makes of `request` what the app is to have, or says what is answered without it.
fn prepare(
    worker: &Rc<Worker>,
    origin: &Origin,
    request: &mut Request<Incoming>,
) -> Result<Prepared, Box<Response<ResponseBody>>> {
    let started = worker.now();
    let line = (request.method().clone(), request.uri().clone(), request.version());
    let mut record = Record::new(worker, origin, started, line);
    let refused = |reason, request: &Request<Incoming>, record| {
        Err(Box::new(refuse(reason, accept_of(request), record)))
    };
    let host = match check(request) {
        Ok(host) => host,
        Err(reason) => return refused(reason, request, record),
    };
    record.set_host(host.clone());
    let hsts = match before_the_app(worker, origin, &host, request.uri()) {
        Before::Go { hsts } => hsts,
        Before::Prove(text) => return Err(Box::new(answer::prove(text, record))),
        Before::Redirect(location) => return Err(Box::new(answer::redirect(location, record))),
        Before::Refuse(reason) => return refused(reason, request, record),
    };
    if request.version() == Version::HTTP_2 {
        headers::join_cookies(request.headers_mut());
    }
    if let Some(visit) = worker.visit(request.headers()) {
        record.set_visit(visit);
    }
    let protocol =
        headers::wished_protocol(request.headers()).filter(|_| request.version() == Version::HTTP_11);
    let client = protocol.as_ref().map(|_| hyper::upgrade::on(&mut *request));
    headers::to_app(request.headers_mut(), &host, origin, record.id());
    if let Some(protocol) = &protocol {
        headers::set_upgrade(request.headers_mut(), protocol.clone());
    }
    let accept = accept_of(request).cloned();
    Ok(Prepared { host, record, accept, client: client.zip(protocol), hsts })
}

/// In which form a client wants to be refused. What one of gRPC is told is made of the text.
fn accept_of(request: &Request<Incoming>) -> Option<&HeaderValue> {
    let speaks_grpc = request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers());
    request.headers().get(header::ACCEPT).filter(|_| !speaks_grpc)
}

/// Says of an answer what is said of all that an app is asked for.
fn finish_head(worker: &Worker, response: &mut Response<ResponseBody>, asks_upgrade: bool, hsts: u32) {
    if hsts > 0 {
        headers::set_hsts(response.headers_mut(), hsts);
    }
    // After a request with an Upgrade header the scanner no longer reads along, so nothing may follow it.
    if (asks_upgrade || worker.is_draining()) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Makes an answer of what the app said to what was `sent`, or of why it said nothing. It goes by `caching`, where the app has a cache.
fn conclude<'w>(
    worker: &'w Rc<Worker>,
    sent: Result<Answer, Reason>,
    caching: Option<Box<Caching>>,
    client: Option<(OnUpgrade, HeaderValue)>,
    record: Box<Record>,
    accept: Option<&HeaderValue>,
) -> impl Future<Output = Response<ResponseBody>> + use<'w> {
    let (response, caching) = match sent {
        Ok(answer) => {
            // Of releases that requests are shared between nothing is stored.
            let store = !record.is_shared();
            (finish(worker, answer, client, record, accept), caching.map(|caching| (caching, store)))
        }
        Err(reason) => {
            let stored = caching.filter(|_| reason.is_failure()).and_then(|it| it.instead(worker));
            let response = match stored {
                Some(hit) => hit.answer(record),
                None => refuse(reason, accept, record),
            };
            (response, None)
        }
    };
    async move {
        match caching {
            Some((caching, store)) => Box::pin(caching.take(worker, response, store)).await,
            None => response,
        }
    }
}

/// Checks what hyper and the scanner leave open, brings the target to origin form, and gives the host as the client
/// wrote it. The authority of an absolute target wins over the Host header (RFC 9112, 3.2.2).
fn check(request: &mut Request<Incoming>) -> Result<HeaderValue, Reason> {
    if request.method() == Method::CONNECT {
        return Err(Reason::Connect);
    }
    let uri = request.uri();
    let target = uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > TARGET_MAX) {
        return Err(Reason::UriTooLong);
    }
    // Of a server as a whole one may ask what it can, and nothing else (RFC 9110, 7.1).
    if target.is_some_and(|target| target.as_str() == "*") && request.method() != Method::OPTIONS {
        return Err(Reason::BadRequest(Wrong::Target));
    }
    if request.version() == Version::HTTP_2 && !headers::has_one_length(request.headers()) {
        return Err(Reason::BadRequest(Wrong::Length));
    }
    let Some(authority) = uri.authority() else {
        let host = request.headers().get(header::HOST).cloned();
        return match host {
            Some(host) if normalise(host.as_bytes()).is_ok() => Ok(host),
            None if request.version() == Version::HTTP_10 => Err(Reason::NoApp),
            _ => Err(Reason::BadRequest(Wrong::Host)),
        };
    };
    let web = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    if !web {
        return Err(Reason::BadRequest(Wrong::Target));
    }
    if normalise(authority.as_str().as_bytes()).is_err() {
        return Err(Reason::BadRequest(Wrong::Host));
    }
    if request.version() == Version::HTTP_2 {
        // Two names for one host, of which one server believes this and the next one that (RFC 9113, 8.3.1).
        let mut named = request.headers().get_all(header::HOST).iter();
        let wanted = normalise(authority.as_str().as_bytes());
        if named.any(|host| normalise(host.as_bytes()).ok() != wanted.as_ref().ok().cloned()) {
            return Err(Reason::BadRequest(Wrong::Host));
        }
    }
    // With an absolute target the Host header must still be there and valid, though it does not count.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| normalise(host.as_bytes()).is_err()) && request.version() == Version::HTTP_11 {
        return Err(Reason::BadRequest(Wrong::Host));
    }
    let host =
        HeaderValue::from_str(authority.as_str()).map_err(|_not_ascii| Reason::BadRequest(Wrong::Host))?;
    let target = target.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    Ok(host)
}

/// Which app a request is for. Of what comes from an instance the connection says it, and no header.
pub(crate) fn target_of(origin: &Origin, host: &HeaderValue) -> Result<Target, Reason> {
    Ok(match origin {
        Origin::Outside { .. } => {
            let host =
                normalise(host.as_bytes()).map_err(|_checked_before| Reason::BadRequest(Wrong::Host))?;
            Target::Host(host.into_owned())
        }
        Origin::Inside { target, .. } => Target::Named(target.clone()),
    })
}

/// A response's head and body, with what it holds on to.
struct Answer {
    response: Response<AppBody>,
    channel: Channel,
    request: Rc<RequestState>,
    lease: InFlight,
    /// Whether its trailers say what became of it.
    outcome_follows: bool,
}

async fn send(
    worker: &Rc<Worker>,
    target: Target,
    request: Request<Incoming>,
    before: Tried,
    record: &mut Record,
) -> Result<Answer, Reason> {
    let (parts, body) = request.into_parts();
    let by_frames = parts.version == Version::HTTP_2;
    // A call of gRPC may be silent for as long as its app lets it, as any answer may be: it has deadlines of its own.
    let may_stall = by_frames && !grpc::is_grpc(&parts.headers);
    let stall = may_stall.then_some(worker.limits().patience.stall);
    let mut errand = Errand {
        target,
        idempotent: is_idempotent(parts.method.as_str()),
        has_body: !body.is_end_stream(),
        // What came by frames asks for no other protocol, and nobody there is told a reason in words.
        direct: by_frames && body.is_end_stream() && worker.http1() == Http1::Own,
        hold: None,
        started: record.started(),
        tried: before.unreachable.into_iter().collect(),
        repeated: before.sent,
        bounces: 0,
    };
    let mut request = Request::from_parts(parts, RequestBody::new(body, worker.clock(), by_frames, stall));
    *request.version_mut() = Version::HTTP_11;
    loop {
        let (lease, mut channel, reused) = errand.find(worker, record).await?;
        let shared = channel.is_shared();
        let spare = channel.keeps_no_request() && (shared || (reused && errand.can_repeat()));
        let spare = spare.then(|| Spare::of(&request));
        let state = request.body().state();
        if shared {
            state.keep();
        }
        let limit = record.request_timeout(lease.backend());
        let outcome = {
            let sending = pin!(channel.send(worker, request));
            in_time(worker, sending, &state, limit).await
        };
        let Some(outcome) = outcome else {
            worker.judge(lease.backend(), false);
            return Err(Reason::TimedOut);
        };
        let failed = match outcome {
            Ok(response) => {
                state.settle(shared);
                let outcome_follows = judge_head(worker, &lease, &response);
                return Ok(Answer { response, channel, request: state, lease, outcome_follows });
            }
            Err(failed) => *failed,
        };
        let sent = Sent { lease, shared, reused, spare, body: state };
        request = Box::pin(errand.again(worker, record, sent, failed)).await?;
    }
}

/// Takes note of what the head of an answer says of its instance. True where that is said at its end.
fn judge_head(worker: &Worker, lease: &InFlight, response: &Response<AppBody>) -> bool {
    let outcome = grpc::outcome_in(response.headers());
    let follows = outcome == Some(None);
    if !follows {
        let status = outcome.flatten().unwrap_or(response.status().as_u16());
        worker.judge(lease.backend(), status < 500);
    }
    follows
}

/// What becomes of what was `sent`; `None` when there is a `limit` and no answer began within it since the last part of the `request` was handed on. While more of
/// it is to come the app cannot answer, so that a slow upload has the time that it takes. The request is given up by dropping it, which ends its connection
/// and so tells the app.
async fn in_time<F: Future>(
    worker: &Worker,
    mut sent: Pin<&mut F>,
    request: &RequestState,
    limit: Option<Duration>,
) -> Option<F::Output> {
    let Some(limit) = limit else { return Some(sent.await) };
    let mut left = limit;
    loop {
        tokio::select! {
            outcome = &mut sent => return Some(outcome),
            () = tokio::time::sleep(left) => {}
        }
        left = if request.is_starved() {
            // The client has its own time to send the rest.
            limit
        } else {
            (request.moved() + limit).checked_sub(worker.now()).filter(|left| !left.is_zero())?
        };
    }
}

fn finish(
    worker: &Rc<Worker>,
    answer: Answer,
    client: Option<(OnUpgrade, HeaderValue)>,
    mut record: Box<Record>,
    accept: Option<&HeaderValue>,
) -> Response<ResponseBody> {
    let Answer { mut response, channel, request, mut lease, outcome_follows } = answer;
    if !headers::is_plainly_framed(response.headers()) {
        return refuse(Reason::BadAnswer, accept, record);
    }
    // Only where it was shared out: the other apps' visitors are nobody's business.
    let cookie = record.visit().filter(|_| record.is_shared()).and_then(|visit| visit.cookie());
    let status = response.status().as_u16();
    if outcome_follows {
        record.began(status, lease.backend());
    } else {
        let outcome = grpc::outcome_in(response.headers()).flatten();
        record.served(outcome.unwrap_or(status), lease.backend());
    }
    let protocol = headers::upgrade(response.headers());
    headers::to_client(response.headers_mut());
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    *response.version_mut() = Version::HTTP_11;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // What shares its connection with others cannot stand still for itself, and keeps its app awake.
        if streams_events(response.headers()) && !channel.is_shared() {
            lease.stand();
        }
        let (parts, body) = response.into_parts();
        let ending = Ending { worker: Rc::clone(worker), channel, request, lease, outcome_follows };
        return Response::from_parts(parts, ResponseBody::from_app(body, ending, record));
    }
    // An app that switches unasked, or to something else, or does not say to what, leaves nothing that could be passed on.
    let granted = client.zip(protocol).filter(|((_, asked), granted)| headers::is_granted(asked, granted));
    let Some(((client, _), protocol)) = granted else {
        return refuse(Reason::BadAnswer, accept, record);
    };
    let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    headers::set_upgrade(response.headers_mut(), protocol);
    let app = hyper::upgrade::on(&mut response);
    let (parts, _empty) = response.into_parts();
    let body = upgrade::start(worker, Tunnel { client, app, lease, is_websocket }, record);
    Response::from_parts(parts, body)
}

/// Whether the response goes on for as long as both sides like, whatever happens: it stands open and keeps no app awake.
fn streams_events(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_event_stream(kind.as_bytes()))
}
