//! Requests of another form to instances that speak HTTP/1: without a body, and without anything that hyper is there for.
//!
//! Of a request of HTTP/2 hyper would make one of its own, which goes through a queue to the task of a connection, and whose answer comes back
//! through two more. Here whoever waits for the answer reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::http1::message::{HEADERS_MAX, put};
use crate::http1::response::{self, ANSWER_HEAD_MAX, Body};
use crate::http1::sockets::BUFFER;
use crate::request_body::{BodyError, RequestBody};
use crate::strict::Part;
use crate::upstream::UpstreamStream;
use crate::worker::Worker;

/// A trailer is at most so long.
const TRAILER_MAX: usize = 16 << 10;

/// There is no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// Whether a part of one came.
    pub(crate) began: bool,
    /// Whether what came is no answer of HTTP/1.
    pub(crate) malformed: bool,
}

impl NoAnswer {
    const MALFORMED: Self = Self { began: true, malformed: true };

    const fn broken(began: bool) -> Self {
        Self { began, malformed: false }
    }
}

/// Sends `request`, which has no body, and reads the head of its answer.
pub(crate) async fn ask(
    worker: &Worker,
    mut stream: UpstreamStream,
    request: &Request<RequestBody>,
) -> Result<Response<AnswerBody>, NoAnswer> {
    let mut buffer = worker.buffers().get();
    put_request(request, &mut buffer);
    stream.write_all(&buffer).await.map_err(|_broken| NoAnswer::broken(false))?;
    buffer.clear();
    let mut began = false;
    let mut headers = HeaderMap::new();
    loop {
        match stream.read_buf(&mut *buffer).await {
            Ok(1..) => began = true,
            Ok(0) | Err(_) => return Err(NoAnswer::broken(began)),
        }
        loop {
            match response::parse_into(&buffer, *request.method() == Method::HEAD, &mut headers) {
                response::Parsed::Whole(head) => {
                    let status = StatusCode::from_u16(head.status).map_err(|_range| NoAnswer::MALFORMED)?;
                    let unread = Bytes::copy_from_slice(buffer.get(head.len..).unwrap_or_default());
                    let mut answer = Response::new(AnswerBody::new(stream, head, unread));
                    *answer.status_mut() = status;
                    *answer.headers_mut() = headers;
                    return Ok(answer);
                }
                response::Parsed::Interim(len) => drop(buffer.drain(..len)),
                response::Parsed::Partial if buffer.len() < ANSWER_HEAD_MAX => break,
                response::Parsed::Partial | response::Parsed::Wrong => return Err(NoAnswer::MALFORMED),
            }
        }
        if buffer.len() == buffer.capacity() {
            buffer.reserve(BUFFER);
        }
    }
}

