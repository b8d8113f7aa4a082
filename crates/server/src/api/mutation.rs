//! A request that changes something: its idempotency key, its hash, who asks.

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use berth_contract::route::IDEMPOTENCY_KEY;
use berth_contract::{Code, Problem};
use berth_control::command::Command;
use serde::de::DeserializeOwned;

use super::Api;
use super::auth::Principal;
use super::problem::{Body as JsonBody, Refused};
use crate::desk::{Asker, Outcome, RequestKey};

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
    /// Reads `request`, whose body is all there.
    fn read(request: Request) -> impl Future<Output = Result<Self, Refused>> + Send;
}

impl FromBody for NoBody {
    async fn read(_request: Request) -> Result<Self, Refused> {
        Ok(Self)
    }
}

impl<T: DeserializeOwned + Send> FromBody for JsonBody<T> {
    async fn read(request: Request) -> Result<Self, Refused> {
        Self::from_request(request, &()).await
    }
}

impl<T: FromBody, S: Send + Sync> FromRequest<S> for Mutation<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        let unknown = || Problem::new(Code::Unauthenticated, "the request has no principal");
        let principal = parts.extensions.get::<Principal>().cloned().ok_or_else(unknown)?;
        let mut again = Request::new(Body::empty());
        (*again.method_mut(), *again.uri_mut()) = (parts.method.clone(), parts.uri.clone());
        *again.headers_mut() = parts.headers.clone();
        *again.extensions_mut() = parts.extensions.clone();
        let request = Request::from_parts(parts, body);
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let large = rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE;
            let code = if large { Code::PayloadTooLarge } else { Code::RequestInvalid };
            Problem::new(code, rejection.body_text())
        })?;
        let key = key(again.headers())?;
        let mut hash = Context::new(&SHA256);
        hash.update(again.method().as_str().as_bytes());
        hash.update(b" ");
        hash.update(again.uri().path().as_bytes());
        hash.update(b"\n");
        hash.update(&bytes);
        let hash = hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes");
        *again.body_mut() = Body::from(bytes);
        let body = T::read(again).await?;
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
        Ok(api.desk.submit(command, asker, reason, Some(self.key.clone())).await?)
    }
}
