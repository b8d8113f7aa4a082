//! Who may reach the app from outside, and be reached by it: edge, by sockets that are made here.

use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use berth_shim::config::StartConfig;
use berth_shim::dial;
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt;

use crate::internal::Internal;
use crate::system;

/// Connections at once: two edges of 64 threads, one of which takes over from the other, and two of theirs that wait for what the app sends to
/// others. One more takes the place of the oldest, whose owner connects anew if it is there.
const CLIENTS: usize = 132;
/// Bytes that may wait for a client to read them; the kernel makes its least of it, which is a few answers. Each has sockets attached.
const UNREAD: usize = 1;

/// The listening socket that leads to us, and who is connected. The folder that it lies in decides who that can be.
#[derive(Debug)]
pub(crate) struct Dialer {
    listener: UnixListener,
    clients: Vec<UnixStream>,
    instance: String,
    internal: Option<Internal>,
}

impl Dialer {
    /// Takes over what was handed to us; `None` where the network is the machine's or nobody is to be let in.
    pub(crate) fn inherited(config: &StartConfig, internal: Option<Internal>) -> io::Result<Option<Self>> {
        let Some(number) = config.dial else { return Ok(None) };
        let listener = system::listener(number)?;
        listener.set_nonblocking(true)?;
        let instance = config.instance.clone();
        Ok(Some(Self { listener, clients: Vec::new(), instance, internal }))
    }

    /// What to wait for.
    pub(crate) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        let clients = self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN));
        [PollFd::new(&self.listener, PollFlags::IN)].into_iter().chain(clients)
    }

    /// Accepts who waits and answers who asks: one question of each in a turn, and none is waited for.
    pub(crate) fn serve(&mut self) {
        let (instance, internal) = (&self.instance, &mut self.internal);
        self.clients.retain_mut(|client| serve(client, instance, internal.as_mut()).is_ok());
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
fn serve(client: &mut UnixStream, instance: &str, internal: Option<&mut Internal>) -> io::Result<()> {
    // One more than a question has: who asks twice without having read the answer does not follow the rules.
    let mut question = [0; dial::QUESTION_MAX + 1];
    let question = match client.read(&mut question) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(length) => &question[..length],
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Some(port) = dial::asked_listener(question) {
        // None where there is no way to others, or no more room for one.
        let listener = internal.filter(|_| port > 0).and_then(|internal| internal.listener(port).ok());
        return dial::answer_listener(client, instance, listener.map(|it| it.as_fd()));
    }
    let count = dial::asked(question).ok_or(ErrorKind::InvalidData)?;
    // Those that could be made, when our descriptors run out.
    let sockets: Vec<OwnedFd> = (0..count).map_while(|_| system::tcp_socket().ok()).collect();
    dial::answer(client, &sockets)
}
