//! Whether the clients of HTTP/2 take what is sent to them, stream by stream.
//!
//! Of a connection of HTTP/1 it is seen at the socket. With HTTP/2 a client that gives one stream no room keeps its answer, and the instance that
//! makes it, for as long as others move on the same connection. hyper asks a body for more once there is room for it: so a body that
//! was not asked since it last gave something is one whose client takes nothing.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use crate::client::Client;
use crate::worker::Worker;

/// A piece of a body is at most so long, so that a client that takes little by little is seen to: hyper asks for the next one when all before
/// it have gone. At a minute of patience this is the least that a client has to take in one.
pub(crate) const PIECE: usize = 16 << 10;

/// One stream, from its request on.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// Whether there is something for the client to take.
    offered: Cell<bool>,
    /// Whether it took something since the last look.
    moved: Cell<bool>,
    age: Cell<Duration>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Taking {
    /// Its answer has something for the client.
    pub(crate) fn offer(&self) {
        self.offered.set(true);
    }

    /// It has room for more.
    pub(crate) fn asked(&self) {
        self.offered.set(false);
        self.moved.set(true);
    }

    /// Ends it when for so long nothing was taken of what was offered.
    fn look(&self, span: Duration, limit: Duration) {
        let stands = self.offered.get() && !self.moved.replace(false);
        self.age.set(if stands { self.age.get() + span } else { Duration::ZERO });
        if self.age.get() >= limit
            && !self.over.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// At most as many as a connection may have at a time, and those that ended since the last look.
    open: RefCell<Vec<Weak<Taking>>>,
    /// The one whose task runs.
    current: RefCell<Option<Rc<Taking>>>,
}

impl Streams {
    /// The stream whose task this is called from.
    pub(crate) fn current(&self) -> Option<Rc<Taking>> {
        self.current.borrow().clone()
    }

    /// Ends those whose client takes nothing for `limit`, after `span` has passed since the last look.
    pub(crate) fn look(&self, span: Duration, limit: Duration) {
        self.open.borrow_mut().retain(|stream| match stream.upgrade() {
            Some(stream) => {
                stream.look(span, limit);
                true
            }
            None => false,
        });
    }

    fn begin(&self) -> Rc<Taking> {
        let stream = Rc::new(Taking::default());
        self.open.borrow_mut().push(Rc::downgrade(&stream));
        stream
    }
}

/// Runs the streams of one client on the thread that serves it.
#[derive(Clone)]
pub(crate) struct OfStreams {
    worker: Rc<Worker>,
    client: Rc<Client>,
}

impl OfStreams {
    pub(crate) fn new(worker: &Rc<Worker>, client: &Rc<Client>) -> Self {
        Self { worker: Rc::clone(worker), client: Rc::clone(client) }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for OfStreams {
    fn execute(&self, task: F) {
        let (client, stream) = (Rc::clone(&self.client), self.client.streams().begin());
        self.worker.spawn(StreamTask { client, stream, task });
    }
}

pin_project! {
    /// All that belongs to one stream. It ends with `task`, or when the stream is ended: to drop it resets the stream.
    ///
    /// Not an async block: that would have room for `task` three times, and there is one for every request.
    struct StreamTask<F> {
        client: Rc<Client>,
        stream: Rc<Taking>,
        #[pin]
        task: F,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.over.get() {
            return Poll::Ready(());
        }
        {
            let mut waker = this.stream.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let current = &this.client.streams().current;
        *current.borrow_mut() = Some(Rc::clone(this.stream));
        let polled = this.task.poll(cx);
        *current.borrow_mut() = None;
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The second at which a stream is ended to which `each` happens in every one.
    fn ended(each: impl Fn(u32, &Taking)) -> Option<u32> {
        let stream = Taking::default();
        (0..200).find(|second| {
            each(*second, &stream);
            stream.look(SECOND, 60 * SECOND);
            stream.over.get()
        })
    }

    #[test]
    fn who_takes_nothing_of_what_is_offered_is_ended() {
        assert_eq!(ended(|_, stream| stream.offer()), Some(59));
    }

    #[test]
    fn who_takes_slowly_or_has_nothing_to_take_is_not() {
        assert_eq!(ended(|_, _| {}), None);
        let slowly = |second: u32, stream: &Taking| {
            if second.is_multiple_of(50) {
                stream.asked();
            }
            stream.offer();
        };
        assert_eq!(ended(slowly), None);
        let waits_for_the_app =
            |second, stream: &Taking| if second == 0 { stream.offer() } else { stream.asked() };
        assert_eq!(ended(waits_for_the_app), None);
    }
}
