//! Telling the service manager how it is, by the protocol of sd_notify(3): a datagram to the socket that the environment names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The socket of the service manager, where there is one.
pub(super) const SOCKET: &str = "NOTIFY_SOCKET";

/// Says that the platform is up.
pub(super) fn ready() {
    tell("READY=1\nSTATUS=serving\n");
}

/// Says that it goes down.
pub(super) fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping apps\n");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    // One who does not listen gives up on us by himself.
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("berth-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (manager, socket) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            send(&socket, "READY=1\n").unwrap();
            let mut said = [0; 64];
            let length = manager.recv(&mut said).unwrap();
            assert_eq!(&said[..length], b"READY=1\n");
        }
        send(OsStr::new("/nowhere/notify"), "READY=1\n").unwrap_err();
    }
}
