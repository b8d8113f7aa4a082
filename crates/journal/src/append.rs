//! What is given to the journal, and the ticket on which its answer arrives.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use berth_spec::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::error::AppendError;
use crate::record::{Epoch, Position, StreamName, Version};
use crate::writer::Command;

/// Events for one stream, decided together and recorded together or not at all.
///
/// Without events it records its idempotency key alone, and without that it is a barrier: its ticket resolves
/// after everything before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The epoch in which this was decided.
    pub epoch: Epoch,
    /// The stream.
    pub stream: StreamName,
    /// The version the stream has at that moment, counting appends of this epoch that are still in the queue.
    pub expected: Version,
    /// The position that the decider reckons for the first event. When given and wrong, the append fails.
    pub first: Option<Position>,
    /// The events, in order.
    pub events: Vec<NewEvent>,
    /// Who, when and why; stored with each event.
    pub meta: Meta,
    /// The request's idempotency key, recorded in the same transaction.
    pub idempotency: Option<Idempotency>,
}

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What it is.
    pub kind: Cow<'static, str>,
    /// Which schema of that kind the body has.
    pub schema: u32,
    /// What it says, opaque to the journal.
    pub body: Vec<u8>,
}

/// Who, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// When it was decided. The decider gives it, not the journal: the state folded from an event before it
    /// is durable must be the one that a replay gives, time included. It need not be monotonic; only
    /// positions order events.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: String,
    /// What ties it to the events, log lines and requests with the same origin.
    pub correlation: String,
    /// Why, in words.
    pub reason: Option<String>,
}

/// The record by which a repeated request is recognised. Its age is counted from [`Meta::at`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Within what the key is unique: a principal, say.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// Hash of the request, so that the same key with another request can be refused.
    pub request_hash: [u8; 32],
    /// What a repeat shall be answered.
    pub result: Vec<u8>,
}

impl Append {
    /// Bytes that this occupies in the queue and, about, in the database.
    pub(crate) fn bytes(&self) -> usize {
        let meta = self.meta.actor.len()
            + self.meta.correlation.len()
            + self.meta.reason.as_ref().map_or(0, String::len);
        let per_event = self.stream.as_str().len() + meta;
        let events: usize =
            self.events.iter().map(|event| per_event + event.kind.len() + event.body.len() + 64).sum();
        let idempotency = self.idempotency.as_ref();
        events
            + idempotency.map_or(0, |record| record.scope.len() + record.key.len() + record.result.len() + 64)
    }
}

/// Where an append came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Position of the first event.
    pub first: Position,
    /// Position of the last event. Without events it is the head, and `first` the position after it.
    pub last: Position,
    /// The time stored with the events.
    pub at: Timestamp,
}

/// A place in the writer's queue. Taking it before deciding means that nothing decided can be lost on its way
/// into the queue, be it for want of room or because a future was dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    pub(crate) place: mpsc::Permit<'a, Command>,
}

impl Permit<'_> {
    /// Hands `append` to the writer. The order of these calls is the order of the positions.
    ///
    /// Dropping the ticket does not take the append back.
    #[must_use = "only the ticket tells whether the append is durable"]
    pub fn append(self, append: Append) -> Ticket {
        let (reply, answer) = oneshot::channel();
        self.place.send(Command::Append { append: Box::new(append), reply });
        Ticket { answer }
    }
}

/// A future that resolves when the append is durable, or refused.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<Result<Committed, AppendError>>,
}

impl Ticket {
    /// Waits on the current thread, which must not be one of an async runtime.
    ///
    /// # Errors
    /// As the future does.
    pub fn wait(self) -> Result<Committed, AppendError> {
        self.answer.blocking_recv().unwrap_or(Err(AppendError::Closed))
    }
}

impl Future for Ticket {
    type Output = Result<Committed, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
    }
}
