//! One HTTP/1.1 connection and what goes over it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{ClientError, IdempotencyKey, Inside};
use crate::route;

/// The largest answer that is read into memory: a page of the longest timeline stays far below it.
const ANSWER_MAX: usize = 64 << 20;

/// Where a platform takes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port` on this machine.
    Tcp(String),
}

/// Why a string is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not of the form http://host:port or unix:/path")]
pub struct InvalidEndpoint {
    given: String,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint { given: text.chars().take(200).collect() };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(invalid()) };
        }
        let authority = text.strip_prefix("http://").ok_or_else(invalid)?.trim_end_matches('/');
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_refused: http::uri::InvalidUri| invalid())?;
        if parsed.port_u16().is_none() || authority.contains('@') {
            return Err(invalid());
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// A request before it has a connection, so that it can be made again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    key: Option<IdempotencyKey>,
    body: Bytes,
    content_type: &'static str,
    stream: bool,
    upgrade: Option<&'static str>,
    pub(super) last_event_id: Option<String>,
}

impl Call {
    pub(super) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            key: None,
            body: Bytes::new(),
            content_type: "",
            stream: false,
            upgrade: None,
            last_event_id: None,
        }
    }

    pub(super) fn stream(path: String) -> Self {
        Self { stream: true, ..Self::get(path) }
    }

    pub(super) fn change(
        method: Method,
        path: String,
        key: IdempotencyKey,
        body: Bytes,
        content_type: &'static str,
    ) -> Self {
        Self { method, key: Some(key), body, content_type, ..Self::get(path) }
    }

    /// The same, asking for the connection to become one of this protocol.
    pub(super) fn upgrading(self, protocol: &'static str) -> Self {
        Self { upgrade: Some(protocol), ..self }
    }

    fn request(&self, inside: &Inside) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &inside.endpoint {
            Endpoint::Unix(_) => "localhost",
            Endpoint::Tcp(authority) => authority,
        };
        let accept = if self.stream { route::EVENT_STREAM } else { "application/json" };
        let mut request = Request::builder().method(&self.method).uri(&self.path).header(HOST, host);
        request = request.header(ACCEPT, accept);
        if !self.content_type.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        if let Some(key) = &self.key {
            request = request.header(route::IDEMPOTENCY_KEY, key.as_str());
        }
        if let Some(protocol) = self.upgrade {
            request = request.header(CONNECTION, "upgrade").header(UPGRADE, protocol);
        }
        if let Some(id) = &self.last_event_id {
            request = request.header(route::LAST_EVENT_ID, id);
        }
        if let Some(token) = &inside.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .map_err(|_refused| malformed("the token holds characters that a header cannot"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(self.body.clone())).map_err(|problem| malformed(&problem.to_string()))
    }
}

/// A request that cannot even be written down is refused with what the platform would have said.
fn malformed(detail: &str) -> ClientError {
    ClientError::Problem(Box::new(crate::Problem::new(crate::Code::RequestInvalid, detail)))
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: String,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects within `patience`. With `secret` only to this machine.
    pub(super) async fn open(
        endpoint: &Endpoint,
        secret: bool,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable { endpoint: endpoint.to_string(), source };
        let late =
            |_| unreachable(io::Error::new(io::ErrorKind::TimedOut, "the connection was not taken in time"));
        match endpoint {
            Endpoint::Unix(path) => {
                let stream = timeout(patience, UnixStream::connect(path)).await.map_err(late)?;
                Self::shake_hands(endpoint, stream.map_err(unreachable)?).await
            }
            Endpoint::Tcp(authority) => {
                let stream = timeout(patience, TcpStream::connect(authority))
                    .await
                    .map_err(late)?
                    .map_err(unreachable)?;
                if secret && !stream.peer_addr().map_err(unreachable)?.ip().is_loopback() {
                    return Err(ClientError::Insecure { endpoint: endpoint.to_string() });
                }
                Self::shake_hands(endpoint, stream).await
            }
        }
    }

    async fn shake_hands(
        endpoint: &Endpoint,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, ClientError> {
        let endpoint = endpoint.to_string();
        match http1::handshake(TokioIo::new(stream)).await {
            // What fails in the driver reaches whoever waits for the answer, so its own result can go with it.
            Ok((sender, driver)) => {
                Ok(Self { endpoint, sender, driver: tokio::spawn(driver.with_upgrades()) })
            }
            Err(source) => Err(ClientError::Lost { endpoint, source }),
        }
    }

    /// Whether another call can go over it.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready()
    }

    /// Makes the call and reads the whole answer.
    pub(super) async fn exchange(
        &mut self,
        call: &Call,
        inside: &Inside,
        patience: Duration,
    ) -> Result<Answer, ClientError> {
        let response = self.send(call, inside, patience).await?;
        self.read(response, patience).await
    }

    /// Makes the call and gives the answer's head.
    pub(super) async fn send(
        &mut self,
        call: &Call,
        inside: &Inside,
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = call.request(inside)?;
        let answer = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        match timeout(patience, answer).await {
            Err(_) => Err(self.timed_out(patience)),
            Ok(Err(source)) => Err(self.lost(source)),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// Reads an answer to its end.
    pub(super) async fn read(
        &self,
        response: Response<Incoming>,
        patience: Duration,
    ) -> Result<Answer, ClientError> {
        let (head, body) = response.into_parts();
        match timeout(patience, Limited::new(body, ANSWER_MAX).collect()).await {
            Err(_) => Err(self.timed_out(patience)),
            Ok(Ok(body)) => Ok(Answer { status: head.status, body: body.to_bytes() }),
            Ok(Err(problem)) => Err(match problem.downcast::<hyper::Error>() {
                Ok(source) => self.lost(*source),
                Err(_) => ClientError::Answer {
                    status: head.status.as_u16(),
                    detail: format!("it is longer than {ANSWER_MAX} bytes"),
                },
            }),
        }
    }

    pub(super) fn lost(&self, source: hyper::Error) -> ClientError {
        ClientError::Lost { endpoint: self.endpoint.clone(), source }
    }

    pub(super) fn timed_out(&self, after: Duration) -> ClientError {
        ClientError::TimedOut { endpoint: self.endpoint.clone(), after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_back_from_their_text() {
        assert_eq!("http://127.0.0.1:7070/".parse(), Ok(Endpoint::Tcp("127.0.0.1:7070".into())));
        assert_eq!("http://[::1]:7070".parse(), Ok(Endpoint::Tcp("[::1]:7070".into())));
        assert_eq!("unix:/run/berth/api.sock".parse(), Ok(Endpoint::Unix("/run/berth/api.sock".into())));
        for bad in ["", "127.0.0.1:7070", "https://x:1", "http://x", "http://a@x:1", "unix:x", "http://x:1/y"]
        {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }
}
