//! What stands open for long - a WebSocket, a stream of events, a slow upload - lives through deployments: through those of other apps as if there were
//! none, and through its own app's until the time to drain is over.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, wait_until};

/// What a busy machine is given before the test says that something does not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// A message of one letter, masked with nought, which the app sends back.
const MESSAGE: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, b'x'];

/// The old release goes as soon as it has drained, for which it has long enough that a busy machine gets to everything meanwhile.
const MANIFEST: &str =
    "[processes]\nweb = \"./actor serve\"\n[deploy]\nwarm = \"0s\"\n[shutdown]\ndrain = \"20s\"\n";

fn connect(platform: &Platform, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(platform.edge()).expect("edge listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("edge reads");
    stream
}

/// A connection on which both sides speak another protocol from here on.
fn socket(platform: &Platform) -> TcpStream {
    let mut stream = connect(
        platform,
        "GET /switch HTTP/1.1\r\nhost: shop.localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("edge answers");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

fn echo(socket: &mut TcpStream) {
    socket.write_all(MESSAGE).expect("edge reads");
    let mut back = [0; MESSAGE.len()];
    socket.read_exact(&mut back).expect("it comes back");
    assert_eq!(back, MESSAGE);
}

/// Passes over what was said until now, and waits for more.
fn hear_more(events: &mut TcpStream) {
    events.set_nonblocking(true).expect("a socket");
    while matches!(events.read(&mut [0; 4_096]), Ok(1..)) {}
    events.set_nonblocking(false).expect("a socket");
    events.read_exact(&mut [0]).expect("it is told more");
}

/// The release of the oldest instance.
fn oldest(actor: &Actor<'_>) -> String {
    actor.verb(&["ps"]).ok().json()["instances"][0]["release"].to_string()
}

#[test]
fn sockets_streams_and_uploads_live_through_deployments() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", MANIFEST);
    let _deployed = shop.deploy().ok();
    let mut socket = socket(&platform);
    echo(&mut socket);
    let mut events = connect(&platform, "GET /events HTTP/1.1\r\nhost: shop.localhost\r\n\r\n");
    hear_more(&mut events);
    let length = 3 * MESSAGE.len();
    let mut upload = connect(
        &platform,
        &format!(
            "POST /upload HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        ),
    );
    upload.write_all(MESSAGE).expect("edge reads");

    // Another app's deployments are no matter of theirs.
    let news = Actor::new(&platform, "news", MANIFEST);
    for _ in 0..3 {
        let _deployed = news.deploy().ok();
        echo(&mut socket);
        hear_more(&mut events);
    }
    upload.write_all(MESSAGE).expect("edge reads");

    // The new release serves, and what is under way with the old one is not cut off.
    let before = oldest(&shop);
    let _deployed = shop.deploy().ok();
    echo(&mut socket);
    hear_more(&mut events);
    upload.write_all(MESSAGE).expect("edge reads");
    let mut answer = Vec::new();
    upload.read_to_end(&mut answer).expect("it is answered");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("took {length}")), "{answer}");
    assert_eq!(shop.ask("/").0, 200);

    // The time is over, and with it the old release; nothing of the new one is.
    let mut rest = Vec::new();
    let _cut = events.read_to_end(&mut rest);
    assert!(wait_until(PATIENCE, || oldest(&shop) != before));
    let mut end = [0];
    assert!(matches!(socket.read(&mut end), Ok(0) | Err(_)), "nothing more comes");
    assert_eq!(shop.ask("/").0, 200);
}
