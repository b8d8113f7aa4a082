//! The API's listeners over an upgrade: whoever connects while no program listens is queued by the kernel, and nobody is refused.
//!
//! They stay open over the execution of the other program, and open with the guard, should that one end without a word; a variable names them.
//! Edge's listeners need none of this: the edge that runs has them too and hands them over.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use berth_process::Launch;
use rustix::io::FdFlags;

use super::sockets::Sockets;
use crate::inherit;

/// The descriptors of the API's listeners, on TCP and on its Unix socket: `11,12`.
pub(super) const VARIABLE: &str = "BERTH_LISTENERS";

/// The API's listeners.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) tcp: TcpListener,
    pub(crate) unix: UnixListener,
}

impl Kept {
    /// Those that the program before left open for this one. Called before anything else is opened.
    pub(super) fn from_environment() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let (tcp, unix) = text.split_once(',')?;
        let take = |number: &str| -> io::Result<OwnedFd> {
            inherit::take(number.parse().map_err(|_none| io::Error::from(io::ErrorKind::InvalidInput))?)
        };
        match (take(tcp), take(unix)) {
            (Ok(tcp), Ok(unix)) => Some(Self { tcp: tcp.into(), unix: unix.into() }),
            // Whoever connects is refused for a moment, then.
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "the API's listeners were not left open");
                None
            }
        }
    }

    /// Those of a platform that runs.
    pub(super) fn of(sockets: &Sockets) -> io::Result<Self> {
        Ok(Self { tcp: sockets.api_tcp.try_clone()?, unix: sockets.api_unix.try_clone()? })
    }

    /// The same ones again.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { tcp: self.tcp.try_clone()?, unix: self.unix.try_clone()? })
    }

    /// Whether the Unix socket is the one that was bound to have this name in the end.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let bound = self.unix.local_addr();
        bound.is_ok_and(|address| address.as_pathname() == Some(&path.with_extension("binding")))
            && path.try_exists().is_ok_and(|there| there)
    }

    /// Leaves them open for the program that this process becomes; gives the variable that says so. Until it is dropped.
    pub(super) fn leave_open(&self) -> io::Result<(OsString, OsString)> {
        for descriptor in [self.tcp.as_fd(), self.unix.as_fd()] {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(variable(self.tcp.as_raw_fd(), self.unix.as_raw_fd()))
    }

    /// Hands them to a process that is started, with the variable.
    pub(super) fn hand(&self, mut launch: Launch) -> io::Result<Launch> {
        let numbers = (launch.inherit(&self.tcp)?, launch.inherit(&self.unix)?);
        let (name, value) = variable(numbers.0, numbers.1);
        Ok(launch.env(name, value))
    }
}

fn variable(tcp: i32, unix: i32) -> (OsString, OsString) {
    (OsStr::new(VARIABLE).to_owned(), format!("{tcp},{unix}").into())
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
        let kept = Kept { tcp, unix };
        assert!(!kept.is_at(&path), "it has not got its name");
        std::fs::rename(path.with_extension("binding"), &path).unwrap();
        assert!(kept.is_at(&path) && !kept.is_at(&dir.path().join("edge.sock")));
        let (name, value) = kept.try_clone().unwrap().leave_open().unwrap();
        assert_eq!(name, VARIABLE);
        assert_eq!(value.to_str().unwrap().split(',').count(), 2);
    }
}
