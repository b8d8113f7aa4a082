//! A child that was started.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::identity::Identity;
use crate::procfs;

/// A child process of ours. Dropping it neither ends nor reaps it: whoever drops one that still runs leaves that to
/// [`reap_orphans`], or to whoever inherits the child.
#[derive(Debug)]
pub struct Child {
    inside: std::process::Child,
    pidfd: OwnedFd,
    identity: Identity,
    status: Option<ExitStatus>,
    /// The pipe to its input, when that is piped.
    pub stdin: Option<ChildStdin>,
    /// The pipe from its output, when that is piped.
    pub stdout: Option<ChildStdout>,
    /// The pipe from its errors, when those are piped.
    pub stderr: Option<ChildStderr>,
}

impl Child {
    /// Takes over a child just started. Until it is reaped its pid is its own, so the pidfd is its.
    pub(crate) fn adopt(mut inside: std::process::Child) -> io::Result<Self> {
        let pidfd = rustix::process::pidfd_open(pid_of(inside.id())?, PidfdFlags::empty())?;
        let identity = Identity::of(inside.id())?.ok_or(rustix::io::Errno::SRCH)?;
        let (stdin, stdout, stderr) = (inside.stdin.take(), inside.stdout.take(), inside.stderr.take());
        Ok(Self { inside, pidfd, identity, status: None, stdin, stdout, stderr })
    }

    /// Its process id, its own until it has been reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inside.id()
    }

    /// The name that outlives it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The status with which it ended, `None` while it runs. Reaps it.
    ///
    /// # Errors
    /// When somebody else reaped it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.inside.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until it ends, and reaps it.
    ///
    /// # Errors
    /// When somebody else reaped it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.wait_for(Duration::from_secs(3_600))? {
                return Ok(status);
            }
        }
    }

    /// Waits until it ends, for at most `limit`; `None` when it still runs. A signal that we handle meanwhile
    /// starts the waiting anew.
    ///
    /// # Errors
    /// When somebody else reaped it.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            wait_readable(&[self.pidfd.as_fd()], limit)?;
        }
        self.try_wait()
    }

    /// Sends `signal` to it alone; nothing happens when it has ended.
    ///
    /// # Errors
    /// When we may not.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends `signal` to its whole process group; nothing happens when it has been reaped. The group must be its own.
    ///
    /// # Errors
    /// When we may not.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        match rustix::process::kill_process_group(pid_of(self.pid())?, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Child {
    /// The pidfd, readable once the child has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Reaps children of this process that ended and are not in `except`: those that came to a subreaper because their own
/// parents ended. Gives their number. The pids in `except` are those of [`Child`]ren that reap themselves.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn reap_orphans(except: &BTreeSet<u32>) -> io::Result<usize> {
    let own = std::process::id();
    let mut reaped = 0;
    for stat in procfs::all()? {
        if stat.parent == own && stat.is_dead() && !except.contains(&stat.pid) {
            let waited = rustix::process::waitpid(Some(pid_of(stat.pid)?), WaitOptions::NOHANG);
            reaped += usize::from(matches!(waited, Ok(Some(_))));
        }
    }
    Ok(reaped)
}

pub(crate) fn pid_of(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| rustix::io::Errno::INVAL.into())
}

/// A pidfd of the process that has `pid`; nothing when none has.
///
/// Of the number of a session or process group that still has members, but whose leader was reaped, Linux 6.1 says EINVAL; 6.18 says ESRCH, as of any
/// other number that no process has.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    match rustix::process::pidfd_open(pid_of(pid)?, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until one of `fds` can be read, for at most `limit`.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], limit: Duration) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    loop {
        match rustix::event::poll(&mut polled, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}
