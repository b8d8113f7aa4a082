//! What a shim is told at its start, through a memory file.
//!
//! Not through its arguments or environment: those are on show in `/proc`, and an app's environment holds secrets.

use std::net::Ipv4Addr;

use crate::check::Check;
use crate::sandbox::Sandbox;
use crate::tlv::{self, Fields, Malformed, put, put_i32, put_u64};
use crate::way_out::WayOut;

const MAGIC: &[u8; 8] = b"BERTHSH\x01";

/// What becomes of an app that exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It is started again: the first time at once, then after a wait that doubles.
    Always,
    /// That was it: a one-off command.
    Never,
}

/// How long the waits between restarts are, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the second restart; the first has none.
    pub first: u64,
    /// The longest wait.
    pub most: u64,
    /// A life as long as this makes the next exit count as the first.
    pub good_life: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: 1_000, most: 60_000, good_life: 60_000 }
    }
}

/// How much log is kept and taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments kept.
    pub segments: u64,
    /// Bytes per second taken in the long run; lines beyond are dropped and counted.
    pub rate: u64,
    /// Bytes taken at once after a quiet time.
    pub burst: u64,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, segments: 4, rate: 2 << 20, burst: 8 << 20 }
    }
}

/// As whom the app runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppUser {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// Where an app reads and writes, when that is not the log: descriptors it was handed. The shim opens none by their numbers and lets go of
/// them once the app has started, so that whoever holds the other ends sees when the app is done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// Its standard input.
    pub input: i32,
    /// Its output.
    pub output: i32,
    /// Its errors.
    pub errors: i32,
    /// Whether all three are a terminal, which becomes the one that controls the app.
    pub terminal: bool,
}

/// In which network an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The machine's.
    #[default]
    Host,
    /// One of its own, where nothing but its own processes is.
    Own,
}

/// The way from an instance to other apps, which are at addresses of a network beside its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Internal {
    /// The network of these addresses.
    pub network: Ipv4Addr,
    /// How many bits of it all of them have.
    pub bits: u8,
    /// The address that the instance has towards it. It is not of that network.
    pub own: Ipv4Addr,
    /// What leads there. It is not of that network.
    pub gateway: Ipv4Addr,
    /// The ports of these addresses at which somebody may be from the beginning.
    pub ports: Vec<u16>,
}

/// Everything that a shim needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartConfig {
    /// The instance's id, in full.
    pub instance: String,
    /// The mark of the instance's tree, which the shim repeats to whoever connects.
    pub token: [u8; 16],
    /// The app's command: a program and its arguments, looked up in the `PATH` of `env` unless it holds a slash.
    pub argv: Vec<String>,
    /// The app's environment, all of it, as `NAME=value`.
    pub env: Vec<String>,
    /// The app's working directory.
    pub dir: String,
    /// The app's user; `None` for the shim's own.
    pub user: Option<AppUser>,
    /// Limits as numbers of setrlimit(2) and values, both soft and hard.
    pub limits: Vec<(u32, u64)>,
    /// What becomes of an app that exited.
    pub restart: Restart,
    /// The waits between restarts.
    pub backoff: Backoff,
    /// The folder of the log segments.
    pub log_dir: String,
    /// How much log is kept and taken.
    pub log: LogPolicy,
    /// The file to which the app writes `0` to enter its control group.
    pub cgroup: Option<String>,
    /// The signal that asks the app to stop when the shim itself is told to by SIGTERM.
    pub stop_signal: i32,
    /// Milliseconds after which it is killed, in that case.
    pub kill_after: u64,
    /// The descriptor of the listening socket.
    pub listener: i32,
    /// Where the app reads and writes; `None` for nothing and the log.
    pub streams: Option<Streams>,
    /// What stands around the app; `None` for nothing but its user and its limits.
    pub sandbox: Option<Sandbox>,
    /// The descriptor of the socket at which edge asks for sockets of the instance's network; only where that is its own.
    pub dial: Option<i32>,
    /// In which network it is.
    pub network: Network,
    /// The descriptor of the network that was made for it; it makes one itself when there is none.
    pub namespace: Option<i32>,
    /// Whether it is in its network from the beginning, as in a container.
    pub is_in_network: bool,
    /// The way to other apps; `None` for none. Only in a network of its own.
    pub internal: Option<Internal>,
    /// The descriptors of sockets in the network beside its own, where that was made for it; it makes one itself when there are none.
    pub beside: Vec<i32>,
    /// The way out that the shim itself makes; `None` for none. Only in a network of its own that nobody else made.
    pub way_out: Option<WayOut>,
    /// The command that says whether the app is well; `None` where nobody asks it.
    pub check: Option<Check>,
}

