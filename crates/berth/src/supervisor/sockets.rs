//! Every listener of the platform. The supervisor binds them and keeps them, so that a role may die and return while the
//! kernel queues who connects meanwhile.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_edge::handover::Listeners;
use berth_spec::HttpsAddress;
use socket2::{Domain, Protocol, Socket, Type};

use super::kept::Kept;
use super::port_holder;
use crate::report;

/// How many may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// One listener for each core that edge may use. Beyond 64 edge gains nothing that it was measured for, and a message can
/// hand over no more than 253.
const LISTENERS_MAX: usize = 64;
/// How often an address is asked for again that a dying process may still hold, and the pause between. A killed process is nobody's any
/// more (it has no arguments to be known by, and nothing runs in it) some time before the kernel closes what it had open; on a busy
/// machine that is tens of milliseconds.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// The listeners, all of them non-blocking.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// What edge accepts on, one for each core.
    pub(crate) edge: Vec<TcpListener>,
    pub(crate) edge_addr: SocketAddr,
    /// The same for HTTPS; none where it is not served.
    pub(crate) secure: Vec<TcpListener>,
    pub(crate) https_addr: Option<SocketAddr>,
    pub(crate) api_tcp: TcpListener,
    pub(crate) api_addr: SocketAddr,
    pub(crate) api_unix: UnixListener,
    pub(crate) edge_unix: UnixListener,
    /// Bound beside its final name; see [`Self::publish_handover`].
    pub(crate) handover: UnixListener,
    /// Listeners with SO_REUSEPORT do not keep out others of the same user: this does.
    _edge_claims: Vec<UnixListener>,
}

/// Where apps are served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) http: SocketAddr,
    pub(crate) https: HttpsAddress,
    /// Whether somebody wants HTTPS there: else the platform comes up without it rather than not at all.
    pub(crate) insists: bool,
}

/// Where the API is served.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) at: SocketAddr,
    /// What listened there before this program, if it was left open.
    pub(crate) kept: Option<Kept>,
}

/// Why the platform cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("{addr} is taken{}", by(holder.as_deref()))]
    Taken { addr: SocketAddr, holder: Option<String>, option: &'static str, suggestion: SocketAddr },
    #[error(
        "the API does not listen on {addr}: without TLS it would send tokens in the clear; give --api a loopback address"
    )]
    Exposed { addr: SocketAddr },
    #[error("cannot listen on {addr}")]
    Tcp { addr: SocketAddr, source: io::Error },
    #[error("cannot listen on {}", path.display())]
    Unix { path: PathBuf, source: io::Error },
}

fn by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

impl Sockets {
    /// Binds everything. `inherited` are the listeners of an edge of before: they are used when they listen where we want to.
    /// `edge_uid` is the user that must be able to connect to `edge.sock`.
    pub(crate) fn bind(
        edge: Edge,
        api: Api,
        inherited: Listeners<TcpListener>,
        run_dir: &Path,
        edge_uid: Option<u32>,
    ) -> Result<Self, SocketError> {
        let Api { at: api, kept } = api;
        if !api.ip().is_loopback() {
            return Err(SocketError::Exposed { addr: api });
        }
        let plain = listeners(edge.http, "edge", inherited.plain)?;
        let secure = match edge.https.address().map(|at| listeners(at, "https", inherited.secure)) {
            Some(Err(error)) if !edge.insists => {
                tracing::warn!(error = report::chain(&error), "apps are served without HTTPS");
                None
            }
            secure => secure.transpose()?,
        };
        let (https_addr, secure, secure_claim) = match secure {
            Some(Claimed { listeners, address, claim }) => (Some(address), listeners, Some(claim)),
            None => (None, Vec::new(), None),
        };
        let at = |name: &str| run_dir.join(name);
        let kept = kept.map(|kept| (kept.is_at(&at("api.sock")), kept));
        let (kept_tcp, kept_unix) =
            kept.map_or((None, None), |(is_at, kept)| (Some(kept.tcp), is_at.then_some(kept.unix)));
        let api_tcp = match kept_tcp.filter(|tcp| all_listen_at(std::slice::from_ref(tcp), api)) {
            Some(tcp) => tcp,
            None => bind_patiently(api).map_err(|source| taken_or(api, "api", source))?,
        };
        let api_addr = local_address(&api_tcp, api)?;
        Ok(Self {
            edge: plain.listeners,
            edge_addr: plain.address,
            secure,
            https_addr,
            api_tcp,
            api_addr,
            // Callers are known by their peer credentials; as a user the directory keeps all others out besides.
            api_unix: kept_unix.map_or_else(|| bind_unix(&at("api.sock"), 0o666, None), Ok)?,
            edge_unix: bind_unix(&at("edge.sock"), 0o600, edge_uid)?,
            handover: bind_unix(&at("handover.sock.new"), 0o600, None)?,
            _edge_claims: [plain.claim].into_iter().chain(secure_claim).collect(),
        })
    }

    /// Gives handover.sock its name once edge serves. Until then the name leads to the orphan, if there is one: should we
    /// be killed now, the next supervisor still finds the edge that serves.
    pub(crate) fn publish_handover(run_dir: &Path) -> io::Result<()> {
        fs::rename(run_dir.join("handover.sock.new"), run_dir.join("handover.sock"))
    }
}

