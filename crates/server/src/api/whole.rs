//! The body of a request: all of it, within its limit, and in time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use berth_contract::{Code, Problem};

use super::problem::Refused;

/// How long a client may take for a body. The longest, a tree of 32 MiB, then needs some 2 Mbit/s; whoever dribbles holds one of the
/// connections for no longer.
const WITHIN: Duration = Duration::from_secs(120);

/// A request's body.
#[derive(Debug)]
pub(crate) struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let Ok(read) = tokio::time::timeout(WITHIN, Bytes::from_request(request, state)).await else {
            let detail = format!("the body of the request did not arrive within {} s", WITHIN.as_secs());
            return Err(Problem::new(Code::RequestTimedOut, detail).into());
        };
        let bytes = read.map_err(|rejection| {
            let large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let code = if large { Code::PayloadTooLarge } else { Code::RequestInvalid };
            Problem::new(code, rejection.body_text())
        })?;
        Ok(Self(bytes))
    }
}