impl StartConfig {
    /// The configuration as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, 1, self.instance.as_bytes());
        put(&mut out, 2, &self.token);
        self.argv.iter().for_each(|arg| put(&mut out, 3, arg.as_bytes()));
        self.env.iter().for_each(|entry| put(&mut out, 4, entry.as_bytes()));
        put(&mut out, 5, self.dir.as_bytes());
        if let Some(user) = &self.user {
            let numbers = [user.uid, user.gid].into_iter().chain(user.groups.iter().copied());
            put(&mut out, 6, &numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        }
        for (resource, value) in &self.limits {
            put(&mut out, 7, &[&resource.to_le_bytes()[..], &value.to_le_bytes()[..]].concat());
        }
        put(&mut out, 8, &[u8::from(self.restart == Restart::Always)]);
        put_u64(&mut out, 9, self.backoff.first);
        put_u64(&mut out, 10, self.backoff.most);
        put_u64(&mut out, 11, self.backoff.good_life);
        put(&mut out, 12, self.log_dir.as_bytes());
        put_u64(&mut out, 13, self.log.segment_bytes);
        put_u64(&mut out, 14, self.log.segments);
        put_u64(&mut out, 15, self.log.rate);
        put_u64(&mut out, 16, self.log.burst);
        if let Some(cgroup) = &self.cgroup {
            put(&mut out, 17, cgroup.as_bytes());
        }
        put_i32(&mut out, 18, self.stop_signal);
        put_u64(&mut out, 19, self.kill_after);
        put_i32(&mut out, 20, self.listener);
        if let Some(streams) = self.streams {
            let numbers = [streams.input, streams.output, streams.errors, i32::from(streams.terminal)];
            put(&mut out, 21, &numbers.map(i32::to_le_bytes).concat());
        }
        if let Some(dial) = self.dial {
            put_i32(&mut out, 22, dial);
        }
        if self.network == Network::Own {
            put(&mut out, 23, &[]);
        }
        if let Some(namespace) = self.namespace {
            put_i32(&mut out, 24, namespace);
        }
        if self.is_in_network {
            put(&mut out, 25, &[]);
        }
        if let Some(internal) = &self.internal {
            put(&mut out, 26, &encode_internal(internal));
        }
        if let Some(way_out) = &self.way_out {
            put(&mut out, 27, &way_out.encode());
        }
        self.beside.iter().for_each(|socket| put_i32(&mut out, 28, *socket));
        if let Some(check) = &self.check {
            put(&mut out, 29, &check.encode());
        }
        if let Some(sandbox) = &self.sandbox {
            put(&mut out, 30, &sandbox.encode());
        }
        out
    }

