//! Connections of proxies that are believed: each begins with a head that says whose it is.
//!
//! Which connection has one is known by its address alone, as the protocol wants it: a trusted proxy's has one or is closed, and from anybody else it is what it looks
//! like to HTTP and to TLS, something broken. So nobody chooses an address by sending a head.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::events;
use crate::proxy_header::{Said, Step, step};
use crate::worker::Worker;

/// Serves a connection from a proxy. It has a place of its client's as soon as that is known; until then it is one of the thread's connections and counted for no address,
/// since all of a proxy's come from one.
pub(crate) fn admit(
    worker: &Rc<Worker>,
    socket: TcpStream,
    proxy: SocketAddr,
    acceptor: Option<TlsAcceptor>,
) {
    worker.serve((), move |worker, client| async move {
        let mut socket = socket;
        let limit = worker.limits().patience.head;
        let peer = match tokio::time::timeout(limit, client_of(&mut socket)).await {
            Ok(Ok(Said::Client(peer))) => peer,
            Ok(Ok(Said::Nobody)) => proxy,
            Ok(Err(error)) => {
                // One that connects and says nothing looks whether we listen.
                if error.kind() == io::ErrorKind::InvalidData {
                    events::proxy_without_head(proxy, &error);
                }
                return;
            }
            Err(_elapsed) => return,
        };
        let Some((_place, peer)) = worker.enter(peer) else { return };
        worker.serve_socket(client, socket, peer, acceptor).await;
    });
}

/// Reads the head, and not a byte more.
async fn client_of(socket: &mut TcpStream) -> io::Result<Said> {
    let mut read = Vec::new();
    loop {
        match step(&read).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            Step::Whole(said) => return Ok(said),
            Step::More(more) => {
                let at = read.len();
                read.resize(at + more, 0);
                socket.read_exact(read.get_mut(at..).unwrap_or_default()).await?;
            }
        }
    }
}
