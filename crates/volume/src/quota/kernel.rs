//! The calls by which a file system counts and limits what a project takes. A project is a number that inodes carry; what is made in a
//! directory that hands its number down carries the same one.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::fs::StatFs;
use rustix::ioctl::{Getter, Opcode, Setter, opcode};

/// A directory hands its project down to what is made in it (FS_XFLAG_PROJINHERIT), and takes nothing of another project in.
const INHERIT: u32 = 0x200;
/// As linux/fs.h has them.
const GET_ATTRIBUTES: Opcode = opcode::read::<Attributes>(b'X', 31);
const SET_ATTRIBUTES: Opcode = opcode::write::<Attributes>(b'X', 32);
/// The kind of quota that is a project's, as linux/quota.h has it.
const PROJECTS: libc::c_int = 2;
/// The state of all quotas of a file system, as linux/dqblk_xfs.h has it; every file system with quotas answers.
const GET_STATE: libc::c_int = 0x5805;
/// The format of the quotas that are kept, which there is none of where none are kept.
const GET_FORMAT: libc::c_int = 0x0080_0004;
/// Bits of that state: what projects take is counted, and is limited.
const COUNTED: u16 = 1 << 4;
const LIMITED: u16 = 1 << 5;
/// Limits are in units of so many bytes.
pub(super) const UNIT: u64 = 1_024;

/// What linux/fs.h calls `fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    flags: u32,
    extent_hint: u32,
    extents: u32,
    pub(super) project: u32,
    copy_hint: u32,
    reserved: [u8; 8],
}

impl Attributes {
    /// Whether a directory hands its project down.
    pub(super) fn inherit(&self) -> bool {
        self.flags & INHERIT != 0
    }
}

/// What linux/dqblk_xfs.h calls `fs_quota_stat`, of which the first words are read.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct State {
    version: i8,
    flags: u16,
    rest: [u64; 12],
}

/// What a project takes, and how much it may; nought for no limit. Entries are inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Account {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) bytes_max: u64,
    pub(super) entries_max: u64,
}

/// How far a file system keeps account of projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Nor could it: the kernel, or its part for this file system, has no quotas.
    Unable,
    Nothing,
    /// It counts and limits nobody.
    Counts,
    Limits,
}

/// How far the file system that `file` is on keeps account of projects.
pub(super) fn keeping(file: impl AsFd) -> io::Result<Keeping> {
    let mut state = State { version: 0, flags: 0, rest: [0; 12] };
    match quota(&file, GET_STATE, 0, &mut state) {
        // None is kept, be it that none could be: then this is not known either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            let known = quota(&file, GET_FORMAT, 0, &mut 0_u32);
            let unable = known.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS));
            Ok(if unable { Keeping::Unable } else { Keeping::Nothing })
        }
        Err(error) => Err(error),
        Ok(()) if state.flags & LIMITED != 0 => Ok(Keeping::Limits),
        Ok(()) if state.flags & COUNTED != 0 => Ok(Keeping::Counts),
        Ok(()) => Ok(Keeping::Nothing),
    }
}

/// What a project takes of the file system that `file` is on.
pub(super) fn account(file: impl AsFd, project: u32) -> io::Result<Account> {
    let mut found = nothing();
    match quota(file, libc::Q_GETQUOTA, project, &mut found) {
        // XFS says so of a project that nobody has.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Account::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(Account {
            bytes: found.dqb_curspace,
            entries: found.dqb_curinodes,
            bytes_max: found.dqb_bhardlimit.saturating_mul(UNIT),
            entries_max: found.dqb_ihardlimit,
        }),
    }
}

/// Has a project take so many bytes and entries at most, of which `0` is no limit.
pub(super) fn limit(file: impl AsFd, project: u32, bytes: u64, entries: u64) -> io::Result<()> {
    let mut wanted = libc::dqblk {
        dqb_bhardlimit: bytes / UNIT,
        dqb_ihardlimit: entries,
        dqb_valid: libc::QIF_BLIMITS | libc::QIF_ILIMITS,
        ..nothing()
    };
    quota(file, libc::Q_SETQUOTA, project, &mut wanted)
}

fn nothing() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

/// By the descriptor of any file (Linux 5.14), so that nobody has to find out what device it is on.
#[expect(unsafe_code, reason = "quotactl_fd has no safe form")]
fn quota<T>(file: impl AsFd, call: libc::c_int, project: u32, about: &mut T) -> io::Result<()> {
    let (call, about) = (libc::QCMD(call, PROJECTS), std::ptr::from_mut(about));
    // SAFETY: `about` is what the call reads or writes, and lives through it. The callers above give each call the structure that it takes, in
    // which every pattern of bits is a value.
    let done =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_fd().as_raw_fd(), call, project, about) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The attributes of a file or a directory.
#[expect(unsafe_code, reason = "the ioctl has no safe form")]
pub(super) fn attributes(file: impl AsFd) -> io::Result<Attributes> {
    // SAFETY: the call fills a structure of this form, in which every pattern of bits is a value.
    let call = unsafe { Getter::<GET_ATTRIBUTES, Attributes>::new() };
    // SAFETY: it does nothing else.
    Ok(unsafe { rustix::ioctl::ioctl(file, call) }?)
}

/// Gives a file or a directory to a project; a directory hands it down if `inherit`.
#[expect(unsafe_code, reason = "the ioctl has no safe form")]
pub(super) fn give(file: impl AsFd, project: u32, inherit: bool) -> io::Result<()> {
    let known = attributes(&file)?;
    let flags = if inherit { known.flags | INHERIT } else { known.flags & !INHERIT };
    if (known.project, known.flags) == (project, flags) {
        return Ok(());
    }
    // SAFETY: the call reads a structure of this form.
    let call = unsafe { Setter::<SET_ATTRIBUTES, Attributes>::new(Attributes { flags, project, ..known }) };
    // SAFETY: it changes what the file is counted as, and nothing of ours.
    Ok(unsafe { rustix::ioctl::ioctl(file, call) }?)
}

/// The kinds of file systems for which there is something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Other,
}

impl From<StatFs> for Kind {
    /// By the numbers of linux/magic.h.
    fn from(found: StatFs) -> Self {
        match u32::try_from(found.f_type).unwrap_or_default() {
            0xEF53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683E => Self::Btrfs,
            _ => Self::Other,
        }
    }
}
