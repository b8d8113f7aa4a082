//! The ways to an instance: to an address of this machine's, or into a network of the instance's own by sockets that its shim hands out.
//!
//! Such a socket is not connected when it comes. Each thread keeps a few for a backend that it sends to, and the line on which it asks for
//! more, so that most connections cost what they cost on this machine's loopback. None of them is a connection: what is spare holds up no
//! drain, and goes when its backend is no longer routed to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use berth_routing::Endpoint;
use berth_shim::dial;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::Mutex;

use crate::fleet::Fleet;

/// How many sockets are asked for at once. Each is some 2 KiB of the kernel's memory and one of our descriptors.
const BATCH: usize = 8;
/// How long spare sockets and their line are kept for a backend that no new connection was made to.
const UNUSED_MAX: Duration = Duration::from_secs(10);

/// Where a backend is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At an address of this machine's.
    Tcp(SocketAddr),
    /// In a network of its own.
    Own {
        /// Where its shim is asked for sockets of it.
        line: PathBuf,
        /// What they are connected to.
        addr: SocketAddr,
    },
    /// At the end of a name that no shim has.
    Nowhere,
}

impl Place {
    /// The place that `endpoint` names; `folder` has the sockets at which shims are asked.
    pub(crate) fn of(endpoint: &Endpoint, folder: &Path) -> Self {
        match endpoint {
            Endpoint::Tcp { addr } => Self::Tcp(*addr),
            Endpoint::Dialer { name, port } if dial::is_name(name) => Self::Own {
                line: folder.join(format!("{name}.sock")),
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
            },
            Endpoint::Dialer { .. } => Self::Nowhere,
        }
    }

    /// The port at which it listens there.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(addr) | Self::Own { addr, .. } => Some(addr.port()),
            Self::Nowhere => None,
        }
    }

    /// A connection for one question, which leaves nothing behind.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        self.connect_by(&Dialer::default(), 1).await
    }

    /// A connection by a spare socket of `dialer`, or by one of `batch` that it asks for.
    pub(crate) async fn connect_by(&self, dialer: &Dialer, batch: usize) -> io::Result<TcpStream> {
        match self {
            Self::Tcp(addr) => TcpStream::connect(addr).await,
            Self::Own { line, addr } => {
                let socket = dialer.socket(line, batch).await?;
                TcpSocket::from_std_stream(socket.into()).connect(*addr).await
            }
            Self::Nowhere => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// What one thread has of one instance's network.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    spare: RefCell<Vec<OwnedFd>>,
    /// Held while somebody asks; those who wait for it find what was brought.
    line: Mutex<Option<UnixStream>>,
    used: Cell<Duration>,
}

impl Dialer {
    async fn socket(&self, path: &Path, batch: usize) -> io::Result<OwnedFd> {
        if let Some(socket) = self.spare.borrow_mut().pop() {
            return Ok(socket);
        }
        let mut line = self.line.lock().await;
        if let Some(socket) = self.spare.borrow_mut().pop() {
            return Ok(socket);
        }
        // Out of its place while it is used: an answer that nobody waited for must not be taken for the next one's.
        let kept = match line.take() {
            Some(kept) => ask(kept, batch).await.ok(),
            None => None,
        };
        let (asked, mut sockets) = match kept {
            Some(answered) => answered,
            // There was none, or the shim had closed it.
            None => ask(open(path).await?, batch).await?,
        };
        *line = Some(asked);
        let first = sockets.pop().ok_or_else(|| io::Error::other("its shim has no descriptors left"))?;
        self.spare.borrow_mut().append(&mut sockets);
        Ok(first)
    }
}

/// A shim that has ended is an instance that takes no connection.
async fn open(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::ErrorKind::ConnectionRefused.into(),
        _ => error,
    })
}

async fn ask(mut line: UnixStream, count: usize) -> io::Result<(UnixStream, Vec<OwnedFd>)> {
    let exchanged = async {
        line.write_all(&dial::request(count)).await?;
        line.async_io(Interest::READABLE, || dial::receive(&line)).await
    };
    let sockets = exchanged.await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => io::ErrorKind::ConnectionRefused.into(),
        _ => error,
    })?;
    Ok((line, sockets))
}

/// The dialers of one thread, by backend. Bounded by what is routed.
#[derive(Debug, Default)]
pub(crate) struct Dialers(BTreeMap<u64, Rc<Dialer>>);

impl Dialers {
    /// The dialer of a backend and how many sockets it shall ask for. One that is not routed to gets what it needs and no more.
    pub(crate) fn of(&mut self, backend: u64, routed: bool, now: Duration) -> (Rc<Dialer>, usize) {
        if !routed {
            return (Rc::default(), 1);
        }
        let dialer = self.0.entry(backend).or_default();
        dialer.used.set(now);
        (Rc::clone(dialer), BATCH)
    }

    /// Closes what was not used for long.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.0.retain(|_, dialer| now.saturating_sub(dialer.used.get()) < UNUSED_MAX);
    }

    /// Closes what belongs to backends that `fleet` does not route to.
    pub(crate) fn keep_routed(&mut self, fleet: &Fleet) {
        self.0.retain(|backend, _| fleet.routes(*backend));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_leads_nowhere() {
        let place = |name: &str| {
            Place::of(&Endpoint::Dialer { name: name.to_owned(), port: 8080 }, Path::new("/run/d"))
        };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        assert_eq!(place("0123456789ab"), Place::Own { line: "/run/d/0123456789ab.sock".into(), addr });
        assert_eq!(
            ["../../x", "", "0123456789ab/"].map(place),
            [Place::Nowhere, Place::Nowhere, Place::Nowhere]
        );
    }
}
