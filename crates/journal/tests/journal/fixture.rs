//! What the tests append, and how they look at it.

use std::path::Path;

use berth_journal::{
    Append, Epoch, Idempotency, Journal, Meta, NewEvent, Options, Position, StreamName, Version,
};
use berth_spec::Timestamp;

pub(crate) fn open(dir: &Path) -> Journal {
    Journal::open(dir, Options::default()).unwrap()
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// One event for each body.
pub(crate) fn append(epoch: Epoch, name: &str, expected: u64, bodies: &[&[u8]]) -> Append {
    let event = |body: &&[u8]| NewEvent { kind: "Happened".into(), schema: 1, body: body.to_vec() };
    Append {
        epoch,
        stream: stream(name),
        expected: Version(expected),
        first: None,
        events: bodies.iter().map(event).collect(),
        meta: Meta {
            at: Timestamp(1_000),
            actor: "ann".to_owned(),
            correlation: "c-1".to_owned(),
            reason: Some("because".to_owned()),
        },
        idempotency: None,
    }
}

pub(crate) fn key(key: &str, result: &[u8]) -> Idempotency {
    Idempotency {
        scope: "ann".to_owned(),
        key: key.to_owned(),
        request_hash: [7; 32],
        result: result.to_vec(),
    }
}

/// The bodies of all events, after checking that the journal is sound.
pub(crate) fn bodies(journal: &Journal) -> Vec<Vec<u8>> {
    assert_eq!(journal.check().unwrap(), Vec::<String>::new());
    let mut bodies = Vec::new();
    let visit = |event: berth_journal::EventRef<'_>| {
        bodies.push(event.body.to_vec());
        Ok::<_, std::convert::Infallible>(())
    };
    let count = journal.replay(Position(1), journal.head(), visit).unwrap();
    assert_eq!(count, journal.head().0);
    bodies
}
