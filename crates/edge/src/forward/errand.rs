//! A request on its way to an instance: which one, by which connection, and whether it may go again.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use berth_routing::balance::{Attempt, Hold};
use http::header::HeaderMap;
use http::{Method, Request, Uri};

use super::is_our_own;
use crate::answer::Reason;
use crate::backend::InFlight;
use crate::http2::{self, Channel, Failed};
use crate::record::Record;
use crate::request_body::{RequestBody, RequestState};
use crate::worker::{Choice, Held, Target, Worker};

/// An instance that takes the request, or why there is none.
type Found = Result<(InFlight, Channel, Reused), Reason>;
type Reused = bool;

/// A request, ready to be sent, and what is known about sending it again.
pub(super) struct Errand {
    pub(super) target: Target,
    pub(super) idempotent: bool,
    pub(super) has_body: bool,
    /// Whether it can be sent by our own codec.
    pub(super) direct: bool,
    pub(super) hold: Option<Hold>,
    pub(super) started: Duration,
    /// Backends that refused a connection since the last pause.
    pub(super) tried: Vec<u64>,
    pub(super) repeated: bool,
    /// How often an instance that shares connections said that it did nothing with it.
    pub(super) bounces: u32,
}

/// So often a request is sent on that an instance did nothing with: one that closes a connection in good order, as servers of gRPC do when it is
/// old, does so once. It costs nobody anything, so that the budget for repeats is not asked.
const BOUNCES_MAX: u32 = 3;

/// The head of a request that can be sent again, kept while it rides a connection that may have been closed.
pub(super) struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// A request that was sent and not answered.
pub(super) struct Sent {
    pub(super) lease: InFlight,
    /// Whether it rode a connection that others ride too, and whether that was there before.
    pub(super) shared: bool,
    pub(super) reused: bool,
    pub(super) spare: Option<Spare>,
    pub(super) body: Rc<RequestState>,
}

impl Errand {
    /// The request for one more attempt, after a pause where that may help.
    pub(super) async fn again(
        &mut self,
        worker: &Worker,
        record: &Record,
        sent: Sent,
        failed: Failed,
    ) -> Result<Request<RequestBody>, Reason> {
        let Sent { lease, shared, reused, spare, body } = sent;
        let Failed { returned, unanswered, malformed, unprocessed } = failed;
        let bounced = unprocessed || (shared && returned.is_some());
        let attempt = Attempt {
            idempotent: self.idempotent,
            has_body: self.has_body,
            reused,
            nothing_sent: returned.is_some() || unprocessed,
            repeated: self.repeated,
        };
        if body.failed() {
            return Err(Reason::BadBody);
        }
        // A connection that idled may be closed by an instance that is well; one that others ride does not idle.
        if !bounced && (!reused || shared || malformed) {
            worker.judge(lease.backend(), false);
        }
        let is_free = bounced && self.bounces < BOUNCES_MAX;
        self.bounces += u32::from(bounced);
        let spare = || spare.and_then(|spare| spare.into_request(unprocessed.then_some(&body)));
        let again = returned.or(unanswered).or_else(spare);
        let Some(request) = again.filter(|_| attempt.may_repeat() && (is_free || record.may_repeat())) else {
            return Err(if malformed { Reason::BadAnswer } else { Reason::NoAnswer });
        };
        self.repeated |= !attempt.nothing_sent;
        drop(lease);
        if !reused || bounced {
            tokio::time::sleep(worker.jitter()).await;
        }
        Ok(request)
    }

    pub(super) fn can_repeat(&self) -> bool {
        self.idempotent && !self.has_body && !self.repeated
    }

