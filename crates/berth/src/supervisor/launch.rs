//! Starting a role: which program, as whom, with which descriptors.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use berth_process::{Child, Launch, LaunchError, Limits, Program, Stdio, User};
use berth_server::config::{BUILDS_ENVIRONMENT, BuildBounds, PushBounds};
use berth_server::edge_link::EdgeClaims;
use berth_spec::{Backend, Isolation};
use rustix::pipe::PipeFlags;

use super::sockets::Sockets;
use crate::home::Home;
use crate::logs::RoleLog;
use crate::role::{H2C_VARIABLE, HTTP1_VARIABLE};

/// Which role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RoleKind {
    Control,
    Edge,
}

impl RoleKind {
    pub(crate) const ALL: [Self; 2] = [Self::Control, Self::Edge];

    /// The hidden verb that the binary is started with.
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Control => "__control",
            Self::Edge => "__edge",
        }
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Edge => "edge",
        })
    }
}

/// Of the supervisor's environment control gets this, [`BUILDS_ENVIRONMENT`] and the bounds of pushes alone: what builds need to find their tools, what the operator
/// loads into the platform (another allocator, another clock), and nothing that the operator's shell holds by chance.
const CONTROL_ENVIRONMENT: [&str; 23] = [
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "LD_PRELOAD",
    "FAKETIME_TIMESTAMP_FILE",
    "FAKETIME_NO_CACHE",
    "FAKETIME_DONT_FAKE_MONOTONIC",
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "BERTH_LOG",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "CARGO_NET_OFFLINE",
];
/// Edge parses the internet and gets as little as there is.
const EDGE_ENVIRONMENT: [&str; 6] =
    ["TZ", "BERTH_LOG", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE", HTTP1_VARIABLE, H2C_VARIABLE];

/// Each connection takes up to two descriptors of edge; control has a few for each instance.
const OPEN_FILES: u64 = 1 << 20;

/// Everything that a role is started from.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) run_dir: PathBuf,
    pub(crate) sockets: Sockets,
    pub(crate) exe: PathBuf,
    /// What instances run in.
    pub(crate) kind: Kind,
    pub(crate) control_log: RoleLog,
    pub(crate) edge_log: RoleLog,
    leash: Leash,
    claims: EdgeClaims,
}

/// What instances run in, as the operator says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The level at which they are isolated, if he does.
    pub(crate) isolation: Option<Isolation>,
    /// Who makes their surroundings.
    pub(crate) backend: Backend,
}

/// A pipe that nobody writes to. The roles have the reading end; when the supervisor dies, however, they read its end.
#[derive(Debug)]
struct Leash {
    held: OwnedFd,
    handed: OwnedFd,
}

/// A role that was just started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Becomes readable when the role is ready; at its end of file without a byte the role died.
    pub(crate) ready: OwnedFd,
    /// Control's requests.
    pub(crate) requests: Option<UnixStream>,
}

