//! One request over one connection, to an address that was looked at before it was gone to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{ImageError, shown};
use crate::registry::reach::Reach;

/// How long a registry may take to be connected to.
const CONNECT: Duration = Duration::from_secs(15);
/// How long it may say nothing, before its answer and within it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// How the network is reached: the machine's own in production.
pub trait Dialer: std::fmt::Debug + Send + Sync {
    /// The addresses of a host.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
    /// A connection to one of them.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// This machine's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDialer;

impl Dialer for SystemDialer {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may do so the next time; after this long, where the registry says.
    Passing(ImageError, Option<Duration>),
    /// It will not.
    Final(ImageError),
}

impl From<Fault> for ImageError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Passing(error, _) | Fault::Final(error) => error,
        }
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

/// An answer, and the connection that it comes over.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// Where it comes from.
    pub(super) host: String,
    /// How far inside that is.
    pub(super) reach: Reach,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    pub(super) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body; none at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = match timeout(SILENCE, self.response.body_mut().frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(broken(&self.host, &error)),
                Err(_elapsed) => return Err(silent(&self.host)),
            };
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    /// The whole body, if it is not longer than `most`.
    pub(super) async fn whole(&mut self, most: u64, what: &str) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (body.len() + piece.len()) as u64 > most {
                let text = format!("{what} is longer than {most} bytes");
                return Err(ImageError::TooLarge(text).into());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn unreachable(host: &str, why: impl Into<String>) -> Fault {
    Fault::Passing(ImageError::Unreachable { registry: host.to_owned(), why: why.into() }, None)
}

fn silent(host: &str) -> Fault {
    unreachable(host, format!("it said nothing for {} seconds", SILENCE.as_secs()))
}

fn broken(host: &str, error: &dyn std::error::Error) -> Fault {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
    }
    unreachable(host, text)
}

/// Sends requests.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) dialer: Arc<dyn Dialer>,
    tls: Result<Arc<rustls::ClientConfig>, String>,
}

impl Http {
    pub(super) fn new(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, tls: tls() }
    }

    /// Sends `request`, to no address that is further inside than `ceiling`.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        ceiling: Reach,
    ) -> Result<Answer, Fault> {
        let uri = request.uri().clone();
        let (host, port, secure) = parts(&uri)?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // With its port, where it is not the usual one.
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let (stream, reach) = self.connect(&authority, (&name, port), ceiling).await?;
        let value = HeaderValue::from_str(&authority)
            .map_err(|_invalid| ImageError::invalid("an address is malformed"))?;
        request.headers_mut().insert(http::header::HOST, value);
        *request.uri_mut() =
            uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let (response, connection) = match secure {
            false => exchange(stream, request, &authority).await?,
            true => {
                let config = self.tls.as_ref().map_err(|why| unreachable(&authority, why.clone()))?;
                let server = ServerName::try_from(name)
                    .map_err(|_invalid| ImageError::invalid("a host's name is malformed"))?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let stream = timeout(CONNECT, connector.connect(server, stream)).await;
                let stream = stream
                    .map_err(|_elapsed| silent(&authority))?
                    .map_err(|error| broken(&authority, &error))?;
                exchange(stream, request, &authority).await?
            }
        };
        Ok(Answer { response, host: authority, reach, connection })
    }

    /// Looks the host up once and goes to an address that was looked at: a name that means something else the next time changes nothing.
    async fn connect(
        &self,
        authority: &str,
        (host, port): (&str, u16),
        ceiling: Reach,
    ) -> Result<(TcpStream, Reach), Fault> {
        let found = timeout(CONNECT, self.dialer.resolve(host, port)).await;
        let addresses =
            found.map_err(|_elapsed| silent(authority))?.map_err(|error| broken(authority, &error))?;
        let outside = addresses.iter().filter(|address| Reach::of(address.ip()) <= ceiling).take(8);
        let mut failed = None;
        for address in outside {
            match timeout(CONNECT, self.dialer.connect(*address)).await {
                Ok(Ok(stream)) => {
                    // Requests are short, and nothing is gained by holding one back.
                    drop(stream.set_nodelay(true));
                    return Ok((stream, Reach::of(address.ip())));
                }
                Ok(Err(error)) => failed = Some(broken(authority, &error)),
                Err(_elapsed) => failed = Some(unreachable(authority, "it does not answer")),
            }
        }
        match (failed, addresses.is_empty()) {
            (Some(failed), _) => Err(failed),
            (None, true) => Err(unreachable(authority, "it has no address")),
            (None, false) => {
                let text = format!(
                    "{:?} is an address inside, where a registry must not lead",
                    shown(host.as_bytes())
                );
                Err(ImageError::Invalid(text).into())
            }
        }
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    host: &str,
) -> Result<(Response<Incoming>, JoinHandle<()>), Fault>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = timeout(CONNECT, http1::handshake(TokioIo::new(stream))).await;
    let (mut sender, connection) =
        shaken.map_err(|_elapsed| silent(host))?.map_err(|error| broken(host, &error))?;
    let connection = tokio::spawn(async move { drop(connection.await) });
    match timeout(SILENCE, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok((response, connection)),
        Ok(Err(error)) => Err(broken(host, &error)),
        Err(_elapsed) => {
            connection.abort();
            Err(silent(host))
        }
    }
}

/// Host, port, and whether it is TLS.
pub(super) fn parts(uri: &Uri) -> Result<(String, u16, bool), ImageError> {
    let invalid = || ImageError::invalid("a registry gave an address that is none");
    let secure = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(invalid()),
    };
    let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or_else(invalid)?;
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Ok((authority.host().to_ascii_lowercase(), port, secure))
}

/// TLS that trusts whom this machine trusts.
fn tls() -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (taken, _refused) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        return Err("this machine trusts no authority: install its ca-certificates".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
