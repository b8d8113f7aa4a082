//! What a child does between fork and exec.
//!
//! Only system calls happen here, through rustix (which makes them itself, without the C library): the child of a
//! process with many threads must not allocate or take a lock, since another thread may have held it when we
//! forked.
#![expect(
    unsafe_code,
    reason = "a hook between fork and exec cannot be given without; two calls have no safe form"
)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread as thread_calls;

use crate::launch::Group;
use crate::offline::Offline;

/// What the child does to itself, prepared before the fork.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) group: Group,
    pub(crate) limits: Vec<(Resource, u64)>,
    pub(crate) user: Option<StageUser>,
    /// Where `0` is written to enter the control group.
    pub(crate) doors: Vec<OwnedFd>,
    pub(crate) inherit: Vec<RawFd>,
    pub(crate) die_with_parent: bool,
    pub(crate) no_new_privs: bool,
    pub(crate) offline: Option<Offline>,
    pub(crate) umask: Option<rustix::fs::Mode>,
}

/// A user in the kernel's types, so that nothing is allocated after the fork.
#[derive(Debug)]
pub(crate) struct StageUser {
    pub(crate) uid: rustix::process::Uid,
    pub(crate) gid: rustix::process::Gid,
    pub(crate) groups: Vec<rustix::process::Gid>,
}

/// Lets the child of `command` go through `stage` before it becomes the program.
pub(crate) fn enter(command: &mut Command, stage: Stage) {
    let parent = rustix::process::getpid();
    // SAFETY: `run` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || stage.run(parent)) };
}

impl Stage {
    fn run(&self, parent: rustix::process::Pid) -> io::Result<()> {
        match self.group {
            Group::Session => drop(rustix::process::setsid()?),
            Group::Own => rustix::process::setpgid(None, None)?,
            Group::Inherited | Group::ByItself => {}
        }
        if let Some(mask) = self.umask {
            rustix::process::umask(mask);
        }
        for door in &self.doors {
            rustix::io::write(door, b"0")?;
        }
        for (resource, value) in &self.limits {
            lower_limit(*resource, *value)?;
        }
        if let Some(offline) = &self.offline {
            // Before the change of user, who may not.
            offline.enter()?;
        }
        if let Some(user) = &self.user {
            thread_calls::set_thread_groups(&user.groups)?;
            thread_calls::set_thread_res_gid(user.gid, user.gid, user.gid)?;
            thread_calls::set_thread_res_uid(user.uid, user.uid, user.uid)?;
        }
        if self.no_new_privs {
            thread_calls::set_no_new_privs(true)?;
        }
        if self.die_with_parent {
            // After the change of user, which clears it. A parent that died before this call is gone by now.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
        }
        self.close_the_rest()
    }

    /// Leaves open in the new program 0, 1, 2 and what is to be inherited, whatever else was open here: our own
    /// descriptors are close-on-exec anyway, those that we were started with need not be.
    fn close_the_rest(&self) -> io::Result<()> {
        // SAFETY: takes no pointer, and only sets a flag on descriptors; nothing is closed before the exec.
        let marked =
            unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if marked != 0 {
            return Err(io::Error::last_os_error());
        }
        for number in &self.inherit {
            // SAFETY: the launch holds these descriptors open until the child has been started.
            let fd = unsafe { BorrowedFd::borrow_raw(*number) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            debug_assert!(fd.as_raw_fd() > 2);
        }
        Ok(())
    }
}

/// Sets both the soft and the hard limit, to no more than the hard limit that holds: raising it takes a
/// privilege that root lacks in many containers.
fn lower_limit(resource: Resource, value: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(most));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })?)
}
