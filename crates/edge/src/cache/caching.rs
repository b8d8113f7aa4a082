//! The way of one request by its app's cache: looked up, waited for, fetched, stored, or none of that; and what the answer says of it
//! (`Cache-Status`, RFC 9211).

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::rules::{Asks, Came, Freshness, Selecting, freshness, is_about, is_unchanged};
use super::store::{Name, Stored};
use super::{Arriving, Cache, Found, Lead, name};
use crate::answer::Reason;
use crate::body::ResponseBody;
use crate::client::Origin;
use crate::queue::Queue;
use crate::record::Record;
use crate::request_body::BodyError;
use crate::worker::{Target, Worker};

/// How long a request waits for another one's answer: as long as it would for an instance. Whoever fetches it may have a slow app, and by then it is better
/// asked twice. So a request waits once, and never for longer than this.
const WAIT: Duration = Duration::from_secs(5);

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What becomes of a request.
pub(crate) enum Looked {
    /// It is answered by this.
    Stored(Hit),
    /// It is refused.
    Refused(Reason),
    /// The app is to be asked; the cache wants to see its answer, if there is one.
    Ask(Option<Box<Caching>>),
}

/// A stored answer that is to be given.
pub(crate) struct Hit {
    stored: Arc<Stored>,
    age: Duration,
    /// What its `Cache-Status` says.
    status: String,
    head: bool,
    /// Whether the client has it already.
    unchanged: bool,
}

/// A request that an app is asked, as its cache sees it.
pub(crate) struct Caching {
    cache: Arc<Cache>,
    name: Name,
    secure: bool,
    host: HeaderValue,
    path: String,
    what: What,
}

enum What {
    /// It may change what it is about.
    Changes,
    /// It has nothing to do with the cache.
    GoesBy,
    /// Its answer may be stored.
    Fetches(Box<Fetch>),
}

struct Fetch {
    asks: Asks,
    /// As the app has it.
    headers: HeaderMap,
    started: Duration,
    /// How often what it is about was changed before.
    changes: u64,
    why: &'static str,
    stale: Option<Arc<Stored>>,
    /// Whether the app is asked if that is still good.
    revalidates: bool,
    lead: Option<Lead>,
}

/// What came of an answer's body.
enum Body {
    Whole(Bytes),
    /// It is not to be stored, as far as it came.
    Not(Vec<Result<Frame<Bytes>, BodyError>>),
}

/// Looks whether `request` can be answered by what is stored for its app; waits where somebody fetches that already. It goes by what the app gets: the headers are
/// those for it, to which a condition may be added.
pub(crate) async fn look(
    worker: &Rc<Worker>,
    origin: &Origin,
    target: &Target,
    host: &HeaderValue,
    request: &mut Request<Incoming>,
    record: &mut Record,
) -> Looked {
    let Origin::Outside { secure, .. } = origin else { return Looked::Ask(None) };
    let Some((cache, queue)) = worker.cache(target, record) else { return Looked::Ask(None) };
    // Apart, so that nobody carries it along whose app has no cache.
    Box::pin(search(worker, cache, &queue, secure.is_some(), host, request)).await
}

