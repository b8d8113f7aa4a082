//! The messages between control and edge: frames of a 4-byte little-endian length and that many bytes of JSON.

use std::fmt;

use berth_rollout::Latencies;
use berth_spec::{AppId, InstanceId, ReleaseNumber};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::snapshot::{Generation, Snapshot};

/// The protocol that this version speaks. Both sides say it first; a peer that says another one is refused.
pub const PROTOCOL: u32 = 1;
/// The longest frame: a snapshot of 100,000 apps stays below it.
pub const FRAME_MAX: u32 = 64 << 20;

/// What control tells edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToEdge {
    /// The first frame.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
    },
    /// Serve by this from now on. It is durable already.
    Snapshot(Snapshot),
}

/// The same as is derived, but for that the type has to come first, as it does where it was written: so a snapshot is read in one go. What is
/// derived reads all of it into a tree of values, for want of a type to make of them, and the snapshot out of that tree.
impl<'de> Deserialize<'de> for ToEdge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfToEdge)
    }
}

struct OfToEdge;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Type,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Hello,
    Snapshot,
}

#[derive(Deserialize)]
struct Hello {
    protocol: u32,
}

impl<'de> Visitor<'de> for OfToEdge {
    type Value = ToEdge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message that begins with its type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<ToEdge, A::Error> {
        let Some(Key::Type) = fields.next_key()? else { return Err(A::Error::missing_field("type")) };
        let kind = fields.next_value()?;
        let rest = MapAccessDeserializer::new(fields);
        match kind {
            Kind::Hello => Hello::deserialize(rest).map(|Hello { protocol }| ToEdge::Hello { protocol }),
            Kind::Snapshot => Snapshot::deserialize(rest).map(ToEdge::Snapshot),
        }
    }
}

/// What edge tells control. After it connected it repeats everything that is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum FromEdge {
    /// The first frame.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
        /// The process id of edge, to be compared with the socket's peer credentials.
        pid: u32,
    },
    /// Every thread of edge serves by this generation.
    Applied {
        /// Which.
        generation: Generation,
    },
    /// Nothing of edge's is in flight to this instance, no pooled connection to it is open, and as of `generation`
    /// (applied) nothing new will be.
    Drained {
        /// Which instance.
        instance: InstanceId,
        /// The generation in which it is not routed.
        generation: Generation,
    },
    /// The instance's health, sent when it changes.
    Health {
        /// Which instance.
        instance: InstanceId,
        /// What edge makes of it.
        health: Health,
        /// The last answers, newest last, at most five, as a person would read them.
        evidence: Vec<String>,
    },
    /// A request waits for an app that sleeps, or somebody sends something on a connection to it that stood open. Only said to a control
    /// that has sent a snapshot in which some app sleeps: one before it would refuse the message.
    Wanted {
        /// Which app.
        app: AppId,
        /// Since which generation it sleeps, as its route said.
        asleep: Generation,
    },
    /// No request is under way to this instance and as of `generation` (applied) none will be, but connections to it stand open on which
    /// nothing passes: it may stand still, and not be stopped yet. Said to whom [`FromEdge::Wanted`] is said.
    Still {
        /// Which instance.
        instance: InstanceId,
        /// The generation in which it is not routed.
        generation: Generation,
    },
    /// What passed in the last second, by app.
    Counts {
        /// One entry for each app that had requests, or has some under way.
        apps: Vec<AppCounts>,
    },
}

/// What edge makes of an instance's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Never answered a probe well since edge knows it.
    Unready,
    /// The last probes were answered well.
    Ready,
    /// Was ready once and now fails its probes.
    Failing,
}

/// An app's requests within one second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppCounts {
    /// Which app.
    pub app: AppId,
    /// Requests answered, by status class: 1xx to 5xx at 0 to 4.
    pub by_class: [u64; 5],
    /// Requests that edge could not hand to any instance.
    pub unserved: u64,
    /// Whether a client did something that keeps the app awake: asked for something, waits for an answer, takes one, or sends something on
    /// a connection that stands open. What is answered out of the cache, or refused, does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    /// The same by release, while they are shared between releases. A version that does not know it compares nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<ReleaseCounts>,
}

/// The requests that one release got of those that were shared, within one second. Those that asked for a release by name are not
/// among them: they are no fair sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseCounts {
    /// Which.
    pub release: ReleaseNumber,
    /// All of them.
    pub requests: u64,
    /// Those that were answered with a status of 500 or more, or not at all.
    pub errors: u64,
    /// How long each took to the head of its answer, or until its client left.
    pub latencies: Latencies,
}

