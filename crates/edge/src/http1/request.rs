//! Heads of requests: read, and written anew for the app.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderValue, Method, Uri};
use httparse::{Header, Status};
use memchr::memchr_iter;

use berth_routing::host::normalise;

use crate::client::Origin;
use crate::forward::TARGET_MAX;
use crate::headers::{RequestId, is_forged, is_hop_by_hop, is_traceparent};
use crate::http1::message::{HEADERS_MAX, length, put};

/// What a client's bytes are.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// The beginning of a head that may be ordinary.
    Partial,
    /// An ordinary head.
    Whole(Head),
    /// Something that hyper is to look at: out of the ordinary, or wrong.
    Unusual,
}

/// The head of a request that is ordinary in every respect: HTTP/1.1, a path, one host, a body of a known length or none.
#[derive(Debug)]
pub(crate) struct Head {
    /// How many bytes it has.
    pub(crate) len: usize,
    /// How many bytes its body has.
    pub(crate) body: u64,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// The host as the client wrote it.
    pub(crate) host: HeaderValue,
    /// Whether the client closes the connection after the answer.
    pub(crate) closes: bool,
    /// Whether a valid trace was passed on.
    traced: bool,
}

/// Reads a head from the beginning of `bytes`, and writes to `out`, which is empty, what of it goes to the app: all but what [`Head::finish`] adds.
pub(crate) fn parse(bytes: &[u8], out: &mut Vec<u8>) -> Parsed {
    out.clear();
    // An empty line before a request is to be ignored, and is not ordinary.
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Parsed::Unusual;
    }
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Unusual,
    };
    match read(&request, bytes.get(..len).unwrap_or_default(), out) {
        Some(head) => Parsed::Whole(head),
        None => Parsed::Unusual,
    }
}

fn read(request: &httparse::Request<'_, '_>, text: &[u8], out: &mut Vec<u8>) -> Option<Head> {
    // Two readers that take different bytes for the end of a line are how requests are smuggled.
    let strict = memchr_iter(b'\n', text).all(|at| at > 0 && text.get(at - 1) == Some(&b'\r'));
    let (method, target) = (request.method?, request.path?);
    let usual = strict && request.version == Some(1) && target.starts_with('/') && target.len() <= TARGET_MAX;
    let method = Method::from_bytes(method.as_bytes()).ok().filter(|it| usual && *it != Method::CONNECT)?;
    let uri = Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes())).ok()?;
    put(
        out,
        &[method.as_str().as_bytes(), b" ", uri.path_and_query()?.as_str().as_bytes(), b" HTTP/1.1\r\n"],
    );
    let mut lines = Lines::default();
    for header in &*request.headers {
        lines.take(header, out)?;
    }
    let host = HeaderValue::from_bytes(lines.host?).ok()?;
    let traced = lines.trace(out);
    let (body, closes) = (lines.length.unwrap_or_default(), lines.closes);
    Some(Head { len: text.len(), body, method, uri, host, closes, traced })
}

/// What was seen among the headers of a request.
#[derive(Default)]
struct Lines<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    closes: bool,
    parent: Option<&'b [u8]>,
    parents: usize,
    state: Option<&'b [u8]>,
}

impl<'b> Lines<'b> {
    /// Takes a header and writes it to `out` if it goes further; `None` when it is out of the ordinary.
    fn take(&mut self, header: &Header<'b>, out: &mut Vec<u8>) -> Option<()> {
        let (name, value) = (header.name, header.value);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is("te") => return None,
            4 if is("host") => {
                normalise(value).ok()?;
                return self.host.replace(value).is_none().then_some(());
            }
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            10 if is("connection") => {
                let closes = value.eq_ignore_ascii_case(b"close");
                self.closes |= closes;
                return (closes || value.eq_ignore_ascii_case(b"keep-alive")).then_some(());
            }
            10 if is("tracestate") => return self.state.replace(value).is_none().then_some(()),
            11 if is("traceparent") => {
                (self.parent, self.parents) = (Some(value), self.parents + 1);
                return Some(());
            }
            14 if is("content-length") => {
                let before = self.length.replace(length(value)?);
                if before.is_some() {
                    return None;
                }
            }
            17 if is("transfer-encoding") => return None,
            _ if is_hop_by_hop(name) || is_forged(name) => return Some(()),
            _ => {}
        }
        put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        Some(())
    }

    /// Passes on the trace that the request is part of, if it is a valid one.
    fn trace(&self, out: &mut Vec<u8>) -> bool {
        let Some(parent) = self.parent.filter(|it| self.parents == 1 && is_traceparent(it)) else {
            return false;
        };
        put(out, &[b"traceparent: ", parent, b"\r\n"]);
        if let Some(state) = self.state {
            put(out, &[b"tracestate: ", state, b"\r\n"]);
        }
        true
    }
}

