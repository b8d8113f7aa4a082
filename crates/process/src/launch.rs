//! The start of a child, said completely.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Gid, Resource, Uid};

use crate::cgroup::Cgroup;
use crate::child::Child;
use crate::ground::User;
use crate::identity::Mark;
use crate::offline::Offline;
use crate::program::Program;
use crate::spawner::on_lasting_thread;
use crate::stage::{self, Stage, StageUser};

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program is not installed.
    #[error("{program} is not installed: no folder of PATH has it")]
    NotFound {
        /// The program's name.
        program: String,
    },
    /// The program of a tenant was told to run elsewhere than on its ground.
    #[error("{program} may only run where its ground says")]
    OffGround {
        /// The program's path.
        program: String,
    },
    /// The system refused.
    #[error("{program} could not be started")]
    System {
        /// What was to be started.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The session and process group of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// A session of its own, and so a process group of its own, with no terminal.
    Session,
    /// A process group of its own in our session.
    Own,
    /// Our process group: a Ctrl-C at the terminal reaches the child, too.
    Inherited,
    /// The program makes a session by itself, before anything else, and closes what it does not know. With nothing to do between fork and exec the
    /// child is started without a copy of our memory's tables (`posix_spawn(3)`), which takes the longer the larger we are. It goes with nothing
    /// that is done there: no user, no limits, no control group, nothing inherited.
    ByItself,
}

/// One of a child's first three descriptors.
#[derive(Debug, Default)]
pub enum Stdio {
    /// Nothing to read, and what is written is lost.
    #[default]
    Null,
    /// The same as ours.
    Inherited,
    /// A pipe to us.
    Piped,
    /// This file, socket or pipe.
    Fd(OwnedFd),
}

impl From<Stdio> for std::process::Stdio {
    fn from(stdio: Stdio) -> Self {
        match stdio {
            Stdio::Null => Self::null(),
            Stdio::Inherited => Self::inherit(),
            Stdio::Piped => Self::piped(),
            Stdio::Fd(fd) => Self::from(fd),
        }
    }
}

/// Limits of a child; `None` leaves what we have. See setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Processes of the child's user, all of them together.
    pub processes: Option<u64>,
    /// Bytes of a core file.
    pub core: Option<u64>,
    /// Bytes of a file that is written.
    pub file_size: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Seconds of processor time.
    pub cpu_seconds: Option<u64>,
}

impl Limits {
    /// The limits that are set, as numbers of setrlimit(2) and values.
    #[must_use]
    pub fn numbers(&self) -> Vec<(u32, u64)> {
        self.set().into_iter().map(|(resource, value)| (resource as u32, value)).collect()
    }

    /// The limits that are set, as the kernel's resources.
    fn set(&self) -> Vec<(Resource, u64)> {
        [
            (Resource::Nofile, self.open_files),
            (Resource::Nproc, self.processes),
            (Resource::Core, self.core),
            (Resource::Fsize, self.file_size),
            (Resource::As, self.address_space),
            (Resource::Cpu, self.cpu_seconds),
        ]
        .into_iter()
        .filter_map(|(resource, value)| Some((resource, value?)))
        .collect()
    }
}

/// A child to be started. What is not said here it does not get: no environment, no arguments, no descriptors.
#[derive(Debug)]
pub struct Launch {
    program: Program,
    arg0: Option<OsString>,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
    user: Option<User>,
    limits: Limits,
    group: Group,
    stdio: [Stdio; 3],
    inherit: Vec<OwnedFd>,
    cgroup: Option<Cgroup>,
    die_with_parent: bool,
    no_new_privs: bool,
    offline: bool,
    umask: Option<u32>,
}

impl Launch {
    /// A start of `program`, in a process group of its own, with nothing to read and its output lost.
    #[must_use]
    pub fn new(program: Program) -> Self {
        let args = program.args().iter().map(OsString::from).collect();
        Self {
            arg0: None,
            args,
            env: BTreeMap::new(),
            dir: None,
            user: None,
            limits: Limits::default(),
            group: Group::Own,
            stdio: [Stdio::Null, Stdio::Null, Stdio::Null],
            inherit: Vec::new(),
            cgroup: None,
            die_with_parent: false,
            no_new_privs: false,
            offline: false,
            umask: None,
            program,
        }
    }

