//! Descriptors that the supervisor left open for a role and named by number in its arguments.
#![expect(
    unsafe_code,
    reason = "a number becomes an owned descriptor only by promising that nobody else owns it"
)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::FdFlags;

/// Numbers that were taken: taking one twice would give it two owners.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes descriptor `number`, which is closed on exec from now on.
///
/// # Errors
/// When it is not open, is one of the standard three, or was taken before.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    let fresh = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    if number <= 2 || !fresh {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {number} is not the role's"),
        ));
    }
    // SAFETY: borrowed for the one call below, which fails when the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, a role takes its descriptors before it opens any other, and each number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
