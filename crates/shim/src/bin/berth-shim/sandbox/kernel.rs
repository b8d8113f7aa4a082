//! System calls of sandboxes that rustix has no form for.
#![expect(
    unsafe_code,
    reason = "clone, unshare, mount_setattr, Landlock, prctl and SO_PASSCRED have no safe form"
)]

use std::ffi::{CStr, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::thread::UnshareFlags;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks into new namespaces; gives the child's pid to the parent and `None` to the child.
pub(super) fn clone(namespaces: UnshareFlags) -> io::Result<Option<u32>> {
    let flags = c_ulong::from(namespaces.bits()) | c_ulong::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: without CLONE_VM and with no stack this is a fork, and the shim has one thread, so that the child finds everything as
    // it was. All arguments but the flags are nought, so that their order, which differs from machine to machine, does not matter.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) })?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Forks a child of this process's parent; gives its pid to this process and `None` to the child.
pub(super) fn fork_sibling() -> io::Result<Option<u32>> {
    let flags = c_ulong::from((libc::CLONE_PARENT | libc::SIGCHLD).unsigned_abs());
    // SAFETY: as in `clone`.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) })?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// As [`clone`], with the child in the control group whose folder `group` is, from its first moment: to enter one later makes the kernel wait until no
/// process of the machine is between two instructions that a move could disturb, which takes longer than all the rest of a start. Since Linux 5.7,
/// and of v2 alone.
pub(super) fn clone_into(namespaces: UnshareFlags, group: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    const INTO_CGROUP: u64 = 1 << 33;
    // As the kernel's struct clone_args is: flags, pidfd, two thread ids, exit signal, stack, its size, tls, set_tid, its size, cgroup.
    let mut arguments = [0_u64; 11];
    arguments[0] = u64::from(namespaces.bits()) | INTO_CGROUP;
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    arguments[10] = u64::from(group.as_raw_fd().unsigned_abs());
    // SAFETY: as in `clone`; the arguments live through the call, and their size is what is said.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) })?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Leaves namespaces for new ones.
pub(super) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    let flags = c_int::try_from(namespaces.bits()).map_err(|_too_great| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes no pointer, and the shim has one thread.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Sets attributes on the mount `fd` and, when `deep`, on all below it.
pub(super) fn set_mount_attributes(fd: BorrowedFd<'_>, set: u64, deep: bool) -> io::Result<()> {
    let attributes = [set, 0, 0, 0];
    let flags = libc::AT_EMPTY_PATH | if deep { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty and ends, and the attributes are four numbers of 64 bits, as the kernel's struct mount_attr is.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    check(done).map(drop)
}

/// The version of Landlock that the kernel has.
pub(super) fn landlock_version() -> io::Result<u32> {
    const VERSION: c_int = 1;
    // SAFETY: with this flag no rules are read.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u64>(), 0_usize, VERSION)
    };
    Ok(u32::try_from(check(version)?).unwrap_or(0))
}

/// A set of rules that handles these accesses to files, to the network, and to what is outside its domain.
pub(super) fn landlock_ruleset(handled: [u64; 3], fields: usize) -> io::Result<OwnedFd> {
    let size = fields.min(handled.len()) * size_of::<u64>();
    // SAFETY: the first `size` bytes of the array are ours.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled.as_ptr(), size, 0) };
    let fd = c_int::try_from(check(fd)?).map_err(|_too_great| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows `access` below `parent`.
pub(super) fn landlock_allow_below(
    rules: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    access: u64,
) -> io::Result<()> {
    // The kernel's struct is packed: eight bytes of access, four of the descriptor.
    let mut rule = [0; 12];
    let (first, second) = rule.split_at_mut(8);
    first.copy_from_slice(&access.to_ne_bytes());
    second.copy_from_slice(&parent.as_raw_fd().to_ne_bytes());
    landlock_add(rules, 1, &rule)
}

/// Allows `access` to the TCP port.
pub(super) fn landlock_allow_port(rules: BorrowedFd<'_>, port: u16, access: u64) -> io::Result<()> {
    landlock_add(rules, 2, &[access, u64::from(port)].map(u64::to_ne_bytes).concat())
}

fn landlock_add(rules: BorrowedFd<'_>, kind: c_int, rule: &[u8]) -> io::Result<()> {
    // SAFETY: the rule is as long as the kernel's struct of this kind.
    let done =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), kind, rule.as_ptr(), 0) };
    check(done).map(drop)
}

/// Has the rules hold for this process and what it starts, for ever.
pub(super) fn landlock_restrict(rules: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) }).map(drop)
}

/// Has the filter hold for this process and what it starts, for ever.
pub(super) fn seccomp(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program lives through the call and has the length that it says.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Sets the capabilities of this process.
pub(super) fn set_capabilities(permitted: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let half = |mask: u64, upper: bool| {
        u32::try_from(if upper { mask >> 32 } else { mask & u64::from(u32::MAX) }).unwrap_or(0)
    };
    let data =
        [false, true].map(|upper| [half(permitted, upper), half(permitted, upper), half(inheritable, upper)]);
    // SAFETY: the header and both halves of the data are laid out as the kernel's structs, and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Takes a capability out of all that this process and what it starts can ever have. `Ok(false)` when there is none of that number.
pub(super) fn drop_from_bounding(capability: u32) -> io::Result<bool> {
    // SAFETY: takes no pointer.
    match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability), 0, 0, 0) }.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives up capabilities that would outlive an exec by themselves.
pub(super) fn clear_ambient() -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())
        .map(drop)
}

/// Mounts an overlay of `options` at `place`. By mount(2): fsconfig(2) takes no more than 255 bytes of layers before Linux 6.5.
pub(super) fn mount_overlay(place: &CStr, options: &CStr) -> io::Result<()> {
    // SAFETY: all texts end, and live through the call.
    let done = unsafe {
        libc::mount(
            c"overlay".as_ptr(),
            place.as_ptr(),
            c"overlay".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    check(done.into()).map(drop)
}

/// Has messages on `socket` come with the pid of who sent them.
pub(super) fn pass_credentials(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the option is a number that lives through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4),
        )
    };
    check(done.into()).map(drop)
}
