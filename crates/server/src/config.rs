//! What the binary hands to control when it starts it: the home, the sockets, the keys, and the way back to the supervisor.
//!
//! The supervisor binds every socket and keeps it, so that control can die and return without a refused connection. The
//! binary turns inherited descriptors into these types; nothing in this crate opens a listener of its own.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use berth_build::EngineKind;
pub use berth_build::HANDED_ON as BUILDS_ENVIRONMENT;
use berth_clock::Clock;
use berth_spec::{Backend, Isolation};

/// Everything that control needs and does not make itself.
#[derive(Debug)]
pub struct ControlConfig {
    /// The data directory, absolute and without links in it. It exists and was checked: owner, mode, format.
    pub home: PathBuf,
    /// The short directory with the sockets; `i/` below it, one socket for each shim, exists.
    pub run_dir: PathBuf,
    /// 16 hex digits that name this platform on the machine.
    pub platform: String,
    /// The key that encrypts the data keys of secrets.
    pub key_encryption_key: KeyEncryptionKey,
    /// The API on TCP, bound to loopback.
    pub api_tcp: TcpListener,
    /// The API on `api.sock`. Callers are known by their peer credentials.
    pub api_unix: UnixListener,
    /// `edge.sock`, which edge connects to.
    pub edge_unix: UnixListener,
    /// Reads end of file when the supervisor is gone: control then exits at once and leaves the instances alone.
    pub leash: OwnedFd,
    /// Takes one byte once the journal is replayed and the API answers, and is then closed.
    pub ready: OwnedFd,
    /// Takes lines of [`SupervisorRequest`]. Control writes, the supervisor reads; it never answers, and ends its side once the platform is up
    /// and no program before this one takes over again.
    pub supervisor: UnixStream,
    /// Who owns the home: on `api.sock` this user and root are the platform's owner.
    pub owner_uid: u32,
    /// The block of user ids when the platform runs as root, else everything runs as [`Self::owner_uid`].
    pub uid_plan: Option<UidPlan>,
    /// A copy of this binary that every app's user may execute, for the `__static` role.
    pub exe: PathBuf,
    /// Where edge listens, for the addresses that are shown to people.
    pub edge_addr: SocketAddr,
    /// Where it serves HTTPS, if it does.
    pub https_addr: Option<SocketAddr>,
    /// Where the API listens, for the same.
    pub api_addr: SocketAddr,
    /// The level at which instances are isolated; `None` for the best that the machine has.
    pub isolation: Option<Isolation>,
    /// What instances run in.
    pub backend: Backend,
    /// What one push may bring.
    pub push_bounds: PushBounds,
    /// What builds may have.
    pub build_bounds: BuildBounds,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
}

/// What one push to an app's repository may bring. An operator may set it; docs/git.md says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushBounds {
    /// The most bytes of its pack.
    pub bytes: u64,
    /// How long its client may send nothing.
    pub silence: Duration,
}

impl Default for PushBounds {
    fn default() -> Self {
        Self { bytes: 1 << 30, silence: Duration::from_secs(60) }
    }
}

impl PushBounds {
    /// The variables of the platform's environment that set them: the bytes in MiB, the silence in seconds.
    pub const VARIABLES: [&str; 2] = ["BERTH_PUSH_MAX_MIB", "BERTH_PUSH_SILENCE_S"];

    /// As the variables say, by whoever looks them up.
    ///
    /// # Errors
    /// The name of a variable whose value is no whole number above nought.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, &'static str> {
        let number = |name: &'static str| match variable(name) {
            Some(text) => text.parse().ok().filter(|number| *number > 0).map(Some).ok_or(name),
            None => Ok(None),
        };
        let [bytes, silence] = Self::VARIABLES;
        let default = Self::default();
        Ok(Self {
            bytes: number(bytes)?.map_or(default.bytes, |mebibytes: u64| mebibytes.saturating_mul(1 << 20)),
            silence: number(silence)?.map_or(default.silence, Duration::from_secs),
        })
    }
}

