//! What an app gives up at the last moment before it is run: capabilities, and by Landlock and seccomp what the kernel would let
//! anybody do.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use berth_shim::sandbox::{Landlock, Sandbox};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::kernel;

/// Rights over files, from include/uapi/linux/landlock.h, by the version that brought them.
mod access {
    pub(super) const EXECUTE: u64 = 1 << 0;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const REMOVE_DIR: u64 = 1 << 4;
    pub(super) const REMOVE_FILE: u64 = 1 << 5;
    pub(super) const MAKE_DIR: u64 = 1 << 7;
    pub(super) const MAKE_REG: u64 = 1 << 8;
    pub(super) const MAKE_SOCK: u64 = 1 << 9;
    pub(super) const MAKE_FIFO: u64 = 1 << 10;
    pub(super) const MAKE_SYM: u64 = 1 << 12;
    /// Version 2.
    pub(super) const REFER: u64 = 1 << 13;
    /// Version 3.
    pub(super) const TRUNCATE: u64 = 1 << 14;
    /// Version 5. Terminals and the like need it, and what may be opened is said by the others.
    pub(super) const IOCTL_DEV: u64 = 1 << 15;
    /// All of version 1, with MAKE_CHAR and MAKE_BLOCK, which nobody gets.
    pub(super) const FIRST: u64 = (1 << 13) - 1;
    pub(super) const BIND_TCP: u64 = 1;
    /// Connections to abstract Unix sockets across the border; version 6.
    pub(super) const SOCKETS: u64 = 1 << 0;
    /// Signals across it, likewise.
    pub(super) const SIGNALS: u64 = 1 << 1;
}

const READ: u64 = access::EXECUTE | access::READ_FILE | access::READ_DIR;
const WRITE: u64 = READ
    | access::WRITE_FILE
    | access::REMOVE_DIR
    | access::REMOVE_FILE
    | access::MAKE_DIR
    | access::MAKE_REG
    | access::MAKE_SOCK
    | access::MAKE_FIFO
    | access::MAKE_SYM
    | access::REFER
    | access::TRUNCATE
    | access::IOCTL_DEV;
/// Those that make sense for a file that is no folder.
const OF_FILES: u64 =
    access::EXECUTE | access::WRITE_FILE | access::READ_FILE | access::TRUNCATE | access::IOCTL_DEV;

/// What a process reaches beyond itself and what it starts, as far as Landlock keeps that in. Two that were confined apart from each other are
/// beyond the border to each other, also where both are of one instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Whether it may signal whoever it sees.
    pub(crate) signals: bool,
    /// Whether it may connect to abstract sockets of its network.
    pub(crate) sockets: bool,
}

impl Reach {
    /// That of an app: nothing.
    pub(crate) const NONE: Self = Self { signals: false, sockets: false };
}

/// Gives up what `sandbox` says, as the app's user and after everything else that needs a right.
///
/// The filter comes last, since it forbids some of what comes before it.
pub(crate) fn confine(sandbox: &Sandbox, reach: Reach) -> io::Result<()> {
    kernel::clear_ambient()?;
    kernel::set_capabilities(sandbox.capabilities, 0)?;
    if let Some(rules) = &sandbox.landlock {
        landlock(rules, reach)?;
    }
    filter(&sandbox.filter)
}

/// Gives up for ever the capabilities that the app shall not have. Before the change of user, which may take the right to.
pub(crate) fn bound(sandbox: &Sandbox) -> io::Result<()> {
    let keeps = sandbox.capabilities;
    // A process without them can drop none from its bounding set, and has none to pass on either.
    let bounded = (0..64)
        .filter(|number| keeps & (1 << number) == 0)
        .try_for_each(|number| kernel::drop_from_bounding(number).map(drop));
    match bounded {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && keeps == 0 => Ok(()),
        other => other,
    }
}

/// The version of Landlock that there is.
pub(crate) fn landlock_version() -> io::Result<u32> {
    kernel::landlock_version()
}

/// As much of the rules as the kernel knows. One without Landlock goes on without: the runtime knows, and says so.
fn landlock(rules: &Landlock, reach: Reach) -> io::Result<()> {
    let Ok(version) = kernel::landlock_version() else {
        return Ok(());
    };
    let files = access::FIRST
        | if version >= 2 { access::REFER } else { 0 }
        | if version >= 3 { access::TRUNCATE } else { 0 }
        | if version >= 5 { access::IOCTL_DEV } else { 0 };
    let about_files = !(rules.readable.is_empty() && rules.writable.is_empty());
    let files = if about_files && (version >= 2 || !rules.moves) { files } else { 0 };
    let network = if version >= 4 && rules.port.is_some() { access::BIND_TCP } else { 0 };
    let scoped =
        if reach.sockets { 0 } else { access::SOCKETS } | if reach.signals { 0 } else { access::SIGNALS };
    let scoped = if version >= 6 { scoped } else { 0 };
    let fields = if version >= 6 { 3 } else { 1 + usize::from(version >= 4) };
    if files | network | scoped == 0 {
        return Ok(());
    }
    let set = kernel::landlock_ruleset([files, network, scoped], fields)?;
    for (paths, rights) in [(&rules.readable, READ), (&rules.writable, WRITE)] {
        paths.iter().try_for_each(|path| allow(set.as_fd(), path, rights & files))?;
    }
    if let Some(port) = rules.port.filter(|_| network != 0) {
        kernel::landlock_allow_port(set.as_fd(), port, network)?;
    }
    kernel::landlock_restrict(set.as_fd())
}

fn allow(set: BorrowedFd<'_>, path: &str, rights: u64) -> io::Result<()> {
    let place = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        // What is not there, or cannot be reached anyway, needs no rule.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        other => other?,
    };
    let mode = rustix::fs::fstat(&place)?.st_mode;
    let is_folder = rustix::fs::FileType::from_raw_mode(mode).is_dir();
    kernel::landlock_allow_below(set, place.as_fd(), if is_folder { rights } else { rights & OF_FILES })
}

/// Has the filter hold from here on; an empty one is none.
pub(super) fn filter(program: &[u8]) -> io::Result<()> {
    if program.is_empty() {
        return Ok(());
    }
    let instruction = |bytes: &[u8]| match *bytes {
        [code_low, code_high, jt, jf, k0, k1, k2, k3] => libc::sock_filter {
            code: u16::from_ne_bytes([code_low, code_high]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        },
        // A return of nought, which kills: decoding has refused a filter that is cut short.
        _ => libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 },
    };
    let mut program: Vec<libc::sock_filter> = program.chunks(8).map(instruction).collect();
    rustix::thread::set_no_new_privs(true)?;
    kernel::seccomp(&mut program)
}