/// Listeners with the name that says that they are ours.
struct Claimed {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    claim: UnixListener,
}

/// Listeners at `addr`, those of an orphaned edge where they listen there.
fn listeners(
    addr: SocketAddr,
    option: &'static str,
    inherited: Vec<TcpListener>,
) -> Result<Claimed, SocketError> {
    let inherited = if all_listen_at(&inherited, addr) { inherited } else { Vec::new() };
    let listeners = if inherited.is_empty() { bind_for_each_core(addr, option)? } else { inherited };
    let address = local_address(&listeners[0], addr)?;
    // Whoever lives and listens there was met above.
    let claim = patiently(|| claim(address), || true).map_err(|source| taken_or(address, option, source))?;
    Ok(Claimed { listeners, address, claim })
}

/// The listener for `addr`, which may have port 0, are these.
fn all_listen_at(listeners: &[TcpListener], addr: SocketAddr) -> bool {
    listeners.iter().all(|listener| {
        listener
            .local_addr()
            .is_ok_and(|local| local == addr || (addr.port() == 0 && local.ip() == addr.ip()))
    })
}

fn bind_for_each_core(addr: SocketAddr, option: &'static str) -> Result<Vec<TcpListener>, SocketError> {
    let fail = |source| taken_or(addr, option, source);
    // With SO_REUSEPORT the bind would succeed beside another program of our user that set it, and the kernel would deal
    // the connections out to both. Without it the bind says whether anybody is there.
    if addr.port() != 0 {
        drop(bind_patiently(addr).map_err(fail)?);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(LISTENERS_MAX);
    let first = bind_shared(addr).map_err(fail)?;
    let addr = local_address(&first, addr)?;
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(bind_shared(addr).map_err(fail)?);
    }
    Ok(listeners)
}

fn bind_alone(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr)?;
    listen(socket, addr)
}

/// Binds, and waits for an address that somebody has whom nobody can name: a process that dies.
fn bind_patiently(addr: SocketAddr) -> io::Result<TcpListener> {
    patiently(|| bind_alone(addr), || port_holder::find(addr).is_none())
}

/// Tries again while the address is in use and `may_end` says that it may not be for long.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when the kernel closes what a dying process had open"
)]
fn patiently<T>(attempt: impl Fn() -> io::Result<T>, may_end: impl Fn() -> bool) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && may_end() => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    attempt()
}

fn bind_shared(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr)?;
    socket.set_reuse_port(true)?;
    listen(socket, addr)
}

fn tcp_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections in TIME_WAIT do not keep a restarted platform from its port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(socket: Socket, addr: SocketAddr) -> io::Result<TcpListener> {
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A name in the machine's abstract namespace (of this network namespace, as the port is) that one platform can have. The
/// kernel releases it with its last holder.
fn claim(addr: SocketAddr) -> io::Result<UnixListener> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("berth-edge-{addr}"))?;
    UnixListener::bind_addr(&name)
}

fn taken_or(addr: SocketAddr, option: &'static str, source: io::Error) -> SocketError {
    if source.kind() != io::ErrorKind::AddrInUse {
        return SocketError::Tcp { addr, source };
    }
    let mut suggestion = addr;
    suggestion.set_port(addr.port().checked_add(1).unwrap_or(8_080));
    SocketError::Taken { addr, holder: port_holder::find(addr), option, suggestion }
}

fn local_address(listener: &TcpListener, wanted: SocketAddr) -> Result<SocketAddr, SocketError> {
    listener.local_addr().map_err(|source| SocketError::Tcp { addr: wanted, source })
}

