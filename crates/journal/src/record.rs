//! What the journal gives back: positions, versions, stream names and recorded events.

use std::fmt;
use std::sync::Arc;

use berth_spec::Timestamp;

use crate::append::Meta;

/// A place in the global order. Events have the positions 1, 2, 3 and so on without a hole, in the order in
/// which they were committed; `Position(0)` is the place before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The place before the first event.
    pub const START: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The position `count` events after this one.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of events in a stream, and so also the number of its latest event. A stream nobody wrote to has
/// version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// The version of a stream without events.
    pub const EMPTY: Self = Self(0);

    /// The version after `count` more events.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a stream: 1 to 512 bytes without control characters. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

/// A text that cannot name a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stream name has 1 to 512 bytes and no control characters, which {0:?} does not keep")]
pub struct StreamNameError(String);

impl StreamName {
    /// Checks `name`.
    ///
    /// # Errors
    /// When it is empty, longer than 512 bytes or has control characters.
    pub fn new(name: &str) -> Result<Self, StreamNameError> {
        if (1..=512).contains(&name.len()) && !name.contains(char::is_control) {
            Ok(Self(name.into()))
        } else {
            Err(StreamNameError(name.chars().take(64).collect()))
        }
    }

    /// A name that the journal itself gave out.
    pub(crate) fn recorded(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stretch of appends that were decided one on top of the other. See the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(crate) u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ground on which an epoch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch to put into each [`crate::Append`].
    pub epoch: Epoch,
    /// The latest durable event. Everything of earlier epochs up to here is durable and nothing of them will
    /// follow.
    pub head: Position,
}

/// One event as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the global order.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: StreamName,
    /// Its place in the stream; the first event has version 1.
    pub version: Version,
    /// What it is.
    pub kind: String,
    /// Which schema of that kind the body has.
    pub schema: u32,
    /// What it says, opaque to the journal.
    pub body: Vec<u8>,
    /// Who, when and why.
    pub meta: Meta,
}

/// One event, borrowed from the row that is being read. The fields are those of [`Recorded`] and [`Meta`].
#[expect(missing_docs, reason = "each field is documented in Recorded or Meta")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    pub position: Position,
    pub stream: &'a str,
    pub version: Version,
    pub kind: &'a str,
    pub schema: u32,
    pub body: &'a [u8],
    pub at: Timestamp,
    pub actor: &'a str,
    pub correlation: &'a str,
    pub reason: Option<&'a str>,
}

impl EventRef<'_> {
    /// A copy that outlives the row.
    #[must_use]
    pub fn to_recorded(&self) -> Recorded {
        Recorded {
            position: self.position,
            stream: StreamName::recorded(self.stream),
            version: self.version,
            kind: self.kind.to_owned(),
            schema: self.schema,
            body: self.body.to_vec(),
            meta: Meta {
                at: self.at,
                actor: self.actor.to_owned(),
                correlation: self.correlation.to_owned(),
                reason: self.reason.map(str::to_owned),
            },
        }
    }
}

/// What an earlier request with the same idempotency key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotent {
    /// Hash of that request, to be compared with the present one's.
    pub request_hash: [u8; 32],
    /// What it was answered.
    pub result: Vec<u8>,
    /// The latest event when it was committed: its own last event, if it had any.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_are_checked() {
        for good in ["a", "app/default/default/shop", &"x".repeat(512), "grüß"] {
            assert_eq!(StreamName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "a\0", &"x".repeat(513)] {
            StreamName::new(bad).unwrap_err();
        }
    }
}