    /// The name under which the program is shown; its path by default.
    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.arg0 = Some(name.as_ref().to_owned());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// One variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Variables of the environment.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        pairs.into_iter().fold(self, |launch, (name, value)| launch.env(name, value))
    }

    /// One variable handed on from our own environment, if it is set there.
    #[must_use]
    pub fn env_from_ours(self, name: &str) -> Self {
        match std::env::var_os(name) {
            Some(value) => self.env(name, value),
            None => self,
        }
    }

    /// The mark in the environment by which [`Tree`](crate::Tree) finds what the child starts.
    #[must_use]
    pub fn mark(self, mark: Mark) -> Self {
        self.env(Mark::VARIABLE, mark.to_string())
    }

    /// The working directory; of a program on a ground it must lie below that.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The user. A program on a ground has that ground's.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// The limits, each lowered to our own hard limit where that is less.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The session and process group.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    /// What the child reads as its input.
    #[must_use]
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.stdio[0] = stdio;
        self
    }

    /// Where the child's output goes.
    #[must_use]
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.stdio[1] = stdio;
        self
    }

    /// Where the child's errors go.
    #[must_use]
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.stdio[2] = stdio;
        self
    }

    /// Hands a duplicate of `fd` to the child and gives the number under which the child will have it, to be
    /// told to it by an argument.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn inherit(&mut self, fd: impl AsFd) -> io::Result<RawFd> {
        let duplicate = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        let number = duplicate.as_raw_fd();
        self.inherit.push(duplicate);
        Ok(number)
    }

    /// The control group in which the child starts.
    #[must_use]
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Has the kernel kill the child when this process ends, however it ends. Its own children live on.
    #[must_use]
    pub fn die_with_parent(mut self) -> Self {
        self.die_with_parent = true;
        self
    }

    /// Keeps the child and what it starts from gaining privileges by set-user-id programs. On a ground this is so anyway.
    #[must_use]
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Keeps the child and what it starts from every network: they get one of their own, with a loopback and no way out. As an ordinary user
    /// this takes a user namespace, which the system may forbid; then the start fails.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// The child's file mode creation mask.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Starts the child. It is running its program when this returns.
    ///
    /// # Errors
    /// [`LaunchError`] when the program is missing or the system refuses any of what was asked for; then nothing
    /// was started.
    pub fn start(mut self) -> Result<Child, LaunchError> {
        let name = self.program.describe();
        self.stand_on_ground()?;
        let path = self.program.path()?;
        let system = |source| LaunchError::System { program: name.clone(), source };
        if self.group == Group::ByItself && self.demands_a_stage() {
            return Err(system(io::ErrorKind::InvalidInput.into()));
        }
        let mut command = self.command(&path);
        if self.group != Group::ByItself {
            stage::enter(&mut command, self.stage().map_err(system)?);
        }
        let spawned =
            if self.die_with_parent { on_lasting_thread(move || command.spawn()) } else { command.spawn() };
        // The duplicates in `self` and a program in memory must stay open until the child has been started.
        let child = spawned.map_err(system)?;
        drop(self);
        Child::adopt(child).map_err(system)
    }

    /// Whether the child has to do something to itself before it becomes the program.
    fn demands_a_stage(&self) -> bool {
        self.user.is_some()
            || self.limits != Limits::default()
            || self.cgroup.is_some()
            || !self.inherit.is_empty()
            || self.die_with_parent
            || self.no_new_privs
            || self.offline
            || self.umask.is_some()
    }

    /// Applies what the program's ground demands.
    fn stand_on_ground(&mut self) -> Result<(), LaunchError> {
        let Some(ground) = self.program.ground() else {
            return Ok(());
        };
        let dir = self.dir.get_or_insert_with(|| ground.dir().to_owned());
        let climbs = dir.components().any(|component| component.as_os_str() == "..");
        if climbs || !dir.starts_with(ground.dir()) || self.user.is_some() {
            return Err(LaunchError::OffGround { program: self.program.describe() });
        }
        self.user = ground.user().cloned();
        self.no_new_privs = true;
        if self.group == Group::Inherited {
            self.group = Group::Own;
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door that the ban points to")]
    fn command(&mut self, path: &Path) -> Command {
        let mut command = Command::new(path);
        if let Some(name) = &self.arg0 {
            command.arg0(name);
        }
        command.args(&self.args).env_clear().envs(&self.env);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let [stdin, stdout, stderr] = std::mem::take(&mut self.stdio);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        command
    }

    fn stage(&self) -> io::Result<Stage> {
        let user = self.user.as_ref().map(|user| StageUser {
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            groups: user.groups.iter().map(|group| Gid::from_raw(*group)).collect(),
        });
        Ok(Stage {
            group: self.group,
            limits: self.limits.set(),
            user,
            doors: self.cgroup.as_ref().map(Cgroup::doors).transpose()?.unwrap_or_default(),
            inherit: self.inherit.iter().map(|fd| fd.as_raw_fd()).collect(),
            die_with_parent: self.die_with_parent,
            no_new_privs: self.no_new_privs,
            offline: self.offline.then(Offline::prepare).transpose()?,
            umask: self.umask.map(rustix::fs::Mode::from_raw_mode),
        })
    }
}
