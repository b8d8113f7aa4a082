//! The connections of edge: who may connect, what is said first, and both directions at once.

use std::sync::Arc;
use std::time::Duration;

use berth_control::invariant::check_snapshot;
use berth_process::Identity;
use berth_routing::wire::{Decoder, FromEdge, PROTOCOL, ToEdge, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::EdgeLink;
use crate::desk::Desk;
use crate::events;

/// How many connections there may be at a time: an edge, one or two that drain, and those of them that are just being replaced.
const LINKS: usize = 16;
/// How long a peer may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

impl EdgeLink {
    /// Accepts edges on `listener` until the task is dropped. A peer must be one of `uids`.
    pub async fn serve(self: Arc<Self>, listener: UnixListener, uids: Vec<u32>, desk: Desk) {
        let mut links = JoinSet::new();
        loop {
            while links.len() >= LINKS {
                finished(links.join_next().await);
            }
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    events::could_not("accept edge", &error);
                    // Out of descriptors: others have to be closed first.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            while let Some(ended) = links.try_join_next() {
                finished(Some(ended));
            }
            let peer = stream.peer_cred();
            let pid = peer.as_ref().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
            match (peer, pid) {
                (Ok(peer), Some(pid)) if uids.contains(&peer.uid()) => {
                    links.spawn(Arc::clone(&self).talk(stream, pid, desk.clone()));
                }
                _ => events::edge_refused("the peer is neither edge nor the platform's owner"),
            }
        }
    }

    /// Listens and tells at once: a peer that writes before it reads must not hold both sides up for ever.
    pub(super) async fn talk(self: Arc<Self>, stream: UnixStream, pid: u32, desk: Desk) {
        let Ok(Some(identity)) = Identity::of(pid) else {
            return;
        };
        let (reading, writing) = stream.into_split();
        let (greeted, greeting) = oneshot::channel();
        tokio::select! {
            () = self.listen(reading, pid, identity, &desk, greeted) => {}
            () = self.tell(writing, pid, greeting) => {}
        }
    }

    async fn listen(
        &self,
        mut reading: OwnedReadHalf,
        pid: u32,
        identity: Identity,
        desk: &Desk,
        greeted: oneshot::Sender<()>,
    ) {
        let mut first = Some((identity, greeted));
        let mut greeting = 0;
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ok(length @ 1..) = reading.read(&mut buffer).await else {
                return;
            };
            decoder.feed(&buffer[..length]);
            loop {
                let message = match decoder.message::<FromEdge>() {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => return events::edge_refused(&error.to_string()),
                };
                match (message, first.take()) {
                    (FromEdge::Hello { protocol: PROTOCOL, pid: said }, Some((identity, greeted)))
                        if said == pid =>
                    {
                        greeting = self.greet(pid, identity);
                        if greeted.send(()).is_err() {
                            return;
                        }
                    }
                    (FromEdge::Hello { .. }, _) => {
                        return events::edge_refused("it speaks another protocol or is not who it says");
                    }
                    (_, Some(_)) => return events::edge_refused("it did not say hello first"),
                    (message, None) => self.hear(pid, greeting, message, desk),
                }
            }
        }
    }

    async fn tell(&self, mut writing: OwnedWriteHalf, pid: u32, greeting: oneshot::Receiver<()>) {
        let hello = encode(&ToEdge::Hello { protocol: PROTOCOL }).expect("a hello is short");
        if writing.write_all(&hello).await.is_err() {
            return;
        }
        if !matches!(tokio::time::timeout(HELLO_WITHIN, greeting).await, Ok(Ok(()))) {
            return events::edge_refused("it did not say hello in time");
        }
        let mut newest = self.newest.subscribe();
        loop {
            let next = Arc::clone(&newest.borrow_and_update());
            let (applied, durable) = self.with(|known| {
                (known.edges.get(&pid).map(|process| process.applied).unwrap_or_default(), known.durable)
            });
            events::breach(check_snapshot(applied, durable, &next.snapshot));
            if writing.write_all(&next.frame).await.is_err() || newest.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A connection that panicked has found a broken invariant: nothing is known to be safe then.
fn finished(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        events::could_not("go on talking to edge", &error);
        std::process::abort();
    }
}
