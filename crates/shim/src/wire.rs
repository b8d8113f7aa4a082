//! The messages between a shim and the runtime, over the shim's Unix socket.
//!
//! A frame is four bytes of length (little-endian), one byte of kind, and tagged fields. Kinds and fields that are not
//! known are passed over, so that both sides may be newer than the other. The shim sends its whole [`Status`] after
//! every change instead of the change itself: a reader that lost some, or came late, has missed nothing.

use crate::check::Checked;
use crate::tlv::{self, Fields, Malformed, put, put_i32, put_u64};

/// The version of these messages.
pub const PROTOCOL: u64 = 2;
/// The first version whose shims run commands beside the app. One before it passes over what it does not know, and takes a signal for the app's.
pub const RUNS_COMMANDS: u64 = 2;

/// The longest frame; a status with all its exits is about 2 KiB.
pub const FRAME_MAX: usize = 64 << 10;

/// How many exits a shim remembers: enough to see a crash loop, and bounded.
pub const EXITS_KEPT: usize = 16;

const HELLO: u8 = 1;
const STATUS: u8 = 2;
const EXECUTED: u8 = 3;
const STOP: u8 = 16;
const KILL: u8 = 17;
const QUERY: u8 = 18;
const LEAVE: u8 = 19;
const SIGNAL: u8 = 20;
// 21 is a request to run a command, see [`crate::exec`].
// 32 and 33 are kept for freezing and thawing.

/// What a shim says first to whoever connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version of the messages that follow.
    pub protocol: u64,
    /// The instance's id, in full.
    pub instance: String,
    /// The mark of the instance's tree.
    pub token: [u8; 16],
    /// The shim's process id.
    pub pid: u32,
    /// The shim's start time, in clock ticks since boot.
    pub starttime: u64,
    /// How things stand.
    pub status: Status,
}

/// How things stand with the app. Times are wall clock milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What the app does.
    pub state: State,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it exited.
    pub exit_count: u64,
    /// The last exits, oldest first, at most [`EXITS_KEPT`].
    pub exits: Vec<Exit>,
    /// How many log lines were dropped.
    pub dropped: u64,
    /// How it stands with its checks; `None` when it has none.
    pub checked: Option<Checked>,
    /// How many processes the kernel has killed in its control group because memory ran out, where that is counted.
    pub oom_kills: u64,
}

/// What an app does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// It is about to be started.
    #[default]
    Starting,
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
        /// Since when.
        since: u64,
    },
    /// It exited and is started again later.
    BackingOff {
        /// When.
        until: u64,
    },
    /// It was told to stop, or its leftovers are being killed.
    Stopping,
    /// It has ended for good, and nothing that it started is left.
    Ended,
}

/// One exit of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// When, in wall clock milliseconds.
    pub at: u64,
    /// Its process id.
    pub pid: u32,
    /// Its exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it left a core file.
    pub core: bool,
    /// How long it ran, in milliseconds.
    pub uptime: u64,
    /// The most memory it held, in KiB.
    pub max_rss: u64,
    /// Why it could not be started at all.
    pub failure: Option<Failure>,
    /// Whether it had been told to stop.
    pub stopped: bool,
    /// Whether the kernel killed in its control group because memory ran out, where that is counted.
    pub oom: Option<bool>,
    /// Whether it was ended because its checks failed.
    pub unhealthy: bool,
}

/// A step of the app's start that the system refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// The error number.
    pub errno: i32,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = match self.step {
            Step::Fork => "making a process",
            Step::Cgroup => "entering the control group",
            Step::Limits => "setting limits",
            Step::User => "becoming the app's user",
            Step::Dir => "entering the app's directory",
            Step::Setup => "preparing the process",
            Step::Exec => "running the program",
            Step::Namespaces => "making the app's namespaces",
            Step::Root => "making the app's root",
            Step::Confine => "confining the process",
        };
        write!(f, "{step}: {}", std::io::Error::from_raw_os_error(self.errno))
    }
}

