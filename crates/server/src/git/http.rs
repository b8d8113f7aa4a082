//! The smart protocol of git over HTTP: who asks, for which repository, and what git is started with.
//!
//! What is refused is told as plain text, which git shows to its user; see gitprotocol-http(5) for the rest.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, EXPIRES, PRAGMA};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_contract::{Code, Problem};
use berth_control::state::Life;

use super::address::{Address, NoAddress, Service};
use super::push::Push;
use super::service::{self, Request as Served};
use crate::api::{Api, Principal, find_app};

/// What `WWW-Authenticate` says: git then asks its credential helpers, or the user.
pub(crate) const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"Berth\", charset=\"UTF-8\"");
/// The header in which a client says which versions of the protocol it speaks.
const GIT_PROTOCOL: &str = "git-protocol";

/// Serves a request below `/git/`.
pub(crate) async fn serve(State(api): State<Arc<Api>>, principal: Principal, request: Request) -> Response {
    match answer(&api, principal, request).await {
        Ok(response) => response,
        Err(problem) => told(&problem),
    }
}

/// A problem as git shows it.
pub(crate) fn told(problem: &Problem) -> Response {
    let mut text = problem.detail.clone();
    if let Some(next) = &problem.next {
        text += &format!("\n  next: {next}");
    }
    text += &format!("\n  code: {} ({})\n", problem.code, problem.page);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    (status, [kind], text).into_response()
}

async fn answer(api: &Arc<Api>, principal: Principal, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let address =
        Address::read(&parts.method, parts.uri.path(), parts.uri.query()).map_err(|no| match no {
            NoAddress::Unknown => Problem::new(
                Code::RouteNotFound,
                "there is no such repository, or git asks nothing of this kind",
            )
            .next("a remote is http://HOST/git/APP.git, or http://HOST/git/TENANT/PROJECT/APP.git"),
            NoAddress::Dumb => Problem::new(Code::RequestInvalid, "only the smart protocol is spoken here")
                .next("use git 1.6.6 or later"),
        })?;
    let app = find_app(api, &principal, &address.app).map_err(|refused| {
        let problem = refused.into_problem();
        match problem.code {
            Code::AppNotFound => {
                problem.next(format!("`berth git remote --app {}` makes it", address.app.app))
            }
            _ => problem,
        }
    })?;
    if !principal.is_for(&app.id) {
        return Err(Problem::new(Code::AppNotFound, format!("there is no app {}", app.id)));
    }
    if app.life != Life::Alive {
        return Err(Problem::new(Code::AppDestroying, format!("{} is being destroyed", app.id)));
    }
    let protocol = protocol(&parts.headers, address.service);
    let repositories = api.machine.repositories();
    let turn = repositories.turn().await?;
    let repository = repositories.of(&app, super::default_branch(&app)).await?;
    if address.service == Service::ReceivePack {
        repository.check_size().await?;
    }
    if address.advertise {
        let refs = service::advertise(&repository, address.service, protocol.as_deref()).await?;
        return Ok(advertisement(address.service, protocol.as_deref(), refs));
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind != Some(&format!("application/x-{}-request", address.service.name())) {
        return Err(Problem::new(Code::RequestInvalid, "the request is not what git sends"));
    }
    let gzip = match parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => return Err(Problem::new(Code::RequestInvalid, "only gzip is unpacked here")),
    };
    let push = Push::new(api, principal, &app, repository.clone());
    let service = address.service;
    let request = Served { repository, service, protocol, turn, body, gzip };
    let body = service::serve(request, |socket| push.converse(socket))?;
    Ok(reply(service, "result", body))
}

/// The version that the client asks for, in our words. Pushing has no second version, and says so to no client.
fn protocol(headers: &HeaderMap, service: Service) -> Option<String> {
    let wanted = headers.get(GIT_PROTOCOL)?.to_str().ok()?;
    let mut versions = wanted.split(':').filter_map(|it| it.strip_prefix("version=")?.parse::<u8>().ok());
    let most = if service == Service::UploadPack { 2 } else { 1 };
    versions.next().filter(|version| *version <= most).map(|version| format!("version={version}"))
}

fn advertisement(service: Service, protocol: Option<&str>, refs: Vec<u8>) -> Response {
    let mut body = Vec::new();
    if protocol != Some("version=2") {
        let line = format!("# service={}\n", service.name());
        body.extend_from_slice(format!("{:04x}{line}0000", line.len() + 4).as_bytes());
    }
    body.extend_from_slice(&refs);
    reply(service, "advertisement", Body::from(body))
}

fn reply(service: Service, what: &str, body: Body) -> Response {
    let kind = format!("application/x-{}-{what}", service.name());
    let kind = HeaderValue::try_from(kind).expect("it is made of plain letters");
    let fixed = |text| HeaderValue::from_static(text);
    let headers: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, fixed("no-cache, max-age=0, must-revalidate")),
        (PRAGMA, fixed("no-cache")),
        (EXPIRES, fixed("Fri, 01 Jan 1980 00:00:00 GMT")),
    ];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_there_are_get_to_git() {
        let asked = |text: &'static str, service| {
            let headers = [(HeaderName::from_static(GIT_PROTOCOL), HeaderValue::from_static(text))];
            protocol(&headers.into_iter().collect(), service)
        };
        assert_eq!(asked("version=2", Service::UploadPack).as_deref(), Some("version=2"));
        assert_eq!(asked("x:version=1", Service::UploadPack).as_deref(), Some("version=1"));
        assert_eq!(asked("version=2", Service::ReceivePack), None);
        for text in ["", "version=", "version=3", "version=2;x", "$(touch x)"] {
            assert_eq!(asked(text, Service::UploadPack), None, "{text}");
        }
    }
}