/// Why a frame was refused. The connection that it came on is of no more use.
#[derive(Debug, Error)]
pub enum FrameError {
    /// It is longer than [`FRAME_MAX`].
    #[error("a frame of {length} bytes is longer than the {FRAME_MAX} that are allowed")]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// It is not a message of the expected kind.
    #[error("a frame is not a message")]
    Message(#[source] serde_json::Error),
}

/// The bytes of one frame with `message` in it.
///
/// # Errors
/// [`FrameError::TooLong`] when the message does not fit.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Message)?;
    let length = frame.len() - 4;
    let header = u32::try_from(length).ok().filter(|length| *length <= FRAME_MAX);
    let header = header.ok_or(FrameError::TooLong { length: length as u64 })?;
    frame[..4].copy_from_slice(&header.to_le_bytes());
    Ok(frame)
}

/// Takes frames out of a stream of bytes that arrives in pieces. It does no input itself.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes that arrived; those before `taken` were decoded already. Never longer than one frame and one piece.
    buffer: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError`] when the peer breaks the protocol; every later call fails too.
    pub fn message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header);
        if length > FRAME_MAX {
            return Err(FrameError::TooLong { length: length.into() });
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(FrameError::Message)?;
        self.taken += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_its_length_and_json() {
        let frame = encode(&ToEdge::Hello { protocol: PROTOCOL }).unwrap();
        assert_eq!(frame, b"\x1d\0\0\0{\"type\":\"hello\",\"protocol\":1}");
        let snapshot = encode(&ToEdge::Snapshot(Snapshot::default())).unwrap();
        let mut decoder = Decoder::default();
        decoder.feed(&snapshot);
        assert_eq!(decoder.message::<ToEdge>().unwrap(), Some(ToEdge::Snapshot(Snapshot::default())));
    }

    #[test]
    fn counts_by_release_come_back() {
        let mut latencies = Latencies::default();
        [900, 40_000, 41_000].into_iter().for_each(|micros| latencies.add(micros));
        let release = ReleaseCounts { release: ReleaseNumber(2), requests: 4, errors: 1, latencies };
        let app = "default/default/shop".parse().unwrap();
        let counts =
            AppCounts { app, by_class: [0, 3, 0, 0, 1], unserved: 0, busy: false, releases: vec![release] };
        let told = FromEdge::Counts { apps: vec![counts] };
        let mut decoder = Decoder::default();
        decoder.feed(&encode(&told).unwrap());
        assert_eq!(decoder.message::<FromEdge>().unwrap(), Some(told));
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_header() {
        let mut decoder = Decoder::default();
        decoder.feed(&(FRAME_MAX + 1).to_le_bytes());
        assert!(matches!(decoder.message::<ToEdge>(), Err(FrameError::TooLong { .. })));
        assert!(matches!(decoder.message::<ToEdge>(), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        for body in
            ["{}", "[]", r#"{"protocol":1,"type":"hello"}"#, r#"{"type":"hello"}"#, r#"{"type":"bye"}"#]
        {
            assert!(matches!(read(body), Err(FrameError::Message(_))), "{body}");
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let hello = read(r#"{"type":"hello","protocol":1,"more":{"of":[1]}}"#).unwrap();
        assert_eq!(hello, Some(ToEdge::Hello { protocol: 1 }));
        let snapshot = read(r#"{"type":"snapshot","format":1,"generation":7,"apps":{},"more":[]}"#).unwrap();
        let Some(ToEdge::Snapshot(snapshot)) = snapshot else { panic!("{snapshot:?}") };
        assert_eq!(snapshot.generation, Generation(7));
    }

    fn read(body: &str) -> Result<Option<ToEdge>, FrameError> {
        let mut decoder = Decoder::default();
        decoder.feed(&u32::try_from(body.len()).unwrap().to_le_bytes());
        decoder.feed(body.as_bytes());
        decoder.message()
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            generations in proptest::collection::vec(any::<u64>(), 0..10),
            cuts in proptest::collection::vec(1_usize..40, 1..50),
        ) {
            let sent: Vec<FromEdge> = generations
                .into_iter()
                .map(|generation| FromEdge::Applied { generation: Generation(generation) })
                .collect();
            let mut stream: &[u8] = &sent.iter().flat_map(|message| encode(message).unwrap()).collect::<Vec<_>>();
            let (mut decoder, mut came) = (Decoder::default(), Vec::new());
            for cut in cuts.into_iter().cycle() {
                let (piece, rest) = stream.split_at(cut.min(stream.len()));
                stream = rest;
                decoder.feed(piece);
                while let Some(message) = decoder.message::<FromEdge>().unwrap() {
                    came.push(message);
                }
                if stream.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(came, sent);
        }
    }
}
