//! Signals as something to poll. A handler would run between any two instructions; a descriptor is read where we choose.
#![expect(unsafe_code, reason = "signalfd and the signal mask have no safe form in rustix")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// What the supervisor listens for.
const WATCHED: [Signal; 5] = [Signal::CHILD, Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The watched signals, blocked for this process and every thread that it starts from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the watched signals and gives the descriptor that they arrive on. To be called while there is one thread.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut set = empty_set();
        for signal in WATCHED {
            // SAFETY: the set was initialised, and the number is a signal's.
            unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
        }
        set_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: the set was initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has arrived, if any.
    pub(crate) fn next(&self) -> io::Result<Option<Signal>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut record = [0; SIZE];
        match rustix::io::read(&self.fd, &mut record) {
            Ok(_) => {
                // ssi_signo is the first field of the record; see signalfd(2).
                let number = record.first_chunk().map_or(0, |first| i32::from_ne_bytes(*first));
                Ok(Signal::from_named_raw(number))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Lets every signal through again. A role calls it first: the supervisor's mask outlives exec.
pub(crate) fn unblock_all() -> io::Result<()> {
    set_mask(libc::SIG_SETMASK, &empty_set())
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to writable memory of a set's size.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset initialised it.
    unsafe { set.assume_init() }
}

fn set_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised, and the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
