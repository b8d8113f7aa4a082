//! One connection, one exchange: HTTP/1.1 written and read by hand, so that nothing is retried or smoothed over.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The longest head of an answer.
const HEAD_MAX: usize = 64 << 10;
/// How much is read at once.
const READ: usize = 16 << 10;
/// The parts in which a chunked request is sent: an odd size, so that parts never meet anybody's buffer ends.
const CHUNK: usize = 1_021;

/// What a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing: a GET.
    None,
    /// These bytes, their length said before them.
    Sized(Vec<u8>),
    /// These bytes in chunks.
    Chunked(Vec<u8>),
}

/// A page of any app, and how an answer is known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its path.
    pub path: String,
    /// An answer holds exactly one of these, which then stands for the release that answered.
    pub texts: Vec<String>,
}

/// A request, and what its answer must be. Made for the paths of the example `simple-web-app`, or for a [`Page`].
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: Cow<'static, str>,
    pub(super) host: String,
    keep: bool,
    pub(super) body: Body,
    page: Option<Arc<Page>>,
}

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection could not be made for another reason.
    Connect(io::ErrorKind),
    /// The connection ended before a byte of the answer came; on a connection that had served before, or on a new one.
    ClosedBefore {
        /// Whether it had served before.
        reused: bool,
    },
    /// The connection ended within the answer.
    ClosedWithin,
    /// The answer was not there in time.
    TimedOut,
    /// The connection failed in another way.
    Io(io::ErrorKind),
    /// The answer is not HTTP/1.1, or is framed wrongly.
    Malformed(String),
    /// The answer's status is not 200.
    Status(u16),
    /// The answer is not what it must be.
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Connect(kind) => write!(f, "connect: {kind}"),
            Self::ClosedBefore { reused: false } => f.write_str("closed before the answer"),
            Self::ClosedBefore { reused: true } => f.write_str("kept connection closed before the answer"),
            Self::ClosedWithin => f.write_str("closed within the answer"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Wrong(what) => write!(f, "wrong: {what}"),
        }
    }
}

