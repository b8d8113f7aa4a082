//! What of a message's headers goes further, and what edge adds.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::client::Origin;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_BERTH_APP: HeaderName = HeaderName::from_static("x-berth-app");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request's id, as the span that carries it: `00-ID-SPAN-01`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId {
    traceparent: [u8; 55],
}

impl RequestId {
    /// From 16 random bytes for the request and 8 for the span.
    pub(crate) fn new(id: u128, span: u64) -> Self {
        // Sampled, so that an app which follows its parent's decision records.
        let mut traceparent = *b"00-00000000000000000000000000000000-0000000000000000-01";
        // Nought is not a valid trace or span id.
        put_hex(id.max(1), traceparent.get_mut(3..35).unwrap_or_default());
        put_hex(span.max(1).into(), traceparent.get_mut(36..52).unwrap_or_default());
        Self { traceparent }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.traceparent().get(3..35).unwrap_or_default()
    }

    /// The header by which apps continue the trace (W3C Trace Context).
    pub(crate) fn traceparent(&self) -> &str {
        std::str::from_utf8(&self.traceparent).unwrap_or_default()
    }
}

/// Writes the last hexadecimal digits of `number`, as many as there is room for.
fn put_hex(mut number: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

/// Makes a client's headers into those for the app: without what concerns only the client's connection, without what
/// it may have forged, with what the app is promised.
///
/// The order matters: `Connection` is obeyed before our headers are set, so that a client cannot name them there.
pub(crate) fn to_app(headers: &mut HeaderMap, host: &HeaderValue, origin: &Origin, id: &RequestId) {
    let (peer, caller, proto) = match origin {
        Origin::Outside { peer, secure } => (peer, None, if secure.is_some() { "https" } else { "http" }),
        Origin::Inside { peer, caller, .. } => (peer, Some(caller), "http"),
    };
    let wants_trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")));
    remove_hop_by_hop(headers);
    remove_forged(headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(header::HOST, host.clone());
    headers.insert(X_FORWARDED_FOR, peer.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_FORWARDED_HOST, host.clone());
    if let Some(caller) = caller {
        headers.insert(X_BERTH_APP, caller.clone());
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, value);
    }
    let mut traces = headers.get_all(TRACEPARENT).iter();
    let valid =
        traces.next().is_some_and(|trace| is_traceparent(trace.as_bytes())) && traces.next().is_none();
    if !valid && let Ok(value) = HeaderValue::from_str(id.traceparent()) {
        headers.insert(TRACEPARENT, value);
        headers.remove("tracestate");
    }
}

/// Whether a request says its length at most once, and as a number: by frames nothing depends on it, but the app is told so (RFC 9113, 8.1.1).
pub(crate) fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number =
        |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit) && !value.is_empty();
    lengths.next().is_none_or(is_number) && lengths.next().is_none()
}

/// Makes one header of several `Cookie`, which HTTP/2 allows and HTTP/1 does not (RFC 9113, 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Says to a browser that it is to use HTTPS alone for so many seconds, unless the app says something of that itself.
pub(crate) fn set_hsts(headers: &mut HeaderMap, seconds: u32) {
    if !headers.contains_key(header::STRICT_TRANSPORT_SECURITY)
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={seconds}"))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
}

/// Makes an app's headers into those for the client. The framing is hyper's: a length beside a Transfer-Encoding
/// would be taken for the truth.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
}

/// Whether `Connection` names `upgrade`, and what the upgrade is to.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade")));
    headers.get(header::UPGRADE).filter(|_| wanted).cloned()
}

/// The protocol that a request asks for, where it is one that may be tunnelled. HTTP/2 is not (RFC 9113, 3.1): what came through such a
/// tunnel would be requests that no rule was asked about.
pub(crate) fn wished_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_http2 = |token: &[u8]| {
        let token = token.split(|byte| *byte == b'/').next().unwrap_or_default();
        [&b"h2c"[..], b"h2", b"http"].iter().any(|other| token.eq_ignore_ascii_case(other))
    };
    upgrade(headers).filter(|protocol| !tokens(protocol).any(is_http2))
}

/// Whether what an app switches to is among what it was `asked` for (RFC 9110, 7.8).
pub(crate) fn is_granted(asked: &HeaderValue, granted: &HeaderValue) -> bool {
    tokens(asked).any(|token| token.eq_ignore_ascii_case(granted.as_bytes().trim_ascii()))
}

/// Whether the body of an answer is framed by nothing but chunks or its length. Any other transfer coding is one that the client would have
/// to be told of, and is not.
pub(crate) fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let plain =
        |coding: &[u8]| [&b"chunked"[..], b"identity"].iter().any(|it| coding.eq_ignore_ascii_case(it));
    headers.get_all(header::TRANSFER_ENCODING).iter().all(|value| tokens(value).all(plain))
}

/// Says on a message that it asks for or grants an upgrade.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let usual = value.as_bytes();
        if usual.eq_ignore_ascii_case(b"keep-alive") || usual.eq_ignore_ascii_case(b"close") {
            continue;
        }
        named.extend(tokens(value).filter_map(|token| HeaderName::from_bytes(token).ok()));
    }
    for name in named {
        // What the message needs to be understood is not the client's to remove.
        if name != header::HOST && name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    remove_where(headers, is_hop_by_hop);
}

/// Whether a header of this name, in whatever case, is for one connection alone. Upgrade and Expect are edge's to answer; TE and Transfer-Encoding
/// describe one connection's framing.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 => is("te"),
        6 => is("expect"),
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        14 => is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

