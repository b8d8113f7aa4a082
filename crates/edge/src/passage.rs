//! Connections from one app to another that are not HTTP: bytes both ways, whatever they mean.
//!
//! Where one begins is chosen as for a request, and one that finds no instance is held as a request is. It stays with its instance. When
//! nothing more is to be sent there, it ends as soon as nothing passes on it for a while: what keeps connections in store makes new ones then,
//! and a drain waits for those alone that are in use.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_routing::balance::Hold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::activity::Activity;
use crate::backend::{Backend, InFlight};
use crate::fleet::Named;
use crate::upstream::UpstreamStream;
use crate::worker::{Choice, Target, Worker};

/// How long nothing passes on a connection that is not in use: several times the way to a database and back.
const IDLE: Duration = Duration::from_secs(1);

/// Passes on what comes from `caller` to the app `target`, if that listens at `port`, and back. It takes up `_room` as long.
pub(crate) async fn pass(
    worker: Rc<Worker>,
    caller: TcpStream,
    target: Named,
    port: u16,
    _room: OwnedSemaphorePermit,
) {
    let _counted = worker.tunnel_opened();
    let Some((mut lease, mut app)) = find(&worker, &Target::Named(target), port).await else { return };
    lease.stand();
    let passed = Cell::new(0);
    let activity = &lease.backend().activity;
    let mut caller = Counted { socket: caller, passed: &passed, activity };
    tokio::select! {
        // How it ended both sides have seen.
        _ended = copy_bidirectional(&mut caller, &mut app) => {}
        () = out_of_use(&worker, lease.backend(), &passed) => {}
    }
}

/// An instance of the app that takes a connection at `port`, once there is one.
async fn find(worker: &Rc<Worker>, target: &Target, port: u16) -> Option<(InFlight, UpstreamStream)> {
    let started = worker.now();
    let mut hold = None;
    let mut tried = Vec::new();
    let mut elsewhere = false;
    let mut choice = worker.choose(target, &tried, false, None);
    loop {
        match choice {
            Choice::NoApp | Choice::Maintenance | Choice::Crowded => return None,
            Choice::Backend(lease) if lease.backend().place.port() != Some(port) => {
                elsewhere = true;
                tried.push(lease.backend().key);
            }
            Choice::Backend(lease) => match worker.open(&lease).await {
                Ok(app) => return Some((lease, app)),
                Err(error) => {
                    let backend = lease.backend();
                    tracing::debug!(instance = %backend.instance, %error, "an instance takes no connection");
                    tried.push(backend.key);
                }
            },
            Choice::Wait(_) | Choice::Full(_) if elsewhere => return None,
            Choice::Full(held) => {
                let hold = hold.get_or_insert_with(|| Hold::new(started, held.patience));
                let left = hold.left(worker.now())?;
                choice = held.queue.turn(worker, target, &mut tried, left, None).await.ok()?;
                continue;
            }
            Choice::Wait(held) | Choice::Asleep(held) | Choice::Paused(held) => {
                let hold = hold.get_or_insert_with(|| Hold::new(started, held.patience));
                let pause = hold.wait(worker.now())?;
                if !held.wait(worker, pause).await {
                    return None;
                }
                tried.clear();
            }
        }
        choice = worker.choose(target, &tried, false, None);
    }
}

/// Comes true when nothing more is to be sent to `backend` and nothing passes any more. While its app sleeps connections to it stand open.
async fn out_of_use(worker: &Rc<Worker>, backend: &Backend, passed: &Cell<u64>) {
    loop {
        let stirred = worker.stirred();
        if !worker.routes(backend.key) && (worker.is_draining() || !backend.activity.sleeps()) {
            break;
        }
        stirred.await;
    }
    loop {
        let before = passed.get();
        // wait: for nothing to pass for so long.
        tokio::time::sleep(IDLE).await;
        if passed.get() == before {
            return;
        }
    }
}

/// A socket that counts what passes in either direction.
struct Counted<'a> {
    socket: TcpStream,
    passed: &'a Cell<u64>,
    activity: &'a Activity,
}

impl Counted<'_> {
    fn count(&self, bytes: usize) {
        self.passed.set(self.passed.get().wrapping_add(bytes as u64));
    }
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        this.count(count);
        if count > 0 {
            this.activity.stir();
        }
        read
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            this.count(*count);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