/// A connection to edge.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Read and not used yet.
    rest: Vec<u8>,
    served: u64,
    /// The last answer said that none will follow.
    over: bool,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn open(edge: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&edge, patience).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::TimedOut,
            kind => Failure::Connect(kind),
        })?;
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(patience)))
            .and_then(|()| stream.set_write_timeout(Some(patience)));
        set.map_err(|error| Failure::Connect(error.kind()))?;
        Ok(Self { stream, rest: Vec::new(), served: 0, over: false })
    }

    /// Its port on this side.
    pub(super) fn port(&self) -> Option<u16> {
        self.stream.local_addr().ok().map(|address| address.port())
    }

    /// Whether the other side has ended the connection while nothing was asked of it, or said that it will. It may at any time
    /// (RFC 9112, section 9.5), and a client that looks before it sends loses nothing by it. An end that crosses a request is a
    /// failure all the same.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        let look = || {
            self.stream.set_nonblocking(true)?;
            let seen = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            seen
        };
        // Bytes that nobody asked for are no end: the next answer will be wrong by them, and say so.
        self.over
            || !matches!(look(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                && !matches!(look(), Ok(1..))
    }

    fn fail(&self, error: &io::Error, began: bool) -> Failure {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                if began {
                    Failure::ClosedWithin
                } else {
                    Failure::ClosedBefore { reused: self.served > 0 }
                }
            }
            kind => Failure::Io(kind),
        }
    }

    /// Reads more; the end of the stream is a failure.
    fn fill(&mut self, began: bool) -> Result<(), Failure> {
        let mut buffer = [0; READ];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self.fail(&io::ErrorKind::UnexpectedEof.into(), began)),
            Ok(count) => {
                self.rest.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.fail(&error, began)),
        }
    }

    /// The next so many bytes, within an answer.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        while self.rest.len() < count {
            self.fill(true)?;
        }
        Ok(self.rest.drain(..count).collect())
    }

    fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.rest.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_error| Failure::Malformed("line".to_owned()));
            }
            self.fill(true)?;
        }
    }

    pub(super) fn answer(&mut self) -> Result<Answer, Failure> {
        loop {
            let (status, headers) = self.head()?;
            // 100 Continue and its like come before the answer.
            if (100..200).contains(&status) {
                continue;
            }
            let body = self.body(&headers)?;
            self.served += 1;
            self.over |= headers.iter().any(|(name, value)| name == "connection" && value == "close");
            return Ok(Answer { status, headers, body });
        }
    }

    /// The next head: the status, and the headers with their names in lower case.
    pub(super) fn head(&mut self) -> Result<(u16, Vec<(String, String)>), Failure> {
        loop {
            if let Some((status, headers, length)) = parse_head(&self.rest)? {
                self.rest.drain(..length);
                return Ok((status, headers));
            }
            if self.rest.len() > HEAD_MAX {
                return Err(Failure::Malformed("endless head".to_owned()));
            }
            self.fill(!self.rest.is_empty())?;
        }
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|error| self.fail(&error, false))
    }

    /// The body, which must say its length: an answer that ends with the connection cannot be told from one that was cut.
    fn body(&mut self, headers: &[(String, String)]) -> Result<Vec<u8>, Failure> {
        let all = |name: &str| {
            headers.iter().filter(|(it, _)| it == name).map(|(_, value)| value.as_str()).collect()
        };
        let lengths: Vec<&str> = all("content-length");
        let codings: Vec<&str> = all("transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([length], []) => {
                let length =
                    length.parse().map_err(|_error| Failure::Malformed("content-length".to_owned()))?;
                self.take(length)
            }
            ([], ["chunked"]) => self.chunks(),
            _ => Err(Failure::Malformed(format!("lengths {lengths:?} and codings {codings:?}"))),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk()? {
            body.extend(chunk);
        }
        Ok(body)
    }

    /// The next chunk, none after the last.
    pub(super) fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let line = self.line()?;
        let length =
            usize::from_str_radix(&line, 16).map_err(|_error| Failure::Malformed("chunk".to_owned()))?;
        if length == 0 {
            while !self.line()?.is_empty() {}
            return Ok(None);
        }
        let chunk = self.take(length)?;
        if !self.line()?.is_empty() {
            return Err(Failure::Malformed("chunk end".to_owned()));
        }
        Ok(Some(chunk))
    }
}

type Head = (u16, Vec<(String, String)>, usize);

fn parse_head(text: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(text).map_err(|error| Failure::Malformed(error.to_string()))? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            if response.version != Some(1) {
                return Err(Failure::Malformed("not HTTP/1.1".to_owned()));
            }
            let headers = response.headers.iter().map(|header| {
                (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
            });
            Ok(Some((response.code.unwrap_or(0), headers.collect(), length)))
        }
    }
}

impl Exchange {
    /// A GET of `path`.
    #[must_use]
    pub fn get(path: &'static str, host: &str, keep: bool) -> Self {
        Self { method: "GET", path: path.into(), host: host.to_owned(), keep, body: Body::None, page: None }
    }

    /// A GET of a page.
    #[must_use]
    pub fn page(page: &Arc<Page>, host: &str, keep: bool) -> Self {
        let (path, page) = (page.path.clone().into(), Some(Arc::clone(page)));
        Self { method: "GET", path, host: host.to_owned(), keep, body: Body::None, page }
    }

    /// A POST to `/echo`.
    #[must_use]
    pub fn echo(body: Body, host: &str, keep: bool) -> Self {
        Self { method: "POST", path: "/echo".into(), host: host.to_owned(), keep, body, page: None }
    }

