//! The API and edge as a hostile client uses them: bytes out, bytes in, nothing made valid on the way.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::platform::Platform;

/// How long an answer may take on a busy machine before the test says that there is none.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body; still in chunks if it came so.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether it is a success, or a problem document with a code and a detail whose status is the answer's.
    #[must_use]
    pub fn is_proper(&self) -> bool {
        let problem = self.json();
        (200..300).contains(&self.status)
            || self.head.contains("application/problem+json")
                && problem["status"] == self.status
                && problem["code"].is_string()
                && problem["detail"].is_string()
    }
}

/// Sends `request` on a connection of its own and reads the answer until the other side ends it.
///
/// # Errors
/// When the connection fails before there is a whole head, or nothing comes in time.
pub fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server that has seen enough answers and closes before all of it was sent; the answer is what counts.
    let sent = stream.write_all(request);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    parse(&answer).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        sent.and(read.map(drop)).err().unwrap_or_else(|| io::Error::other(format!("no answer: {shown:?}")))
    })
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head, body: answer.get(end + 4..)?.to_vec() })
}

/// The API with the owner's token.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    token: String,
    keys: std::cell::Cell<u64>,
}

impl Api {
    /// Of this platform.
    #[must_use]
    pub fn of(platform: &Platform) -> Self {
        let token = fs::read_to_string(platform.home().join("keys/owner-token")).expect("there is a token");
        Self { address: platform.api(), token: token.trim().to_owned(), keys: std::cell::Cell::new(0) }
    }

    /// The bytes of a request with this body, each with an idempotency key of its own.
    #[must_use]
    pub fn request(&self, method: &str, path: &[u8], body: &[u8]) -> Vec<u8> {
        let key = self.keys.get() + 1;
        self.keys.set(key);
        let mut request = format!("{method} ").into_bytes();
        request.extend_from_slice(path);
        let head = format!(
            " HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nidempotency-key: {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            self.token,
            format_args!("{key:032x}"),
            body.len(),
        );
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body);
        request
    }

    /// Asks; an answer must come.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let reply = exchange(self.address, &self.request(method, path.as_bytes(), body));
        reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
