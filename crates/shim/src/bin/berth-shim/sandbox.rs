//! What stands around an app, put up as the configuration says.
//!
//! The shim stays outside, so that the app's tree is seen and killed from where nothing inside can reach. It clones the init of
//! a pid namespace ([`init`]), which builds the root ([`root`]), starts the app and reaps; the app itself gives up what it has
//! left ([`confine`]) before it is run. Init ends with its shim, and everything in the namespace ends with init. What is to run beside an app
//! goes into its namespaces from outside ([`join`]).

mod confine;
mod init;
mod join;
mod kernel;
mod root;

pub(crate) use confine::{Reach, bound, confine};
pub(crate) use init::{Init, Plan, decode, encode};
pub(crate) use join::{Namespaces, receive};

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use crate::internal;

/// Goes into a user namespace in which this process is who it is and may make other namespaces. Nobody else exists there.
pub(crate) fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    kernel::unshare(UnshareFlags::NEWUSER)?;
    // Whoever is no root outside may map no group before this.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Forks a child of this process's parent, which is found in the namespace of processes that was entered.
pub(crate) fn fork_sibling() -> io::Result<Option<u32>> {
    kernel::fork_sibling()
}

/// A socket whose messages come with the pid of who sent them, and its other end.
pub(crate) fn report() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (report, inside) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    kernel::pass_credentials(report.as_fd())?;
    Ok((report, inside))
}

/// Tries what a sandbox takes, each thing in a process of its own, and writes a line for each to standard output: its name and the
/// number of the error, nought when it worked. What a machine allows is found out in no other way than by trying.
pub(crate) fn probe() -> io::Result<()> {
    use std::io::Write as _;
    let mut out = io::stdout().lock();
    for (name, attempt) in TRIALS {
        writeln!(out, "{name} {}", init::attempt(attempt))?;
    }
    out.flush()
}

/// Something that works on this machine, or does not.
type Trial = fn() -> io::Result<()>;

/// What is tried, by the names that the runtime knows.
const TRIALS: [(&str, Trial); 8] = [
    ("namespaces", init::try_namespaces),
    ("user-namespaces", || enter_user_namespace().and_then(|()| init::try_namespaces())),
    ("network", || kernel::unshare(UnshareFlags::NEWNET)),
    ("user-network", || enter_user_namespace().and_then(|()| kernel::unshare(UnshareFlags::NEWNET))),
    ("internal", internal::attempt),
    ("user-internal", || enter_user_namespace().and_then(|()| internal::attempt())),
    ("landlock", || confine::landlock_version().map(drop)),
    ("seccomp", || confine::filter(&ALLOW_ALL)),
];

/// `BPF_RET | BPF_K, SECCOMP_RET_ALLOW`.
const ALLOW_ALL: [u8; 8] = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
