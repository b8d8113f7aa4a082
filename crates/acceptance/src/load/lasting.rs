//! Sessions that last: a stream of events, a WebSocket, a slow upload. Each is about a second long, and is to come through whole whatever is
//! deployed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::client::{Connection, Failure, pattern};
use super::outcome::{Outcome, Sent, Way};

/// The steps of a session, and how far they are apart: what the app has between two events, too.
const STEPS: u32 = 20;
const PACE: Duration = Duration::from_millis(50);
/// What is uploaded in one step.
const PART: usize = 1_024;
const EVENT: &[u8] = b"data: tick\n\n";

/// A kind of session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Session {
    Events,
    Socket,
    Upload,
}

impl Session {
    pub(super) const ALL: [Self; 3] = [Self::Events, Self::Socket, Self::Upload];

    const fn name(self) -> &'static str {
        match self {
            Self::Events => "event streams",
            Self::Socket => "WebSockets",
            Self::Upload => "slow uploads",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Events => "/events",
            Self::Socket => "/switch",
            Self::Upload => "/upload",
        }
    }
}

/// One session after the other, until the load is stopped.
pub(super) fn work(shared: &Arc<Shared>, session: Session, host: &str, number: u32) -> Outcome {
    let mut outcome = Outcome::default();
    let mut over = Way::default();
    while shared.wait_for(shared.now() + PACE) {
        over = Way { serial: over.serial + 1, opened: None };
        let start = shared.now();
        let result = perform(shared, session, host, &mut over);
        let sent = Sent { kind: session.name(), start, end: shared.now(), number, over };
        outcome.note_session(sent, session.path(), result);
    }
    outcome
}

fn perform(shared: &Shared, session: Session, host: &str, over: &mut Way) -> Result<(), Failure> {
    let mut connection = shared.open(over)?;
    let serial = over.serial;
    // Where the load is stopped meanwhile, the rest of the session is not paced.
    let begun = shared.now();
    let until = |step: u32| shared.wait_for(begun + PACE * step);
    let start = format!("Host: {host}\r\n");
    match session {
        Session::Events => {
            connection.send(format!("GET /events HTTP/1.1\r\n{start}\r\n").as_bytes())?;
            events(&mut connection)
        }
        Session::Socket => {
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n";
            connection.send(format!("GET /switch HTTP/1.1\r\n{start}{upgrade}").as_bytes())?;
            socket(&mut connection, serial, until)
        }
        Session::Upload => {
            let length = PART * STEPS as usize;
            let close = format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
            connection.send(format!("POST /upload HTTP/1.1\r\n{start}{close}").as_bytes())?;
            upload(&mut connection, serial, until)
        }
    }
}

fn expect(connection: &mut Connection, expected: u16) -> Result<(), Failure> {
    match connection.head()? {
        (status, _) if status == expected => Ok(()),
        (status, _) => Err(Failure::Status(status)),
    }
}

/// Reads as many events as there are steps, and leaves.
fn events(connection: &mut Connection) -> Result<(), Failure> {
    expect(connection, 200)?;
    let mut told = Vec::new();
    while told.len() < EVENT.len() * STEPS as usize {
        told.extend(connection.chunk()?.ok_or_else(|| Failure::Wrong("the events ended".to_owned()))?);
    }
    if !told.chunks(EVENT.len()).all(|event| EVENT.starts_with(event)) {
        return Err(Failure::Wrong("other events".to_owned()));
    }
    Ok(())
}

/// Sends frames, each of which comes back, and leaves.
fn socket(connection: &mut Connection, serial: u64, until: impl Fn(u32) -> bool) -> Result<(), Failure> {
    expect(connection, 101)?;
    for step in 1..=STEPS {
        until(step);
        let text = pattern(serial << 8 | u64::from(step), 125);
        // A binary frame, masked with noughts (RFC 6455, section 5.2).
        let length = u8::try_from(text.len()).unwrap_or(0);
        let frame = [&[0x82, 0x80 | length, 0, 0, 0, 0], text.as_slice()].concat();
        connection.send(&frame)?;
        if connection.take(frame.len())? != frame {
            return Err(Failure::Wrong("another frame".to_owned()));
        }
    }
    Ok(())
}

/// Sends a body in parts, and reads how much of it came.
fn upload(connection: &mut Connection, serial: u64, until: impl Fn(u32) -> bool) -> Result<(), Failure> {
    for step in 1..=STEPS {
        until(step);
        connection.send(&[u8::try_from(serial % 256).unwrap_or(0); PART])?;
    }
    let answer = connection.answer()?;
    let expected = format!("took {}", PART * STEPS as usize);
    match (answer.status, answer.body == expected.as_bytes()) {
        (200, true) => Ok(()),
        (200, false) => Err(Failure::Wrong(String::from_utf8_lossy(&answer.body).into_owned())),
        (status, _) => Err(Failure::Status(status)),
    }
}
