//! The system calls that have no safe form, and the clocks.
#![expect(unsafe_code, reason = "fork, wait4 and signalfd have no safe form")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use berth_shim::door;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::time::{ClockId, clock_gettime};

/// Says that an outcome changes nothing: what failed has either happened already or has nobody to be told to.
pub(crate) fn unheeded<T, E>(_outcome: Result<T, E>) {}

/// The wall clock, in milliseconds.
pub(crate) fn wall() -> u64 {
    millis(ClockId::Realtime)
}

/// A clock that never jumps, in milliseconds.
pub(crate) fn steady() -> u64 {
    millis(ClockId::Monotonic)
}

fn millis(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000 + u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Takes the listening socket, handed to us.
pub(crate) fn listener(number: RawFd) -> io::Result<UnixListener> {
    inherited(number).map(UnixListener::from)
}

/// Takes what is handed over at the standard input, which then has nothing to read, and gives the number of the last descriptor. Whatever
/// else was open in whoever started us is not ours.
pub(crate) fn take_at_input() -> io::Result<RawFd> {
    close_range(3, u32::MAX, 0)?;
    let number = door::take(io::stdin())?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(number)
}

/// Takes a descriptor, handed to us or inherited; called once for each number.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor came for one purpose alone, and nothing else in the program takes it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// A TCP socket of the network that this process is in just now.
pub(crate) fn tcp_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// The user of whoever connected. Not by rustix, which has no process id of nought: that is what the kernel tells within a container of a
/// process outside.
pub(crate) fn peer(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
    let (fd, to) = (stream.as_raw_fd(), (&raw mut peer).cast());
    // SAFETY: the kernel writes at most `length` bytes to where a `ucred` lies.
    let asked = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut length) };
    if asked == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// The signals that the loop reads as events.
const EVENTS: [i32; 3] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT];

/// Blocks the loop's signals and gives a descriptor to read them from.
pub(crate) fn signals() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero set is a valid value, which sigemptyset then sets.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid and ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in EVENTS {
        // SAFETY: `set` was set above, and the numbers are signals.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: `set` was set above; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` was set above; -1 asks for a new descriptor.
    let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes the signals that are there and tells whether one of them asks us to end.
pub(crate) fn told_to_end(signals: &OwnedFd) -> bool {
    let mut told = false;
    // The kernel's record has 128 bytes and begins with the signal's number.
    let mut buffer = [0; 128];
    while let Ok(128) = rustix::io::read(signals, &mut buffer) {
        let [first, second, third, fourth, ..] = buffer;
        told |= i32::from_ne_bytes([first, second, third, fourth]) != libc::SIGCHLD;
    }
    told
}

/// A child that was reaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) pid: u32,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) core: bool,
    pub(crate) max_rss: u64,
}

/// Reaps one child that ended, `None` when there is none.
pub(crate) fn reap() -> Option<Reaped> {
    reap_with(libc::WNOHANG)
}

/// Waits for a child to end and reaps it, `None` when there are no children.
pub(crate) fn wait() -> Option<Reaped> {
    loop {
        match reap_with(0) {
            None if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            reaped => return reaped,
        }
    }
}

fn reap_with(options: i32) -> Option<Reaped> {
    let mut status = 0;
    // SAFETY: all-zero is a valid value, which the kernel overwrites.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to our own valid places.
    let pid = unsafe { libc::wait4(-1, &raw mut status, options, &raw mut usage) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    let signalled = libc::WIFSIGNALED(status);
    Some(Reaped {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: signalled.then(|| libc::WTERMSIG(status)),
        core: signalled && libc::WCOREDUMP(status),
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    })
}

/// Forks; gives the child's pid to the parent and `None` to the child.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the shim has one thread, so that the child finds everything as it was.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid => u32::try_from(pid).map(Some).map_err(|_negative| io::Error::last_os_error()),
    }
}

/// Gives every signal its default again, and blocks none: neither what we ignore nor what we were started with may
/// reach the app.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: only sets a disposition; those that cannot be set are refused by the kernel.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is a valid value, which sigemptyset then sets.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is valid and ours.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` was set above; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Has every descriptor from 3 on closed by the next exec.
pub(crate) fn close_on_exec() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes no pointer. Whoever closes uses none of these descriptors after this.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor but those in `kept`.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|kept| kept.as_raw_fd().unsigned_abs()).collect();
    numbers.sort_unstable();
    let mut first = 0;
    for (next, last) in
        numbers.iter().map(|number| (number + 1, number.checked_sub(1))).chain([(0, Some(u32::MAX))])
    {
        if let Some(last) = last.filter(|last| *last >= first) {
            close_range(first, last, 0)?;
        }
        first = next;
    }
    Ok(())
}

/// Sets both limits of `resource` to `value`, or to the hard limit that holds if that is less.
pub(crate) fn limit(resource: u32, value: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to our own valid place.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_max = limit.rlim_max.min(value);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to our own valid place.
    if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Becomes the program at `path`; gives the error if that fails.
pub(crate) fn exec(
    path: &std::ffi::CStr,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> io::Error {
    debug_assert!(
        argv.last().is_some_and(|last| last.is_null()) && env.last().is_some_and(|last| last.is_null())
    );
    // SAFETY: both arrays end with a null pointer, and what they point to lives until the process is replaced.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends a forked child without running anything of the parent's.
pub(crate) fn end_child(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Moves this process, which has one thread, into the control group behind `door`, a `cgroup.procs`.
///
/// By the file for threads where there is one, in v1: to move a whole process the kernel waits until no process of the machine is in the middle of
/// starting a thread, to move the thread that asks it does not (commit 9a3284fad42f, Linux 5.5).
pub(crate) fn enter_group(door: &str) -> io::Result<()> {
    let threads = door.strip_suffix("cgroup.procs").map(|folder| format!("{folder}tasks"));
    let entered = threads.map(|threads| std::fs::OpenOptions::new().write(true).open(threads));
    match entered {
        Some(Ok(mut threads)) => io::Write::write_all(&mut threads, b"0"),
        _ => std::fs::write(door, "0"),
    }
}
