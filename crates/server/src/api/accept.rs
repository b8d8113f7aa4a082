//! Our own accept loops: `axum::serve` sets no header timeout and no limit on connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::auth::Peer;
use crate::events;

/// How long a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections are served at a time on each listener; more wait in the kernel's queue. At some 40 KiB each that is 10 MiB.
const CONNECTIONS: usize = 256;

/// A listener of the API, and what it knows of who is at the other end.
pub(crate) trait Door: Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    ///
    /// # Errors
    /// When the system has no descriptor or memory left, or does not say who is there.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, _) = self.accept().await?;
        drop(stream.set_nodelay(true));
        Ok((stream, Peer::Network))
    }
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.accept().await?;
        let peer = stream.peer_cred()?;
        Ok((stream, Peer::Local { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() }))
    }
}

/// Serves the API at `door` until `down` turns true, then lets requests end.
pub(crate) async fn serve_at(door: impl Door, router: Router, down: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stopped = down.clone();
    loop {
        let permit = permit(&permits).await;
        let accepted = tokio::select! {
            accepted = door.next() => accepted,
            _ = stopped.wait_for(|down| *down) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve(stream, peer, router.clone(), permit, down.clone()));
            }
            Err(error) => accept_failed(&error).await,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn permit(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(permits).acquire_owned().await;
    permit.expect("nobody closes the semaphore")
}

/// Out of descriptors or memory: accepting again at once would spin.
async fn accept_failed(error: &io::Error) {
    events::could_not("accept a connection to the API", error);
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn serve<S>(
    stream: S,
    peer: Peer,
    router: Router,
    permit: OwnedSemaphorePermit,
    mut down: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let going_down = async { drop(down.wait_for(|down| *down).await) };
    tokio::select! {
        // How a connection ends is the client's business.
        ended = connection.as_mut() => drop(ended),
        () = going_down => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
    drop(permit);
}
