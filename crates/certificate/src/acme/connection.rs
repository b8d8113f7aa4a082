//! The HTTP that ACME is spoken over: a connection for each request, which are few, and a bound on everything.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{AcmeError, Server};

/// How long one request may take, connecting and all but the answer's body.
const LIMIT: Duration = Duration::from_secs(30);
/// Servers ask to be told who asks.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("berth/", env!("CARGO_PKG_VERSION")));

/// No server is believed that it wants to be left alone for longer: the longest limits of Let's Encrypt are over a week.
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// For how long the server last wanted to be left alone. The library gives its errors without the header that says so.
#[derive(Debug, Clone, Default)]
pub(super) struct Pause(Arc<Mutex<Option<Duration>>>);

impl Pause {
    /// What it was, once.
    pub(super) fn take(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Hears what an answer says of it: whole seconds, as ACME servers write it (RFC 8555, 6.6), and no date.
    fn hear(&self, answer: &Response<Incoming>) {
        if !matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let seconds =
            answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let pause = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }
}

/// Connects to one ACME server.
pub(super) struct Connection {
    tls: Arc<ClientConfig>,
    pause: Pause,
}

impl Connection {
    pub(super) fn new(server: &Server, pause: Pause) -> Result<Self, AcmeError> {
        let mut roots = RootCertStore::empty();
        match &server.authorities {
            Some(pem) => {
                let unreadable = |why: String| AcmeError::Authorities(why);
                for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let authority = authority.map_err(|error| unreadable(error.to_string()))?;
                    roots.add(authority).map_err(|error| unreadable(error.to_string()))?;
                }
            }
            None => {
                // One that cannot be read is none that the server's certificate hangs on; should it be, the handshake says so.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(AcmeError::Authorities(
                "there are none; Debian's are in the package ca-certificates".to_owned(),
            ));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| AcmeError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), pause })
    }
}

impl HttpClient for Connection {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (tls, pause) = (Arc::clone(&self.tls), self.pause.clone());
        Box::pin(async move {
            let answer = tokio::time::timeout(LIMIT, send(tls, request)).await;
            let late = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
            let response = answer.map_err(late).flatten().map_err(|error| Error::Other(Box::new(error)))?;
            pause.hear(&response);
            Ok(BytesResponse::from(response))
        })
    }
}

async fn send(
    tls: Arc<ClientConfig>,
    mut request: Request<BodyWrapper<Bytes>>,
) -> io::Result<Response<Incoming>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let authority = request.uri().authority().cloned().ok_or_else(|| invalid("an address without a host"))?;
    if request.uri().scheme() != Some(&http::uri::Scheme::HTTPS) {
        return Err(invalid("an address that is not of HTTPS"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_name| invalid("a host that is none"))?;
    let socket = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
    socket.set_nodelay(true)?;
    let stream = TlsConnector::from(tls).connect(name, socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the answer's body, or with the error that whoever waits for the answer hears of.
    tokio::spawn(async move { drop(connection.await) });
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, AGENT);
    sender.send_request(request).await.map_err(io::Error::other)
}
