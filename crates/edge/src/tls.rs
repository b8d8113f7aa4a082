//! TLS towards clients: one configuration for all threads, so that a session that one of them began another goes on with.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use berth_certificate::ALPN_PROTOCOL;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Local;
use crate::fleet::Fleet;

/// HTTP/2 as it is named in a handshake.
pub(crate) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Chooses the certificate by the name that the client asks for. A client that gives none, or one that no app has, is shown none: an app is not
/// told of to who does not know its name.
pub(crate) struct Chooser {
    fleet: RwLock<Arc<Fleet>>,
    local: Option<Local>,
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser").finish_non_exhaustive()
    }
}

impl Chooser {
    pub(crate) fn new(fleet: Arc<Fleet>, local: Option<Local>) -> Self {
        Self { fleet: RwLock::new(fleet), local }
    }

    /// From here on certificates are those of `fleet`; connections keep what they were shown.
    pub(crate) fn follow(&self, fleet: &Arc<Fleet>) {
        *self.fleet.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(fleet);
    }

    fn choose(&self, host: &str, proves: bool) -> Option<Arc<CertifiedKey>> {
        let fleet = Arc::clone(&self.fleet.read().unwrap_or_else(PoisonError::into_inner));
        if proves {
            return fleet.shown().proof(host).cloned();
        }
        let shown = fleet.shown().of(host).cloned();
        shown.or_else(|| {
            let local = self.local.as_ref().filter(|_| host.ends_with(".localhost"))?;
            fleet.app(host).and_then(|_known| local.of(host))
        })
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_ascii_lowercase();
        let proves = hello.alpn().is_some_and(|mut wanted| wanted.any(|name| name == ALPN_PROTOCOL));
        self.choose(&host, proves)
    }
}

/// What accepts handshakes. TLS 1.2 and 1.3 with the suites of the library, all of which have forward secrecy and authenticated encryption; no
/// data before the end of the handshake, which could be sent again by others; tickets whose keys change every six hours.
pub(crate) fn acceptor(chooser: Arc<Chooser>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(chooser);
    // A client of an ACME server speaks nothing but its own; to name it lets nobody else in.
    config.alpn_protocols = [H2, HTTP_1_1, ALPN_PROTOCOL].map(<[u8]>::to_vec).into();
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A listener for HTTPS.
pub(crate) struct Secure<L> {
    pub(crate) listener: L,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) port: u16,
}

impl Secure<std::net::TcpListener> {
    pub(crate) fn into_async(self) -> io::Result<Secure<TcpListener>> {
        let listener = TcpListener::from_std(self.listener)?;
        Ok(Secure { listener, acceptor: self.acceptor, port: self.port })
    }
}

/// A connection, with the listener for HTTPS if it came by that.
pub(crate) async fn accept<'a>(
    plain: &TcpListener,
    secure: Option<&'a Secure<TcpListener>>,
) -> io::Result<(TcpStream, SocketAddr, Option<&'a Secure<TcpListener>>)> {
    let Some(secure) = secure else {
        return plain.accept().await.map(|(socket, peer)| (socket, peer, None));
    };
    tokio::select! {
        accepted = plain.accept() => accepted.map(|(socket, peer)| (socket, peer, None)),
        accepted = secure.listener.accept() => accepted.map(|(socket, peer)| (socket, peer, Some(secure))),
    }
}
