//! Clients of HTTP/2 that are told to go and do not say that they heard it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::streams::edge;
use crate::world::{HANG, World, shop};

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A client that says no more than it has to.
fn mute(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.addr).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).unwrap();
    stream
}

/// The kind of the next frame; nothing when the connection has ended.
fn frame(stream: &mut TcpStream) -> Option<u8> {
    let mut head = [0; 9];
    if let Err(error) = stream.read_exact(&mut head) {
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it is not ended");
        return None;
    }
    let length = usize::from(head[1]) << 8 | usize::from(head[2]);
    stream.read_exact(&mut vec![0; length]).unwrap();
    Some(head[3])
}

#[test]
fn one_that_idles_is_ended_whatever_it_says() {
    let world = edge(&shop(1, &[]), |options| {
        options.limits.patience.idle = Duration::from_millis(100);
        options.limits.patience.head = Duration::from_secs(2);
    });
    let mut client = mute(&world);
    let frames: Vec<u8> = std::iter::from_fn(|| frame(&mut client)).collect();
    assert!(frames.contains(&GOAWAY), "{frames:?}");
}

#[test]
fn one_whose_place_is_needed_has_it_no_longer() {
    let world = edge(&shop(1, &[]), |options| {
        options.limits.connections = 1;
        options.limits.patience.idle = 2 * HANG;
        options.limits.patience.head = 2 * HANG;
    });
    let mut first = mute(&world);
    assert_eq!(frame(&mut first), Some(SETTINGS), "it is in");
    assert_eq!(world.get("nobody", "/").status, 404);
    let frames: Vec<u8> = std::iter::from_fn(|| frame(&mut first)).collect();
    assert!(frames.contains(&GOAWAY), "{frames:?}");
}
