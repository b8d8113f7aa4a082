//! The typed client: HTTP/1.1 over a Unix socket or loopback TCP, JSON in and out.
//!
//! Control may be restarted at any moment while the sockets stay with the supervisor. So a call that loses its connection
//! is made again: a read because it changes nothing, a mutation because its idempotency key makes the repeat harmless. Only a
//! platform that cannot be connected to at all is reported at once, since nothing is likely to be coming back there.
//! Delays come from a fixed backoff instead of a clock, so the time spent waiting is bounded by construction.

mod connection;
mod download;
mod error;
mod run;
mod sse;
mod stream;
mod verbs;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use connection::{Endpoint, InvalidEndpoint};
pub use download::Download;
pub use error::ClientError;
pub use run::{FromRun, ToRun};
pub use stream::EventStream;

use crate::problem::Problem;
use connection::{Answer, Call, Connection};

/// How many connections are kept between calls: as many as chunks are sent at once.
const IDLE_MAX: usize = UPLOADS_AT_ONCE;
/// How many chunks are sent at once. The platform writes and hashes each; more would only queue there.
const UPLOADS_AT_ONCE: usize = 4;

/// What makes a repeated mutation harmless: 128 random bits in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key that `random` makes; the bits must come from a source fit for secrets.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(random)))
    }

    /// The key as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the client waits for, told to whoever wants to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The connection broke; another attempt follows after this delay.
    Reconnecting {
        /// What broke, in words.
        what: String,
        /// The delay before the next attempt.
        after: Duration,
    },
    /// The connection is back.
    Reconnected,
}

/// How long the client waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection to be taken.
    pub connect: Duration,
    /// For the head of an answer, and for the next bytes of a stream (the platform sends a comment every 15 seconds).
    pub answer: Duration,
    /// The first delay before another attempt; each later one is twice as long.
    pub first_delay: Duration,
    /// The longest delay between two attempts.
    pub longest_delay: Duration,
    /// All delays in a row together; then the client gives up.
    pub in_all: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            first_delay: Duration::from_millis(50),
            longest_delay: Duration::from_secs(2),
            in_all: Duration::from_secs(30),
        }
    }
}

/// Delays between attempts, each twice the one before, until their sum is spent.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    left: Duration,
    longest: Duration,
}

impl Backoff {
    fn new(patience: &Patience) -> Self {
        Self { next: patience.first_delay, left: patience.in_all, longest: patience.longest_delay }
    }

    /// The delay before the next attempt, or none when it is time to give up.
    fn delay(&mut self) -> Option<Duration> {
        let delay = self.next.min(self.longest);
        self.left = self.left.checked_sub(delay)?;
        self.next = delay * 2;
        Some(delay)
    }
}

/// Whom to tell what the client waits for.
type Listener = Box<dyn Fn(Notice) + Send + Sync>;
/// Where idempotency keys come from.
type KeySource = Box<dyn Fn() -> IdempotencyKey + Send + Sync>;

/// A client of one platform. Clones share connections.
#[derive(Clone)]
pub struct Client {
    inside: Arc<Inside>,
}

struct Inside {
    endpoint: Endpoint,
    token: Option<SecretString>,
    patience: Patience,
    keys: KeySource,
    listener: Listener,
    /// At most [`IDLE_MAX`].
    idle: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.inside.endpoint).finish_non_exhaustive()
    }
}

/// Makes a [`Client`].
pub struct ClientBuilder {
    inside: Inside,
}

impl ClientBuilder {
    /// The client sends this token. Over a Unix socket the kernel says who asks and none is needed.
    #[must_use]
    pub fn token(mut self, token: SecretString) -> Self {
        self.inside.token = Some(token);
        self
    }

    /// The client waits for so long.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.inside.patience = patience;
        self
    }

    /// The client tells `listener` what it waits for.
    #[must_use]
    pub fn on_notice(mut self, listener: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        self.inside.listener = Box::new(listener);
        self
    }

    /// The client.
    #[must_use]
    pub fn build(self) -> Client {
        Client { inside: Arc::new(self.inside) }
    }
}