/// The steps of an app's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making pipes or a process.
    Fork,
    /// Entering the control group.
    Cgroup,
    /// Setting limits.
    Limits,
    /// Becoming its user.
    User,
    /// Entering its directory.
    Dir,
    /// Setting up signals, descriptors and the like.
    Setup,
    /// Running its program.
    Exec,
    /// Making its namespaces.
    Namespaces,
    /// Making its root.
    Root,
    /// Giving up capabilities, and the rules of Landlock and seccomp.
    Confine,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Fork,
        Self::Cgroup,
        Self::Limits,
        Self::User,
        Self::Dir,
        Self::Setup,
        Self::Exec,
        Self::Namespaces,
        Self::Root,
        Self::Confine,
    ];

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Fork => 0,
            Self::Cgroup => 1,
            Self::Limits => 2,
            Self::User => 3,
            Self::Dir => 4,
            Self::Setup => 5,
            Self::Exec => 6,
            Self::Namespaces => 7,
            Self::Root => 8,
            Self::Confine => 9,
        }
    }

    /// The step of that number; a number of a later version counts as setup.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Setup)
    }
}

/// What the shim sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromShim {
    /// First of all.
    Hello(Hello),
    /// After each change, and when asked.
    Status(Status),
    /// How a command ended that was run within the instance, to whoever had asked for it.
    Executed(Exit),
}

/// What the shim is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToShim {
    /// Ask the app to end, and end it.
    Stop {
        /// The signal to its process group.
        signal: i32,
        /// Milliseconds until its whole tree is killed.
        kill_after: u64,
    },
    /// Kill the app's whole tree now.
    Kill,
    /// Send the status.
    Query,
    /// Send the app's process group a signal, and leave it to the app what it makes of it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// Exit, now that the app has ended and its end is known. Passed over while it has not.
    Leave,
}

impl FromShim {
    /// The message as a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Hello(hello) => {
                body.push(HELLO);
                put_u64(&mut body, 1, hello.protocol);
                put(&mut body, 2, hello.instance.as_bytes());
                put(&mut body, 3, &hello.token);
                put_u64(&mut body, 4, hello.pid.into());
                put_u64(&mut body, 5, hello.starttime);
                put(&mut body, 6, &encode_status(&hello.status));
            }
            Self::Status(status) => {
                body.push(STATUS);
                put(&mut body, 6, &encode_status(status));
            }
            Self::Executed(exit) => {
                body.push(EXECUTED);
                put(&mut body, 7, &encode_exit(exit));
            }
        }
        frame(&body)
    }

    /// Reads the body of a frame; `None` for a kind that is not known.
    ///
    /// # Errors
    /// `Malformed` says what is wrong with the bytes.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let (kind, fields) = body.split_first().ok_or(Malformed("a frame is empty"))?;
        let mut exit = Exit::default();
        let mut hello = Hello {
            protocol: 0,
            instance: String::new(),
            token: [0; 16],
            pid: 0,
            starttime: 0,
            status: Status::default(),
        };
        for field in Fields::of(fields) {
            let (tag, field) = field?;
            match tag {
                1 => hello.protocol = tlv::number(field)?,
                2 => hello.instance = tlv::text(field)?,
                3 => {
                    hello.token =
                        field.try_into().map_err(|_ignored| Malformed("a token is not 16 bytes long"))?
                }
                4 => hello.pid = pid(field)?,
                5 => hello.starttime = tlv::number(field)?,
                6 => hello.status = decode_status(field)?,
                7 => exit = decode_exit(field)?,
                _ => {}
            }
        }
        Ok(match *kind {
            HELLO => Some(Self::Hello(hello)),
            STATUS => Some(Self::Status(hello.status)),
            EXECUTED => Some(Self::Executed(exit)),
            _ => None,
        })
    }
}

impl ToShim {
    /// The message as a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Stop { signal, kill_after } => {
                body.push(STOP);
                put_i32(&mut body, 1, *signal);
                put_u64(&mut body, 2, *kill_after);
            }
            Self::Kill => body.push(KILL),
            Self::Query => body.push(QUERY),
            Self::Leave => body.push(LEAVE),
            Self::Signal { signal } => {
                body.push(SIGNAL);
                put_i32(&mut body, 1, *signal);
            }
        }
        frame(&body)
    }

    /// Reads the body of a frame; `None` for a kind that is not known.
    ///
    /// # Errors
    /// `Malformed` says what is wrong with the bytes.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let (kind, fields) = body.split_first().ok_or(Malformed("a frame is empty"))?;
        let (mut signal, mut kill_after) = (15, 30_000);
        for field in Fields::of(fields) {
            match field? {
                (1, field) => signal = tlv::small(field)?,
                (2, field) => kill_after = tlv::number(field)?,
                _ => {}
            }
        }
        Ok(match *kind {
            STOP => Some(Self::Stop { signal, kill_after }),
            KILL => Some(Self::Kill),
            QUERY => Some(Self::Query),
            LEAVE => Some(Self::Leave),
            SIGNAL => Some(Self::Signal { signal }),
            _ => None,
        })
    }
}

