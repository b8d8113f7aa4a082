//! Everything that is refused is told as a problem, extractors' rejections and unknown paths included.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use berth_contract::route::PROBLEM_JSON;
use berth_contract::{Code, Problem};
use berth_control::command::{Refusal, Sharing};
use berth_journal::ReadError;
use serde::de::DeserializeOwned;

use super::whole::Whole;
use crate::desk::SubmitError;

/// A problem on its way out. Boxed, since a handler's error should not outgrow its answer.
#[derive(Debug)]
pub struct Refused(Box<Problem>);

impl From<Problem> for Refused {
    fn from(mut problem: Problem) -> Self {
        // The stores of source know codes and no advice.
        if problem.next.is_none() && problem.code == Code::DiskFull {
            problem.next = Some("make room and ask again; nothing was done".to_owned());
        }
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&*self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl Refused {
    /// The problem itself, for a stream of events that has begun.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        *self.0
    }
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        let text = error.to_string();
        let problem = match error {
            SubmitError::Refused(refusal) => return refusal.into(),
            SubmitError::KeyReused => Problem::new(Code::IdempotencyKeyReused, text).next("send a new key"),
            SubmitError::DiskFull => Problem::new(Code::DiskFull, text),
            SubmitError::TooLarge => Problem::new(Code::PayloadTooLarge, text),
            SubmitError::Journal(_) => {
                Problem::new(Code::Internal, text).next("nothing was done; see logs/platform/control.log")
            }
            SubmitError::Discarded => {
                Problem::new(Code::Overloaded, text).next("ask again; the same key may be used")
            }
            SubmitError::Stopping => {
                Problem::new(Code::Stopping, text).next("ask again with the same key; it is not done twice")
            }
        };
        problem.into()
    }
}

/// What helps whoever wants something that the version before this one does not know.
const COMMIT: &str =
    "run `berth upgrade commit` once this version is to stay: there is no way back to the one before then";
/// What helps whoever would share requests in a way that cannot be.
const SHARES: &str = "`berth traffic` shows how requests are shared";

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let text = match &refusal {
            // Whoever may see that app is told which it is; see `mutation`.
            Refusal::HostTaken { host, .. } => format!("the host {host} belongs to another app"),
            told => told.to_string(),
        };
        let (code, next) = match &refusal {
            Refusal::NoSuchTenant(_) => (Code::TenantNotFound, None),
            Refusal::NoSuchProject(_) => (Code::ProjectNotFound, None),
            Refusal::NoSuchApp(_) => (Code::AppNotFound, Some("`berth apps` lists the apps there are")),
            Refusal::BeingDestroyed(_) => {
                (Code::AppDestroying, Some("wait until it is gone, then make it anew"))
            }
            Refusal::NoSuchProcess { .. } => {
                (Code::ProcessNotFound, Some("`berth ps` shows the processes there are"))
            }
            Refusal::NoSuchInstance { .. } => {
                (Code::InstanceNotFound, Some("`berth ps` shows the instances there are"))
            }
            Refusal::NoSuchRelease { .. } => (Code::ReleaseNotFound, Some("`berth releases` lists them")),
            Refusal::NeverServed { .. } => (
                Code::ReleaseNeverServed,
                Some("choose one that `berth releases` shows as active or retired"),
            ),
            Refusal::HostTaken { .. } => (Code::HostTaken, Some("give the host up there, or choose another")),
            Refusal::NothingServes(_) => {
                (Code::NeverDeployed, Some("deploy first, or name a release with --release"))
            }
            Refusal::ReleaseGone { .. } => {
                (Code::ReleaseGone, Some("choose one that `berth releases` shows as active or retired"))
            }
            Refusal::NoSuchCron { .. } => {
                (Code::CronNotFound, Some("`berth cron` lists those that the app has"))
            }
            Refusal::CronRuns { .. } => {
                (Code::CronRunning, Some("wait until it has ended, or set `concurrency` in its [[cron]]"))
            }
            Refusal::HostReserved { .. } => {
                (Code::HostTaken, Some("choose a host that is not below .localhost"))
            }
            Refusal::NoSuchDomain { .. } => {
                (Code::DomainNotFound, Some("`berth domains` lists those that the app has"))
            }
            Refusal::DomainFixed { .. } => (Code::DomainFixed, None),
            Refusal::SecretRace { .. } | Refusal::Stale(_) => (Code::Conflict, Some("ask again")),
            Refusal::TooManyInstances { .. } => (Code::LimitExceeded, None),
            Refusal::TooMany { .. } => (Code::LimitExceeded, None),
            Refusal::VolumeBusy { .. } => (Code::VolumeBusy, Some("ask again when that is over")),
            Refusal::VolumeInUse { .. } => (
                Code::VolumeInUse,
                Some("deploy a release without it first, or destroy the app with --volumes"),
            ),
            Refusal::VolumeExclusive { how: Sharing::Strategy(_), .. } => (
                Code::VolumeExclusive,
                Some(
                    "leave `strategy` out, or write \"recreate\": the old instance stops before the new one starts, and edge holds requests meanwhile",
                ),
            ),
            Refusal::VolumeExclusive { how: Sharing::Instances { .. }, .. } => (
                Code::VolumeExclusive,
                Some("let one instance have it, or leave the process out of the volume's `processes`"),
            ),
            Refusal::NoRollout(_) => (Code::NoRollout, Some(SHARES)),
            Refusal::CannotShare { .. } => (Code::TrafficNotPossible, Some(SHARES)),
            Refusal::NotCommitted { .. } => (Code::UpgradeUncommitted, Some(COMMIT)),
            Refusal::SlotsExhausted(_) => {
                (Code::UserIdsExhausted, Some("start a second platform with a home of its own"))
            }
        };
        let problem = Problem::new(code, text);
        next.map_or(problem.clone(), |next| problem.next(next)).into()
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Problem::new(Code::Internal, format!("the journal cannot be read: {error}")).into()
    }
}

/// JSON of a request, strictly.
#[derive(Debug)]
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let headers = request.headers().clone();
        let Whole(bytes) = Whole::from_request(request, state).await?;
        Self::read(&headers, &bytes)
    }
}

impl<T: DeserializeOwned> Body<T> {
    /// Reads a body that is there.
    ///
    /// # Errors
    /// When it does not say that it is JSON, or is none that is a `T`.
    pub(super) fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
            let detail = "the body has to be JSON, and the header Content-Type to say application/json";
            return Err(Problem::new(Code::RequestInvalid, detail).into());
        }
        let Json(value) = Json::from_bytes(bytes)
            .map_err(|rejection| Problem::new(Code::RequestInvalid, rejection.body_text()))?;
        Ok(Self(value))
    }
}

/// Parameters of the path, checked as the names and numbers that they are.
#[derive(Debug)]
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection @ PathRejection::FailedToDeserializePathParams(_)) => {
                Err(Problem::new(Code::RequestInvalid, rejection.body_text()).into())
            }
            Err(rejection) => Err(Problem::new(Code::Internal, rejection.body_text()).into()),
        }
    }
}

/// The query of a request, strictly.
#[derive(Debug)]
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let found: Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        match found {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(Code::RequestInvalid, rejection.body_text()).into()),
        }
    }
}

/// No such path.
pub(super) async fn no_route(uri: Uri) -> Refused {
    Problem::new(Code::RouteNotFound, format!("there is nothing at {}", uri.path()))
        .next("GET /api/v1/openapi.json describes the API")
        .into()
}

/// No such method on the path.
pub(super) async fn no_method(method: Method, uri: Uri) -> Refused {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path())).into()
}
