//! Requests over HTTP/2 and TLS: some connections, and on each of them several requests at a time.
//!
//! It forgives nothing but what RFC 9113 says was never looked at: a request whose stream a server refused, or that its farewell leaves out
//! (sections 6.8 and 8.7), is sent again on another connection.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Shared;
use super::client::{Answer, Exchange, Failure};
use super::outcome::{Outcome, Sent, Way};

/// What the server may send on a connection before it is read: more than all streams together, which wait for none of their neighbours.
const WINDOW: u32 = 16 << 20;
/// How often a request is sent that nobody looked at.
const SENDINGS: u32 = 10;

/// Which part of a load goes over HTTP/2.
#[derive(Debug, Clone)]
pub struct Http2 {
    /// Where edge listens for HTTPS.
    pub edge: SocketAddr,
    /// The certificate that vouches for edge's, in PEM.
    pub authority: String,
    /// How many connections.
    pub connections: u32,
    /// How many requests at once on each.
    pub streams: u32,
}

/// A client of some streams on one connection, which is opened again where it ended.
struct Client {
    shared: Arc<Shared>,
    edge: SocketAddr,
    connector: TlsConnector,
    open: Mutex<Option<Opened>>,
}

/// A connection, and which one of its client's it is.
#[derive(Clone)]
struct Opened {
    way: Way,
    requests: SendRequest<Bytes>,
}

/// Why there is no answer on a connection.
enum Stopped {
    /// Nobody looked at the request.
    Unseen,
    Failed(Failure),
}

/// Sends over one connection until the load is stopped. Its streams are numbered from `number` on.
pub(super) fn work(shared: &Arc<Shared>, number: u32, started: Duration) -> Outcome {
    let Some(options) = &shared.options.http2 else { return Outcome::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let client = Rc::new(Client {
        shared: Arc::clone(shared),
        edge: options.edge,
        connector: connector(&options.authority),
        open: Mutex::new(None),
    });
    LocalSet::new().block_on(&runtime.expect("a runtime can be made"), async {
        let streams: Vec<_> = (number..number + options.streams)
            .map(|number| spawn_local(Rc::clone(&client).send(number, started)))
            .collect();
        let mut outcome = Outcome::default();
        for stream in streams {
            outcome.add(stream.await.expect("it does not panic"));
        }
        outcome
    })
}

fn connector(authority: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.expect("it is a certificate")).expect("it can vouch");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

impl Client {
    async fn send(self: Rc<Self>, number: u32, started: Duration) -> Outcome {
        let (shared, mut outcome) = (&self.shared, Outcome::default());
        loop {
            let (ticket, due) = shared.draw(started);
            // wait: for the moment at which it is due.
            tokio::time::sleep(due.saturating_sub(shared.now())).await;
            if shared.stopped.load(Ordering::Relaxed) {
                shared.give_back();
                return outcome;
            }
            let exchange = shared.request(ticket, true);
            let (start, mut over) = (shared.now(), Way::default());
            let answer = timeout(shared.options.patience, self.exchange(&exchange, &mut over)).await;
            let end = shared.now();
            let answer = answer.unwrap_or(Err(Failure::TimedOut));
            outcome.note(Sent { kind: "HTTP/2", start, end, number, over }, &exchange, answer);
        }
    }

    async fn exchange(&self, exchange: &Exchange, over: &mut Way) -> Result<String, Failure> {
        for _ in 0..SENDINGS {
            let opened = self.opened(over, &exchange.host).await?;
            // One that was ended while nothing was asked of it is no failure, as with HTTP/1.1.
            let Ok(requests) = opened.requests.ready().await else { continue };
            match perform(requests, exchange).await {
                Ok(answer) => return exchange.judge(&answer),
                Err(Stopped::Unseen) => {}
                Err(Stopped::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::Wrong("no connection takes it".to_owned()))
    }

    /// The connection, or another one where that is still it which was of no use; which one it is, is noted.
    async fn opened(&self, over: &mut Way, host: &str) -> Result<Opened, Failure> {
        let mut open = self.open.lock().await;
        let last = open.as_ref().map_or(0, |opened| opened.way.serial);
        match &*open {
            Some(opened) if last != over.serial => {
                *over = opened.way;
                Ok(opened.clone())
            }
            Some(_) | None => {
                *over = Way { serial: last + 1, opened: None };
                let requests = self.connect(host, over).await?;
                Ok(open.insert(Opened { way: *over, requests }).clone())
            }
        }
    }

    async fn connect(&self, host: &str, over: &mut Way) -> Result<SendRequest<Bytes>, Failure> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            kind => Failure::Connect(kind),
        };
        let begun = self.shared.now();
        let stream = TcpStream::connect(self.edge).await.map_err(failed)?;
        over.opened = stream.local_addr().ok().map(|address| (address.port(), begun));
        stream.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(host.to_owned()).expect("a host is a name");
        let stream = self.connector.connect(name, stream).await.map_err(failed)?;
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_connection_window_size(WINDOW).handshake(stream);
        let (requests, connection) = handshake.await.map_err(|error| failure(&error, false))?;
        // How it ends, its requests say.
        spawn_local(async { drop(connection.await) });
        Ok(requests)
    }
}

async fn perform(mut requests: SendRequest<Bytes>, exchange: &Exchange) -> Result<Answer, Stopped> {
    let body = exchange.body.bytes();
    let request = http::Request::builder()
        .method(exchange.method)
        .uri(format!("https://{}{}", exchange.host, exchange.path))
        .body(())
        .expect("it is a request");
    let (answer, stream) =
        requests.send_request(request, body.is_empty()).map_err(|error| stopped(&error))?;
    // Both at once: a server may answer before it has read everything, and what it said counts.
    let (sent, answer) = tokio::join!(send(stream, Bytes::copy_from_slice(body)), answer);
    let (head, mut body) = answer.map_err(|error| stopped(&error))?.into_parts();
    let body = read(&mut body).await?;
    sent.map_err(|error| stopped(&error))?;
    let headers = head.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Ok(Answer { status: head.status.as_u16(), headers: headers.collect(), body })
}

async fn send(mut stream: SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(room) = poll_fn(|context| stream.poll_capacity(context)).await else { return Ok(()) };
        let part = body.split_to(room?.min(body.len()));
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}

async fn read(stream: &mut RecvStream) -> Result<Vec<u8>, Stopped> {
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part.map_err(|error| Stopped::Failed(failure(&error, true)))?;
        stream.flow_control().release_capacity(part.len()).map_err(|error| stopped(&error))?;
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// What an error before the answer means.
fn stopped(error: &h2::Error) -> Stopped {
    let unseen = error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
    if unseen { Stopped::Unseen } else { Stopped::Failed(failure(error, false)) }
}

fn failure(error: &h2::Error, began: bool) -> Failure {
    match error.get_io().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
            if began =>
        {
            Failure::ClosedWithin
        }
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => {
            Failure::ClosedBefore { reused: true }
        }
        Some(kind) => Failure::Io(kind),
        None => Failure::Malformed(error.to_string()),
    }
}
