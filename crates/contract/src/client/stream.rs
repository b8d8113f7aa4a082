//! A stream of server-sent events that outlives its connection.

use std::marker::PhantomData;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::connection::{Call, Connection};
use super::sse::{Event, Parser};
use super::{Backoff, Client, ClientError, Notice, refusal};
use crate::problem::Problem;
use crate::route;

/// A stream of events of one type. A broken connection is opened again where it broke, by the id of the last event.
#[derive(Debug)]
pub struct EventStream<T> {
    client: Client,
    call: Call,
    name: &'static str,
    /// Whether the platform ends the stream when there is nothing more; else an end is a lost connection.
    ends_plainly: bool,
    is_last: fn(&T) -> bool,
    open: Option<Open>,
    backoff: Backoff,
    had_connection: bool,
    waiting: bool,
    over: bool,
    item: PhantomData<fn() -> T>,
}

/// What exists while there is a connection.
#[derive(Debug)]
struct Open {
    connection: Connection,
    body: Incoming,
    parser: Parser,
}

impl<T: DeserializeOwned> EventStream<T> {
    pub(super) fn new(
        client: &Client,
        path: String,
        name: &'static str,
        ends_plainly: bool,
        is_last: fn(&T) -> bool,
    ) -> Self {
        Self {
            client: client.clone(),
            call: Call::stream(path),
            name,
            ends_plainly,
            is_last,
            open: None,
            backoff: Backoff::new(&client.inside.patience),
            had_connection: false,
            waiting: false,
            over: false,
            item: PhantomData,
        }
    }

    /// The next event; none after the last.
    ///
    /// # Errors
    /// A [`ClientError`] when the platform refuses, or when the connection is lost for longer than the client's patience.
    /// Nothing follows an error. Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        if self.over {
            return None;
        }
        let next = self.advance().await.transpose();
        self.over = !matches!(&next, Some(Ok(item)) if !(self.is_last)(item));
        if self.over {
            self.open = None;
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let lost = match &mut self.open {
                None => match self.connect().await {
                    Ok(()) => continue,
                    Err(problem) if self.had_connection && problem.is_passing() => problem,
                    // Somebody took the connection and died before an answer: as good as one that broke later.
                    Err(lost @ ClientError::Lost { .. }) => {
                        self.had_connection = true;
                        lost
                    }
                    Err(problem) => return Err(problem),
                },
                Some(open) => {
                    if let Some(event) = open.parser.next() {
                        match self.take(&event)? {
                            Some(item) => return Ok(Some(item)),
                            None => continue,
                        }
                    }
                    match open.read(self.client.inside.patience.answer).await {
                        Ok(true) => continue,
                        Ok(false) if self.ends_plainly => return Ok(None),
                        Ok(false) => None,
                        Err(problem) if problem.is_passing() => Some(problem),
                        Err(problem) => return Err(problem),
                    }
                    .unwrap_or_else(|| self.closed())
                }
            };
            self.open = None;
            self.waiting = true;
            self.client.wait_for_another_attempt(&mut self.backoff, lost).await?;
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let patience = self.client.inside.patience;
        let mut connection = self.client.connect().await?;
        let response = connection.send(&self.call, &self.client.inside, patience.answer).await?;
        if !response.status().is_success() {
            return Err(refusal(&connection.read(response, patience.answer).await?));
        }
        self.had_connection = true;
        if std::mem::take(&mut self.waiting) {
            (self.client.inside.listener)(Notice::Reconnected);
        }
        self.open = Some(Open { connection, body: response.into_body(), parser: Parser::default() });
        Ok(())
    }

    /// Reads the item out of an event. An event of another name is skipped: a newer platform may send more kinds.
    fn take(&mut self, event: &Event) -> Result<Option<T>, ClientError> {
        let unreadable = |problem: serde_json::Error| ClientError::Answer {
            status: 200,
            detail: format!("event {}: {problem}", event.name),
        };
        if event.name == route::EVENT_PROBLEM {
            let problem: Problem = serde_json::from_str(&event.data).map_err(unreadable)?;
            return Err(ClientError::Problem(Box::new(problem)));
        }
        if event.name != self.name {
            return Ok(None);
        }
        let item = serde_json::from_str(&event.data).map_err(unreadable)?;
        if event.id.is_some() {
            self.call.last_event_id.clone_from(&event.id);
        }
        self.backoff = Backoff::new(&self.client.inside.patience);
        Ok(Some(item))
    }

    fn closed(&self) -> ClientError {
        let source =
            std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the platform ended the stream early");
        ClientError::Unreachable { endpoint: self.client.inside.endpoint.to_string(), source }
    }
}

impl Open {
    /// Takes the next bytes in; false at the end.
    async fn read(&mut self, patience: std::time::Duration) -> Result<bool, ClientError> {
        match timeout(patience, self.body.frame()).await {
            Err(_) => Err(self.connection.timed_out(patience)),
            Ok(None) => Ok(false),
            Ok(Some(Err(source))) => Err(self.connection.lost(source)),
            Ok(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    self.parser.feed(bytes).map_err(|problem| ClientError::Answer {
                        status: 200,
                        detail: problem.to_string(),
                    })?;
                }
                Ok(true)
            }
        }
    }
}
