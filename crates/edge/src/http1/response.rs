//! Heads of responses, read and written anew for the client, and where their bodies end.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

use crate::headers::is_hop_by_hop;
use crate::http1::message::{HEADERS_MAX, length, put};
use crate::strict::Scanner;

/// An app's head may be so long, as long as hyper lets it be.
pub(crate) const ANSWER_HEAD_MAX: usize = 64 << 10;

/// What an app's bytes are.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// The beginning of a head.
    Partial,
    /// The head of an answer before the answer, which ends after so many bytes.
    Interim(usize),
    /// The head of an answer.
    Whole(Head),
    /// No answer to what was asked.
    Wrong,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// How many bytes it has.
    pub(crate) len: usize,
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// Whether the app takes another request on the connection.
    pub(crate) keeps: bool,
    /// Whether it says since when it is.
    pub(crate) dated: bool,
    /// Whether it says itself that HTTPS alone is to be used.
    pub(crate) secured: bool,
    /// Whether the answer goes on for as long as both sides like.
    pub(crate) streams: bool,
}

/// How the end of a body is found.
#[derive(Debug)]
pub(crate) enum Body {
    /// After so many bytes.
    Length(u64),
    /// By its chunks.
    Chunks(Scanner),
    /// Where the connection ends.
    UntilClose,
}

/// A body that is not framed as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadFraming;

/// Reads the answer to a request, a HEAD if `to_head`, from the beginning of `bytes`, and writes to `out`, which is emptied, what of it goes to the
/// client: all but the line that ends the head.
pub(crate) fn parse(bytes: &[u8], to_head: bool, out: &mut Vec<u8>) -> Parsed {
    out.clear();
    parse_by(bytes, to_head, |response, framing, head| {
        write(response, framing, head, out);
        Some(())
    })
}

/// Reads the same into `headers`, for a client that is answered in another form: all of them, but no length that does not count.
pub(crate) fn parse_into(bytes: &[u8], to_head: bool, headers: &mut HeaderMap) -> Parsed {
    parse_by(bytes, to_head, |response, framing, head| {
        let whole = Bytes::copy_from_slice(bytes.get(..head.len)?);
        let mut length = framing.length.filter(|_| !framing.chunked && head.status != 204);
        for header in &*response.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            if name == header::CONTENT_LENGTH {
                // Twice the same is one.
                if let Some(length) = length.take() {
                    headers.insert(name, length.into());
                }
                continue;
            }
            // Where it lies among all of them: a part of those in place of a copy of its own.
            let start = (header.value.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
            let value = match header.value.len() {
                0 => Bytes::new(),
                len => whole.slice(start..start + len),
            };
            headers.append(name, HeaderValue::from_maybe_shared(value).ok()?);
        }
        Some(())
    })
}

fn parse_by(
    bytes: &[u8],
    to_head: bool,
    take: impl FnOnce(&httparse::Response<'_, '_>, &Framing<'_>, &mut Head) -> Option<()>,
) -> Parsed {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Wrong,
    };
    match response.code {
        // Nobody asked for another protocol.
        Some(101) => Parsed::Wrong,
        Some(100..200) => Parsed::Interim(len),
        Some(status @ 200..) => {
            let taken = Framing::of(&response).and_then(|framing| {
                let mut head = framing.head(len, status, to_head);
                take(&response, &framing, &mut head).map(|()| head)
            });
            taken.map_or(Parsed::Wrong, Parsed::Whole)
        }
        Some(0..100) | None => Parsed::Wrong,
    }
}

fn write(response: &httparse::Response<'_, '_>, framing: &Framing<'_>, head: &mut Head, out: &mut Vec<u8>) {
    put_status(head.status, response.reason.unwrap_or_default(), out);
    for header in &*response.headers {
        let (name, value) = (header.name, header.value);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("date") => head.dated = true,
            12 if is("content-type") => head.streams = is_event_stream(value),
            // Said once, and not beside a coding, which is what counts.
            14 if is("content-length") => continue,
            25 if is("strict-transport-security") => head.secured = true,
            _ if is_hop_by_hop(name) || framing.is_named(name) => continue,
            _ => {}
        }
        put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
    }
    match framing.length.filter(|_| !framing.chunked && head.status != 204) {
        Some(length) => put(out, &[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]),
        None if matches!(head.body, Body::Length(0)) => {}
        None => put(out, &[b"transfer-encoding: chunked\r\n"]),
    }
}