fn remove_forged(headers: &mut HeaderMap) {
    remove_where(headers, is_forged);
}

/// Whether a header of this name, in whatever case, says what edge alone may say.
pub(crate) fn is_forged(name: &str) -> bool {
    // Most names are told by their first letter.
    if !matches!(name.bytes().next(), Some(b'x' | b'X' | b'f' | b'F')) {
        return false;
    }
    // Many servers fold `_` into `-` (CGI, WSGI, Rack), so that X_Forwarded_For would arrive as X-Forwarded-For.
    let mut folded = [0; 24];
    let Some(folded) = folded.get_mut(..name.len().min(24)) else { return false };
    for (to, from) in folded.iter_mut().zip(name.bytes()) {
        *to = if from == b'_' { b'-' } else { from.to_ascii_lowercase() };
    }
    folded.starts_with(b"x-forwarded-")
        || matches!(&*folded, b"x-real-ip" | b"x-request-id" | b"x-berth-app" | b"forwarded")
}

/// Removes the headers whose name `unwanted` picks. Mostly there are none, and then nothing is allocated.
fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Version 00 of W3C Trace Context; what we cannot read we do not continue.
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8], length: usize| {
        part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    let mut parts = value.split(|byte| *byte == b'-');
    let (Some(version), Some(trace), Some(span), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    version == b"00" && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let origin = Origin::Outside { peer: HeaderValue::from_static("10.0.0.1"), secure: None };
        to_app(&mut headers, &HeaderValue::from_static("shop.com"), &origin, &RequestId::new(7, 9));
        headers
    }

    #[test]
    fn who_calls_from_within_is_said_by_edge_alone() {
        let mut headers =
            forwarded(&[("x-berth-app", "evil"), ("X_Berth_App", "evil"), ("x-berth_app", "evil")]);
        assert!(!headers.keys().any(|name| name.as_str().contains("berth")), "{headers:?}");
        headers.insert("x_berth_app", "evil".parse().unwrap());
        headers.append("x-berth-app", "evil".parse().unwrap());
        headers.insert("connection", "x-berth-app, x-forwarded-for".parse().unwrap());
        let origin = Origin::Inside {
            peer: HeaderValue::from_static("198.19.0.7"),
            caller: HeaderValue::from_static("web"),
            target: crate::fleet::Named {
                project: "default/default".parse().unwrap(),
                address: [198, 19, 0, 1].into(),
            },
        };
        to_app(&mut headers, &HeaderValue::from_static("api.internal"), &origin, &RequestId::new(7, 9));
        assert_eq!(headers.get_all("x-berth-app").iter().collect::<Vec<_>>(), ["web"]);
        assert!(!headers.contains_key("x_berth_app"));
        assert_eq!(
            (&headers["x-forwarded-for"], &headers["host"]),
            (&HeaderValue::from_static("198.19.0.7"), &HeaderValue::from_static("api.internal"),)
        );
    }

    #[test]
    fn every_connection_header_is_obeyed_and_none_removes_ours() {
        let headers = forwarded(&[
            ("connection", "close"),
            ("connection", "x-secret, X-Forwarded-For,host , upgrade"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "x"),
            ("x-secret", "1"),
            ("x-kept", "1"),
        ]);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "host",
            "traceparent",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
            "x-request-id",
        ];
        assert_eq!(names, expected);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
    }

    #[test]
    fn forged_headers_are_replaced_however_they_are_spelt() {
        let headers = forwarded(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "1"),
            ("x_request_id", "evil"),
            ("x-request-id", "evil"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded", "kept, it means nothing"),
        ]);
        assert!(!headers.values().any(|value| value.as_bytes().windows(4).any(|part| part == b"evil")));
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-request-id"], "00000000000000000000000000000007");
        assert!(!headers.contains_key("forwarded") && !headers.contains_key("x-real-ip"));
        assert!(!headers.keys().any(|name| name.as_str().contains('_') || name == "x-forwarded-port"));
    }

    #[test]
    fn a_valid_trace_is_continued_and_another_replaced() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert_eq!(forwarded(&[("traceparent", valid)])["traceparent"], valid);
        let ours = "00-00000000000000000000000000000007-0000000000000009-01";
        for bad in [
            "",
            "00-0-0-0",
            &valid.to_uppercase(),
            &valid.replace("00-4", "ff-4"),
            valid.trim_end_matches('0'),
        ] {
            let headers = forwarded(&[("traceparent", bad), ("tracestate", "a=b")]);
            assert_eq!(headers["traceparent"], ours, "{bad}");
            assert!(!headers.contains_key("tracestate"));
        }
        assert_eq!(forwarded(&[("traceparent", valid), ("traceparent", valid)])["traceparent"], ours);
    }

    #[test]
    fn trailers_are_still_announced_and_other_codings_not() {
        let headers = forwarded(&[("te", "gzip, trailers"), ("trailer", "x-sum")]);
        assert_eq!(
            (&headers["te"], &headers["trailer"]),
            (&"trailers".parse().unwrap(), &"x-sum".parse().unwrap())
        );
        assert!(!forwarded(&[("te", "gzip")]).contains_key("te"));
    }

    #[test]
    fn a_length_beside_a_transfer_encoding_does_not_reach_the_client() {
        let mut headers = HeaderMap::new();
        headers.insert("content-length", "5".parse().unwrap());
        headers.insert("transfer-encoding", "chunked".parse().unwrap());
        headers.insert("connection", "x-internal".parse().unwrap());
        headers.insert("x-internal", "1".parse().unwrap());
        to_client(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