async fn search(
    worker: &Rc<Worker>,
    cache: Arc<Cache>,
    queue: &Queue,
    secure: bool,
    host: &HeaderValue,
    request: &mut Request<Incoming>,
) -> Looked {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let (name, is_plain) = name(secure, host, &path);
    let caching = |what| {
        let (cache, name, host, path) = (Arc::clone(&cache), name.clone(), host.clone(), path.clone());
        Looked::Ask(Some(Box::new(Caching { cache, name, secure, host, path, what })))
    };
    if !request.method().is_safe() {
        return caching(What::Changes);
    }
    let has_body = !hyper::body::Body::is_end_stream(request.body());
    let asks = Asks::of(request.method(), request.headers(), has_body).filter(|_| is_plain);
    let Some(asks) = asks else { return caching(What::GoesBy) };
    let (mut waited, mut lead) = (false, None);
    let (stale, why) = loop {
        let now = worker.now();
        let (stale, why) = match cache.find(&name, request.headers(), &asks, now) {
            Found::Fresh(stored) => {
                let age = stored.age(now);
                let unchanged = is_unchanged(request.headers(), &stored.headers);
                let ttl = stored.freshness.lifetime.saturating_sub(age).as_secs();
                let status = if waited { "berth; fwd=uri-miss; collapsed" } else { "berth; hit" };
                let status = format!("{status}; ttl={ttl}");
                return Looked::Stored(Hit { stored, age, status, head: asks.head, unchanged });
            }
            Found::Stale(stored) => (Some(stored), if asks.insists() { "request" } else { "stale" }),
            Found::Others => (None, if asks.known { "bypass" } else { "vary-miss" }),
            Found::Nothing => (None, "uri-miss"),
        };
        if asks.only_if_cached {
            return Looked::Refused(Reason::NotStored);
        }
        let alone = waited || asks.known || asks.head || asks.conditional || asks.insists();
        if alone || cache.is_unstored(&name) {
            break (stale, why);
        }
        match cache.lead(&name) {
            Ok(it) => {
                lead = Some(it);
                break (stale, why);
            }
            Err(mut flight) => {
                // Where too many wait it asks by itself.
                let Some(_place) = queue.enter() else { break (stale, why) };
                let _over = timeout(WAIT, flight.changed()).await.is_ok();
                waited = true;
            }
        }
    };
    let headers = request.headers().clone();
    let conditions =
        stale.as_ref().filter(|_| !asks.head && !asks.conditional).map(|it| conditions(&it.headers));
    let conditions = conditions.unwrap_or_default();
    let revalidates = !conditions.is_empty();
    request.headers_mut().extend(conditions);
    let (started, changes) = (worker.now(), cache.changes(&name));
    caching(What::Fetches(Box::new(Fetch { asks, headers, started, changes, why, stale, revalidates, lead })))
}

/// By which an app says whether what is stored with these headers is still good (RFC 9111, 4.3.1).
fn conditions(stored: &HeaderMap) -> HeaderMap {
    let pairs = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    pairs.into_iter().filter_map(|(has, asks)| Some((asks, stored.get(has)?.clone()))).collect()
}

impl Hit {
    pub(crate) fn answer(self, mut record: Box<Record>) -> Response<ResponseBody> {
        let Self { stored, age, status, head, unchanged } = self;
        let mut headers = stored.headers.clone();
        let body = if head || unchanged { Bytes::new() } else { stored.body.clone() };
        let code = if unchanged { StatusCode::NOT_MODIFIED } else { stored.status };
        if !unchanged {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(stored.body.len()));
        }
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
        say(&mut headers, &status);
        record.had_stored(code.as_u16(), body.len());
        let mut response = Response::new(ResponseBody::own(body, record));
        *response.status_mut() = code;
        *response.headers_mut() = headers;
        response
    }
}

impl Caching {
    /// What is given in place of an answer that did not come, where the app allowed that.
    pub(crate) fn instead(&self, worker: &Worker) -> Option<Hit> {
        let What::Fetches(fetch) = &self.what else { return None };
        fetch.instead(worker, "detail=no-answer")
    }

    /// Takes note of the app's answer, which is not stored where `store` says so, and gives what the client gets.
    pub(crate) async fn take(
        self,
        worker: &Rc<Worker>,
        mut response: Response<ResponseBody>,
        store: bool,
    ) -> Response<ResponseBody> {
        match self.what {
            What::Changes => {
                self.change(&response);
                say(response.headers_mut(), "berth; fwd=method");
                response
            }
            What::GoesBy => {
                say(response.headers_mut(), "berth; fwd=bypass");
                response
            }
            What::Fetches(fetch) => fetch.take(worker, &self.cache, &self.name, response, store).await,
        }
    }

