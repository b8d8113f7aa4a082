//! The connection to control. It may be away for as long as it likes: edge goes on serving.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use berth_routing::Snapshot;
use berth_routing::wire::{Decoder, FrameError, FromEdge, PROTOCOL, ToEdge, encode};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use crate::events;
use crate::ledger::Ledger;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What the link and the control thread share.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// What control is to be told.
    pub(crate) ledger: RefCell<Ledger>,
    /// Whether the control that is connected knows of apps that sleep: it sent a snapshot with one.
    knows_sleep: Cell<bool>,
    /// Woken when there may be something to tell.
    pub(crate) told: Notify,
    /// The newest snapshot that control sent and nobody has taken yet. An older one that was not taken is dropped.
    inbox: RefCell<Option<Snapshot>>,
    arrived: Notify,
}

impl Desk {
    /// The next snapshot from control.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        loop {
            if let Some(snapshot) = self.inbox.borrow_mut().take() {
                return snapshot;
            }
            self.arrived.notified().await;
        }
    }

    /// Changes what control is to be told.
    pub(crate) fn tell<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let outcome = change(&mut self.ledger.borrow_mut());
        self.told.notify_one();
        outcome
    }
}

/// Why a connection to control ended.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("the connection to control failed")]
    Io(#[from] io::Error),
    #[error("control sent something that is not a message")]
    Frame(#[from] FrameError),
    #[error("control speaks version {0} of the protocol, and this edge {PROTOCOL}")]
    Protocol(u32),
    #[error("control closed the connection")]
    Closed,
}

/// Talks to control at `path`, for ever.
pub(crate) async fn keep(path: &Path, desk: &Rc<Desk>) {
    let mut pause = RETRY_MIN;
    loop {
        match UnixStream::connect(path).await {
            Ok(socket) => {
                events::control_connected();
                let error = talk(socket, desk, &mut pause).await;
                events::control_lost(&error);
            }
            Err(error) => tracing::debug!(%error, "control is not there"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn talk(socket: UnixStream, desk: &Rc<Desk>, pause: &mut Duration) -> LinkError {
    let (reader, writer) = socket.into_split();
    desk.ledger.borrow_mut().connected();
    desk.knows_sleep.set(false);
    // Both at once: a control that does not read must not keep us from hearing it.
    tokio::select! {
        Err(error) = listen(reader, desk, pause) => error,
        Err(error) = speak(writer, desk) => error,
    }
}

async fn listen(mut reader: OwnedReadHalf, desk: &Desk, pause: &mut Duration) -> Result<Never, LinkError> {
    let mut decoder = Decoder::default();
    let mut piece = vec![0; 64 << 10];
    let mut greeted = false;
    loop {
        let count = reader.read(&mut piece).await?;
        if count == 0 {
            return Err(LinkError::Closed);
        }
        decoder.feed(piece.get(..count).unwrap_or_default());
        while let Some(message) = decoder.message()? {
            match message {
                ToEdge::Hello { protocol: PROTOCOL } => {
                    greeted = true;
                    *pause = RETRY_MIN;
                }
                ToEdge::Hello { protocol } => return Err(LinkError::Protocol(protocol)),
                ToEdge::Snapshot(_) if !greeted => return Err(LinkError::Protocol(0)),
                ToEdge::Snapshot(snapshot) => {
                    if snapshot.apps.values().any(|route| route.asleep.is_some()) {
                        desk.knows_sleep.set(true);
                        desk.told.notify_one();
                    }
                    let mut inbox = desk.inbox.borrow_mut();
                    if inbox.as_ref().is_none_or(|waiting| waiting.generation <= snapshot.generation) {
                        *inbox = Some(snapshot);
                    }
                    desk.arrived.notify_one();
                }
            }
        }
    }
}

async fn speak(mut writer: OwnedWriteHalf, desk: &Desk) -> Result<Never, LinkError> {
    let hello = FromEdge::Hello { protocol: PROTOCOL, pid: std::process::id() };
    writer.write_all(&encode(&hello)?).await?;
    loop {
        let mut messages = desk.ledger.borrow_mut().take();
        if desk.knows_sleep.get() {
            messages.extend(desk.ledger.borrow_mut().take_of_sleep());
        }
        if messages.is_empty() {
            desk.told.notified().await;
        }
        for message in messages {
            writer.write_all(&encode(&message)?).await?;
        }
    }
}

/// No value: what gives this ends by an error only.
enum Never {}
