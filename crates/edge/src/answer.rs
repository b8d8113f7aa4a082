//! What edge answers itself: short, with a code, the request's id, and what to do next.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::body::ResponseBody;
use crate::rate::Exceeded;
use crate::record::Record;

/// Why a request got no answer from an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    BadRequest(Wrong),
    BadBody,
    UriTooLong,
    Connect,
    Misdirected,
    NoApp,
    NotReady,
    NotRunning,
    NotAwake,
    Paused,
    Maintenance,
    /// It would wait in vain, or as many wait as may; it may try again after so many seconds.
    Busy {
        after: u32,
    },
    /// No instance had room for as long as a request waits.
    Full,
    /// There are as many requests for this part of the app as there may be.
    Crowded,
    NoAnswer,
    /// What the app said is no answer that could be passed on.
    BadAnswer,
    TimedOut,
    /// By a rate limit of the app.
    TooOften(Exceeded),
    /// Nothing is stored that would do, and the request asks for that alone.
    NotStored,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Host,
    Target,
    Length,
}

impl Reason {
    /// Nobody waits in vain; `after` is when it may be worth trying again.
    pub(crate) fn busy(after: Duration) -> Self {
        let seconds = u32::try_from(after.as_secs()).unwrap_or(u32::MAX);
        Self::Busy { after: seconds.saturating_add(1) }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BadBody => StatusCode::BAD_REQUEST,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoApp => StatusCode::NOT_FOUND,
            Self::NotReady
            | Self::NotRunning
            | Self::NotAwake
            | Self::Paused
            | Self::Maintenance
            | Self::Busy { .. }
            | Self::Full
            | Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoAnswer | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::TimedOut | Self::NotStored => StatusCode::GATEWAY_TIMEOUT,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::BadBody => "bad_request_body",
            Self::UriTooLong => "uri_too_long",
            Self::Connect => "method_not_allowed",
            Self::Misdirected => "misdirected_request",
            Self::NoApp => "no_app_here",
            Self::NotReady => "app_not_ready",
            Self::NotRunning => "app_not_running",
            Self::NotAwake => "app_did_not_wake",
            Self::Paused => "app_paused",
            Self::Maintenance => "app_in_maintenance",
            Self::Busy { .. } => "too_many_waiting",
            Self::Full => "app_busy",
            Self::Crowded => "route_busy",
            Self::NoAnswer => "app_gave_no_answer",
            Self::BadAnswer => "app_answer_invalid",
            Self::TimedOut => "app_timed_out",
            Self::TooOften(_) => "rate_limited",
            Self::NotStored => "not_stored",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadRequest(Wrong::Host) => {
                "This request is not valid HTTP: it needs exactly one valid host."
            }
            Self::BadRequest(Wrong::Target) => {
                "This request is not valid HTTP: it is for neither a path nor an http or https address."
            }
            Self::BadRequest(Wrong::Length) => {
                "This request is not valid HTTP: it says more than one length, or none that is a number."
            }
            Self::BadBody => "The body of this request broke off or is not framed correctly.",
            Self::UriTooLong => "The address is longer than 8192 bytes.",
            Self::Connect => "CONNECT is not supported here.",
            Self::Misdirected => "This connection is for another host. Open one for this host.",
            Self::NoApp => "No app is at this host. Check the name, or add the host to an app.",
            Self::NotReady => "The app is not ready. Try again in a moment.",
            Self::NotRunning => {
                "Nothing of this app runs: it is scaled to nothing, or no release of it serves yet."
            }
            Self::NotAwake => "The app sleeps and did not wake in time. Try again in a moment.",
            Self::Paused => "The app was paused and still is. Try again in a moment.",
            Self::Maintenance => "The app is under maintenance and will be back.",
            Self::Busy { .. } => "Too many requests wait for this app already. Try again in a moment.",
            Self::Full => "The app has as many requests as it may have at a time. Try again in a moment.",
            Self::Crowded => {
                "As many requests as may be are under way for this part of the app. Try again in a moment."
            }
            Self::NoAnswer => "The app closed the connection before it answered.",
            Self::BadAnswer => "What the app answered is not valid HTTP.",
            Self::TooOften(_) => "You ask this app more often than it allows. Try again later.",
            Self::TimedOut => "The app did not begin to answer in the time that it has.",
            Self::NotStored => "Nothing is stored that would answer this, and it asks for nothing else.",
        }
    }

    /// Whether the app failed, or could not be had, in a way that what it answered before may stand for.
    pub(crate) fn is_failure(self) -> bool {
        let is_out = matches!(self, Self::NotReady | Self::NotAwake | Self::NoAnswer | Self::TimedOut);
        is_out || matches!(self, Self::BadAnswer | Self::Busy { .. } | Self::Full | Self::Crowded)
    }

    /// Whether it says that no instance could be given the request.
    fn is_unserved(self) -> bool {
        matches!(self, Self::NotReady | Self::NotRunning | Self::Paused | Self::Busy { .. } | Self::Full)
    }

    /// After how many seconds to try again.
    fn retry_after(self) -> u64 {
        match self {
            // Nobody knows how long it takes; a minute is what crawlers and clients of APIs get by with.
            Self::Maintenance => 60,
            Self::Busy { after } => after.into(),
            Self::TooOften(exceeded) => exceeded.after,
            _ => 1,
        }
    }

    /// After these the rest of the connection cannot be trusted, or is not worth reading.
    fn closes(self) -> bool {
        matches!(self, Self::BadRequest(_) | Self::BadBody | Self::UriTooLong | Self::Connect)
    }
}

