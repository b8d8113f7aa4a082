//! Roles whose supervisor was killed: control ends by itself, edge goes on serving until we have taken its listeners over.
//!
//! They are found by their arguments, not by a file that says which process it was: such a file is written a moment after
//! the process was started, and a supervisor killed in that moment would leave an edge that nobody ever finds, with
//! connections dealt to it for ever.
//!
//! What control had just forked when it was killed has its arguments, too, until it becomes a shim or a build's program. It is ended as well, and has
//! to be: it still holds control's listeners and the journal. An instance that was not started by that is given a successor.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::UpError;
use super::launch::RoleKind;

/// How long the kernel may take to end a killed process.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A process that another supervisor started, a role of this platform as a rule.
#[derive(Debug)]
pub(crate) struct Orphan<K = RoleKind> {
    pub(crate) kind: K,
    pub(crate) pid: u32,
    pidfd: OwnedFd,
}

impl Orphan {
    /// Every orphan of `platform`. `users` are those that its roles run as: what another user's process claims to be in its
    /// arguments does not count.
    pub(crate) fn find_all(platform: &str, users: &[u32]) -> io::Result<Vec<Self>> {
        Self::find(users, &|words| {
            let [_, verb, b"--platform", of, ..] = words else { return None };
            let kind = RoleKind::ALL.into_iter().find(|kind| kind.verb().as_bytes() == *verb)?;
            (*of == platform.as_bytes()).then_some(kind)
        })
    }
}

impl<K: fmt::Display> Orphan<K> {
    /// Every process but ours of `users` whose arguments `kind_of` knows.
    pub(super) fn find(users: &[u32], kind_of: &dyn Fn(&[&[u8]]) -> Option<K>) -> io::Result<Vec<Self>> {
        let mut orphans = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
                && let Some(orphan) = Self::recognise(pid, users, kind_of)
            {
                orphans.push(orphan);
            }
        }
        Ok(orphans)
    }

    /// Opens the process first and reads then: while the pidfd lives in a process that runs, the pid is not another's.
    fn recognise(pid: u32, users: &[u32], kind_of: &dyn Fn(&[&[u8]]) -> Option<K>) -> Option<Self> {
        let look = || kind_of(&arguments(pid, users)?.split(|byte| *byte == 0).collect::<Vec<_>>());
        look()?;
        let pidfd =
            rustix::process::pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty())
                .ok()?;
        let orphan = Self { kind: look()?, pid, pidfd };
        if orphan.has_ended() { None } else { Some(orphan) }
    }

    /// Kills it and waits until it has ended.
    pub(super) fn kill(&self) -> Result<(), UpError> {
        self.signal(Signal::KILL);
        if self.wait(KILL_PATIENCE) {
            return Ok(());
        }
        Err(UpError::Immortal { pid: self.pid, what: self.kind.to_string() })
    }

    /// Asks it to end, or makes it.
    pub(crate) fn signal(&self, signal: Signal) {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(role = %self.kind, pid = self.pid, %error, "cannot signal an orphan")
            }
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits until it has ended, at most for `limit`; says whether it has.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&limit)), Ok(ready) if ready > 0)
    }
}

impl AsFd for Orphan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What a process of `users` other than this one was started with.
fn arguments(pid: u32, users: &[u32]) -> Option<Vec<u8>> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    if pid == std::process::id() || !users.contains(&fs::metadata(&directory).ok()?.uid()) {
        return None;
    }
    fs::read(directory.join("cmdline")).ok()
}