impl Client {
    /// A client of the platform at `endpoint`. `keys` gives a new random key at each call, from the caller's clock.
    #[must_use]
    pub fn builder(
        endpoint: Endpoint,
        keys: impl Fn() -> IdempotencyKey + Send + Sync + 'static,
    ) -> ClientBuilder {
        let inside = Inside {
            endpoint,
            token: None,
            patience: Patience::default(),
            keys: Box::new(keys),
            listener: Box::new(drop),
            idle: Mutex::new(Vec::new()),
        };
        ClientBuilder { inside }
    }

    /// Where the platform is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.inside.endpoint
    }

    /// Whether something takes connections there. Nothing is asked of it.
    pub async fn is_there(&self) -> bool {
        self.connect().await.is_ok()
    }

    async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, ClientError> {
        self.json(&Call::get(path)).await
    }

    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("wire types have string keys and no failing parts");
        self.json(&Call::change(method, path, (self.inside.keys)(), Bytes::from(body), "application/json"))
            .await
    }

    async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        let answer = self.exchange(call).await?;
        serde_json::from_slice(&answer.body).map_err(|problem| ClientError::Answer {
            status: answer.status.as_u16(),
            detail: format!("{} {}: {problem}", call.method, call.path),
        })
    }

    /// Makes the call, again when the connection is lost on the way, and reads the whole answer.
    async fn exchange(&self, call: &Call) -> Result<Answer, ClientError> {
        let mut backoff = Backoff::new(&self.inside.patience);
        let mut lost_before = false;
        loop {
            let outcome = self.attempt(call).await;
            let lost = match outcome {
                Err(lost @ ClientError::Lost { .. }) => lost,
                Err(unreachable @ ClientError::Unreachable { .. }) if lost_before => unreachable,
                Err(other) => return Err(other),
                Ok(answer) => {
                    if lost_before {
                        (self.inside.listener)(Notice::Reconnected);
                    }
                    return if answer.status.is_success() { Ok(answer) } else { Err(refusal(&answer)) };
                }
            };
            lost_before = true;
            self.wait_for_another_attempt(&mut backoff, lost).await?;
        }
    }

    /// One attempt: over a kept connection when there is one, else, or when that one turns out to be closed, over a new one.
    async fn attempt(&self, call: &Call) -> Result<Answer, ClientError> {
        let patience = &self.inside.patience;
        if let Some(mut kept) = self.take_idle() {
            match kept.exchange(call, &self.inside, patience.answer).await {
                Err(ClientError::Lost { .. }) => {}
                outcome => {
                    self.keep(kept);
                    return outcome;
                }
            }
        }
        let mut connection = self.connect().await?;
        let outcome = connection.exchange(call, &self.inside, patience.answer).await;
        self.keep(connection);
        outcome
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.inside.endpoint, self.inside.token.is_some(), self.inside.patience.connect)
            .await
    }

    async fn wait_for_another_attempt(
        &self,
        backoff: &mut Backoff,
        lost: ClientError,
    ) -> Result<(), ClientError> {
        let Some(after) = backoff.delay() else { return Err(lost) };
        (self.inside.listener)(Notice::Reconnecting { what: lost.to_string(), after });
        tokio::time::sleep(after).await;
        Ok(())
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.inside.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Connection::is_usable);
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.inside.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.is_usable() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }
}

/// The error that an answer other than success stands for.
fn refusal(answer: &Answer) -> ClientError {
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => ClientError::Problem(Box::new(problem)),
        Err(_) => ClientError::Answer {
            status: answer.status.as_u16(),
            detail: match answer.status {
                StatusCode::NOT_FOUND => "not found, and not by a Berth platform".to_owned(),
                _ => format!("{} bytes that are not a problem document", answer.body.len()),
            },
        },
    }
}