    /// Finds an instance and a connection to it that is ready to be written to. As long as there is none, waits: an
    /// app whose only instance is being restarted shall not show that to anyone.
    pub(super) async fn find(&mut self, worker: &Rc<Worker>, record: &mut Record) -> Found {
        let mut choice = worker.choose(&self.target, &self.tried, false, Some(&mut *record));
        loop {
            match choice {
                Choice::NoApp => return Err(Reason::NoApp),
                Choice::Maintenance => return Err(Reason::Maintenance),
                Choice::Crowded => return Err(Reason::Crowded),
                Choice::Backend(lease) => match self.reach(worker, &lease).await {
                    Ok((channel, reused)) => return Ok((lease, channel, reused)),
                    Err(error) => {
                        let backend = lease.backend();
                        tracing::debug!(instance = %backend.instance, %error, "an instance takes no connection");
                        if !is_our_own(&error) {
                            worker.judge(backend, false);
                        }
                        self.tried.push(backend.key);
                    }
                },
                Choice::Full(held) => {
                    let left = self.hold(&held).left(worker.now()).ok_or(Reason::Full)?;
                    let turn =
                        held.queue.turn(worker, &self.target, &mut self.tried, left, Some(&mut *record));
                    choice = Box::pin(turn).await?;
                    continue;
                }
                Choice::Wait(held) => {
                    let none = held.patience.is_zero();
                    Box::pin(self.wait(
                        worker,
                        held,
                        if none { Reason::NotRunning } else { Reason::NotReady },
                    ))
                    .await?;
                }
                Choice::Asleep(held) => Box::pin(self.wait(worker, held, Reason::NotAwake)).await?,
                Choice::Paused(held) => Box::pin(self.wait(worker, held, Reason::Paused)).await?,
            }
            choice = worker.choose(&self.target, &self.tried, false, Some(&mut *record));
        }
    }

    /// Waits until there may be an instance; `over` when the time for that is used up.
    async fn wait(&mut self, worker: &Rc<Worker>, held: Held, over: Reason) -> Result<(), Reason> {
        let pause = self.hold(&held).wait(worker.now()).ok_or(over)?;
        if !held.wait(worker, pause).await {
            return Err(Reason::busy(Duration::ZERO));
        }
        self.tried.clear();
        Ok(())
    }

    /// For how long it waits, whatever for: what it waited for first says it.
    fn hold(&mut self, held: &Held) -> &mut Hold {
        self.hold.get_or_insert_with(|| Hold::new(self.started, held.patience))
    }

    async fn reach(&self, worker: &Rc<Worker>, lease: &InFlight) -> io::Result<(Channel, Reused)> {
        if lease.backend().speaks_http2() {
            let (ride, reused) = Box::pin(http2::ride(worker, lease)).await?;
            return Ok((Channel::Shared(ride), reused));
        }
        if self.direct {
            return self.reach_directly(worker, lease).await;
        }
        // After a failure on a pooled connection only a fresh one will do: the others are as old.
        while !self.repeated
            && let Some(mut sender) = worker.pooled(lease, self.can_repeat())
        {
            // The instance may have closed it a moment ago without this thread having noticed. To look at the sockets
            // first costs a system call; it spares what cannot be sent again most of the 502s that are left.
            if !self.can_repeat() {
                tokio::task::yield_now().await;
            }
            // At once but for a connection that is just being wound up.
            if sender.ready().await.is_ok() {
                return Ok((Channel::Own(sender), true));
            }
        }
        let mut sender = Box::pin(worker.connect(lease)).await?;
        sender.ready().await.map_err(io::Error::other)?;
        Ok((Channel::Own(sender), false))
    }

    /// The same for a request that our own codec sends.
    async fn reach_directly(&self, worker: &Rc<Worker>, lease: &InFlight) -> io::Result<(Channel, Reused)> {
        if !self.can_repeat() {
            tokio::task::yield_now().await;
        }
        // As above: after a failure only a fresh one will do.
        let pooled = if self.repeated { None } else { worker.pooled_stream(lease, self.can_repeat()) };
        Ok(match pooled {
            Some(stream) => (Channel::Direct(Some(stream)), true),
            None => (Channel::Direct(Some(Box::pin(worker.open(lease)).await?)), false),
        })
    }
}

impl Spare {
    pub(super) fn of(request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        }
    }

    /// The request with the body that it had, where that is all there, or without one.
    fn into_request(self, body: Option<&Rc<RequestState>>) -> Option<Request<RequestBody>> {
        let body = match body {
            Some(body) => body.again()?,
            None => RequestBody::empty(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}
