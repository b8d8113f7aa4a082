//! Who may reach the app from outside: edge, by sockets that are made here, in the app's network.

use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use berth_shim::config::StartConfig;
use berth_shim::dial;
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::system;

/// Connections at once: two edges of 64 threads, one of which takes over from the other. One more takes the place of the oldest, whose
/// owner connects anew if it is there.
const CLIENTS: usize = 130;
/// Bytes that may wait for a client to read them; the kernel makes its least of it, which is a few answers. Each has sockets attached.
const UNREAD: usize = 1;

/// The listening socket that leads to us, and who is connected. The folder that it lies in decides who that can be.
#[derive(Debug)]
pub(crate) struct Dialer {
    listener: UnixListener,
    clients: Vec<UnixStream>,
}

impl Dialer {
    /// Takes over what was inherited; `None` where the network is the machine's or nobody is to be let in.
    pub(crate) fn inherited(config: &StartConfig) -> io::Result<Option<Self>> {
        let Some(number) = config.dial else { return Ok(None) };
        let listener = system::listener(number)?;
        listener.set_nonblocking(true)?;
        Ok(Some(Self { listener, clients: Vec::new() }))
    }

    /// What to wait for.
    pub(crate) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        let clients = self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN));
        [PollFd::new(&self.listener, PollFlags::IN)].into_iter().chain(clients)
    }

    /// Accepts who waits and answers who asks: one question of each in a turn, and none is waited for.
    pub(crate) fn serve(&mut self) {
        self.clients.retain_mut(|client| serve(client).is_ok());
        while let Ok((client, _)) = self.listener.accept() {
            let bounded = sockopt::set_socket_send_buffer_size(&client, UNREAD);
            if bounded.is_ok() && client.set_nonblocking(true).is_ok() {
                if self.clients.len() >= CLIENTS {
                    self.clients.remove(0);
                }
                self.clients.push(client);
            }
        }
    }
}

/// Answers what was asked, if anything was. An error ends the connection.
fn serve(client: &mut UnixStream) -> io::Result<()> {
    // One more than a question has: who asks twice without having read the answer does not follow the rules.
    let mut question = [0; 2];
    let count = match client.read(&mut question) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(length) => dial::asked(&question[..length]).ok_or(ErrorKind::InvalidData)?,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Those that could be made, when our descriptors run out.
    let sockets: Vec<OwnedFd> = (0..count).map_while(|_| make().ok()).collect();
    dial::answer(client, &sockets)
}

fn make() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}
