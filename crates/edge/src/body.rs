//! A response's body on its way to the client, watched for what the pool, the breaker and the log need to know.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};

use crate::app_body::AppBody;
use crate::backend::InFlight;
use crate::client::Busy;
use crate::grpc;
use crate::http2::Channel;
use crate::record::Record;
use crate::request_body::{BodyError, RequestState};
use crate::taking::{PIECE, Taking};
use crate::worker::Worker;

/// What a response that comes from an app holds on to until it has ended.
pub(crate) struct Ending {
    pub(crate) worker: Rc<Worker>,
    pub(crate) channel: Channel,
    pub(crate) request: Rc<RequestState>,
    pub(crate) lease: InFlight,
    /// Whether the trailers say what became of it, as those of gRPC do.
    pub(crate) outcome_follows: bool,
}

impl Ending {
    /// The trailers came, or an end without them.
    fn judge(&mut self, outcome: Option<u16>, record: Option<&mut Record>) {
        if std::mem::take(&mut self.outcome_follows) {
            self.worker.judge(self.lease.backend(), outcome.is_some_and(|status| status < 500));
            record.into_iter().for_each(|record| record.outcome(outcome.unwrap_or(502)));
        }
    }
}

/// A response's body on its way to the client. Dropping it ends the request: it is logged, its connection goes back
/// to the pool if it is clean, and its backend has one request less in flight.
pub(crate) struct ResponseBody {
    source: Source,
    /// `None` for the head of an upgraded connection, which is recorded when that has ended.
    record: Option<Box<Record>>,
    /// Shows the client's connection as busy.
    busy: Option<Busy>,
    /// There where the client speaks HTTP/2.
    taking: Option<Rc<Taking>>,
    /// The rest of what was too long to be given at once.
    rest: Bytes,
    /// What was taken out and comes before everything else.
    again: VecDeque<Result<Frame<Bytes>, BodyError>>,
}

enum Source {
    App { inner: AppBody, ending: Option<Box<Ending>>, complete: bool },
    Own(Option<Bytes>),
}

impl ResponseBody {
    pub(crate) fn from_app(inner: AppBody, ending: Ending, record: Box<Record>) -> Self {
        let complete = inner.is_end_stream();
        Self::with(Source::App { inner, ending: Some(Box::new(ending)), complete }, Some(record))
    }

    pub(crate) fn own(text: Bytes, record: Box<Record>) -> Self {
        Self::with(Source::Own(Some(text).filter(|text| !text.is_empty())), Some(record))
    }

    /// Shows the client's connection as busy until the response has ended, and by `taking` whether the client takes it.
    pub(crate) fn hold(&mut self, busy: Busy, taking: Option<Rc<Taking>>) {
        self.busy = Some(busy);
        // The head is there to be taken.
        taking.iter().for_each(|taking| taking.offer());
        self.taking = taking;
    }

    /// The body of a 101: what follows is no body.
    pub(crate) fn none() -> Self {
        Self::with(Source::Own(None), None)
    }

    fn with(source: Source, record: Option<Box<Record>>) -> Self {
        Self { source, record, busy: None, taking: None, rest: Bytes::new(), again: VecDeque::new() }
    }

    /// Has `frames`, which were read out of it, come once more.
    pub(crate) fn put_back(&mut self, frames: Vec<Result<Frame<Bytes>, BodyError>>) {
        self.again = frames.into();
    }

    /// What is noted of the request, for another answer than this one.
    pub(crate) fn take_record(&mut self) -> Option<Box<Record>> {
        self.record.take()
    }

    /// It stands for what was stored, which has so many bytes.
    pub(crate) fn confirmed(&mut self, status: StatusCode, bytes: usize) {
        self.record.iter_mut().for_each(|record| record.confirmed(status.as_u16(), bytes));
    }

    /// An answer of `text` in place of this one, which the instance has nothing more to do with.
    pub(crate) fn into_own(mut self, text: Bytes) -> Self {
        Self::with(Source::Own(Some(text).filter(|text| !text.is_empty())), self.record.take())
    }

    /// Its text, where edge answers itself, which is gone then.
    pub(crate) fn take_own(&mut self) -> Option<Bytes> {
        match &mut self.source {
            Source::Own(text) => {
                self.record.iter_mut().for_each(|record| record.sends_no_body());
                Some(text.take().unwrap_or_default())
            }
            Source::App { .. } => None,
        }
    }
}

impl ResponseBody {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.again.pop_front() {
            return Poll::Ready(Some(frame));
        }
        let (inner, ending, complete) = match &mut self.source {
            Source::Own(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::App { inner, ending, complete } => (inner, ending, complete),
        };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
        let by_frames = ending.as_ref().is_some_and(|ending| ending.channel.is_shared());
        let frame = match frame {
            // An app that resets a stream ends it like one that is complete, for whoever does not look.
            None if by_frames && !inner.is_end_stream() => Some(Err(BodyError::taken_back())),
            frame => frame,
        };
        // An error is no end: it must cut the client's response too, never make it look complete.
        *complete = match &frame {
            None => true,
            Some(Ok(_)) => inner.is_end_stream(),
            Some(Err(_)) => {
                self.record.iter_mut().for_each(|record| record.cut());
                false
            }
        };
        let said = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(grpc::outcome),
            Some(Err(_)) => Some(None),
            None => None,
        };
        if let Some(outcome) = said.or_else(|| complete.then_some(None)) {
            ending.iter_mut().for_each(|ending| ending.judge(outcome, self.record.as_deref_mut()));
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.record.iter_mut().for_each(|record| record.add_bytes(data.len()));
        }
        Poll::Ready(frame)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(taking) = this.taking.clone() else { return this.poll_source(cx) };
        taking.asked();
        if this.rest.is_empty() {
            match ready!(this.poll_source(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        taking.offer();
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        if !self.rest.is_empty() || !self.again.is_empty() {
            return false;
        }
        match &self.source {
            Source::App { inner, .. } => inner.is_end_stream(),
            Source::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.source {
            Source::App { inner, .. } => inner.size_hint(),
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        };
        let again = self.again.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let rest = (self.rest.len() + again.map(Bytes::len).sum::<usize>()) as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let finished = self.record.as_mut().map(|record| record.finish());
        if let Source::App { inner, mut ending, complete } =
            std::mem::replace(&mut self.source, Source::Own(None))
            && let Some(ending) = ending.take()
        {
            let Ending { worker, channel, request, lease, .. } = *ending;
            let now = finished.unwrap_or_else(|| worker.now());
            match channel {
                // A request body that is still under way would hold up whoever rides this connection next.
                Channel::Own(sender) if complete && request.ended() => {
                    worker.keep(lease.backend().key, sender, now);
                }
                Channel::Own(_) => {}
                Channel::Direct(_) => {
                    if let AppBody::Own(body) = inner
                        && let Some(stream) = body.into_stream()
                    {
                        worker.keep_stream(lease.backend().key, stream);
                    }
                }
                // The stream of it is over, and whoever still waits for its client's bytes lets go of it.
                Channel::Shared(_) => request.abandon(),
            }
        }
    }
}
