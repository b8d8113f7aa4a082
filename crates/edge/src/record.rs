//! What is noted about one request: for the log and for the counts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Uri, Version};

use crate::access_log::Line;
use crate::app::Counters;
use crate::backend::Backend;
use crate::client::Origin;
use crate::headers::RequestId;
use crate::routes::{Crowded, Routes, Ruling};
use crate::tally::Tally;
use crate::visit::Visit;
use crate::worker::Worker;

/// The status under which a request is logged whose client left before it was answered, as nginx does.
const CLIENT_LEFT: u16 = 499;

/// One request. It is logged once, at the latest when this is dropped.
pub(crate) struct Record {
    worker: Rc<Worker>,
    started: Duration,
    client: HeaderValue,
    version: Version,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    id: RequestId,
    /// `None` until someone answers.
    status: Option<u16>,
    bytes: u64,
    cut: bool,
    /// Whether it was answered by what was stored.
    stored: bool,
    backend: Option<Arc<Backend>>,
    counters: Option<Arc<Counters>>,
    /// What holds for the part of the app that it is for.
    ruling: Option<Ruling>,
    /// Who sends it, where that matters.
    visit: Option<Visit>,
    /// The release that it is counted for, until it is.
    tally: Option<Arc<Tally>>,
    /// How long the head of its answer took, where its trailers say what became of it.
    began: Option<Duration>,
    finished: Option<Duration>,
}

impl Record {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        origin: &Origin,
        started: Duration,
        (method, uri, version): (Method, Uri, Version),
    ) -> Box<Self> {
        // Boxed: it goes through a dozen hands.
        Box::new(Self {
            worker: Rc::clone(worker),
            started,
            client: origin.peer().clone(),
            version,
            method,
            uri,
            host: None,
            id: worker.request_id(),
            status: None,
            bytes: 0,
            cut: false,
            stored: false,
            backend: None,
            counters: None,
            ruling: None,
            visit: None,
            tally: None,
            began: None,
            finished: None,
        })
    }

    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Whether its answer has no body.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    pub(crate) fn started(&self) -> Duration {
        self.started
    }

    pub(crate) fn set_host(&mut self, host: HeaderValue) {
        self.host = Some(host);
    }

    pub(crate) fn set_app(&mut self, counters: &Arc<Counters>) {
        if self.counters.is_none() {
            self.counters = Some(Arc::clone(counters));
        }
    }

    /// Holds it to the rule among `routes` that it comes by, and counts it there for as long as this exists.
    pub(crate) fn enter(&mut self, routes: &Routes) -> Result<(), Crowded> {
        if !routes.is_empty() && self.ruling.is_none() {
            self.ruling = Some(routes.enter(self.method.as_str(), self.uri.path())?);
        }
        Ok(())
    }

    /// How long `backend` may take to begin its answer, if not for ever.
    pub(crate) fn request_timeout(&self, backend: &Backend) -> Option<Duration> {
        let otherwise = backend.request_timeout();
        self.ruling.as_ref().map_or(otherwise, |ruling| ruling.request_timeout(otherwise))
    }

    pub(crate) fn set_visit(&mut self, visit: Visit) {
        self.visit = Some(visit);
    }

    pub(crate) fn visit(&self) -> Option<Visit> {
        self.visit
    }

    /// Whether it goes to one of two releases that requests are shared between.
    pub(crate) fn is_shared(&self) -> bool {
        self.tally.is_some()
    }

    /// It goes to an instance of this release next, or to one of none that is counted.
    pub(crate) fn set_tally(&mut self, tally: Option<&Arc<Tally>>) {
        self.tally = tally.map(Arc::clone);
    }

    /// The app answered.
    pub(crate) fn served(&mut self, status: u16, backend: &Arc<Backend>) {
        // What goes on as another protocol has no end that would say anything.
        if let Some(tally) = self.tally.take().filter(|_| status != 101) {
            tally.answered(status, self.worker.now().saturating_sub(self.started));
        }
        self.status = Some(status);
        self.backend = Some(Arc::clone(backend));
    }

    /// The app has begun to answer, and says in its trailers what became of the request.
    pub(crate) fn began(&mut self, status: u16, backend: &Arc<Backend>) {
        self.began = Some(self.worker.now().saturating_sub(self.started));
        self.status = Some(status);
        self.backend = Some(Arc::clone(backend));
    }

    /// This is what became of it.
    pub(crate) fn outcome(&mut self, status: u16) {
        if let (Some(took), Some(tally)) = (self.began, self.tally.take()) {
            tally.answered(status, took);
        }
        self.status = Some(status);
    }

    /// Edge answers itself.
    pub(crate) fn refused(&mut self, status: u16) {
        if let Some(tally) = self.tally.take().filter(|_| status >= 500) {
            tally.failed();
        }
        self.status = Some(status);
    }

    /// It is answered by so many bytes that were stored.
    pub(crate) fn had_stored(&mut self, status: u16, bytes: usize) {
        self.stored = true;
        self.status = Some(status);
        self.bytes = bytes as u64;
    }

    /// The app said that what was stored is still good: so many bytes.
    pub(crate) fn confirmed(&mut self, status: u16, bytes: usize) {
        self.status = Some(status);
        self.add_bytes(bytes);
    }

    /// No instance could be given the request.
    pub(crate) fn unserved(&self) {
        if let Some(counters) = &self.counters {
            counters.unserved();
        }
    }

    /// Whether the app's requests may be sent again once more.
    pub(crate) fn may_repeat(&self) -> bool {
        self.counters.as_ref().is_none_or(|counters| counters.may_repeat())
    }

    /// What was to be its body is told otherwise.
    pub(crate) fn sends_no_body(&mut self) {
        self.bytes = 0;
    }

    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The response did not come to its end.
    pub(crate) fn cut(&mut self) {
        self.cut = true;
    }

    /// Somebody else takes note of the request.
    pub(crate) fn forget(mut self: Box<Self>) {
        self.finished = Some(self.started);
    }

    /// Logs and counts the request unless that was done. Gives the time at which it ended.
    pub(crate) fn finish(&mut self) -> Duration {
        if let Some(finished) = self.finished {
            return finished;
        }
        let now = self.worker.now();
        self.finished = Some(now);
        if let Some(tally) = self.tally.take() {
            match (self.began, self.status) {
                // Its client left in the middle of the answer.
                (Some(took), Some(status)) => tally.answered(status, took),
                _ => tally.left(now.saturating_sub(self.started)),
            }
        }
        if let (Some(counters), Some(status)) = (&self.counters, self.status) {
            counters.answered(status);
        }
        self.worker.log(&Line {
            at: now,
            took: now.saturating_sub(self.started),
            client: self.client.as_bytes(),
            host: self.host.as_ref().map_or(b"-", HeaderValue::as_bytes),
            method: self.method.as_str(),
            path: self.uri.path(),
            version: self.version,
            status: self.status.unwrap_or(CLIENT_LEFT),
            bytes: self.bytes,
            cut: self.cut,
            instance: match &self.backend {
                _ if self.stored => "cache",
                Some(backend) => &backend.label,
                None => "-",
            },
            id: self.id.as_str(),
        });
        now
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish();
    }
}