    /// Forgets what a request that changed something was about (RFC 9111, 4.4), and what its answer names.
    fn change(&self, response: &Response<ResponseBody>) {
        if !response.status().is_success() && !response.status().is_redirection() {
            return;
        }
        let named = [header::LOCATION, header::CONTENT_LOCATION];
        let named = named.iter().filter_map(|name| self.path(response.headers().get(name)?));
        for path in named.chain([self.path.as_str()]) {
            // One page is mostly there by HTTP and by HTTPS.
            for secure in [false, true] {
                self.cache.change(&name(secure, &self.host, path).0);
            }
        }
    }

    /// The path that a header names, where it is one at the same place.
    fn path<'h>(&self, value: &'h HeaderValue) -> Option<&'h str> {
        let text = value.to_str().ok()?;
        let path = match text.strip_prefix(if self.secure { "https://" } else { "http://" }) {
            Some(rest) => rest.strip_prefix(self.host.to_str().ok()?)?,
            None => text,
        };
        path.split('#').next().filter(|path| path.starts_with('/'))
    }
}

impl Fetch {
    async fn take(
        mut self,
        worker: &Rc<Worker>,
        cache: &Arc<Cache>,
        name: &[u8],
        mut response: Response<ResponseBody>,
        store: bool,
    ) -> Response<ResponseBody> {
        let status = response.status();
        if status.is_server_error()
            && let Some(hit) = self.instead(worker, &format!("fwd-status={}", status.as_u16()))
            && let Some(record) = response.body_mut().take_record()
        {
            return hit.answer(record);
        }
        let came = Came { at: wall(worker), took: worker.now().saturating_sub(self.started) };
        let mut said = format!("berth; fwd={}", self.why);
        let confirmed = self.stale.take().filter(|_| status == StatusCode::NOT_MODIFIED);
        let unchanged = confirmed.as_ref().filter(|_| self.revalidates);
        if unchanged.is_none()
            && let Some(stored) = confirmed.as_ref().filter(|it| is_about(response.headers(), &it.headers))
        {
            // The client's own condition, and the client's own answer: the cache learns from it that what it has is good for longer.
            let headers = updated(&stored.headers, response.headers());
            let fresh = freshness(&self.asks, stored.status, &headers, came).filter(|_| store);
            if let Some(rules) = fresh.zip(Selecting::of(&self.headers, &headers)) {
                let answer = (stored.status, headers, stored.body.clone());
                self.keep(worker, cache, name, answer, rules, Some(stored));
            }
        }
        if let Some(stored) = unchanged {
            *response.headers_mut() = updated(&stored.headers, response.headers());
            *response.status_mut() = stored.status;
            said.push_str("; fwd-status=304");
            response.body_mut().confirmed(stored.status, stored.body.len());
        }
        let fresh = freshness(&self.asks, response.status(), response.headers(), came).filter(|_| store);
        let selecting = fresh.and_then(|_| Selecting::of(&self.headers, response.headers()));
        let kept = match (fresh.zip(selecting), unchanged) {
            (None, None) => None,
            (None, Some(stored)) => Some((None, stored.body.clone())),
            (Some(rules), Some(stored)) => Some((Some(rules), stored.body.clone())),
            (Some(rules), None) => self.arrive(cache, &mut response).await.map(|body| (Some(rules), body)),
        };
        let is_stored = kept.as_ref().is_some_and(|(rules, _)| rules.is_some());
        if !is_stored && !self.asks.head && !self.asks.conditional && !self.asks.known {
            cache.set_unstored(name);
        }
        let Some((rules, body)) = kept else {
            say(response.headers_mut(), &said);
            return response;
        };
        let (mut parts, before) = response.into_parts();
        if let Some((freshness, selecting)) = rules {
            let answer = (parts.status, parts.headers.clone(), body.clone());
            if self.keep(worker, cache, name, answer, (freshness, selecting), None) {
                said.push_str("; stored");
            }
        }
        // Those that wait may look now.
        drop(self.lead.take());
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        say(&mut parts.headers, &said);
        Response::from_parts(parts, before.into_own(body))
    }

