//! The listeners over an upgrade: whoever connects while no program listens is queued by the kernel, and nobody is refused.
//!
//! They stay open over the execution of the other program, and open with the guard, should that one end without a word; variables name them.
//! The edge that serves meanwhile has its own too, and hands them over; these are for when it dies in between. A program of before they were kept leaves them open and
//! unused: they are the very sockets that its edge has.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use berth_edge::handover::Listeners;
use berth_process::Launch;
use rustix::io::FdFlags;

use super::sockets::Sockets;
use crate::inherit;

/// The descriptors of the API's listeners, on TCP and on its Unix socket: `11,12`.
const API: &str = "BERTH_LISTENERS";
/// Those of edge's, for HTTP and for HTTPS: `13,14;15,16`.
const EDGE: &str = "BERTH_EDGE_LISTENERS";
/// The variables that name them.
pub(super) const VARIABLES: [&str; 2] = [API, EDGE];

/// The listeners of a platform.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) tcp: TcpListener,
    pub(crate) unix: UnixListener,
    pub(crate) edge: Listeners<TcpListener>,
}

impl Kept {
    /// Those that the program before left open for this one. Called before anything else is opened.
    pub(super) fn from_environment() -> Option<Self> {
        let api = take_all(&std::env::var(API).ok()?);
        let edge = std::env::var(EDGE).unwrap_or_default();
        let (plain, secure) = edge.split_once(';').unwrap_or_default();
        let edge = take_all(plain).and_then(|plain| Ok((plain, take_all(secure)?)));
        // Whoever connects is refused for a moment, then.
        let missed = |error: &io::Error| tracing::warn!(%error, "listeners were not left open");
        let (plain, secure) = edge.inspect_err(missed).unwrap_or_default();
        let listeners = |all: Vec<OwnedFd>| all.into_iter().map(TcpListener::from).collect();
        let edge = Listeners { plain: listeners(plain), secure: listeners(secure) };
        let [tcp, unix] = <[OwnedFd; 2]>::try_from(api.inspect_err(missed).ok()?).ok()?;
        Some(Self { tcp: tcp.into(), unix: unix.into(), edge })
    }

    /// Those of a platform that runs.
    pub(super) fn of(sockets: &Sockets) -> io::Result<Self> {
        let edge = Listeners { plain: cloned(&sockets.edge)?, secure: cloned(&sockets.secure)? };
        Ok(Self { tcp: sockets.api_tcp.try_clone()?, unix: sockets.api_unix.try_clone()?, edge })
    }

    /// The same ones again.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let edge = Listeners { plain: cloned(&self.edge.plain)?, secure: cloned(&self.edge.secure)? };
        Ok(Self { tcp: self.tcp.try_clone()?, unix: self.unix.try_clone()?, edge })
    }

    /// Whether the Unix socket is the one that was bound to have this name in the end.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let bound = self.unix.local_addr();
        bound.is_ok_and(|address| address.as_pathname() == Some(&path.with_extension("binding")))
            && path.try_exists().is_ok_and(|there| there)
    }

    /// Leaves them open for the program that this process becomes; gives the variables that say so. Until it is dropped.
    pub(super) fn leave_open(&self) -> io::Result<[(OsString, OsString); 2]> {
        self.variables(|descriptor| {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
            Ok(descriptor.as_raw_fd())
        })
    }

    /// Hands them to a process that is started, with the variables.
    pub(super) fn hand(&self, mut launch: Launch) -> io::Result<Launch> {
        let variables = self.variables(|descriptor| launch.inherit(descriptor))?;
        Ok(launch.envs(variables))
    }

    /// What the variables say of the numbers that `give` gives for each.
    fn variables(
        &self,
        mut give: impl FnMut(BorrowedFd<'_>) -> io::Result<RawFd>,
    ) -> io::Result<[(OsString, OsString); 2]> {
        let mut list = |all: &[BorrowedFd<'_>]| -> io::Result<String> {
            let numbers = all.iter().map(|it| Ok(give(*it)?.to_string())).collect::<io::Result<Vec<_>>>()?;
            Ok(numbers.join(","))
        };
        let api = list(&[self.tcp.as_fd(), self.unix.as_fd()])?;
        let edge = format!("{};{}", list(&each(&self.edge.plain))?, list(&each(&self.edge.secure))?);
        Ok([(API, api), (EDGE, edge)].map(|(name, value)| (OsStr::new(name).to_owned(), value.into())))
    }
}

fn each(listeners: &[TcpListener]) -> Vec<BorrowedFd<'_>> {
    listeners.iter().map(AsFd::as_fd).collect()
}

fn cloned(listeners: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    listeners.iter().map(TcpListener::try_clone).collect()
}

/// Takes the descriptors with these numbers.
fn take_all(numbers: &str) -> io::Result<Vec<OwnedFd>> {
    let invalid = |_none| io::Error::from(io::ErrorKind::InvalidInput);
    let numbers = numbers.split(',').filter(|number| !number.is_empty());
    numbers.map(|number| inherit::take(number.parse().map_err(invalid)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_sockets_as_long_as_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(path.with_extension("binding")).unwrap();
        let edge = Listeners { plain: vec![TcpListener::bind("127.0.0.1:0").unwrap()], secure: Vec::new() };
        let kept = Kept { tcp, unix, edge };
        assert!(!kept.is_at(&path), "it has not got its name");
        std::fs::rename(path.with_extension("binding"), &path).unwrap();
        assert!(kept.is_at(&path) && !kept.is_at(&dir.path().join("edge.sock")));
        let [api, edge] = kept.try_clone().unwrap().leave_open().unwrap();
        assert_eq!([&api.0, &edge.0], VARIABLES);
        assert_eq!(api.1.to_str().unwrap().split(',').count(), 2);
        let (plain, secure) = edge.1.to_str().unwrap().split_once(';').unwrap();
        assert!(plain.parse::<RawFd>().is_ok() && secure.is_empty(), "{edge:?}");
    }
}