    /// Reads a configuration. A field that is not known is an error: an instance must not run with less than it
    /// was meant to have, a limit say.
    ///
    /// # Errors
    /// `Malformed` says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let fields =
            bytes.strip_prefix(MAGIC).ok_or(Malformed("not a start configuration of this version"))?;
        let mut config = Self::blank();
        for field in Fields::of(fields) {
            let (tag, field) = field?;
            match tag {
                1 => config.instance = tlv::text(field)?,
                2 => {
                    config.token =
                        field.try_into().map_err(|_ignored| Malformed("a token is not 16 bytes long"))?
                }
                3 => config.argv.push(tlv::text(field)?),
                4 => config.env.push(tlv::text(field)?),
                5 => config.dir = tlv::text(field)?,
                6 => config.user = Some(decode_user(field)?),
                7 => config.limits.push(decode_limit(field)?),
                8 => config.restart = if field == [1] { Restart::Always } else { Restart::Never },
                9 => config.backoff.first = tlv::number(field)?,
                10 => config.backoff.most = tlv::number(field)?,
                11 => config.backoff.good_life = tlv::number(field)?,
                12 => config.log_dir = tlv::text(field)?,
                13 => config.log.segment_bytes = tlv::number(field)?,
                14 => config.log.segments = tlv::number(field)?,
                15 => config.log.rate = tlv::number(field)?,
                16 => config.log.burst = tlv::number(field)?,
                17 => config.cgroup = Some(tlv::text(field)?),
                18 => config.stop_signal = tlv::small(field)?,
                19 => config.kill_after = tlv::number(field)?,
                20 => config.listener = tlv::small(field)?,
                21 => config.streams = Some(decode_streams(field)?),
                22 => config.dial = Some(tlv::small(field)?),
                23 => config.network = Network::Own,
                24 => config.namespace = Some(tlv::small(field)?),
                25 => config.is_in_network = true,
                26 => config.internal = Some(decode_internal(field)?),
                27 => config.way_out = Some(WayOut::decode(field)?),
                28 => config.beside.push(tlv::small(field)?),
                29 => config.check = Some(Check::decode(field)?),
                30 => config.sandbox = Some(Sandbox::decode(field)?),
                _ => return Err(Malformed("a field is not known")),
            }
        }
        config.check()
    }

    /// A configuration that says nothing yet: as little as there can be of each.
    #[must_use]
    pub fn blank() -> Self {
        Self {
            instance: String::new(),
            token: [0; 16],
            argv: Vec::new(),
            env: Vec::new(),
            dir: String::new(),
            user: None,
            limits: Vec::new(),
            restart: Restart::Never,
            backoff: Backoff::default(),
            log_dir: String::new(),
            log: LogPolicy::default(),
            cgroup: None,
            stop_signal: 15,
            kill_after: 30_000,
            listener: -1,
            streams: None,
            sandbox: None,
            dial: None,
            network: Network::Host,
            namespace: None,
            is_in_network: false,
            internal: None,
            beside: Vec::new(),
            way_out: None,
            check: None,
        }
    }

    fn check(self) -> Result<Self, Malformed> {
        let texts = self.argv.iter().chain(&self.env).chain([&self.dir, &self.log_dir]);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(Malformed("a text holds a NUL"));
        }
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Malformed("there is no command"));
        }
        if self.streams.is_some() && self.restart == Restart::Always {
            return Err(Malformed("what is attached to somebody cannot be started again"));
        }
        let is_about_its_own = self.dial.is_some() || self.namespace.is_some() || self.internal.is_some();
        if is_about_its_own && self.network == Network::Host {
            return Err(Malformed("sockets of the machine's network are nobody's to hand out"));
        }
        if self.internal.is_none() && !self.beside.is_empty() {
            return Err(Malformed("sockets beside its network are of no use without a way there"));
        }
        if self.way_out.is_some() && (self.network == Network::Host || self.namespace.is_some()) {
            return Err(Malformed("a way out is made of a network of the shim's own"));
        }
        if self.check.is_some() && self.streams.is_some() {
            return Err(Malformed("what is attached to somebody has no check"));
        }
        if self.log.segment_bytes == 0 || self.log.segments == 0 {
            return Err(Malformed("there is no room for a log"));
        }
        Ok(self)
    }
}

fn decode_user(bytes: &[u8]) -> Result<AppUser, Malformed> {
    let mut numbers = bytes.chunks(4).map(tlv::unsigned).collect::<Result<Vec<u32>, _>>()?.into_iter();
    let (Some(uid), Some(gid)) = (numbers.next(), numbers.next()) else {
        return Err(Malformed("a user lacks a number"));
    };
    Ok(AppUser { uid, gid, groups: numbers.collect() })
}

fn decode_streams(bytes: &[u8]) -> Result<Streams, Malformed> {
    let numbers = bytes.chunks(4).map(tlv::small).collect::<Result<Vec<i32>, _>>()?;
    let [input, output, errors, terminal] = numbers[..] else {
        return Err(Malformed("the streams are not four numbers"));
    };
    if [input, output, errors].iter().any(|number| *number < 3) {
        return Err(Malformed("a stream is none that was handed over"));
    }
    Ok(Streams { input, output, errors, terminal: terminal == 1 })
}

fn encode_internal(internal: &Internal) -> Vec<u8> {
    let addresses = [internal.network, internal.own, internal.gateway].map(|it| it.octets());
    let mut out = vec![internal.bits];
    out.extend(addresses.concat());
    out.extend(internal.ports.iter().flat_map(|port| port.to_le_bytes()));
    out
}

fn decode_internal(bytes: &[u8]) -> Result<Internal, Malformed> {
    let cut = Malformed("the way to other apps is cut short");
    let ([bits, addresses @ ..], ports) = bytes.split_first_chunk::<13>().ok_or(cut)?;
    let at = |first: usize| {
        let octets: Option<[u8; 4]> = addresses.get(first..first + 4)?.try_into().ok();
        octets.map(Ipv4Addr::from)
    };
    let (Some(network), Some(own), Some(gateway)) = (at(0), at(4), at(8)) else { return Err(cut) };
    let (ports, rest) = ports.as_chunks::<2>();
    if !rest.is_empty() || *bits > 32 {
        return Err(Malformed("the way to other apps makes no sense"));
    }
    let ports = ports.iter().map(|port| u16::from_le_bytes(*port)).collect();
    Ok(Internal { network, bits: *bits, own, gateway, ports })
}

