//! Bodies on their way through, watched for what the retry rules, the pool and the log need to know.

use std::cell::Cell;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_clock::Clock;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::backend::InFlight;
use crate::client::Busy;
use crate::record::Record;
use crate::upstream::Sender;
use crate::worker::Worker;

/// How far a request's body got.
#[derive(Debug, Default)]
pub(crate) struct RequestState {
    ended: Cell<bool>,
    failed: Cell<bool>,
    moved: Cell<Duration>,
    starved: Cell<bool>,
}

impl RequestState {
    /// When a part of it was handed on last; nought for one without a body.
    pub(crate) fn moved(&self) -> Duration {
        self.moved.get()
    }

    /// Whether more of it is waited for, which is the client's to send.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.get()
    }

    /// All of it was handed on.
    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// The client broke it off or its framing is wrong.
    pub(crate) fn failed(&self) -> bool {
        self.failed.get()
    }
}

/// Why a request's body goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It broke off, or its framing is wrong.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// Nothing of it came for too long.
    #[error("nothing of the body came for {0:?}")]
    Stalled(Duration),
}

/// How long a body of HTTP/2 may stand still. Of HTTP/1 the whole connection stands still with it, which is seen there.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    /// There while it stands still.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A request's body on its way to the app.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Option<(Incoming, Arc<dyn Clock>)>,
    stall: Option<Stall>,
    state: Rc<RequestState>,
}

impl RequestBody {
    /// `stall` is how long it may stand still by itself.
    pub(crate) fn new(inner: Incoming, clock: &Arc<dyn Clock>, stall: Option<Duration>) -> Self {
        if inner.is_end_stream() {
            return Self::empty();
        }
        let stall = stall.map(|limit| Stall { limit, timer: None });
        Self { inner: Some((inner, Arc::clone(clock))), stall, state: Rc::default() }
    }

    pub(crate) fn empty() -> Self {
        let state = RequestState { ended: Cell::new(true), ..RequestState::default() };
        Self { inner: None, stall: None, state: Rc::new(state) }
    }

    pub(crate) fn state(&self) -> Rc<RequestState> {
        Rc::clone(&self.state)
    }
}

impl Stall {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyError::Stalled(self.limit))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some((inner, clock)) = &mut this.inner else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *inner).poll_frame(cx).map_err(BodyError::from);
        this.state.starved.set(frame.is_pending());
        if frame.is_ready() {
            this.state.moved.set(clock.monotonic());
        }
        let frame = match &mut this.stall {
            Some(stall) if frame.is_pending() => stall.poll(cx),
            Some(stall) => {
                stall.timer = None;
                frame
            }
            None => frame,
        };
        match &frame {
            Poll::Ready(Some(Ok(_))) => this.state.ended.set(inner.is_end_stream()),
            Poll::Ready(Some(Err(_))) => this.state.failed.set(true),
            Poll::Ready(None) => this.state.ended.set(true),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|(inner, _)| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), |(inner, _)| inner.size_hint())
    }
}

/// What a response that comes from an app holds on to until it has ended.
pub(crate) struct Ending {
    pub(crate) worker: Rc<Worker>,
    pub(crate) sender: Sender,
    pub(crate) request: Rc<RequestState>,
    pub(crate) lease: InFlight,
}

/// A response's body on its way to the client. Dropping it ends the request: it is logged, its connection goes back
/// to the pool if it is clean, and its backend has one request less in flight.
pub(crate) struct ResponseBody {
    source: Source,
    /// `None` for the head of an upgraded connection, which is recorded when that has ended.
    record: Option<Record>,
    /// Shows the client's connection as busy.
    busy: Option<Busy>,
}

enum Source {
    App { inner: Incoming, ending: Option<Box<Ending>>, complete: bool },
    Own(Option<Bytes>),
}

impl ResponseBody {
    pub(crate) fn from_app(inner: Incoming, ending: Ending, record: Record) -> Self {
        let complete = inner.is_end_stream();
        Self {
            source: Source::App { inner, ending: Some(Box::new(ending)), complete },
            record: Some(record),
            busy: None,
        }
    }

    pub(crate) fn own(text: Bytes, record: Record) -> Self {
        Self {
            source: Source::Own(Some(text).filter(|text| !text.is_empty())),
            record: Some(record),
            busy: None,
        }
    }

    /// Shows the client's connection as busy until the response has ended.
    pub(crate) fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// The body of a 101: what follows is no body.
    pub(crate) fn none() -> Self {
        Self { source: Source::Own(None), record: None, busy: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::App { inner, complete, .. } => {
                let frame = Pin::new(&mut *inner).poll_frame(cx);
                // An error is no end: it must cut the client's response too, never make it look complete.
                *complete = match &frame {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Err(_))) => {
                        this.record.iter_mut().for_each(Record::cut);
                        false
                    }
                    Poll::Ready(Some(Ok(_))) => inner.is_end_stream(),
                    Poll::Pending => false,
                };
                frame
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(record) = &mut this.record
        {
            record.add_bytes(data.len());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::App { inner, .. } => inner.is_end_stream(),
            Source::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::App { inner, .. } => inner.size_hint(),
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(now) = self.record.as_mut().map(Record::finish) else { return };
        if let Source::App { ending, complete, .. } = &mut self.source
            && let Some(ending) = ending.take()
        {
            let Ending { worker, sender, request, lease } = *ending;
            // A request body that is still under way would hold up whoever rides this connection next.
            if *complete && request.ended() {
                worker.keep(lease.backend().key, sender, now);
            }
        }
    }
}