/// What builds may have. An operator may set it; docs/environment.md says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BuildBounds {
    /// The most bytes of memory of one build; three quarters of the machine's unless it is said.
    pub memory: Option<u64>,
    /// In which network builds are that may have one; the best one that serves unless it is said.
    pub network: Option<BuildNetwork>,
    /// What builds Dockerfiles; the first engine that is there unless it is said.
    pub engine: Option<EngineKind>,
}

/// In which network builds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildNetwork {
    /// In one of their own, with a way out to everything but this machine.
    Own,
    /// In that of the machine.
    Machine,
}

impl BuildBounds {
    /// The variables of the platform's environment that set them: the memory in MiB, the network and the engine by name.
    pub const VARIABLES: [&str; 3] = ["BERTH_BUILD_MEMORY_MIB", "BERTH_BUILD_NETWORK", "BERTH_BUILD_ENGINE"];

    /// As the variables say, by whoever looks them up.
    ///
    /// # Errors
    /// The name of a variable that says something else, and what it may say.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, (&'static str, &'static str)> {
        let [memory, network, engine] = Self::VARIABLES;
        let memory = match variable(memory).map(|text| text.parse::<u64>()) {
            None => None,
            Some(Ok(mebibytes @ 1..)) => Some(mebibytes.saturating_mul(1 << 20)),
            Some(_) => return Err((memory, "a whole number above nought")),
        };
        let network = match variable(network).as_deref() {
            None => None,
            Some("own") => Some(BuildNetwork::Own),
            Some("machine") => Some(BuildNetwork::Machine),
            Some(_) => return Err((network, "`own` or `machine`")),
        };
        let engine = match variable(engine) {
            None => None,
            Some(name) => match EngineKind::named(&name) {
                Some(kind) => Some(kind),
                None => return Err((engine, "`docker`, `podman` or `buildah`")),
            },
        };
        Ok(Self { memory, network, engine })
    }
}

/// 32 bytes that never print.
#[derive(Clone)]
pub struct KeyEncryptionKey([u8; 32]);

impl KeyEncryptionKey {
    /// Takes the bytes as they lie in the key file.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one place that encrypts with them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey(..)")
    }
}

/// Who is who within the block of user ids that a platform which runs as root has claimed on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidPlan {
    base: u32,
}

impl UidPlan {
    /// How many user ids a block holds: those of the platform and its apps, and behind them those within images. Also the number of
    /// group ids: the same numbers serve as both.
    pub const BLOCK: u32 = Self::OWN + Self::IMAGE;
    const OWN: u32 = 65_536;
    /// How many users an image has.
    const IMAGE: u32 = 65_536;
    /// How many apps find a slot in one block.
    pub const SLOTS: u32 = (Self::OWN - Self::FIRST_SLOT) / 2;
    const FIRST_SLOT: u32 = 16;

    /// The plan of the block that starts at `base`.
    #[must_use]
    pub const fn new(base: u32) -> Self {
        Self { base }
    }

    /// The first id of the block.
    #[must_use]
    pub const fn base(self) -> u32 {
        self.base
    }

    /// The user and group that edge runs as.
    #[must_use]
    pub const fn edge(self) -> u32 {
        self.base
    }

    /// The group that may pass through the home: edge, apps and builds have it as a supplementary group.
    #[must_use]
    pub const fn platform_gid(self) -> u32 {
        self.base + 1
    }

    /// The user that owns sealed artifacts, so that no app owns what it runs.
    #[must_use]
    pub const fn sealed(self) -> u32 {
        self.base + 2
    }

    /// The group that git runs with on apps' repositories, as their build users. Builds do not have it: what lies behind it they reach
    /// neither by a path nor through a process of their own user.
    #[must_use]
    pub const fn git_gid(self) -> u32 {
        self.base + 3
    }

