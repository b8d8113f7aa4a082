//! Who is connected to the socket.

use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use berth_shim::dial;
use berth_shim::exec::Exec;
use berth_shim::wire::{FromShim, ToShim, take_frame};

use crate::system;

/// One control, perhaps one that is about to replace it, and one that is being looked with.
const MOST: usize = 4;
/// Commands that run beside the app at once, each on a connection of its own.
pub(crate) const EXECS: usize = 16;

/// A connection. It holds at most one frame each way: a status is made when the last one has been sent.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its number, which no other has.
    pub(crate) number: u64,
    stream: UnixStream,
    /// Descriptors that came for a command which was not asked for in full yet.
    attached: Vec<OwnedFd>,
    /// Whether it has asked for a command. It hears how that ended, and nothing else.
    has_asked: bool,
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

/// What a client says.
#[derive(Debug)]
pub(crate) enum Said {
    /// What the instance is to do.
    Order(ToShim),
    /// A signal for the command that it has asked for.
    Signal(i32),
    /// A command to be run beside the app, with its input, output and errors.
    Exec(Exec, [OwnedFd; 3]),
}

/// Accepts whoever waits and may speak to us: our own user and root. `number` is that of the next one.
pub(crate) fn accept(
    listener: &UnixListener,
    clients: &mut Vec<Client>,
    number: &mut u64,
    hello: &dyn Fn() -> Vec<u8>,
) {
    while let Ok((stream, _)) = listener.accept() {
        let own = rustix::process::geteuid().as_raw();
        let known = system::peer(&stream).is_ok_and(|uid| uid == 0 || uid == own);
        let waiting = clients.iter().filter(|client| !client.has_asked).count();
        if known && waiting < MOST && clients.len() < MOST + EXECS && stream.set_nonblocking(true).is_ok() {
            *number += 1;
            clients.push(Client {
                number: *number,
                stream,
                attached: Vec::new(),
                has_asked: false,
                incoming: Vec::new(),
                outgoing: hello(),
                stale: false,
            });
        }
    }
}

impl Client {
    /// Whether something waits to be sent.
    pub(crate) fn has_more(&self) -> bool {
        (self.stale && !self.has_asked) || !self.outgoing.is_empty()
    }

    /// Reads what is there and gives what it says; `None` when the connection ended or makes no sense.
    pub(crate) fn read(&mut self) -> Option<Vec<Said>> {
        let mut buffer = [0; 512];
        let mut said = Vec::new();
        loop {
            match dial::take(&self.stream, &mut buffer) {
                Ok((length, attached)) => {
                    self.incoming.extend_from_slice(buffer.get(..length)?);
                    self.attached.extend(attached);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(said),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            while let Some(body) = take_frame(&mut self.incoming).ok()? {
                match Exec::decode(&body).ok()? {
                    // One of a connection.
                    Some(exec) if !self.has_asked => {
                        self.has_asked = true;
                        said.push(Said::Exec(exec, std::mem::take(&mut self.attached).try_into().ok()?));
                    }
                    Some(_) => return None,
                    None => match ToShim::decode(&body).ok()? {
                        Some(ToShim::Signal { signal }) if self.has_asked => said.push(Said::Signal(signal)),
                        // Whoever asked for a command has no say in anything else.
                        Some(order) if !self.has_asked => said.push(Said::Order(order)),
                        _ => {}
                    },
                }
            }
            if self.attached.len() > dial::MOST {
                return None;
            }
        }
    }

    /// Tells it something once, after what it is being told.
    pub(crate) fn tell(&mut self, message: &FromShim) {
        self.outgoing.extend(message.encode());
    }

    /// Sends what it takes without waiting; false when the connection ended.
    pub(crate) fn write(&mut self, status: &dyn Fn() -> Vec<u8>) -> bool {
        loop {
            if self.outgoing.is_empty() {
                if !self.stale || self.has_asked {
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
