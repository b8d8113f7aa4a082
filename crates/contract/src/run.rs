//! One-off commands: what starts one, and the frames that go to and fro while somebody is connected to it.
//!
//! A request to [`crate::route::RUNS`] with `Upgrade: berth-run/1` is answered with 101, and the connection carries [`Frame`]s from there
//! on, in both directions at once. What the command reads is sent on credit: at most [`INPUT_WINDOW`] bytes that were not yet
//! [`Frame::Taken`], so that the platform always reads what comes and notices at once when nobody is there any more. What
//! the command writes is held back by the connection itself: a reader that is slow makes the command wait, as a pipe would.

use std::collections::BTreeMap;

use berth_spec::{EnvName, InstanceId, ReleaseNumber};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the connection is upgraded to.
pub const PROTOCOL: &str = "berth-run/1";
/// The longest payload of a frame, in bytes.
pub const FRAME_MAX: usize = 64 << 10;
/// How many bytes of input may be on their way.
pub const INPUT_WINDOW: usize = 256 << 10;
/// How many seconds a command may run when nobody says.
pub const LIMIT_DEFAULT: u64 = 24 * 3_600;

/// Runs a one-off command in a release of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    /// A program and its arguments, taken as they are. A single one is a line, split by POSIX rules and run by `sh -c` where it needs a
    /// shell, as the commands of the manifest are.
    pub command: Vec<String>,
    /// Variables that win over the app's own.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub env: BTreeMap<EnvName, String>,
    /// The release to run it in; the one that serves when not given.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
    /// The instance to run it in, as `web.1`: beside the app's own program, as what that is, with what that has. In one of its own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Nobody is connected to it: it goes on by itself, and what it writes goes to the app's log.
    #[serde(default)]
    pub detach: bool,
    /// The terminal to run it in; pipes when not given.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// How many seconds it may run; a day when not given, which is also the most.
    #[serde(default)]
    pub limit_s: Option<u64>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Its lines.
    pub rows: u16,
    /// Its columns.
    pub columns: u16,
}

/// A one-off command that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Its instance.
    #[schema(value_type = String, example = "default/default/shop/run.3")]
    pub id: InstanceId,
}

/// How a one-off command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunEnded {
    /// What it ended with, when it ended by itself.
    pub status: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Why the platform ended it, or why it could not be run, in words; nothing when it simply ended.
    pub why: Option<String>,
}

/// What goes over the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the command: what it reads.
    Input(Vec<u8>),
    /// To the command: there is no more to read.
    InputEnd,
    /// To the command: its terminal has another size.
    Resize(TerminalSize),
    /// To the command: a signal, by its number.
    Signal(u8),
    /// To the client, first: the command runs.
    Begun(Run),
    /// To the client: what the command wrote to its output, or to its terminal.
    Output(Vec<u8>),
    /// To the client: what it wrote to its errors.
    Errors(Vec<u8>),
    /// To the client: so many more bytes of input were taken.
    Taken(u32),
    /// To the client, last: it has ended.
    Ended(RunEnded),
    /// To the client, now and then: nothing happened, and the connection lives.
    Alive,
}