    /// The user and group that are the root of every image, the first of as many as an image has. Images share their unpacked layers, and so
    /// the users that own what is in them; what one instance sees of another is decided by its namespaces.
    #[must_use]
    pub const fn images(self) -> u32 {
        self.base + Self::OWN
    }

    /// The users of the volumes of the app in `slot`; `None` beyond [`Self::SLOTS`].
    #[must_use]
    pub fn of_volumes(self, slot: u32) -> Option<berth_volume::Numbers> {
        Some(berth_volume::Numbers { own: self.app(slot)?, images: self.images()..self.base + Self::BLOCK })
    }

    /// The user and group of the app in `slot`; `None` beyond [`Self::SLOTS`].
    #[must_use]
    pub const fn app(self, slot: u32) -> Option<u32> {
        if slot < Self::SLOTS { Some(self.base + Self::FIRST_SLOT + 2 * slot) } else { None }
    }

    /// The user and group of the builds of the app in `slot`; `None` beyond [`Self::SLOTS`].
    #[must_use]
    pub const fn builds(self, slot: u32) -> Option<u32> {
        if slot < Self::SLOTS { Some(self.base + Self::FIRST_SLOT + 2 * slot + 1) } else { None }
    }
}

/// The folders of control groups in which control puts instances and builds. The supervisor empties and removes them when the
/// platform goes down: control may have died on the way.
#[must_use]
pub fn cgroup_folders(platform: &str) -> [String; 2] {
    [format!("berth-{platform}"), format!("berth-builds-{platform}")]
}

/// What control may ask of the supervisor: one line each, ended by a newline.
///
/// Both are of one version, since the supervisor starts control from its own executable; the lines need no version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisorRequest {
    /// Kill edge and start it anew: it did not answer in time.
    RestartEdge,
    /// End the platform, as if the supervisor had got SIGTERM.
    Down,
    /// What control has to stop before it exits, so that the supervisor knows what to say and how long to wait.
    Stopping {
        /// How many apps have instances.
        apps: u32,
        /// The longest time that their shutdown rules allow, in milliseconds.
        within_ms: u64,
    },
    /// Become another program, which lies in `bin/` of the home.
    Upgrade {
        /// Its name there, `berth-` and twelve hexadecimal digits.
        program: String,
        /// Whether it takes listeners over that are left open for it.
        listeners: bool,
    },
}

impl SupervisorRequest {
    /// The longest line, the newline included: an end must not gather more without one.
    pub const LINE_MAX: usize = 64;
}

impl fmt::Display for SupervisorRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestartEdge => f.write_str("restart-edge"),
            Self::Down => f.write_str("down"),
            Self::Stopping { apps, within_ms } => write!(f, "stopping {apps} {within_ms}"),
            Self::Upgrade { program, listeners: false } => write!(f, "upgrade {program}"),
            Self::Upgrade { program, listeners: true } => write!(f, "upgrade {program} listeners"),
        }
    }
}

/// A line that is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no request to the supervisor")]
pub struct InvalidRequest(pub String);