    /// The `ticket`-th of the mix: pages, JSON, and bodies of up to 64 KiB sent both ways. Of 16 requests 10 are GETs.
    #[must_use]
    pub fn of_mix(ticket: u64, host: &str, keep: bool) -> Self {
        match ticket % 16 {
            0..5 => Self::get("/version", host, keep),
            5..10 => Self::get("/", host, keep),
            10..14 => Self::echo(Body::Sized(pattern(ticket, 4 << 10)), host, keep),
            14 => Self::echo(Body::Sized(pattern(ticket, 64 << 10)), host, keep),
            _ => Self::echo(Body::Chunked(pattern(ticket, 16 << 10)), host, keep),
        }
    }

    /// Sends the request, reads the answer to its end and compares it with what it must be. Gives the release that answered.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn perform(&self, connection: &mut Connection) -> Result<String, Failure> {
        let sent = connection.stream.write_all(&self.bytes());
        let answer = match sent {
            Ok(()) => connection.answer()?,
            // A server may answer and close before it has read everything; what it said counts.
            Err(error) => connection.answer().map_err(|_error| connection.fail(&error, false))?,
        };
        let release = self.judge(&answer)?;
        if !connection.rest.is_empty() {
            return Err(Failure::Wrong("bytes after the answer".to_owned()));
        }
        Ok(release)
    }

    /// Compares an answer with what it must be. Gives the release that answered.
    pub(super) fn judge(&self, answer: &Answer) -> Result<String, Failure> {
        match &self.page {
            _ if answer.status != 200 => Err(Failure::Status(answer.status)),
            Some(page) => page.which(answer),
            None => self.example_release(answer),
        }
    }

    /// Compares an answer of the example with what it must be.
    fn example_release(&self, answer: &Answer) -> Result<String, Failure> {
        let header = |name: &str| {
            let found = answer.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
            found.ok_or_else(|| Failure::Wrong(format!("no header {name}")))
        };
        let (release, instance) = (header("release-version")?, header("instance-id")?);
        let right = match (&self.body, &*self.path) {
            (Body::Sized(sent) | Body::Chunked(sent), _) => answer.body == *sent,
            (Body::None, "/version") => {
                let found: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                found["release"] == *release && found["instance"] == *instance
            }
            (Body::None, _) => {
                let page = String::from_utf8_lossy(&answer.body);
                page.contains(&format!("<dd>{release}</dd>"))
                    && page.contains(&format!("<dd>{instance}</dd>"))
            }
        };
        if !right {
            return Err(Failure::Wrong(format!("{} bytes of body", answer.body.len())));
        }
        Ok(release)
    }

    fn bytes(&self) -> Vec<u8> {
        let connection = if self.keep { "keep-alive" } else { "close" };
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n",
            self.method, self.path, self.host
        );
        let mut bytes = head.into_bytes();
        match &self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Sized(body) => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
            Body::Chunked(body) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for part in body.chunks(CHUNK) {
                    bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                    bytes.extend_from_slice(part);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

impl Page {
    /// The one of its texts that the answer holds.
    fn which(&self, answer: &Answer) -> Result<String, Failure> {
        let body = String::from_utf8_lossy(&answer.body);
        let mut held = self.texts.iter().filter(|text| body.contains(text.as_str()));
        match (held.next(), held.next()) {
            (Some(text), None) => Ok(text.clone()),
            (None, _) => Err(Failure::Wrong(format!("{} bytes without any of its texts", body.len()))),
            (Some(_), Some(_)) => Err(Failure::Wrong("an answer of two releases at once".to_owned())),
        }
    }
}

impl Body {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Sized(bytes) | Self::Chunked(bytes) => bytes,
        }
    }
}

