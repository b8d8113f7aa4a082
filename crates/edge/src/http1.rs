//! HTTP/1.1 by a codec of our own: requests that need nothing but an instance, for little more than what the kernel takes for them.
//!
//! It serves what is ordinary in every respect: a head as [`request::parse`] takes it, a body that came with it or none, an app that is awake, open and not
//! shared between releases, an instance that takes a connection. At the first request that is anything else the connection is given to hyper with
//! all bytes that came, before any of them went anywhere; it stays there. So nothing is decided here that `forward` decides, and no request is
//! refused here but one whose app gave no answer. What it takes is a part of what `strict` lets through.
//!
//! Both directions are one task: while an answer is waited for the client is listened to, so that a request whose client has left ends.

pub(crate) mod client;
mod exchange;
pub(crate) mod message;
mod pipes;
pub(crate) mod request;
pub(crate) mod response;
mod sockets;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::AsyncWriteExt as _;

use crate::client::{Client, Origin};
use crate::client_stream::ClientStream;
use crate::forward::Tried;
use crate::http1::exchange::{Exchange, Next};
use crate::worker::Worker;

pub(crate) use self::pipes::{Pipe, Pipes};
pub(crate) use self::sockets::{BUFFER, Buffer, Buffers, ClientSocket};

/// A connection that goes on elsewhere, and what came on it that was not answered.
pub(crate) struct GivenUp<S> {
    pub(crate) socket: S,
    pub(crate) unread: Vec<u8>,
    /// What was tried with the first request in it.
    pub(crate) tried: Tried,
}

/// Serves a connection until it ends, or until it is to go on elsewhere. Once it is `closing` it ends after the request that is under way.
pub(crate) async fn serve<S: ClientSocket>(
    worker: &Rc<Worker>,
    client: &Client,
    socket: S,
    origin: &Origin,
    closing: &Cell<bool>,
) -> Option<GivenUp<S>> {
    let mut stream = ClientStream::decoded(socket, Arc::clone(client.progress()));
    while readable(&stream, closing).await {
        // Apart, and there while something is under way: who waits for a next request takes up little more than a socket.
        let served = Box::pin(requests(Exchange::new(worker, client, origin, closing), &mut stream)).await;
        match served {
            Served::All => {}
            Served::Over => return None,
            Served::GivenUp { unread, tried } => {
                return Some(GivenUp { socket: stream.into_socket(), unread, tried });
            }
        }
    }
    // With a word of farewell where there is TLS; who does not take it is ended all the same.
    let _farewell = stream.shutdown().await;
    None
}

/// What became of the requests that a client sent one right after the other.
enum Served {
    /// They were answered, and a next one may come.
    All,
    Over,
    /// This is to be answered elsewhere.
    GivenUp {
        unread: Vec<u8>,
        tried: Tried,
    },
}

async fn requests<S: ClientSocket>(mut exchange: Exchange<'_>, stream: &mut ClientStream<S>) -> Served {
    loop {
        match exchange.next(stream).await {
            Next::Idle => return Served::All,
            Next::More => {}
            Next::Over => return Served::Over,
            Next::GiveUp(tried) => return Served::GivenUp { unread: exchange.into_unread(), tried },
        }
    }
}

/// Waits for the client to say something, or to leave. False when there is to be no next request.
async fn readable<S: ClientSocket>(stream: &ClientStream<S>, closing: &Cell<bool>) -> bool {
    poll_fn(|cx| {
        if closing.get() {
            return Poll::Ready(false);
        }
        // What is wrong with the socket reading will say.
        stream.poll_readable(cx).map(|_whatever| true)
    })
    .await
}