fn decode_limit(bytes: &[u8]) -> Result<(u32, u64), Malformed> {
    let (resource, value) = bytes.split_at_checked(4).ok_or(Malformed("a limit is cut short"))?;
    Ok((tlv::unsigned(resource)?, tlv::number(value)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> StartConfig {
        StartConfig {
            instance: "default/default/shop/web.7".to_owned(),
            token: [7; 16],
            argv: vec!["bin/server".to_owned(), String::new(), "--x=ä".to_owned()],
            env: vec!["PORT=20000".to_owned()],
            dir: "/a b".to_owned(),
            user: Some(AppUser { uid: 1, gid: 2, groups: vec![3, 4] }),
            limits: vec![(7, 1024), (4, 0)],
            restart: Restart::Always,
            cgroup: Some("/sys/fs/cgroup/x/cgroup.procs".to_owned()),
            log_dir: "/logs".to_owned(),
            listener: 9,
            streams: None,
            check: Some(Check {
                command: vec!["check".to_owned()],
                interval: 3,
                timeout: 4,
                start_period: 5,
                start_interval: 1,
                retries: 2,
                stop_signal: 15,
                kill_after: 6,
            }),
            ..StartConfig::blank()
        }
    }

    #[test]
    fn it_comes_back_from_its_bytes() {
        assert_eq!(StartConfig::decode(&example().encode()).unwrap(), example());
        let small =
            StartConfig { user: None, cgroup: None, env: vec![], restart: Restart::Never, ..example() };
        assert_eq!(StartConfig::decode(&small.encode()).unwrap(), small);
        let streams = Some(Streams { input: 5, output: 6, errors: 7, terminal: true });
        let attached = StartConfig { streams, sandbox: Some(Sandbox::default()), ..small.clone() };
        assert!(StartConfig::decode(&attached.encode()).is_err());
        let (attached, small) =
            (StartConfig { check: None, ..attached }, StartConfig { check: None, ..small });
        assert_eq!(StartConfig::decode(&attached.encode()).unwrap(), attached);
        let again = StartConfig { restart: Restart::Always, ..attached.clone() };
        assert!(StartConfig::decode(&again.encode()).is_err());
        let dialled =
            StartConfig { dial: Some(8), network: Network::Own, namespace: Some(9), ..small.clone() };
        assert_eq!(StartConfig::decode(&dialled.encode()).unwrap(), dialled);
        let internal = Internal {
            network: Ipv4Addr::new(198, 19, 0, 0),
            bits: 17,
            own: Ipv4Addr::new(198, 19, 128, 1),
            gateway: Ipv4Addr::new(198, 19, 128, 2),
            ports: vec![80, 5_432],
        };
        let named = StartConfig { dial: None, namespace: None, internal: Some(internal), ..dialled.clone() };
        assert_eq!(StartConfig::decode(&named.encode()).unwrap(), named);
        let made = StartConfig { beside: vec![101, 102], ..named.clone() };
        assert_eq!(StartConfig::decode(&made.encode()).unwrap(), made);
        assert!(StartConfig::decode(&StartConfig { internal: None, ..made }.encode()).is_err());
        assert!(StartConfig::decode(&StartConfig { network: Network::Host, ..named }.encode()).is_err());
        assert!(StartConfig::decode(&StartConfig { network: Network::Host, ..dialled }.encode()).is_err());
        let own = Some(Streams { input: 0, output: 6, errors: 7, terminal: false });
        assert!(StartConfig::decode(&StartConfig { streams: own, ..attached }.encode()).is_err());
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        let whole = example().encode();
        for end in 0..MAGIC.len() {
            assert!(StartConfig::decode(&whole[..end]).is_err());
        }
        let mut longer = whole.clone();
        put(&mut longer, 99, b"");
        assert!(StartConfig::decode(&longer).is_err());
        assert!(StartConfig::decode(&whole[..whole.len() - 1]).is_err());
        let nul = StartConfig { argv: vec!["a\0b".to_owned()], ..example() };
        assert!(StartConfig::decode(&nul.encode()).is_err());
        assert!(StartConfig::decode(&StartConfig { argv: vec![], ..example() }.encode()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(StartConfig::decode(&[&MAGIC[..], &bytes].concat()));
        }

        #[test]
        fn any_texts_come_back(argv in prop::collection::vec("[^\0]{1,20}", 1..5), env in prop::collection::vec("[^\0]*", 0..5)) {
            let config = StartConfig { argv, env, ..example() };
            prop_assert_eq!(StartConfig::decode(&config.encode()).unwrap(), config);
        }
    }
}