/// Bytes that are no frame. The connection that they came on is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what arrived on the connection of a one-off command is no frame: {0}")]
pub struct NoFrame(&'static str);

impl Frame {
    /// The frame as bytes: its kind, the length of its payload in four bytes (little-endian), its payload. No payload may be longer than
    /// [`FRAME_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let json = |value: Result<Vec<u8>, serde_json::Error>| value.expect("it is plain data");
        let (kind, payload) = match self {
            Self::Input(bytes) => (1, bytes.clone()),
            Self::InputEnd => (2, Vec::new()),
            Self::Resize(size) => (3, [size.rows.to_le_bytes(), size.columns.to_le_bytes()].concat()),
            Self::Signal(number) => (4, vec![*number]),
            Self::Begun(run) => (16, json(serde_json::to_vec(run))),
            Self::Output(bytes) => (17, bytes.clone()),
            Self::Errors(bytes) => (18, bytes.clone()),
            Self::Taken(count) => (19, count.to_le_bytes().to_vec()),
            Self::Ended(ended) => (20, json(serde_json::to_vec(ended))),
            Self::Alive => (21, Vec::new()),
        };
        debug_assert!(payload.len() <= FRAME_MAX, "whoever makes a frame keeps to its length");
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        [&[kind][..], &length.to_le_bytes(), &payload].concat()
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Option<Self>, NoFrame> {
        Ok(Some(match kind {
            1 => Self::Input(payload.to_vec()),
            2 => Self::InputEnd,
            3 => match payload {
                [a, b, c, d] => Self::Resize(TerminalSize {
                    rows: u16::from_le_bytes([*a, *b]),
                    columns: u16::from_le_bytes([*c, *d]),
                }),
                _ => return Err(NoFrame("a size has not four bytes")),
            },
            4 => Self::Signal(*payload.first().ok_or(NoFrame("a signal has no number"))?),
            16 => {
                Self::Begun(serde_json::from_slice(payload).map_err(|_wrong| NoFrame("its JSON is wrong"))?)
            }
            17 => Self::Output(payload.to_vec()),
            18 => Self::Errors(payload.to_vec()),
            19 => {
                let count = payload.try_into().map_err(|_wrong| NoFrame("a count has not four bytes"))?;
                Self::Taken(u32::from_le_bytes(count))
            }
            20 => {
                Self::Ended(serde_json::from_slice(payload).map_err(|_wrong| NoFrame("its JSON is wrong"))?)
            }
            21 => Self::Alive,
            // A newer peer says more than is known here.
            _ => return Ok(None),
        }))
    }
}

/// Takes frames out of a stream of bytes that arrives in pieces. It does no input itself.
#[derive(Debug, Default)]
pub struct Frames {
    /// Never longer than one frame and one piece.
    buffer: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Adds bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, `None` until more bytes arrive. Frames of a kind that is not known are passed over.
    ///
    /// # Errors
    /// [`NoFrame`] when the peer breaks the protocol.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end where this waits for more")]
    pub fn next(&mut self) -> Result<Option<Frame>, NoFrame> {
        loop {
            let rest = self.buffer.get(self.taken..).unwrap_or_default();
            let Some(([kind, length @ ..], rest)) = rest.split_first_chunk::<5>() else { return Ok(None) };
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > FRAME_MAX {
                return Err(NoFrame("it is longer than any may be"));
            }
            let Some(payload) = rest.get(..length) else { return Ok(None) };
            let frame = Frame::decode(*kind, payload)?;
            self.taken += 5 + length;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..100);
        let ended = any::<(Option<i32>, Option<i32>, Option<String>)>()
            .prop_map(|(status, signal, why)| Frame::Ended(RunEnded { status, signal, why }));
        prop_oneof![
            bytes().prop_map(Frame::Input),
            Just(Frame::InputEnd),
            any::<(u16, u16)>().prop_map(|(rows, columns)| Frame::Resize(TerminalSize { rows, columns })),
            any::<u8>().prop_map(Frame::Signal),
            (1_u64..).prop_map(|number| {
                let app: berth_spec::AppId = "default/default/shop".parse().unwrap();
                Frame::Begun(Run { id: app.instance("run".parse().unwrap(), number) })
            }),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::Errors),
            any::<u32>().prop_map(Frame::Taken),
            ended,
            Just(Frame::Alive),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            sent in proptest::collection::vec(frames(), 0..10),
            cuts in proptest::collection::vec(1_usize..40, 1..50),
        ) {
            let mut stream: &[u8] = &sent.iter().flat_map(Frame::encode).collect::<Vec<_>>();
            let (mut frames, mut came) = (Frames::default(), Vec::new());
            for cut in cuts.into_iter().cycle() {
                let (piece, rest) = stream.split_at(cut.min(stream.len()));
                stream = rest;
                frames.feed(piece);
                while let Some(frame) = frames.next().unwrap() {
                    came.push(frame);
                }
                if stream.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(came, sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut frames = Frames::default();
            frames.feed(&bytes);
            while let Ok(Some(_)) = frames.next() {}
        }
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_too_long_refused() {
        let mut frames = Frames::default();
        frames.feed(&[99, 1, 0, 0, 0, 7]);
        frames.feed(&Frame::Alive.encode());
        assert_eq!(frames.next(), Ok(Some(Frame::Alive)));
        frames.feed(&[1, 255, 255, 255, 0]);
        assert!(frames.next().is_err());
    }
}
