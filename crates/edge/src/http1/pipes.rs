//! Long bodies from socket to socket without a copy through this process: by splice(2), which hands the kernel's pages on through a pipe.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds at most, as long as the kernel lets it.
const ROOM: usize = 256 << 10;
/// So many pipes are kept for what comes next. An empty one takes two descriptors and no memory to speak of.
const KEPT_MAX: usize = 16;
/// So many are on loan at most, 8 MiB, for the reason that there is with large buffers: who reads slowly keeps one for as long as it likes. The kernel counts the room of
/// all pipes of a user who is not root, and gives him but small ones beyond 64 MiB (pipe(7)): eight threads have no more than that.
const LENT_MAX: usize = (8 << 20) / ROOM;

/// One thread's pipes that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    kept: RefCell<Vec<Ends>>,
    lent: Cell<usize>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Who has many pipes may have no long ones (pipe(7)). A short one is as good, in more steps.
        let _as_it_is = fcntl_setpipe_size(&write, ROOM);
        Ok(Self { read, write })
    }
}

impl Pipes {
    /// An empty pipe, which comes back when it is dropped; none while as many are on loan as may be, or where there can be no more.
    pub(crate) fn get(self: &Rc<Self>) -> Option<Pipe> {
        let lent = self.lent.get();
        if lent >= LENT_MAX {
            return None;
        }
        let kept = self.kept.borrow_mut().pop();
        let ends = kept.map_or_else(Ends::new, Ok).ok()?;
        self.lent.set(lent + 1);
        Some(Pipe { ends: Some(ends), held: 0, from: Rc::clone(self) })
    }
}

/// A pipe on loan.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// There until it is dropped.
    ends: Option<Ends>,
    /// How many bytes are in it.
    held: usize,
    from: Rc<Pipes>,
}

impl Pipe {
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes what there is on `socket` into the pipe, which must be empty, at most `max` bytes: a socket without anything could not be told from a full
    /// pipe otherwise. Gives how many they are, 0 at the end.
    pub(crate) fn poll_fill(
        &mut self,
        socket: &TcpStream,
        max: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty(), "it is filled when it is empty");
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let max = usize::try_from(max).map_or(ROOM, |max| max.min(ROOM));
        loop {
            ready!(socket.poll_read_ready(cx))?;
            match socket.try_io(Interest::READABLE, || by_splice(socket, &ends.write, max)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                filled => {
                    self.held = *filled.as_ref().unwrap_or(&0);
                    return Poll::Ready(filled);
                }
            }
        }
    }

    /// Hands to `socket` what it takes of what is in the pipe, and says how many bytes that were.
    pub(crate) fn poll_empty(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || by_splice(&ends.read, socket, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn by_splice(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, len, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.from.lent.set(self.from.lent.get() - 1);
        let mut kept = self.from.kept.borrow_mut();
        // One with something in it belongs to a body that broke off.
        if self.held == 0 && kept.len() < KEPT_MAX {
            kept.extend(self.ends.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialed, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_and_no_more_than_was_asked_for() {
        let ((mut app, ours), (theirs, mut client)) = (pair().await, pair().await);
        let pipes = Rc::<Pipes>::default();
        let mut pipe = pipes.get().unwrap();
        app.write_all(b"some and the next").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&ours, 4, cx)).await.unwrap(), 4);
        assert!(!pipe.is_empty());
        assert_eq!(poll_fn(|cx| pipe.poll_empty(&theirs, cx)).await.unwrap(), 4);
        assert!(pipe.is_empty());
        let mut came = [0; 4];
        client.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"some");
        drop(app);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&ours, 13, cx)).await.unwrap(), 13);
        assert_eq!(poll_fn(|cx| pipe.poll_empty(&theirs, cx)).await.unwrap(), 13);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&ours, 13, cx)).await.unwrap(), 0, "the end");
    }

    #[tokio::test]
    async fn only_what_is_empty_is_kept_and_no_more_are_lent_than_may_be() {
        let ((mut app, ours), pipes) = (pair().await, Rc::<Pipes>::default());
        let mut lent: Vec<Pipe> = std::iter::from_fn(|| pipes.get()).collect();
        assert_eq!(lent.len(), LENT_MAX);
        app.write_all(b"what broke off").await.unwrap();
        let mut full = lent.pop().unwrap();
        poll_fn(|cx| full.poll_fill(&ours, 5, cx)).await.unwrap();
        drop(full);
        assert_eq!((pipes.kept.borrow().len(), pipes.lent.get()), (0, LENT_MAX - 1));
        drop(lent);
        assert_eq!((pipes.kept.borrow().len(), pipes.lent.get()), (KEPT_MAX, 0));
    }
}
