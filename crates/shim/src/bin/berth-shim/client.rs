//! Who is connected to the socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use berth_shim::wire::{ToShim, take_frame};

use crate::system;

/// One control, perhaps one that is about to replace it, and one that is being looked with.
const MOST: usize = 4;

/// A connection. It holds at most one frame each way: a status is made when the last one has been sent.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Whether it has yet to hear how things stand.
    pub(crate) stale: bool,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Accepts whoever waits and may speak to us: our own user and root.
pub(crate) fn accept(listener: &UnixListener, clients: &mut Vec<Client>, hello: &dyn Fn() -> Vec<u8>) {
    while let Ok((stream, _)) = listener.accept() {
        let own = rustix::process::geteuid().as_raw();
        let known = system::peer(&stream).is_ok_and(|uid| uid == 0 || uid == own);
        if known && clients.len() < MOST && stream.set_nonblocking(true).is_ok() {
            clients.push(Client { stream, incoming: Vec::new(), outgoing: hello(), stale: false });
        }
    }
}

impl Client {
    /// Whether something waits to be sent.
    pub(crate) fn has_more(&self) -> bool {
        self.stale || !self.outgoing.is_empty()
    }

    /// Reads what is there and gives the commands in it; `None` when the connection ended or makes no sense.
    pub(crate) fn read(&mut self) -> Option<Vec<ToShim>> {
        let mut buffer = [0; 512];
        let mut commands = Vec::new();
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(commands),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            while let Some(body) = take_frame(&mut self.incoming).ok()? {
                commands.extend(ToShim::decode(&body).ok()?);
            }
        }
    }

    /// Sends what it takes without waiting; false when the connection ended.
    pub(crate) fn write(&mut self, status: &dyn Fn() -> Vec<u8>) -> bool {
        loop {
            if self.outgoing.is_empty() {
                if !self.stale {
                    return true;
                }
                self.stale = false;
                self.outgoing = status();
            }
            match self.stream.write(&self.outgoing) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}
