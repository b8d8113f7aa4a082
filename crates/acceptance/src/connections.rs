//! Whose connections a process holds: what is lost with it, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, sockopt};
use rustix::process::{ForeignRawFd, PidfdGetfdFlags, Signal};

use crate::platform::{PATIENCE, wait_until};

/// Stops a process, and gives the ports at the other ends of the TCP connections that it has accepted, and of no others. It stays stopped,
/// so that it accepts none after that.
///
/// Each socket is looked at by a copy of its descriptor (`pidfd_getfd(2)`). `/proc/net/tcp` would tell the same, but has a line for each
/// connection of the last minute, which takes longer to read than a stop may last.
///
/// Empty for one that has ended. Panics where it may not be looked at.
pub(crate) fn accepted(pid: u32, process: &OwnedFd) -> BTreeSet<u16> {
    if rustix::process::pidfd_send_signal(process, Signal::STOP).is_err() {
        return BTreeSet::new();
    }
    assert!(wait_until(PATIENCE, || stands_still(pid)), "{pid} does not stop");
    let (mut listeners, mut connections) = (BTreeSet::new(), Vec::new());
    for socket in sockets(pid, process) {
        let local = rustix::net::getsockname(&socket).ok().and_then(port);
        let Some(local) = local else { continue };
        if sockopt::socket_acceptconn(&socket) == Ok(true) {
            listeners.insert(local);
        } else if let Some(peer) = rustix::net::getpeername(&socket).ok().flatten().and_then(port) {
            connections.push((local, peer));
        }
    }
    connections.into_iter().filter(|(local, _)| listeners.contains(local)).map(|(_, peer)| peer).collect()
}

/// None for one of another family.
fn port(address: SocketAddrAny) -> Option<u16> {
    SocketAddr::try_from(address).ok().map(|address| address.port())
}

/// Whether none of its threads runs: all are stopped, or it has ended.
fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.into_iter().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before the state may hold anything but the last parenthesis.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}

/// Copies of the descriptors of its sockets.
fn sockets(pid: u32, process: &OwnedFd) -> Vec<OwnedFd> {
    let descriptors = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(descriptors) => descriptors.flatten(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("the descriptors of {pid} cannot be looked at: {error}"),
    };
    let sockets = descriptors.filter(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    let numbers = sockets.filter_map(|socket| socket.file_name().to_str()?.parse::<ForeignRawFd>().ok());
    let copies =
        numbers.map(|number| rustix::process::pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()));
    copies
        .filter_map(|copy| match copy {
            Ok(copy) => Some(copy),
            // It has ended since.
            Err(Errno::SRCH | Errno::BADF) => None,
            Err(error) => panic!("a descriptor of {pid} cannot be looked at: {error}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    use super::*;
    use crate::victims::hold;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness stands outside of the platform and its allow-list"
    )]
    fn what_was_accepted_is_told_from_what_was_opened_and_from_what_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (accepted_one, _) = listener.accept().unwrap();
        let out = TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        let waiting = TcpStream::connect(address).unwrap();
        // One of each kind as its standard streams.
        let mut child = Command::new("sleep")
            .arg("600")
            .stdin(OwnedFd::from(accepted_one))
            .stdout(OwnedFd::from(listener))
            .stderr(OwnedFd::from(out))
            .spawn()
            .unwrap();
        let process = hold(child.id()).unwrap();
        let found = accepted(child.id(), &process);
        child.kill().unwrap();
        let _status = child.wait().unwrap();
        assert_eq!(found, BTreeSet::from([client.local_addr().unwrap().port()]));
        assert_eq!(accepted(child.id(), &process), BTreeSet::new());
        drop(waiting);
    }
}