    /// Stores an answer, one made `of` what is stored in place of that; says whether it is there.
    fn keep(
        &self,
        worker: &Worker,
        cache: &Cache,
        name: &[u8],
        (status, mut headers, body): (StatusCode, HeaderMap, Bytes),
        (freshness, selecting): (Freshness, Selecting),
        of: Option<&Arc<Stored>>,
    ) -> bool {
        for gone in [header::AGE, header::CONTENT_LENGTH] {
            headers.remove(gone);
        }
        if !headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(wall(worker)))
        {
            headers.insert(header::DATE, date);
        }
        let stored = Stored { status, headers, body, freshness, selecting, at: worker.now() };
        cache.put(name, stored, self.changes, of)
    }

    /// What is stored, where it may be used although the app fails.
    fn instead(&self, worker: &Worker, detail: &str) -> Option<Hit> {
        let stored = self.stale.as_ref()?;
        let age = stored.age(worker.now());
        let until = stored.freshness.lifetime.saturating_add(stored.freshness.if_error);
        let unchanged = is_unchanged(&self.headers, &stored.headers);
        let may = !stored.freshness.if_error.is_zero() && !self.asks.insists();
        (age < until && may).then(|| Hit {
            stored: Arc::clone(stored),
            age,
            status: format!("berth; fwd={}; {detail}", self.why),
            head: self.asks.head,
            unchanged,
        })
    }

    /// The whole body of an answer, where it is short enough to be stored. Else it goes on as it came, and nobody waits for it any more.
    async fn arrive(&mut self, cache: &Cache, response: &mut Response<ResponseBody>) -> Option<Bytes> {
        let least = http_body::Body::size_hint(response.body()).lower();
        if usize::try_from(least).is_ok_and(|least| least <= cache.max_body()) {
            match collect(response.body_mut(), cache).await {
                Body::Whole(body) => return Some(body),
                Body::Not(frames) => response.body_mut().put_back(frames),
            }
        }
        self.lead = None;
        None
    }
}

/// Reads a body to its end as fast as the app gives it: whoever waits for it waits for the app, and not for the client that asked first.
async fn collect(body: &mut ResponseBody, cache: &Cache) -> Body {
    let mut arriving = Arriving { cache, bytes: 0 };
    let mut frames = Vec::new();
    loop {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { break };
        let data = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
        frames.push(frame);
        // What has trailers says more than what can be stored; what broke off is no answer.
        let fits = data.is_some_and(|len| arriving.grow(len)) && arriving.bytes <= cache.max_body();
        if !fits {
            return Body::Not(frames);
        }
    }
    let mut whole = BytesMut::with_capacity(arriving.bytes);
    for data in frames.into_iter().filter_map(Result::ok).filter_map(|frame| frame.into_data().ok()) {
        whole.extend_from_slice(&data);
    }
    Body::Whole(whole.freeze())
}

/// The headers of what is stored, with those that the app says anew beside it (RFC 9111, 3.2).
fn updated(stored: &HeaderMap, said: &HeaderMap) -> HeaderMap {
    let of_the_body = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE];
    let mut headers = stored.clone();
    for name in said.keys().filter(|name| !of_the_body.contains(name)) {
        headers.remove(name);
        for value in said.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

fn wall(worker: &Worker) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(worker.clock().now().0)
}

/// Says what the cache did. What an app, or a cache behind it, says of its own stands before.
fn say(headers: &mut HeaderMap, status: &str) {
    if let Ok(value) = HeaderValue::from_str(status) {
        headers.append(CACHE_STATUS, value);
    }
}
