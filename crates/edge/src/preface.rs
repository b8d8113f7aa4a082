//! Which version of HTTP a client without TLS begins with.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::client::{self, Client, Origin, drive};
use crate::worker::Worker;

/// What every connection of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at a preface that came in part.
const LOOK: Duration = Duration::from_millis(10);

/// Serves a connection without TLS. From outside only HTTP/1 is spoken unless edge was told otherwise; an instance that calls another may begin
/// with HTTP/2 as it likes: nothing else is there that would encrypt it, and clients of gRPC speak nothing else.
pub(crate) async fn serve(worker: &Rc<Worker>, client: Rc<Client>, socket: TcpStream, origin: Rc<Origin>) {
    let may_be_frames = match &*origin {
        Origin::Outside { .. } => worker.takes_h2c(),
        Origin::Inside { .. } => true,
    };
    if may_be_frames {
        let limit = worker.limits().patience.head;
        // Boxed, as all that a connection awaits once and not while it idles.
        let looking = Box::pin(tokio::time::timeout(limit, begins_with_preface(&socket)));
        match Box::pin(unless_ended(&client, looking)).await {
            Some(Ok(true)) => {
                return Box::pin(client::serve_frames(worker, client, socket, origin)).await;
            }
            Some(Ok(false)) => {}
            // It said nothing for too long, or there is no time any more.
            Some(Err(_)) | None => return,
        }
    }
    client::serve(worker, client, socket, origin).await;
}

/// The handshake of a client of HTTPS. What it fails of is the client's, or of somebody who looks around: there is nobody to be told, but for
/// one who speaks HTTP.
pub(crate) async fn shake_hands(
    worker: &Worker,
    socket: TcpStream,
    peer: &HeaderValue,
    acceptor: &TlsAcceptor,
) -> Option<Box<TlsStream<TcpStream>>> {
    let shaking = Box::pin(async {
        if is_plain(&socket).await {
            refuse_plain(worker, socket, peer.clone()).await;
            return None;
        }
        acceptor.accept(socket).await.ok().map(Box::new)
    });
    tokio::time::timeout(worker.limits().patience.head, shaking).await.ok().flatten()
}

/// Whether a client of the port for HTTPS begins as one of HTTP: a handshake begins with a byte that is no letter (RFC 8446, 5.1).
async fn is_plain(socket: &TcpStream) -> bool {
    let mut first = [0];
    matches!(socket.peek(&mut first).await, Ok(1)) && first.iter().all(u8::is_ascii_uppercase)
}

/// Tells such a client what it did: what a browser makes of a handshake's alert nobody understands.
async fn refuse_plain(worker: &Worker, mut socket: TcpStream, peer: HeaderValue) {
    let text = "400 Bad Request\nThis port speaks HTTPS, and the request came by HTTP: use https://.\nhttps_expected\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    client::log_refused(worker, &Origin::Outside { peer, secure: None }, 400);
    let answer = [head.as_bytes(), text.as_bytes()].concat();
    if socket.write_all(&answer).await.and(socket.shutdown().await).is_ok() {
        client::linger(socket).await;
    }
}

/// What `looking` finds, unless the connection is to end before.
async fn unless_ended<F: Future>(client: &Client, looking: F) -> Option<F::Output> {
    let mut looking = pin!(looking);
    let over = Cell::new(false);
    let looking =
        poll_fn(|cx| if over.get() { Poll::Ready(None) } else { looking.as_mut().poll(cx).map(Some) });
    drive(client, pin!(looking), |_| over.set(true)).await.flatten()
}

/// Looks at what came without taking it, so that whoever serves the connection reads it from the start.
async fn begins_with_preface(socket: &TcpStream) -> bool {
    loop {
        let mut first = [0; PREFACE.len()];
        // Whatever is wrong with the socket, reading will say.
        let count = socket.peek(&mut first).await.unwrap_or(0);
        let came = first.get(..count).unwrap_or_default();
        if came.is_empty() || !PREFACE.starts_with(came) {
            return false;
        }
        if count == PREFACE.len() {
            return true;
        }
        // wait: for the rest of a preface, which is readable all the while and so wakes nobody. `POST` is told from it by its second byte.
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Args<S> = (&'static Rc<Worker>, Rc<Client>, S, Rc<Origin>);

    fn size_of_what_it_makes<A, F: Future>(_make: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_takes_up_little() {
        // Each level of futures may double what it takes in: a kilobyte more here is one for every client that idles.
        let plain = size_of_what_it_makes(|(worker, client, socket, origin): Args<TcpStream>| {
            serve(worker, client, socket, origin)
        });
        let secure = size_of_what_it_makes(|(worker, client, socket, origin): Args<Box<TlsStream<_>>>| {
            client::serve(worker, client, socket, origin)
        });
        assert!(plain <= 1 << 10 && secure <= 1 << 10, "{plain} and {secure} bytes");
        type Accepted = (&'static Rc<Worker>, Rc<Client>, TcpStream, HeaderValue, Option<TlsAcceptor>);
        let either = size_of_what_it_makes(|(worker, client, socket, peer, acceptor): Accepted| {
            worker.serve_socket(client, socket, peer, acceptor)
        });
        assert!(either <= 3 << 9, "{either} bytes");
    }
}