impl FromStr for SupervisorRequest {
    type Err = InvalidRequest;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = line.split(' ').collect();
        let parsed = match words.as_slice() {
            ["restart-edge"] => Some(Self::RestartEdge),
            ["down"] => Some(Self::Down),
            ["upgrade", program] => Some(Self::Upgrade { program: (*program).to_owned(), listeners: false }),
            ["upgrade", program, "listeners"] => {
                Some(Self::Upgrade { program: (*program).to_owned(), listeners: true })
            }
            ["stopping", apps, within_ms] => apps
                .parse()
                .ok()
                .zip(within_ms.parse().ok())
                .map(|(apps, within_ms)| Self::Stopping { apps, within_ms }),
            _ => None,
        };
        parsed.ok_or_else(|| InvalidRequest(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        for request in [
            SupervisorRequest::RestartEdge,
            SupervisorRequest::Down,
            SupervisorRequest::Stopping { apps: u32::MAX, within_ms: u64::MAX },
            SupervisorRequest::Upgrade { program: "berth-0123456789ab".to_owned(), listeners: false },
            SupervisorRequest::Upgrade { program: "berth-0123456789ab".to_owned(), listeners: true },
        ] {
            let line = request.to_string();
            assert!(line.len() < SupervisorRequest::LINE_MAX);
            assert_eq!(line.parse(), Ok(request));
        }
        for line in ["", "stopping", "stopping 1", "stopping 1 x", "down now"] {
            assert_eq!(line.parse::<SupervisorRequest>(), Err(InvalidRequest(line.to_owned())));
        }
    }

    #[test]
    fn the_bounds_of_a_push_are_numbers_or_an_error() {
        let set = |bytes: Option<&str>, silence: Option<&str>| {
            let values = [bytes.map(str::to_owned), silence.map(str::to_owned)];
            PushBounds::read(|name| {
                PushBounds::VARIABLES.iter().zip(&values).find(|(known, _)| **known == name)?.1.clone()
            })
        };
        assert_eq!(set(None, None), Ok(PushBounds::default()));
        let small = PushBounds { bytes: 3 << 20, silence: Duration::from_secs(2) };
        assert_eq!(set(Some("3"), Some("2")), Ok(small));
        for bad in ["", "0", "-1", "1 GiB"] {
            assert_eq!(set(Some(bad), None), Err("BERTH_PUSH_MAX_MIB"));
            assert_eq!(set(None, Some(bad)), Err("BERTH_PUSH_SILENCE_S"));
        }
    }

    #[test]
    fn the_bounds_of_builds_are_read_or_an_error() {
        let set_all = |memory: Option<&str>, network: Option<&str>, engine: Option<&str>| {
            let values = [memory, network, engine].map(|value| value.map(str::to_owned));
            BuildBounds::read(|name| {
                BuildBounds::VARIABLES.iter().zip(&values).find(|(known, _)| **known == name)?.1.clone()
            })
        };
        let set = |memory, network| set_all(memory, network, None);
        assert_eq!(set(None, None), Ok(BuildBounds::default()));
        let said = BuildBounds {
            memory: Some(512 << 20),
            network: Some(BuildNetwork::Machine),
            ..BuildBounds::default()
        };
        assert_eq!(set(Some("512"), Some("machine")), Ok(said));
        assert_eq!(set(None, Some("own")).unwrap().network, Some(BuildNetwork::Own));
        assert_eq!(set(Some("0"), None), Err(("BERTH_BUILD_MEMORY_MIB", "a whole number above nought")));
        assert_eq!(set(None, Some("none")), Err(("BERTH_BUILD_NETWORK", "`own` or `machine`")));
        assert_eq!(set_all(None, None, Some("podman")).unwrap().engine, Some(EngineKind::Podman));
        assert_eq!(
            set_all(None, None, Some("kaniko")),
            Err(("BERTH_BUILD_ENGINE", "`docker`, `podman` or `buildah`"))
        );
    }

    #[test]
    fn no_two_users_share_an_id() {
        let plan = UidPlan::new(2_000_000_000);
        let mut ids = vec![plan.edge(), plan.platform_gid(), plan.sealed(), plan.git_gid()];
        ids.extend((0..UidPlan::SLOTS).flat_map(|slot| [plan.app(slot), plan.builds(slot)]).flatten());
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(ids.iter().all(|id| (plan.base()..plan.base() + UidPlan::BLOCK).contains(id)));
        assert_eq!((plan.app(UidPlan::SLOTS), plan.builds(u32::MAX)), (None, None));
    }

    #[test]
    fn the_key_does_not_print() {
        assert_eq!(format!("{:?}", KeyEncryptionKey::new([7; 32])), "KeyEncryptionKey(..)");
    }
}