/// Takes the body of the first frame off `buffer`, `None` while it is incomplete.
///
/// # Errors
/// `Malformed` when the frame is longer than any of ours.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Malformed> {
    let Some((length, _)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(Malformed("a frame is too long"));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let body = buffer[4..4 + length].to_vec();
    buffer.drain(..4 + length);
    Ok(Some(body))
}

pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("no frame is near 4 GiB");
    [&length.to_le_bytes()[..], body].concat()
}

fn pid(bytes: &[u8]) -> Result<u32, Malformed> {
    u32::try_from(tlv::number(bytes)?).map_err(|_ignored| Malformed("a pid is too great"))
}

fn encode_status(status: &Status) -> Vec<u8> {
    let mut out = Vec::new();
    match status.state {
        State::Starting => put(&mut out, 1, &[0]),
        State::Running { pid, since } => {
            put(&mut out, 1, &[1]);
            put_u64(&mut out, 2, pid.into());
            put_u64(&mut out, 3, since);
        }
        State::BackingOff { until } => {
            put(&mut out, 1, &[2]);
            put_u64(&mut out, 3, until);
        }
        State::Stopping => put(&mut out, 1, &[3]),
        State::Ended => put(&mut out, 1, &[4]),
    }
    put_u64(&mut out, 4, status.restarts);
    put_u64(&mut out, 5, status.exit_count);
    put_u64(&mut out, 6, status.dropped);
    for exit in &status.exits {
        put(&mut out, 7, &encode_exit(exit));
    }
    if let Some(checked) = &status.checked {
        put(&mut out, 8, &checked.encode());
    }
    put_u64(&mut out, 9, status.oom_kills);
    out
}

fn decode_status(bytes: &[u8]) -> Result<Status, Malformed> {
    let mut status = Status::default();
    let (mut kind, mut app, mut time) = (0, 0, 0);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => kind = *field.first().ok_or(Malformed("a state is empty"))?,
            (2, field) => app = pid(field)?,
            (3, field) => time = tlv::number(field)?,
            (4, field) => status.restarts = tlv::number(field)?,
            (5, field) => status.exit_count = tlv::number(field)?,
            (6, field) => status.dropped = tlv::number(field)?,
            (7, field) => status.exits.push(decode_exit(field)?),
            (8, field) => status.checked = Some(Checked::decode(field)?),
            (9, field) => status.oom_kills = tlv::number(field)?,
            _ => {}
        }
    }
    status.state = match kind {
        0 => State::Starting,
        1 => State::Running { pid: app, since: time },
        2 => State::BackingOff { until: time },
        3 => State::Stopping,
        4 => State::Ended,
        _ => return Err(Malformed("a state is not known")),
    };
    Ok(status)
}

fn encode_exit(exit: &Exit) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, 1, exit.at);
    put_u64(&mut out, 2, exit.pid.into());
    if let Some(code) = exit.code {
        put_i32(&mut out, 3, code);
    }
    if let Some(signal) = exit.signal {
        put_i32(&mut out, 4, signal);
    }
    let oom = exit.oom.map_or(0, |oom| 1 + u8::from(oom));
    let unhealthy = u8::from(exit.unhealthy);
    put(&mut out, 5, &[u8::from(exit.core), u8::from(exit.stopped), oom, unhealthy]);
    put_u64(&mut out, 6, exit.uptime);
    put_u64(&mut out, 7, exit.max_rss);
    if let Some(failure) = exit.failure {
        put(&mut out, 8, &[failure.step.number()]);
        put_i32(&mut out, 9, failure.errno);
    }
    out
}

