//! A request's body on its way to an app, watched for what the retry rules, the pool and the log need to know.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use berth_clock::Clock;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// So many bytes of a body are kept until its answer begins, so that it can be sent once more where an instance says that it did nothing with it.
/// Most calls of gRPC are smaller; what is larger is not sent again once that much of it is gone.
const KEPT_MAX: usize = 64 << 10;

/// How far a request's body got.
#[derive(Debug, Default)]
pub(crate) struct RequestState {
    ended: Cell<bool>,
    failed: Cell<bool>,
    moved: Cell<Duration>,
    starved: Cell<bool>,
    source: RefCell<Option<Source>>,
    /// What was handed on, while all of it is there.
    kept: RefCell<Option<Kept>>,
    /// Which of the bodies that were made of it counts, and whether that is still there.
    turn: Cell<u32>,
    held: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    clock: Arc<dyn Clock>,
    by_frames: bool,
    stall: Option<Stall>,
}

#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
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

    /// Keeps what is handed on from here on, unless something is gone already.
    pub(crate) fn keep(&self) {
        if self.turn.get() == 0 && self.kept.borrow().is_none() {
            *self.kept.borrow_mut() = Some(Kept::default());
        }
    }

    /// The same body from its beginning, where all that was handed on is there. The one that was made before ends with an error.
    pub(crate) fn again(self: &Rc<Self>) -> Option<RequestBody> {
        self.kept.borrow().as_ref()?;
        self.turn.set(self.turn.get() + 1);
        self.held.set(true);
        self.ended.set(self.is_all_handed(0));
        self.wake();
        Some(RequestBody { state: Rc::clone(self), turn: self.turn.get(), at: 0 })
    }

    /// An answer has begun: nothing is sent again. Where it `talks`, both sides may say something until the end, and neither has to.
    pub(crate) fn settle(&self, talks: bool) {
        *self.kept.borrow_mut() = None;
        let mut source = self.source.borrow_mut();
        if !self.held.get() {
            *source = None;
        } else if let Some(source) = source.as_mut().filter(|_| talks) {
            source.stall = None;
        }
    }

    /// Nobody needs the rest of it, though whoever has it may still wait for more.
    pub(crate) fn abandon(&self) {
        self.turn.set(self.turn.get() + 1);
        *self.kept.borrow_mut() = None;
        *self.source.borrow_mut() = None;
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether nothing comes after the first `at` pieces.
    fn is_all_handed(&self, at: usize) -> bool {
        self.kept.borrow().as_ref().is_none_or(|kept| at >= kept.pieces.len())
            && self.source.borrow().as_ref().is_none_or(|source| source.incoming.is_end_stream())
    }

    fn keep_frame(&self, frame: &Frame<Bytes>) {
        let mut kept = self.kept.borrow_mut();
        let Some(has) = kept.as_mut() else { return };
        match frame.data_ref() {
            Some(piece) if has.bytes + piece.len() <= KEPT_MAX => {
                has.bytes += piece.len();
                has.pieces.push(piece.clone());
            }
            // Too much, or trailers, which mean that all of it was taken.
            Some(_) | None => *kept = None,
        }
    }
}

/// Why a body goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It broke off, or its framing is wrong.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The app's connection ended before it did, or its framing is wrong.
    #[error("the body was cut off")]
    CutOff(#[source] io::Error),
    /// Nothing of it came for too long.
    #[error("nothing of the body came for {0:?}")]
    Stalled(Duration),
    /// Who sends it takes it back, which hyper shows as its end.
    #[error("the body was taken back")]
    TakenBack(#[source] h2::Error),
}

impl BodyError {
    /// What goes on by HTTP/2 says the same there.
    pub(crate) fn taken_back() -> Self {
        Self::TakenBack(h2::Reason::CANCEL.into())
    }
}

/// How long a body of HTTP/2 may stand still. Of HTTP/1 the whole connection stands still with it, which is seen there.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    /// There while it stands still.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyError::Stalled(self.limit))))
    }
}

impl Source {
    fn poll(
        &mut self,
        state: &RequestState,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx).map_err(BodyError::from);
        state.starved.set(frame.is_pending());
        if frame.is_ready() {
            state.moved.set(self.clock.monotonic());
        }
        // A stream that its client resets ends like one that is complete, for whoever does not look.
        if self.by_frames && matches!(frame, Poll::Ready(None)) && !self.incoming.is_end_stream() {
            return Poll::Ready(Some(Err(BodyError::taken_back())));
        }
        match &mut self.stall {
            Some(stall) if frame.is_pending() => stall.poll(cx),
            Some(stall) => {
                stall.timer = None;
                frame
            }
            None => frame,
        }
    }
}

/// A request's body on its way to the app.
#[derive(Debug)]
pub(crate) struct RequestBody {
    state: Rc<RequestState>,
    turn: u32,
    /// How many pieces it has handed on.
    at: usize,
}

impl RequestBody {
    /// `by_frames` says that it comes by HTTP/2, `stall` how long it may stand still by itself.
    pub(crate) fn new(
        incoming: Incoming,
        clock: &Arc<dyn Clock>,
        by_frames: bool,
        stall: Option<Duration>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let stall = stall.map(|limit| Stall { limit, timer: None });
        let source = Source { incoming, clock: Arc::clone(clock), by_frames, stall };
        let state = RequestState {
            source: RefCell::new(Some(source)),
            held: Cell::new(true),
            ..RequestState::default()
        };
        Self { state: Rc::new(state), turn: 0, at: 0 }
    }

    pub(crate) fn empty() -> Self {
        let state = RequestState { ended: Cell::new(true), ..RequestState::default() };
        Self { state: Rc::new(state), turn: 0, at: 0 }
    }

    pub(crate) fn state(&self) -> Rc<RequestState> {
        Rc::clone(&self.state)
    }

    fn kept_piece(&self) -> Option<Bytes> {
        self.state.kept.borrow().as_ref()?.pieces.get(self.at).cloned()
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
        let state = &*this.state;
        if state.turn.get() != this.turn {
            return Poll::Ready(Some(Err(BodyError::taken_back())));
        }
        if let Some(piece) = this.kept_piece() {
            this.at += 1;
            state.ended.set(state.is_all_handed(this.at));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let frame = match &mut *state.source.borrow_mut() {
            Some(source) => source.poll(state, cx),
            None => Poll::Ready(None),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.at += 1;
                state.keep_frame(frame);
                state.ended.set(state.is_all_handed(this.at));
            }
            Poll::Ready(Some(Err(_))) => state.failed.set(true),
            Poll::Ready(None) => state.ended.set(true),
            Poll::Pending => *state.waker.borrow_mut() = Some(cx.waker().clone()),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.state.is_all_handed(self.at)
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.state.source.borrow();
        let rest = source.as_ref().map_or_else(|| SizeHint::with_exact(0), |it| it.incoming.size_hint());
        let kept = self.state.kept.borrow();
        let again = kept.as_ref().and_then(|kept| kept.pieces.get(self.at..)).unwrap_or_default();
        let again: u64 = again.iter().map(|piece| piece.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again);
        }
        hint
    }
}

impl Drop for RequestBody {
    /// What nobody reads any more is let go, so that the client's connection knows.
    fn drop(&mut self) {
        if self.state.turn.get() == self.turn {
            self.state.held.set(false);
            if self.state.kept.borrow().is_none() {
                *self.state.source.borrow_mut() = None;
            }
        }
    }
}