fn put_status(status: u16, reason: &str, out: &mut Vec<u8>) {
    // Three digits: httparse takes no others.
    put(out, &[b"HTTP/1.1 ", status.to_string().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
}

/// Whether an answer of this kind stands open.
pub(crate) fn is_event_stream(kind: &[u8]) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    kind.get(..KIND.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// What the headers of a response say about where it ends and what is for the next hop alone.
struct Framing<'h> {
    length: Option<u64>,
    /// It comes in chunks. No other transfer coding is taken: its end would be found, and a client would be given a body that nobody had
    /// told it how to read (RFC 9112, 6.1).
    chunked: bool,
    keeps: bool,
    /// Headers named by `Connection`.
    named: Vec<&'h [u8]>,
}

impl<'h> Framing<'h> {
    fn of(response: &httparse::Response<'_, 'h>) -> Option<Self> {
        let mut framing =
            Self { length: None, chunked: false, keeps: response.version == Some(1), named: Vec::new() };
        for header in &*response.headers {
            let (name, value) = (header.name, header.value);
            if name.eq_ignore_ascii_case("content-length") {
                let length = length(value)?;
                // Twice the same is one, as for every client (RFC 9112, 6.3); two that differ are none.
                if framing.length.replace(length).is_some_and(|before| before != length) {
                    return None;
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                for coding in tokens(value).filter(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
                    if framing.chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                        return None;
                    }
                    framing.chunked = true;
                }
            } else if name.eq_ignore_ascii_case("connection") {
                for token in tokens(value) {
                    framing.keeps &= !token.eq_ignore_ascii_case(b"close");
                    if !token.eq_ignore_ascii_case(b"keep-alive") && !token.eq_ignore_ascii_case(b"close") {
                        framing.named.push(token);
                    }
                }
            }
        }
        Some(framing)
    }

    /// The head of an answer that is framed so, to a HEAD if `to_head`.
    fn head(&self, len: usize, status: u16, to_head: bool) -> Head {
        let body = match self.length {
            _ if to_head || status == 204 || status == 304 => Body::Length(0),
            _ if self.chunked => Body::Chunks(Scanner::of_chunks()),
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        let keeps = self.keeps && !matches!(body, Body::UntilClose);
        Head { len, status, body, keeps, dated: false, secured: false, streams: false }
    }

    fn is_named(&self, name: &str) -> bool {
        self.named.iter().any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

impl Body {
    /// Whether it has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(scanner) => scanner.is_between(),
            Self::UntilClose => false,
        }
    }

    /// How many of `bytes`, which come next, belong to it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadFraming> {
        match self {
            Self::UntilClose => Ok(bytes.len()),
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunks(scanner) => scanner.scan_message(bytes).map_err(|_refusal| BadFraming),
        }
    }

    /// Whether so much of it is left that a large buffer pays.
    pub(crate) fn is_long(&self, than: usize) -> bool {
        matches!(self, Self::Length(left) if *left > than as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, to_head: bool) -> Option<(Head, String)> {
        let mut out = Vec::new();
        match parse(text.as_bytes(), to_head, &mut out) {
            Parsed::Whole(head) => Some((head, String::from_utf8_lossy(&out).into_owned())),
            Parsed::Partial | Parsed::Interim(_) | Parsed::Wrong => None,
        }
    }

    #[test]
    fn the_end_of_a_body_is_found_as_its_head_says() {
        for (lines, length, kept) in [
            ("content-length: 5\r\n", Some(5), true),
            ("content-length: 5\r\ncontent-length: 5\r\n", Some(5), true),
            ("content-length: 5\r\nconnection: close\r\n", Some(5), false),
            ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", None, true),
            ("transfer-encoding: identity\r\ncontent-length: 5\r\n", Some(5), true),
            ("transfer-encoding: identity\r\n", None, false),
            ("", None, false),
        ] {
            let (head, out) = read(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"), false).unwrap();
            assert_eq!(head.keeps, kept, "{lines:?}");
            let found = match head.body {
                Body::Length(length) => Some(length),
                Body::Chunks(_) | Body::UntilClose => None,
            };
            assert_eq!(found, length, "{lines:?}");
            // One framing, whatever the app said.
            assert_eq!(out.matches("content-length").count(), usize::from(length.is_some()), "{out}");
            assert_eq!(out.matches("transfer-encoding").count(), usize::from(length.is_none()), "{out}");
        }
        for wrong in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: -1\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n",
        ] {
            assert!(read(&format!("HTTP/1.1 200 OK\r\n{wrong}\r\n"), false).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn answers_without_a_body_have_none() {
        for (status, to_head, said) in
            [("200 OK", true, true), ("304 Not Modified", false, true), ("204 No Content", false, false)]
        {
            let (head, out) =
                read(&format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n"), to_head).unwrap();
            assert!(head.body.has_ended() && head.keeps, "{status}");
            assert_eq!(out.contains("content-length: 5"), said, "{out}");
        }
    }

    #[test]
    fn what_concerns_the_connection_ends_here_and_the_reason_passes() {
        let text = "HTTP/1.1 299 Quite Fine\r\nConnection: keep-alive, X-Inner\r\nX-Inner: 1\r\nKeep-Alive: 5\r\n\
                    Date: now\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nStrict-Transport-Security: max-age=1\r\nX: 1\r\n\r\n";
        let (head, out) = read(text, false).unwrap();
        assert!(head.dated && head.secured && head.streams);
        assert!(out.starts_with("HTTP/1.1 299 Quite Fine\r\nDate: now\r\n"), "{out}");
        assert!(!out.to_ascii_lowercase().contains("inner") && !out.contains("Keep-Alive"));
        assert!(out.ends_with("X: 1\r\ntransfer-encoding: chunked\r\n"), "{out}");
    }

    #[test]
    fn another_protocol_and_what_is_no_answer_are_wrong() {
        let mut out = Vec::new();
        for text in [
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "nonsense\r\n\r\n",
            "HTTP/1.1 099 No\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
        ] {
            assert!(matches!(parse(text.as_bytes(), false, &mut out), Parsed::Wrong), "{text:?}");
        }
        assert!(matches!(parse(b"HTTP/1.1 103 Early Hints\r\n\r\n", false, &mut out), Parsed::Interim(28)));
        assert!(matches!(parse(b"HTTP/1.1 200 OK\r\n", false, &mut out), Parsed::Partial));
    }

    proptest! {
        /// However chunks are cut into reads, the body ends at the same byte.
        #[test]
        fn chunks_end_where_they_end(
            chunks in proptest::collection::vec("[a-z\r\n]{1,20}", 0..5),
            trailer in "(t: v\r\n)?",
            cut in 1_usize..9,
        ) {
            let body: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            let whole = format!("{body}0\r\n{trailer}\r\n");
            let after = format!("{whole}HTTP/1.1 200 OK\r\n");
            let mut body = Body::Chunks(Scanner::of_chunks());
            let mut taken = 0;
            for piece in after.as_bytes().chunks(cut) {
                let of_piece = body.take(piece).unwrap();
                taken += of_piece;
                if body.has_ended() {
                    break;
                }
                prop_assert_eq!(of_piece, piece.len());
            }
            prop_assert!(body.has_ended());
            prop_assert_eq!(taken, whole.len());
        }

        /// Nothing that an app says makes it panic.
        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            let _whatever = parse(&bytes, false, &mut out);
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            text.extend_from_slice(&bytes);
            let _whatever = parse(&text, false, &mut out);
        }
    }
}