impl Head {
    /// Ends the head that was written to `out` by what the app is promised of a request that came from `origin`.
    pub(crate) fn finish(&self, origin: &Origin, id: &RequestId, out: &mut Vec<u8>) {
        let (peer, caller, proto) = match origin {
            Origin::Outside { peer, secure } => {
                (peer, None, if secure.is_some() { &b"https"[..] } else { b"http" })
            }
            Origin::Inside { peer, caller, .. } => (peer, Some(caller), &b"http"[..]),
        };
        let host = self.host.as_bytes();
        put(
            out,
            &[b"host: ", host, b"\r\nx-forwarded-for: ", peer.as_bytes(), b"\r\nx-forwarded-proto: ", proto],
        );
        put(out, &[b"\r\nx-forwarded-host: ", host, b"\r\nx-request-id: ", id.as_str().as_bytes()]);
        if let Some(caller) = caller {
            put(out, &[b"\r\nx-berth-app: ", caller.as_bytes()]);
        }
        if !self.traced {
            put(out, &[b"\r\ntraceparent: ", id.traceparent().as_bytes()]);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// What the request at the beginning of `bytes`, which was read before, says that its client accepts.
pub(crate) fn accept(bytes: &[u8]) -> Option<HeaderValue> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let _complete = request.parse_with_uninit_headers(bytes, &mut headers).ok()?;
    let accept = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"))?;
    HeaderValue::from_bytes(accept.value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strict::{Phase, Scanner};

    const HEAD: &str = "GET /a?b HTTP/1.1\r\nHost: Shop.com:80\r\n";

    /// The head, and what of it goes to the app.
    fn parsed(text: &str) -> Option<(Head, String)> {
        let mut out = Vec::new();
        match parse(text.as_bytes(), &mut out) {
            Parsed::Whole(head) => Some((head, String::from_utf8_lossy(&out).into_owned())),
            Parsed::Partial | Parsed::Unusual => None,
        }
    }

    fn outside() -> Origin {
        Origin::Outside { peer: HeaderValue::from_static("10.0.0.1"), secure: None }
    }

    #[test]
    fn what_goes_further_is_as_it_was_and_what_concerns_the_connection_is_not_in_it() {
        let rest = "Accept: */*\r\nConnection: Keep-Alive\r\nKeep-Alive: 5\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6\r\n\
                    Proxy-Authorization: x\r\ncontent-length: 2\r\nX-Kept: 1\r\n\r\nab";
        let (head, mut out) = parsed(&format!("{HEAD}{rest}")).unwrap();
        assert_eq!((head.body, head.closes, head.host.as_bytes()), (2, false, &b"Shop.com:80"[..]));
        assert_eq!(out, "GET /a?b HTTP/1.1\r\nAccept: */*\r\ncontent-length: 2\r\nX-Kept: 1\r\n");
        let mut bytes = std::mem::take(&mut out).into_bytes();
        head.finish(&outside(), &RequestId::new(7, 9), &mut bytes);
        let out = String::from_utf8(bytes).unwrap();
        for line in [
            "host: Shop.com:80",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: Shop.com:80",
            "x-request-id: 00000000000000000000000000000007",
            "traceparent: 00-00000000000000000000000000000007-0000000000000009-01",
        ] {
            assert_eq!(out.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {out}");
        }
        assert!(out.ends_with("\r\n\r\n") && !out.contains("x-berth-app"));
    }

    #[test]
    fn a_valid_trace_is_continued_and_another_is_not() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let (head, out) =
            parsed(&format!("{HEAD}Tracestate: a=b\r\nTraceparent: {valid}\r\nX: 1\r\n\r\n")).unwrap();
        assert!(head.traced && out.contains(&format!("traceparent: {valid}\r\ntracestate: a=b\r\n")));
        for bad in [format!("traceparent: {valid}\r\ntraceparent: {valid}"), "traceparent: 00-0".to_owned()] {
            let (head, out) = parsed(&format!("{HEAD}tracestate: a=b\r\n{bad}\r\n\r\n")).unwrap();
            assert!(!head.traced && !out.contains("trace"), "{out}");
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_left_to_hyper() {
        for rest in [
            "Upgrade: websocket\r\n\r\n",
            "Expect: 100-continue\r\n\r\n",
            "TE: trailers\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n",
            "Connection: close, x-secret\r\n\r\n",
            "Connection: upgrade\r\n\r\n",
            "Connection: close\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Content-Length: 18446744073709551616\r\n\r\n",
            "Host: b\r\n\r\n",
            "X: a\n\r\n",
            "X: a\r\n\n",
            "X: a\r\n folded\r\n\r\n",
            "X : a\r\n\r\n",
            "X: a\0\r\n\r\n",
        ] {
            assert!(parsed(&format!("{HEAD}{rest}")).is_none(), "{rest:?}");
        }
        for text in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
        ] {
            assert!(parsed(text).is_none(), "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(TARGET_MAX));
        assert!(parsed(&long).is_none());
    }

    proptest! {
        /// What is taken here passes the scanner before hyper too, with the same end; and what it makes of it is one head, strict by the same
        /// measure, in which each header that edge alone may set stands once.
        #[test]
        fn what_is_taken_is_a_part_of_what_is_let_through(
            lines in proptest::collection::vec(
                "(Content-Length: [0-9]{1,3}|Transfer-Encoding: chunked|Connection: (close|keep-alive|x)|X[-_]Forwarded[-_](For|Proto): 6|\
                  Host: b|Forwarded: x|x-[a-z]{1,9}: [ -~]{0,9}|traceparent: [0-9a-f-]{0,60}|tracestate: a|[ -~]{0,12}|TE: trailers)(\r\n|\r\n|\r\n|\n|\r)",
                0..8,
            ),
            target in "/[!-~]{0,12}",
        ) {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat());
            let Some((head, out)) = parsed(&text) else { return Ok(()) };
            let mut scanner = Scanner::new();
            let taken = scanner.scan(&text.as_bytes()[..head.len]).map(|()| scanner.phase());
            prop_assert_eq!(taken, Ok(if head.body == 0 { Phase::Idle } else { Phase::Body }));
            let mut bytes = out.into_bytes();
            head.finish(&outside(), &RequestId::new(7, 9), &mut bytes);
            let mut scanner = Scanner::new();
            prop_assert_eq!(scanner.scan(&bytes), Ok(()));
            prop_assert_eq!(scanner.heads(), 1);
            let made = String::from_utf8(bytes).unwrap().to_ascii_lowercase().replace('_', "-");
            for name in ["host", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "traceparent"] {
                prop_assert_eq!(made.matches(&format!("\r\n{name}:")).count(), 1, "{} in {}", name, made);
            }
            prop_assert!(!made.contains("\r\nconnection:") && !made.contains("\r\ntransfer-encoding:"));
        }

        /// Nothing that comes makes it panic, and a head that is cut short is never taken for another one.
        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..80) {
            let mut out = Vec::new();
            let _whatever = parse(&bytes, &mut out);
            let whole = format!("{HEAD}X: 1\r\n\r\n");
            let short = &whole.as_bytes()[..cut.min(whole.len() - 1)];
            prop_assert!(!matches!(parse(short, &mut out), Parsed::Whole(_)));
        }
    }
}
