//! Becoming another program: the process stays, and with it whatever watches it; the rest is what happens after a supervisor was killed.
//!
//! Control ends with the leash, edge goes on serving until the new supervisor has its listeners and a new edge serves, and the new control
//! adopts the instances. The listeners stay open all the while ([`super::kept`]). A program that does not bring the platform up becomes the one before it again, whose path is in the environment until
//! then. One that does not even come so far is what the guard is for: the old program, which waits beside it and takes its place when it is gone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use berth_process::{Child, Group, Launch, Program, Stdio};
use rustix::event::{PollFd, PollFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::detach;
use super::kept::{self, Kept};
use super::launch::Site;
use super::{service_manager, stand_in};
use crate::args::{GuardArgs, UpArgs};
use crate::report;

/// The program to become again when this one does not bring the platform up.
const FALLBACK: &str = "BERTH_FALLBACK";
/// The process of the guard.
const GUARD: &str = "BERTH_GUARD";
/// What staged programs are called in `bin/`; the rest is the beginning of their hash.
const STAGED: &str = "berth-";
/// The program that ran before the newest upgrade.
const PREVIOUS: &str = "previous";

/// What becomes of an upgrade that does not come up.
#[derive(Debug)]
pub(super) struct Fallback {
    program: PathBuf,
    guard: Option<Pid>,
    /// The listeners, which it left open and takes back.
    kept: Option<Kept>,
}

/// Where a supervisor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Somebody waits for its end.
    Foreground,
    Background,
    /// In the background, until somebody starts the platform ([`super::stand_in`]).
    StandIn,
}

/// A program that was staged to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Successor {
    /// Its name in `bin/`.
    pub(crate) program: String,
    /// Whether it takes listeners over that are left open for it. One that does not would find its address taken, by itself.
    pub(crate) listeners: bool,
}

impl Fallback {
    /// That of the upgrade that this program was begun by, if it was, with the listeners that were left open.
    pub(super) fn from_environment(kept: Option<&Kept>) -> Option<Self> {
        let guard = std::env::var(GUARD).ok().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        let kept = kept.and_then(|kept| kept.try_clone().ok());
        std::env::var_os(FALLBACK).map(|program| Self { program: program.into(), guard, kept })
    }

    /// The platform is up: nothing is waited for any more. The guard is our child, so that its number is nobody else's.
    pub(super) fn let_go(&self) {
        if let Some(guard) = self.guard
            && let Err(error) = rustix::process::kill_process(guard, Signal::TERM)
        {
            tracing::warn!(%error, "the guard of the upgrade is gone already");
        }
    }

    /// Becomes the program that ran before, in the environment that it ran in. Returns when that fails alone.
    pub(super) fn become_it(&self, args: &UpArgs, home: &Path, place: Place) -> io::Error {
        // The guard has it; ours may be what the program did not come up in.
        let environment = match self.guard.map(environment_of) {
            // Of one that is dead it is empty.
            Some(Ok(environment)) if !environment.is_empty() => environment,
            Some(_) | None => std::env::vars_os().collect(),
        };
        self.let_go();
        let kept = match self.kept.as_ref().map(Kept::leave_open).transpose() {
            Ok(kept) => kept,
            Err(error) => return error,
        };
        let environment = without_ours(environment.into_iter()).chain(kept.into_iter().flatten()).collect();
        become_program(&self.program, args, home, place, environment)
    }
}

/// Becomes the program that was staged. Returns when that fails alone: everything is as it was then.
pub(super) fn begin(args: &UpArgs, site: &Site, successor: &Successor, place: Place) -> io::Error {
    let Successor { program: name, listeners } = successor;
    let bin = site.home.path.join("bin");
    let known =
        name.strip_prefix(STAGED).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !known {
        return io::Error::new(io::ErrorKind::InvalidInput, "that is the name of no staged program");
    }
    let previous = bin.join(PREVIOUS);
    let began = crate::exe::keep_as(&previous).and_then(|()| {
        let kept = listeners.then(|| Kept::of(&site.sockets)).transpose()?;
        Ok((guard(args, &site.home.path, kept.as_ref())?, kept))
    });
    let (guard, kept) = match began {
        Ok(began) => began,
        Err(error) => return error,
    };
    tracing::info!(program = name, guard = guard.pid(), "becoming another program");
    // After the guard, which has its own. What is left open is closed by the end of this function, when the program is not executed.
    let variables = match kept.as_ref().map(Kept::leave_open).transpose() {
        Ok(variables) => variables,
        Err(error) => return without(&guard, error),
    };
    let more = [(FALLBACK, previous.into_os_string()), (GUARD, guard.pid().to_string().into())];
    let more = more.map(|(name, value)| (OsString::from(name), value));
    let environment =
        without_ours(std::env::vars_os()).chain(more).chain(variables.into_iter().flatten()).collect();
    without(&guard, become_program(&bin.join(name), args, &site.home.path, place, environment))
}