/// The answer for `reason`, as HTML when `accept` names it, as JSON (RFC 9457) when it names that, else as plain text.
pub(crate) fn refuse(
    reason: Reason,
    accept: Option<&HeaderValue>,
    mut record: Box<Record>,
) -> Response<ResponseBody> {
    let status = reason.status();
    record.refused(status.as_u16());
    if reason.is_unserved() {
        record.unserved();
    }
    let id = *record.id();
    let (kind, page) = page(reason, accept, id.as_str());
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert("x-request-id", id);
    }
    if let Reason::TooOften(exceeded) = reason {
        limit_headers(&mut headers, exceeded);
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(reason.retry_after()));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if reason.closes() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut response = Response::new(body(page, &mut headers, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body of `text`, whose length it says in `headers`. HEAD has the length alone (RFC 9110, 9.3.2): by HTTP/2 what follows it would be sent, and make
/// the answer malformed.
fn body(text: String, headers: &mut HeaderMap, mut record: Box<Record>) -> ResponseBody {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    let text = if record.is_head() { Bytes::new() } else { Bytes::from(text) };
    record.add_bytes(text.len());
    ResponseBody::own(text, record)
}

/// What the answer for `reason` says, and what that is.
fn page(reason: Reason, accept: Option<&HeaderValue>, id: &str) -> (&'static str, String) {
    let wants = |kind: &[u8]| accept.is_some_and(|accept| contains(accept.as_bytes(), kind));
    let (status, code, text) = (reason.status(), reason.code(), reason.text());
    // Nothing of the request is in it, so there is nothing to escape.
    if wants(b"text/html") {
        let page = format!(
            "<!doctype html><meta charset=utf-8><title>{status}</title>\
             <body style=\"font:16px/1.5 system-ui;max-width:36em;margin:4em auto;padding:0 1em\">\
             <h1>{status}</h1><p>{text}</p><p><small>{code}, request {id}</small></p>\n"
        );
        return ("text/html; charset=utf-8", page);
    }
    if wants(b"application/json") || wants(b"+json") {
        let title = status.canonical_reason().unwrap_or_default();
        let status = status.as_u16();
        let problem = serde_json::json!({
            "title": title, "status": status, "detail": text, "code": code, "request_id": id,
        });
        return ("application/problem+json", format!("{problem}\n"));
    }
    ("text/plain; charset=utf-8", format!("{status}\n{text}\n{code}, request {id}\n"))
}

/// What an ACME server looks for.
pub(crate) fn prove(answer: String, mut record: Box<Record>) -> Response<ResponseBody> {
    record.refused(StatusCode::OK.as_u16());
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(body(answer, &mut headers, record));
    *response.headers_mut() = headers;
    response
}

/// Sends a client on to `location`, with the method and the body that it came with.
pub(crate) fn redirect(location: HeaderValue, mut record: Box<Record>) -> Response<ResponseBody> {
    let status = StatusCode::PERMANENT_REDIRECT;
    record.refused(status.as_u16());
    let mut response = Response::new(ResponseBody::own(Bytes::new(), record));
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10: the rule as a policy with its quota and window, and what is left of it.
fn limit_headers(headers: &mut HeaderMap, exceeded: Exceeded) {
    let Exceeded { rule, requests, seconds, after } = exceeded;
    for (name, text) in [
        ("ratelimit-policy", format!("\"{rule}\";q={requests};w={seconds}")),
        ("ratelimit", format!("\"{rule}\";r=0;t={after}")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_reads_json_is_told_in_json() {
        let accept = |text| Some(HeaderValue::from_static(text));
        let said = |text| page(Reason::NoAnswer, accept(text).as_ref(), "id-1");
        for json in ["application/json", "application/vnd.api+json, */*;q=0.1"] {
            let (kind, body) = said(json);
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(kind, "application/problem+json");
            assert_eq!(problem["status"], 502);
            assert_eq!(problem["code"], "app_gave_no_answer");
            assert_eq!(problem["request_id"], "id-1");
        }
        assert_eq!(said("text/html, application/json;q=0.9").0, "text/html; charset=utf-8");
        let plain = "502 Bad Gateway\nThe app closed the connection before it answered.\napp_gave_no_answer, request id-1\n";
        assert_eq!(said("*/*"), ("text/plain; charset=utf-8", plain.to_owned()));
    }

    #[test]
    fn each_code_stands_in_the_page_of_errors() {
        let page = include_str!("../../../docs/errors/README.md");
        let all = [
            Reason::BadRequest(Wrong::Host),
            Reason::BadBody,
            Reason::UriTooLong,
            Reason::Connect,
            Reason::Misdirected,
            Reason::NoApp,
            Reason::NotReady,
            Reason::NotRunning,
            Reason::NotAwake,
            Reason::Paused,
            Reason::Maintenance,
            Reason::Busy { after: 1 },
            Reason::Full,
            Reason::Crowded,
            Reason::NoAnswer,
            Reason::BadAnswer,
            Reason::TimedOut,
            Reason::NotStored,
            Reason::TooOften(Exceeded { rule: 1, requests: 1, seconds: 1, after: 1 }),
        ];
        for reason in all {
            let row = format!("| `{}` | {} |", reason.code(), reason.status().as_u16());
            assert!(page.contains(&row), "{row}");
        }
    }
}
