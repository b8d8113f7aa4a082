//! A request that changes something: its idempotency key, its hash, who asks.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use berth_contract::route::IDEMPOTENCY_KEY;
use berth_contract::{Code, Problem};
use berth_control::command::{Command, Refusal};
use serde::de::DeserializeOwned;

use super::Api;
use super::auth::Principal;
use super::history::blocking;
use super::problem::{Body as JsonBody, Refused};
use super::whole::Whole;
use crate::desk::{Asker, Outcome, RequestKey, SubmitError};

/// The longest key: a UUID has 36 characters, some send more.
const KEY_MAX: usize = 200;

/// A request that changes something, with its body read as `T`.
#[derive(Debug)]
pub(super) struct Mutation<T> {
    /// Who asks.
    pub principal: Principal,
    /// What was sent.
    pub body: T,
    key: RequestKey,
}

/// A request whose method says it all.
#[derive(Debug)]
pub(super) struct NoBody;

/// What a mutation's body is read as.
pub(super) trait FromBody: Sized {
    /// Reads a body that is there.
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused>;
}

impl FromBody for NoBody {
    fn read(_headers: &HeaderMap, _bytes: &[u8]) -> Result<Self, Refused> {
        Ok(Self)
    }
}

impl<T: DeserializeOwned> FromBody for JsonBody<T> {
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        Self::read(headers, bytes)
    }
}

impl<T: FromBody> FromRequest<Arc<Api>> for Mutation<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refused> {
        let unknown = || Problem::new(Code::Unauthenticated, "the request has no principal");
        let principal = request.extensions().get::<Principal>().cloned().ok_or_else(unknown)?;
        let key = key(request.headers())?;
        let line = format!("{} {}\n", request.method(), request.uri().path());
        let headers = request.headers().clone();
        let Whole(bytes) = Whole::from_request(request, api).await?;
        // Under a key: the body may hold a secret that is short enough to be guessed from a plain hash of it, which the journal keeps.
        let hash = api.vault.fingerprint(&[line.as_bytes(), &bytes]);
        let body = T::read(&headers, &bytes)?;
        Ok(Self { key: RequestKey { scope: principal.name.clone(), key, hash }, principal, body })
    }
}

fn key(headers: &HeaderMap) -> Result<String, Refused> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        let problem = Problem::new(Code::IdempotencyKeyMissing, "the header Idempotency-Key is missing")
            .next("send a random value, and the same one when you send the request again");
        return Err(problem.into());
    };
    let text = key.to_str().ok().filter(|text| !text.is_empty() && text.len() <= KEY_MAX);
    let text = text.ok_or_else(|| {
        let wanted = format!("an idempotency key has 1 to {KEY_MAX} visible ASCII characters");
        Problem::new(Code::RequestInvalid, wanted)
    })?;
    Ok(text.to_owned())
}

impl<T> Mutation<T> {
    /// Has `command` decided in the name of whoever asks.
    ///
    /// # Errors
    /// The problem that its refusal is.
    pub(super) async fn submit(
        &self,
        api: &Api,
        command: Command,
        reason: Option<String>,
    ) -> Result<Outcome, Refused> {
        let asker =
            Asker { actor: self.principal.name.clone(), correlation: self.principal.correlation.clone() };
        let decided = api.desk.submit(command, asker, reason, Some(self.key.clone())).await;
        decided.map_err(|error| match error {
            SubmitError::Refused(refusal @ Refusal::HostTaken { .. }) => self.host_taken(refusal),
            other => other.into(),
        })
    }

    /// Names the app that has a host to those who may know of it, and to nobody else.
    fn host_taken(&self, refusal: Refusal) -> Refused {
        let named = match &refusal {
            Refusal::HostTaken { owner, .. } if self.principal.may_see(owner) => Some(refusal.to_string()),
            _ => None,
        };
        let mut problem = Refused::from(refusal).into_problem();
        problem.detail = named.unwrap_or(problem.detail);
        problem.into()
    }

    /// What this very request led to when it came before, for a handler that cannot make a command of it any more.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) async fn earlier(&self, api: &Api) -> Result<Option<Outcome>, Refused> {
        let (journal, key) = (Arc::clone(&api.journal), self.key.clone());
        let found = blocking(move || journal.idempotent(&key.scope, &key.key)).await?;
        let same = found.filter(|found| found.request_hash == self.key.hash);
        Ok(same.and_then(|found| serde_json::from_slice(&found.result).ok()))
    }
}