fn decode_exit(bytes: &[u8]) -> Result<Exit, Malformed> {
    let mut exit = Exit::default();
    let (mut step, mut errno) = (None, 0);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => exit.at = tlv::number(field)?,
            (2, field) => exit.pid = pid(field)?,
            (3, field) => exit.code = Some(tlv::small(field)?),
            (4, field) => exit.signal = Some(tlv::small(field)?),
            (5, field) => {
                (exit.core, exit.stopped) = (field.first() == Some(&1), field.get(1) == Some(&1));
                exit.unhealthy = field.get(3) == Some(&1);
                exit.oom = field.get(2).and_then(|oom| oom.checked_sub(1)).map(|oom| oom == 1);
            }
            (6, field) => exit.uptime = tlv::number(field)?,
            (7, field) => exit.max_rss = tlv::number(field)?,
            (8, field) => step = field.first().copied().map(Step::from_number),
            (9, field) => errno = tlv::small(field)?,
            _ => {}
        }
    }
    exit.failure = step.map(|step| Failure { step, errno });
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exits() -> impl Strategy<Value = Exit> {
        let parts = (
            any::<(u64, u32, Option<i32>, Option<i32>, bool)>(),
            any::<(u64, u64, bool)>(),
            any::<Option<(u8, i32)>>(),
        );
        parts.prop_map(|((at, pid, code, signal, core), (uptime, max_rss, stopped), failure)| {
            let failure = failure.map(|(step, errno)| Failure { step: Step::from_number(step), errno });
            let oom = Some(stopped).filter(|_| core);
            Exit { at, pid, code, signal, core, uptime, max_rss, failure, stopped, oom, unhealthy: core }
        })
    }

    fn statuses() -> impl Strategy<Value = Status> {
        let states = prop_oneof![
            Just(State::Starting),
            any::<(u32, u64)>().prop_map(|(pid, since)| State::Running { pid, since }),
            any::<u64>().prop_map(|until| State::BackingOff { until }),
            Just(State::Stopping),
            Just(State::Ended),
        ];
        (states, any::<(u64, u64, u64)>(), prop::collection::vec(exits(), 0..EXITS_KEPT)).prop_map(
            |(state, (restarts, exit_count, dropped), exits)| Status {
                state,
                restarts,
                exit_count,
                exits,
                dropped,
                oom_kills: dropped / 2,
                checked: (dropped > 9).then(Checked::default),
            },
        )
    }

    proptest! {
        #[test]
        fn messages_come_back(status in statuses(), instance: String, token: [u8; 16], pid: u32, starttime: u64) {
            let hello = Hello { protocol: PROTOCOL, instance, token, pid, starttime, status: status.clone() };
            let executed = FromShim::Executed(Exit { at: starttime, ..Exit::default() });
            for message in [FromShim::Hello(hello), FromShim::Status(status), executed] {
                let mut buffer = message.encode();
                buffer.push(9);
                let body = take_frame(&mut buffer).unwrap().unwrap();
                prop_assert_eq!(&buffer, &[9]);
                prop_assert_eq!(FromShim::decode(&body).unwrap().unwrap(), message);
            }
        }

        #[test]
        fn commands_come_back(signal: i32, kill_after: u64) {
            for message in [ToShim::Stop { signal, kill_after }, ToShim::Kill, ToShim::Query, ToShim::Leave] {
                let body = take_frame(&mut message.encode()).unwrap().unwrap();
                prop_assert_eq!(ToShim::decode(&body).unwrap().unwrap(), message);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let known = FromShim::decode(&bytes).is_ok() || ToShim::decode(&bytes).is_ok();
            prop_assert!(!known || !bytes.is_empty());
            drop(take_frame(&mut bytes));
        }
    }

    #[test]
    fn what_a_newer_side_says_is_passed_over() {
        assert_eq!(ToShim::decode(&[200]).unwrap(), None);
        let mut body = vec![STOP];
        put_i32(&mut body, 1, 2);
        put(&mut body, 77, b"news");
        assert_eq!(ToShim::decode(&body).unwrap(), Some(ToShim::Stop { signal: 2, kill_after: 30_000 }));
        assert!(take_frame(&mut vec![255; 10]).is_err());
    }
}