fn put_request(request: &Request<RequestBody>, out: &mut Vec<u8>) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    put(out, &[request.method().as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    for (name, value) in request.headers() {
        put(out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    // Where a method is one that has a body it is said that there is none (RFC 9110, 8.6).
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    if has_body && !request.headers().contains_key(header::CONTENT_LENGTH) {
        put(out, &[b"content-length: 0\r\n"]);
    }
    put(out, &[b"\r\n"]);
}

/// The body of an answer, read as it is asked for.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    stream: UpstreamStream,
    body: Body,
    /// What was read and not given.
    unread: Bytes,
    trailer: Vec<u8>,
    /// Whether the app takes another request on the connection, as far as is known.
    keeps: bool,
    ended: bool,
}

impl AnswerBody {
    fn new(stream: UpstreamStream, head: response::Head, unread: Bytes) -> Self {
        let ended = head.body.has_ended();
        Self { stream, body: head.body, unread, trailer: Vec::new(), keeps: head.keeps, ended }
    }

    /// The connection, if another request can be sent on it: the answer came to its end, and nothing after it.
    pub(crate) fn into_stream(self) -> Option<UpstreamStream> {
        (self.ended && self.keeps && self.unread.is_empty()).then_some(self.stream)
    }

    /// The next frame of what was read; none until more is read, or at the end.
    fn decode(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        while !self.ended && !self.unread.is_empty() {
            let (count, part) = match &mut self.body {
                Body::Chunks(scanner) => scanner.scan_part(&self.unread).map_err(|_refusal| cut_off())?,
                framed @ (Body::Length(_) | Body::UntilClose) => {
                    (framed.take(&self.unread).map_err(|_never| cut_off())?, Part::Data)
                }
            };
            self.ended = self.body.has_ended();
            let taken = self.unread.split_to(count);
            match part {
                Part::Data => return Ok(Some(Frame::data(taken))),
                Part::Framing => {}
                Part::Trailer if self.trailer.len() + count <= TRAILER_MAX => {
                    self.trailer.extend_from_slice(&taken);
                }
                Part::Trailer => return Err(cut_off()),
            }
        }
        let trailers =
            if self.ended { trailers(&std::mem::take(&mut self.trailer))? } else { HeaderMap::new() };
        Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            ready!(self.stream.poll_readable(cx)).map_err(BodyError::CutOff)?;
            // Made once there is something to be read: many bodies stand still most of the time.
            let mut piece = BytesMut::with_capacity(BUFFER);
            match self.stream.try_read_buf(&mut piece) {
                Ok(0) if matches!(self.body, Body::UntilClose) => self.ended = true,
                Ok(0) => return Poll::Ready(Err(cut_off())),
                Ok(_) => self.unread = piece.freeze(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(BodyError::CutOff(error))),
            }
            return Poll::Ready(Ok(()));
        }
    }
}

fn cut_off() -> BodyError {
    BodyError::CutOff(io::ErrorKind::UnexpectedEof.into())
}

/// What a trailer says. Of what is for one connection alone, or frames a message, nothing may be in it (RFC 9110, 6.5.1).
fn trailers(bytes: &[u8]) -> Result<HeaderMap, BodyError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut trailers = HeaderMap::new();
    if bytes.len() <= b"\r\n".len() {
        return Ok(trailers);
    }
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(bytes, &mut headers) else {
        return Err(cut_off());
    };
    for header in headers {
        let name = http::HeaderName::from_bytes(header.name.as_bytes()).map_err(|_name| cut_off())?;
        let value = http::HeaderValue::from_bytes(header.value).map_err(|_value| cut_off())?;
        if !crate::headers::is_hop_by_hop(name.as_str()) && name != header::CONTENT_LENGTH {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            match this.decode() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if this.ended => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if let Err(error) = ready!(this.poll_read(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.trailer.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            // Counted down as it is given.
            Body::Length(left) => SizeHint::with_exact(*left),
            Body::Chunks(_) | Body::UntilClose => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_says_nothing_of_the_connection() {
        let said = trailers(b"grpc-status: 0\r\nConnection: x\r\ncontent-length: 7\r\nX: 1\r\n\r\n").unwrap();
        let names: Vec<&str> = said.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["grpc-status", "x"]);
        assert!(trailers(b"\r\n").unwrap().is_empty() && trailers(b"").unwrap().is_empty());
        assert!(trailers(b"no colon\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_is_written_as_it_is() {
        let text = |method: Method, target: &str| {
            let mut request = Request::new(RequestBody::empty());
            *request.method_mut() = method;
            *request.uri_mut() = target.parse().unwrap();
            request.headers_mut().insert("host", "shop.com".parse().unwrap());
            let mut out = Vec::new();
            put_request(&request, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Method::GET, "/a?b"), "GET /a?b HTTP/1.1\r\nhost: shop.com\r\n\r\n");
        assert_eq!(text(Method::OPTIONS, "*"), "OPTIONS * HTTP/1.1\r\nhost: shop.com\r\n\r\n");
        assert_eq!(text(Method::POST, "/"), "POST / HTTP/1.1\r\nhost: shop.com\r\ncontent-length: 0\r\n\r\n");
    }
}