/// Bytes that are other for each ticket and length: an answer meant for another request is seen.
pub(super) fn pattern(ticket: u64, longest: u64) -> Vec<u8> {
    let mut word = ticket.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..word % longest)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()[0]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn perform(answer: &'static str) -> Result<String, Failure> {
        answered(&Exchange::get("/version", "app.localhost", true), answer)
    }

    /// A server that reads whatever comes and answers each connection with the given bytes.
    fn answered(exchange: &Exchange, answer: &'static str) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let mut connection = Connection::open(address, Duration::from_secs(10)).unwrap();
        let result = exchange.perform(&mut connection);
        server.join().unwrap();
        result
    }

    #[test]
    fn a_right_answer_names_its_release() {
        let answer = "HTTP/1.1 200 OK\r\nRelease-Version: v3\r\nInstance-Id: web.1\r\nContent-Length: 36\r\n\r\n\
            {\"release\":\"v3\",\"instance\":\"web.1\"}\n";
        assert_eq!(perform(answer), Ok("v3".to_owned()));
        let chunked = "HTTP/1.1 200 OK\r\nRelease-Version: v3\r\nInstance-Id: web.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            10\r\n{\"release\":\"v3\",\r\n13\r\n\"instance\":\"web.1\"}\r\n0\r\n\r\n";
        assert_eq!(perform(chunked), Ok("v3".to_owned()));
    }

    #[test]
    fn a_page_holds_exactly_one_of_its_texts() {
        let texts = vec!["one".to_owned(), "two".to_owned()];
        let page = Arc::new(Page { path: "/".to_owned(), texts });
        let exchange = Exchange::page(&page, "app.localhost", true);
        let answer = |body: &str| -> &'static str {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
        };
        assert_eq!(answered(&exchange, answer("<p>two</p>")), Ok("two".to_owned()));
        assert!(matches!(answered(&exchange, answer("one and two")), Err(Failure::Wrong(_))));
        assert!(matches!(answered(&exchange, answer("three")), Err(Failure::Wrong(_))));
    }

    #[test]
    fn every_fault_has_its_name() {
        let head = "HTTP/1.1 200 OK\r\nRelease-Version: v3\r\nInstance-Id: web.1\r\n";
        assert_eq!(perform(""), Err(Failure::ClosedBefore { reused: false }));
        assert_eq!(perform("HTTP/1.1 200 OK\r\n"), Err(Failure::ClosedWithin));
        assert_eq!(perform("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), Err(Failure::Status(503)));
        assert!(matches!(
            perform("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Err(Failure::Malformed(_))
        ));
        assert!(matches!(perform("HTTP/1.1 200 OK\r\n\r\nall of it"), Err(Failure::Malformed(_))));
        assert!(matches!(perform("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Err(Failure::Wrong(_))));
        let leak = |text: String| perform(Box::leak(text.into_boxed_str()));
        assert_eq!(leak(format!("{head}Content-Length: 99\r\n\r\n{{}}")), Err(Failure::ClosedWithin));
        let other = r#"{"release":"v2","instance":"web.1"}"#;
        let other = format!("{head}Content-Length: {}\r\n\r\n{other}", other.len());
        assert!(matches!(leak(other), Err(Failure::Wrong(_))));
    }

    #[test]
    fn an_end_between_requests_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = Connection::open(listener.local_addr().unwrap(), Duration::from_secs(10)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert!(!connection.was_ended());
        peer.write_all(b"x").unwrap();
        peer.flush().unwrap();
        assert!(!connection.was_ended());
        let mut byte = [0];
        (&connection.stream).read_exact(&mut byte).unwrap();
        drop(peer);
        // The end is there once it has been read.
        assert_eq!((&connection.stream).read(&mut byte).unwrap(), 0);
        assert!(connection.was_ended());
    }

    #[test]
    fn nobody_there_is_a_refusal() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Connection::open(address, Duration::from_secs(10)).map(drop);
        assert_eq!(refused, Err(Failure::Refused));
    }

    #[test]
    fn the_mix_holds_every_kind_and_no_body_twice() {
        let mix: Vec<Exchange> = (0..160).map(|ticket| Exchange::of_mix(ticket, "h", true)).collect();
        let sized = mix.iter().filter(|exchange| matches!(exchange.body, Body::Sized(_))).count();
        let chunked = mix.iter().filter(|exchange| matches!(exchange.body, Body::Chunked(_))).count();
        assert_eq!((mix.len(), sized, chunked), (160, 50, 10));
        assert_ne!(pattern(14, 65_536), pattern(30, 65_536));
    }
}