/// Why a role was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot prepare what the role is given")]
    Io(#[from] io::Error),
    #[error("cannot start the role")]
    Launch(#[from] LaunchError),
}

impl Site {
    pub(crate) fn new(
        home: Home,
        run_dir: PathBuf,
        sockets: Sockets,
        exe: PathBuf,
        kind: Kind,
    ) -> io::Result<Self> {
        let (handed, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let logs = home.logs();
        Ok(Self {
            kind,
            control_log: RoleLog::open(&logs, "control")?,
            edge_log: RoleLog::open(&logs, "edge")?,
            claims: EdgeClaims::below(&run_dir),
            home,
            run_dir,
            sockets,
            exe,
            leash: Leash { held, handed },
        })
    }

    pub(crate) fn log(&self, kind: RoleKind) -> &RoleLog {
        match kind {
            RoleKind::Control => &self.control_log,
            RoleKind::Edge => &self.edge_log,
        }
    }

    /// Starts the role.
    pub(crate) fn start(&self, kind: RoleKind) -> Result<Started, StartError> {
        debug_assert!(rustix::io::fcntl_getfd(&self.leash.held).is_ok());
        let (ready, ready_theirs) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(io::Error::from)?;
        let log = self.log(kind);
        let mut launch = Launch::new(Program::Own)
            .arg0("berth")
            .args([kind.verb(), "--platform", &self.home.platform.platform])
            .dir("/")
            .stdout(Stdio::Fd(log.writer()?.into()))
            .stderr(Stdio::Fd(log.writer()?.into()))
            .limits(Limits { open_files: Some(OPEN_FILES), ..Limits::default() });
        launch = pass(launch, "--ready", &ready_theirs)?;
        launch = pass(launch, "--leash", &self.leash.handed)?;
        let (launch, requests) = match kind {
            RoleKind::Control => self.control(launch).map(|(launch, requests)| (launch, Some(requests)))?,
            RoleKind::Edge => (self.edge(launch)?, None),
        };
        Ok(Started { child: launch.start()?, ready, requests })
    }

    fn control(&self, launch: Launch) -> io::Result<(Launch, UnixStream)> {
        let (requests, theirs) = UnixStream::pair()?;
        requests.set_nonblocking(true)?;
        let bounds = PushBounds::VARIABLES.into_iter().chain(BuildBounds::VARIABLES);
        let environment = CONTROL_ENVIRONMENT.into_iter().chain(BUILDS_ENVIRONMENT).chain(bounds);
        let launch = environment.fold(launch, Launch::env_from_ours);
        // Two controls at once would be two writers of one journal: the kernel sees to it that ours does not outlive us
        // even where it hangs and does not read its leash.
        let mut launch = launch.die_with_parent();
        launch = launch.arg("--home").arg(&self.home.path).arg("--run").arg(&self.run_dir);
        launch = launch.arg("--exe").arg(&self.exe);
        launch = pass(launch, "--api-tcp", &self.sockets.api_tcp)?;
        launch = pass(launch, "--api-unix", &self.sockets.api_unix)?;
        launch = pass(launch, "--edge-unix", &self.sockets.edge_unix)?;
        launch = pass(launch, "--supervisor", &theirs)?;
        launch = launch.arg("--edge-addr").arg(self.sockets.edge_addr.to_string());
        if let Some(address) = self.sockets.https_addr {
            launch = launch.arg("--https-addr").arg(address.to_string());
        }
        launch = launch.arg("--api-addr").arg(self.sockets.api_addr.to_string());
        if let Some(level) = self.kind.isolation {
            launch = launch.arg("--isolation").arg(level.name());
        }
        launch = launch.arg("--backend").arg(self.kind.backend.name());
        Ok((launch, requests))
    }

    fn edge(&self, launch: Launch) -> io::Result<Launch> {
        let mut launch = EDGE_ENVIRONMENT.into_iter().fold(launch, Launch::env_from_ours).no_new_privs();
        if let Some(plan) = self.home.uid_plan() {
            // Another user than root: the kernel drops every capability with the change.
            let user = User { uid: plan.edge(), gid: plan.edge(), groups: vec![plan.platform_gid()] };
            launch = launch.user(user);
        }
        for listener in &self.sockets.edge {
            launch = pass(launch, "--listener", listener)?;
        }
        for listener in &self.sockets.secure {
            launch = pass(launch, "--secure", listener)?;
        }
        if !self.home.platform.proxies.is_empty() {
            launch = launch.arg("--proxies").arg(self.home.platform.proxies.to_string());
        }
        launch = pass(launch, "--handover", &self.sockets.handover)?;
        // A directory that is open, not a path: edge may look at nothing else in the home.
        launch = pass(launch, "--routing", File::open(self.home.routing())?)?;
        // Before it is there: control must not overlook an edge that has not connected yet.
        launch = pass(launch, "--claim", self.claims.claim(std::process::id())?)?;
        let owner = rustix::process::geteuid().as_raw().to_string();
        launch = launch.args(["--owner", &owner]);
        // A path: control makes what is in there, for edge's user alone.
        let launch = launch.arg("--dial").arg(berth_runtime::dial_folder(&self.run_dir));
        Ok(launch.arg("--control").arg(self.run_dir.join("edge.sock")))
    }
}

fn pass(mut launch: Launch, name: &str, descriptor: impl AsFd) -> io::Result<Launch> {
    let number = launch.inherit(descriptor)?;
    Ok(launch.arg(name).arg(number.to_string()))
}
