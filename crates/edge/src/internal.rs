//! What instances send to other apps of their project: accepted in their own networks, by listening sockets that their shims hand out.
//!
//! Whose instance it is the shim says, and which app is meant the address that the connection was made to: nothing that is sent on it has a
//! part in that. The folder of the shims' sockets tells which instances there are, those too that nobody sends anything to.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use berth_routing::names::{HTTP_PORT, OWN};
use berth_shim::dial;
use berth_spec::{AppId, InstanceId};
use http::HeaderValue;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::client::Origin;
use crate::fleet::Named;
use crate::preface;
use crate::worker::{Worker, is_about_one_connection};
use crate::{events, passage, prepare};

/// How many instances wait for one thread to take them on. Who tells of them waits as well then.
pub(crate) const WAITING: usize = 64;
/// How many connections one instance has to others at once. More wait in its own queue, so that no app takes the room of all others.
const CONNECTIONS_MAX: usize = 512;
/// How often the folder is looked at though nobody says that it has changed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same where nobody can say it.
const LOOK_OFTEN: Duration = Duration::from_secs(1);

/// Has each instance whose socket appears in `folder` taken on by one of `threads`. Ends with them.
pub(crate) async fn watch(folder: PathBuf, threads: Vec<mpsc::Sender<PathBuf>>) {
    let mut known = BTreeSet::new();
    let mut turns = threads.iter().cycle();
    let mut notices = None;
    loop {
        if notices.is_none() {
            // From before the folder is looked at, so that nothing is missed in between. It may be made, or opened to us, only later.
            notices = Notices::of(&folder).ok();
        }
        let there = sockets_in(&folder).unwrap_or_default();
        known.retain(|socket| there.contains(socket));
        for socket in there {
            if known.contains(&socket) {
                continue;
            }
            let Some(thread) = turns.next() else { return };
            if thread.send(socket.clone()).await.is_err() {
                return;
            }
            known.insert(socket);
        }
        let lost = match &notices {
            Some(notices) => matches!(tokio::time::timeout(LOOK_EVERY, notices.wait()).await, Ok(Err(_))),
            None => {
                // wait: for the folder to be there and open to us.
                tokio::time::sleep(LOOK_OFTEN).await;
                false
            }
        };
        if lost {
            notices = None;
        }
    }
}

fn sockets_in(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if stem.is_some_and(dial::is_name) && path.extension().is_some_and(|it| it == "sock") {
            found.insert(path);
        }
    }
    Ok(found)
}

/// The kernel's word that a folder has changed.
struct Notices(AsyncFd<OwnedFd>);

impl Notices {
    #[expect(
        unsafe_code,
        reason = "tokio asks to be promised that the descriptor stays open while it is watched"
    )]
    fn of(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, folder, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE)?;
        // SAFETY: an `OwnedFd` is open until it is dropped, and what watches it owns it.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Waits until it has changed. What exactly happened is not looked at: some of it may have been dropped.
    async fn wait(&self) -> io::Result<()> {
        let mut scratch = [0; 4_096];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut scratch)?)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

/// Accepts what the instance whose shim listens at `socket` sends to others, until the shim is gone or edge has to go.
pub(crate) async fn keep(worker: Rc<Worker>, socket: PathBuf) {
    while !worker.is_draining() {
        match attend(&worker, &socket).await {
            Err(error) if is_over(&error) => return,
            Err(error) => tracing::debug!(socket = %socket.display(), %error, "a shim is asked again"),
            Ok(()) => {}
        }
        // wait: for a socket that was just bound to be listened at and opened to us, or for a shim that has closed the line to take another.
        tokio::time::sleep(worker.limits().tick).await;
    }
}

/// Whether nobody is there any more, or nobody who knows of such questions: a shim that an older version started. One that refuses is about
/// to listen, or has died and is about to be removed.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported)
}

async fn attend(worker: &Rc<Worker>, socket: &Path) -> io::Result<()> {
    let mut line = UnixStream::connect(socket).await?;
    let caller = Caller::asked(&mut line).await.map_err(|_whatever| io::ErrorKind::Unsupported)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut doors: Vec<(u16, TcpListener)> = Vec::new();
    let mut asked = BTreeSet::new();
    loop {
        let stirred = worker.stirred();
        if worker.is_draining() {
            return Ok(());
        }
        for port in worker.in_fleet(|fleet| fleet.ports_beside(&caller.app)) {
            if asked.insert(port)
                && let (_, Some(listener)) = ask(&mut line, port).await?
            {
                let listener = std::net::TcpListener::from(listener);
                prepare(&listener)?;
                doors.push((port, TcpListener::from_std(listener)?));
            }
        }
        tokio::select! {
            accepted = accept(&doors, &room) => match accepted {
                Ok((port, socket, room)) => caller.admit(worker, port, socket, room),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    events::accept_failed(&error);
                    // wait: for descriptors to be free again.
                    tokio::time::sleep(worker.limits().tick).await;
                }
            },
            () = stirred => {}
            end = ended(&line) => return end,
        }
    }
}

/// The next connection, once there is room for it.
async fn accept(
    doors: &[(u16, TcpListener)],
    room: &Arc<Semaphore>,
) -> io::Result<(u16, TcpStream, OwnedSemaphorePermit)> {
    let room = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let accepted = poll_fn(|cx| {
        for (port, door) in doors {
            if let Poll::Ready(accepted) = door.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(socket, _)| (*port, socket)));
            }
        }
        Poll::Pending
    });
    let (port, socket) = accepted.await?;
    Ok((port, socket, room))
}

async fn ask(line: &mut UnixStream, port: u16) -> io::Result<(String, Option<OwnedFd>)> {
    line.write_all(&dial::listener_request(port)).await?;
    let line: &UnixStream = line;
    line.async_io(Interest::READABLE, || dial::receive_listener(line)).await
}

/// Waits for the end of a line on which nothing was asked.
async fn ended(line: &UnixStream) -> io::Result<()> {
    loop {
        line.readable().await?;
        match line.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.map(drop),
        }
    }
}

/// An instance that calls others.
struct Caller {
    app: AppId,
    name: HeaderValue,
}

impl Caller {
    async fn asked(line: &mut UnixStream) -> io::Result<Self> {
        let (id, _) = ask(line, 0).await?;
        let id: InstanceId = id.parse().map_err(io::Error::other)?;
        let name = HeaderValue::from_str(id.app.app.as_str()).map_err(io::Error::other)?;
        Ok(Self { app: id.app, name })
    }

    fn admit(&self, worker: &Rc<Worker>, port: u16, socket: TcpStream, room: OwnedSemaphorePermit) {
        let Ok(SocketAddr::V4(to)) = socket.local_addr() else { return };
        let target = Named { project: self.app.project_id(), address: *to.ip() };
        if port != HTTP_PORT {
            worker.spawn(passage::pass(Rc::clone(worker), socket, target, port, room));
            return;
        }
        let own = worker.in_fleet(|fleet| fleet.address(&self.app)).unwrap_or(OWN);
        let Ok(peer) = HeaderValue::from_str(&own.to_string()) else { return };
        let origin = Rc::new(Origin::Inside { peer, caller: self.name.clone(), target });
        worker.serve(room, move |worker, client| async move {
            preface::serve(&worker, client, socket, origin).await;
        });
    }
}
