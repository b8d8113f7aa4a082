//! gRPC, as far as edge has to know of it: what became of a call stands in its trailers, and a client looks for it nowhere else.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::ResponseBody;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const KIND: &[u8] = b"application/grpc";

/// Whether a message with these headers is one of gRPC: `application/grpc`, or that with what is inside, `application/grpc+proto`. What browsers
/// send, `application/grpc-web`, has its trailers in its body and is like any other request here.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..KIND.len()).is_some_and(|start| start.eq_ignore_ascii_case(KIND))
        && matches!(kind.get(KIND.len()), None | Some(b'+' | b';' | b' '))
}

/// The status of HTTP that stands for what became of a call, when these headers or trailers say it: the other way round of gRPC's
/// [mapping](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md) where that has one, and as
/// [google.rpc.Code](https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto) has it where not. So a client that
/// calls what is not there counts as one who asks for a page that is not there, and is no failure of the app.
pub(crate) fn outcome(headers: &HeaderMap) -> Option<u16> {
    let code = headers.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok());
    Some(match code.unwrap_or(2_u8) {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 | 12 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        14 => 503,
        16 => 401,
        // Unknown, internal, data loss, and what nobody has heard of.
        _ => 500,
    })
}

/// The same of the head of an answer: nothing where it is none of gRPC, and where it is, what became of the call if that is said already.
pub(crate) fn outcome_in(head: &HeaderMap) -> Option<Option<u16>> {
    is_grpc(head).then(|| outcome(head))
}

/// The code of gRPC for an answer that is not gRPC's own, by its mapping.
fn code(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Makes an answer of edge's own into one that a client of gRPC reads: a head that is trailers too. An app's answer is not touched.
pub(crate) fn speak(response: &mut Response<ResponseBody>) {
    let status = response.status();
    if status.as_u16() < 400 {
        return;
    }
    let Some(text) = response.body_mut().take_own() else { return };
    let code = code(status);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(u16::from(code)));
    if let Ok(message) = HeaderValue::from_str(&message(&text)) {
        headers.insert(MESSAGE, message);
    }
}

/// What was to be a page, without its first line, in one line, in the encoding of `grpc-message`.
fn message(page: &Bytes) -> String {
    let page = String::from_utf8_lossy(page);
    let lines: Vec<&str> = page.lines().skip(1).collect();
    lines.join(" ").bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string does not fail"),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn it_is_known_by_its_content_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=x", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&with("content-type", kind)), is, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn what_became_of_a_call_has_a_status_of_http() {
        let of = |code| outcome(&with("grpc-status", code));
        assert_eq!(["0", "1", "5", "12", "14"].map(of), [200, 499, 404, 404, 503].map(Some));
        assert_eq!(["2", "13", "15", "99", "x"].map(of), [Some(500); 5]);
        assert_eq!(outcome(&HeaderMap::new()), None);
    }

    #[test]
    fn a_message_is_one_line_of_what_headers_may_hold() {
        let page = Bytes::from("503 Service Unavailable\nNot 100% ready \u{e9}.\napp_not_ready, request 7\n");
        assert_eq!(message(&page), "Not 100%25 ready %C3%A9. app_not_ready, request 7");
    }
}
