//! Refusals as the distribution specification has them: a status, and a list of codes with a sentence each.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_contract::{Code, Problem};
use berth_image::hosted::HostedError;
use serde_json::json;

use super::address::NoAddress;
use crate::api::Refused;
use crate::machine::in_full;

/// Why a request to the registry is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

/// Has a client send a password. Docker and all others know Basic beside their token services.
pub(crate) fn challenge() -> Response {
    let message = "log in with any name and a token of the platform as the password";
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message).into_response();
    let basic = HeaderValue::from_static("Basic realm=\"Berth\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, basic);
    response
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn unsupported(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// What a task that was to do it came to instead.
    pub(super) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
    }

    pub(super) fn into_response(self) -> Response {
        let errors = json!({ "errors": [{ "code": self.code, "message": self.message }] });
        (self.status, Json(errors)).into_response()
    }
}

impl From<NoAddress> for Refusal {
    fn from(no: NoAddress) -> Self {
        let (status, code, message) = match no {
            NoAddress::Unknown => (StatusCode::NOT_FOUND, "UNSUPPORTED", "there is nothing at this address"),
            NoAddress::Name => (
                StatusCode::NOT_FOUND,
                "NAME_INVALID",
                "a repository is called as its app is: APP, or TENANT/PROJECT/APP",
            ),
            NoAddress::Digest => (
                StatusCode::BAD_REQUEST,
                "DIGEST_INVALID",
                "a digest is sha256: and 64 lower-case hex digits",
            ),
            NoAddress::Reference => {
                (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "that is neither a tag nor a digest")
            }
        };
        Self::new(status, code, message)
    }
}

impl From<HostedError> for Refusal {
    fn from(error: HostedError) -> Self {
        let (status, code) = match &error {
            HostedError::NoUpload => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            HostedError::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            HostedError::Busy => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            HostedError::OtherDigest { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            HostedError::Manifest(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            HostedError::Missing(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            HostedError::TooMuch(_) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            HostedError::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "DENIED"),
            HostedError::Io { .. } => {
                // Its message has paths of the machine.
                tracing::error!(error = in_full(&error), "the registry's files");
                return Self::internal("the registry cannot read or write its files; its log says more");
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let (status, code) = match problem.code {
            Code::AppNotFound | Code::ProjectNotFound => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            _ => (StatusCode::FORBIDDEN, "DENIED"),
        };
        let next = problem.next.map(|next| format!("; {next}")).unwrap_or_default();
        Self::new(status, code, format!("{}{next}", problem.detail))
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        refused.into_problem().into()
    }
}