/// Binds beside the name and moves there, so that nobody meets a name without a listener.
fn bind_unix(path: &Path, mode: u32, owner: Option<u32>) -> Result<UnixListener, SocketError> {
    let beside = path.with_extension("binding");
    let bind = || -> io::Result<UnixListener> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&beside)?;
        listener.set_nonblocking(true)?;
        chown(&beside, owner, None)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
        fs::rename(&beside, path)?;
        Ok(listener)
    };
    bind().map_err(|source| SocketError::Unix { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn bind(
        edge: SocketAddr,
        inherited: Vec<TcpListener>,
    ) -> (tempfile::TempDir, Result<Sockets, SocketError>) {
        let run = tempfile::tempdir().unwrap();
        let inherited = Listeners { plain: inherited, secure: Vec::new() };
        let sockets = Sockets::bind(http(edge), api(any()), inherited, run.path(), None);
        (run, sockets)
    }

    fn api(at: SocketAddr) -> Api {
        Api { at, kept: None }
    }

    /// Nobody is refused by a name or an address that changed hands in between.
    #[test]
    fn what_was_left_open_is_taken_where_it_fits() {
        let (run, first) = bind(any(), vec![]);
        let first = first.unwrap();
        let (at, waiting) =
            (first.api_addr, std::os::unix::net::UnixStream::connect(run.path().join("api.sock")));
        let kept = Kept::of(&first).unwrap();
        let other = Kept::of(&first).unwrap();
        drop(first);
        let again =
            |api: Api| Sockets::bind(http(any()), api, Listeners::default(), run.path(), None).unwrap();
        let second = again(Api { at, kept: Some(kept) });
        assert_eq!(second.api_addr, at);
        second.api_unix.set_nonblocking(false).unwrap();
        second.api_unix.accept().unwrap();
        drop(waiting.unwrap());
        drop(second);
        // Another address is bound, and a name that is gone is given anew.
        fs::remove_file(run.path().join("api.sock")).unwrap();
        let third = again(Api { at: "127.0.0.2:0".parse().unwrap(), kept: Some(other) });
        assert_ne!(third.api_addr, at);
        std::os::unix::net::UnixStream::connect(run.path().join("api.sock")).unwrap();
    }

    fn http(edge: SocketAddr) -> Edge {
        Edge { http: edge, https: HttpsAddress::Off, insists: false }
    }

    #[test]
    fn https_that_nobody_insists_on_gives_way_to_who_is_there() {
        let holder = TcpListener::bind(any()).unwrap();
        let https = HttpsAddress::At(holder.local_addr().unwrap());
        let run = tempfile::tempdir().unwrap();
        let bind = |insists| {
            Sockets::bind(
                Edge { http: any(), https, insists },
                api(any()),
                Listeners::default(),
                run.path(),
                None,
            )
        };
        assert_eq!(bind(false).unwrap().https_addr, None);
        assert!(matches!(bind(true), Err(SocketError::Taken { option: "https", .. })));
        drop(holder);
        let sockets = bind(true).unwrap();
        assert_eq!((sockets.https_addr, sockets.secure.len()), (https.address(), sockets.edge.len()));
    }

    #[test]
    fn the_same_address_is_not_shared_with_another_platform() {
        let (_run, first) = bind(any(), vec![]);
        let first = first.unwrap();
        let (_run, second) = bind(first.edge_addr, vec![]);
        let error = second.unwrap_err();
        assert!(error.to_string().contains("is taken by"), "{error}");
        assert!(
            matches!(error, SocketError::Taken { option: "edge", suggestion, .. } if suggestion != first.edge_addr)
        );
    }

    #[test]
    fn a_taken_api_port_says_who_has_it() {
        let holder = TcpListener::bind(any()).unwrap();
        let run = tempfile::tempdir().unwrap();
        let taken = holder.local_addr().unwrap();
        let error =
            Sockets::bind(http(any()), api(taken), Listeners::default(), run.path(), None).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(
            matches!(error, SocketError::Taken { option: "api", suggestion, .. } if suggestion != taken),
            "{error:?}"
        );
    }

    /// A listener that a process holds which shows its descriptors to nobody, as a dying one, is waited for.
    #[test]
    fn an_address_that_is_being_let_go_of_is_waited_for() {
        let of_this_process =
            SocketAddr::from(([127, 0, 0, 1], (std::process::id() % 65_536).try_into().unwrap()));
        let holder = Cell::new(Some(claim(of_this_process).unwrap()));
        let looks = Cell::new(0);
        let bound = patiently(
            || claim(of_this_process),
            || {
                looks.set(looks.get() + 1);
                if looks.get() == 3 {
                    drop(holder.take());
                }
                true
            },
        );
        let _holder = bound.unwrap();
        assert_eq!(looks.get(), 3);
        let refused = patiently(|| claim(of_this_process), || false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_orphans_listeners_are_used_where_they_fit_alone() {
        let (_run, first) = bind(any(), vec![]);
        let first = first.unwrap();
        let hand = || first.edge.iter().map(|listener| listener.try_clone().unwrap()).collect::<Vec<_>>();
        // As after the death of the supervisor that held the claim.
        let addr = first.edge_addr;
        let handed = hand();
        let misfits = hand();
        drop(first);
        let (_run, second) = bind(addr, handed);
        assert_eq!(second.unwrap().edge_addr, addr);
        let (_run, third) = bind(any(), misfits);
        assert_eq!(third.unwrap().edge_addr, addr, "port 0 takes whatever is there");
        let (_run, fourth) = bind("127.0.0.2:0".parse().unwrap(), vec![TcpListener::bind(addr).unwrap()]);
        assert_ne!(fourth.unwrap().edge_addr, addr);
    }

    #[test]
    fn the_api_stays_on_loopback() {
        let run = tempfile::tempdir().unwrap();
        let error = Sockets::bind(
            http(any()),
            api("0.0.0.0:7070".parse().unwrap()),
            Listeners::default(),
            run.path(),
            None,
        );
        assert!(matches!(error, Err(SocketError::Exposed { .. })));
    }

    #[test]
    fn sockets_of_a_killed_platform_are_replaced() {
        let run = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let sockets =
                Sockets::bind(http(any()), api(any()), Listeners::default(), run.path(), None).unwrap();
            Sockets::publish_handover(run.path()).unwrap();
            drop(sockets);
            let mode = |name: &str| fs::metadata(run.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("api.sock"), mode("edge.sock"), mode("handover.sock")), (0o666, 0o600, 0o600));
        }
    }
}