/// Ends the guard of an upgrade that came to nothing by `error`.
fn without(guard: &Child, error: io::Error) -> io::Error {
    if let Err(error) = guard.signal(Signal::KILL) {
        tracing::warn!(%error, "the guard of the upgrade is gone already");
    }
    error
}

/// Starts the guard.
fn guard(args: &UpArgs, home: &Path, kept: Option<&Kept>) -> io::Result<Child> {
    let mut launch = Launch::new(Program::Own)
        .arg0("berth")
        .args(["__guard", "--supervisor", &std::process::id().to_string(), "--home"])
        .arg(home)
        .args(detach::options(args));
    launch = launch.envs(without_ours(std::env::vars_os())).dir("/").group(Group::Session);
    if let Some(kept) = kept {
        launch = kept.hand(launch)?;
    }
    launch.stdout(Stdio::Inherited).stderr(Stdio::Inherited).start().map_err(io::Error::other)
}

/// Waits for the end of the supervisor, whose child this process is, and takes its place. Whoever brought the platform up ends this first.
pub(crate) fn stand_guard(args: &GuardArgs) -> io::Error {
    let (args, pid) = (&args.up, Pid::from_raw(args.supervisor));
    let supervisor = match pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(supervisor)) => supervisor,
        // The second is what Linux 6.1 says where a session's leader has ended and others of the session have not.
        Some(Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL)) | None => return take_over(args),
        Some(Err(error)) => return error.into(),
    };
    // Compared after opening: one that ended before has left us another parent, and its number perhaps to somebody else.
    if rustix::process::getppid() != pid {
        return take_over(args);
    }
    loop {
        match rustix::event::poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None) {
            Ok(_) => return take_over(args),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return error.into(),
        }
    }
}

fn take_over(args: &UpArgs) -> io::Error {
    // The very file that runs, whatever lies at its path by now.
    match &args.home {
        Some(home) => {
            // A service manager hears of the one that it starts, and of no other.
            let environment = std::env::vars_os().filter(|(name, _)| name != service_manager::SOCKET);
            become_program(Path::new("/proc/self/exe"), args, home, Place::StandIn, environment.collect())
        }
        None => io::ErrorKind::InvalidInput.into(),
    }
}

/// The variables of an environment but those by which an upgrade is told of, which are of one upgrade alone.
fn without_ours(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables
        .filter(|(name, _)| name != FALLBACK && name != GUARD && kept::VARIABLES.iter().all(|it| name != *it))
}

/// The environment that a child of ours was started with.
fn environment_of(child: Pid) -> io::Result<Vec<(OsString, OsString)>> {
    let text = fs::read(format!("/proc/{}/environ", child.as_raw_pid()))?;
    let pairs = text.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        let (name, value) = entry.split_at(at);
        Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value.get(1..)?).to_owned()))
    });
    Ok(pairs.collect())
}

/// The platform is up: staged programs that do not run are removed.
pub(super) fn sweep(home: &Path) {
    let own = fs::read_link("/proc/self/exe").unwrap_or_default();
    let entries = fs::read_dir(home.join("bin")).into_iter().flatten().flatten();
    let staged = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGED));
    for path in staged.map(|entry| entry.path()).filter(|path| *path != own) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(error = report::chain(&error), "a staged program stays");
        }
    }
}

fn become_program(
    path: &Path,
    args: &UpArgs,
    home: &Path,
    place: Place,
    environment: Vec<(OsString, OsString)>,
) -> io::Error {
    let mut words: Vec<OsString> = Vec::new();
    if place == Place::Foreground {
        words.extend(["--home".into(), home.into(), "up".into()]);
    } else {
        // Whoever waited for the platform to be up has been told long ago.
        let nobody = match OpenOptions::new().write(true).open("/dev/null") {
            Ok(nobody) => nobody,
            Err(error) => return error,
        };
        if let Err(error) = rustix::io::fcntl_setfd(&nobody, FdFlags::empty()) {
            return error.into();
        }
        let starter = nobody.into_raw_fd().to_string();
        words.extend([
            "__supervisor".into(),
            "--home".into(),
            home.into(),
            "--starter".into(),
            starter.into(),
        ]);
        words.extend((place == Place::StandIn).then(|| stand_in::OPTION.into()));
    }
    words.extend(detach::options(args));
    berth_process::become_program(path, "berth", words, environment)
}
