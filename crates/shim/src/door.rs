//! How a shim gets what it inherits when it is no child of whoever starts it, but the first process of a container.
//!
//! A container inherits no descriptors. So its shim connects to a Unix socket that it finds in there, and is handed over that what a child
//! would have inherited: each descriptor gets the number that the configuration knows it by, and the last one is the configuration itself.
//! Nothing of it is in the container's description, which anybody reads who may ask the daemon.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::dial;

/// The number of the first descriptor; the others follow.
pub const FIRST: i32 = 100;
/// The most that are handed over.
pub const MOST: usize = dial::MOST;

/// Hands over `descriptors`, in the order of their numbers.
///
/// # Errors
/// When there are too many, or what the system says.
pub fn hand(to: impl AsFd, descriptors: &[OwnedFd]) -> io::Result<()> {
    if descriptors.len() > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more descriptors than are handed over at once",
        ));
    }
    dial::answer(to, descriptors)
}

/// Takes them over, each at its number, and gives that of the last. They stay open until somebody takes them by their numbers.
///
/// # Errors
/// When none come, or what the system says.
pub fn take(from: impl AsFd) -> io::Result<i32> {
    use std::os::fd::IntoRawFd as _;
    let mut last = None;
    for (descriptor, number) in dial::receive(from)?.into_iter().zip(FIRST..) {
        let placed = rustix::io::fcntl_dupfd_cloexec(&descriptor, number)?;
        let got = placed.into_raw_fd();
        if got != number {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "a number is taken"));
        }
        last = Some(got);
    }
    last.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn each_descriptor_comes_to_its_number() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let made: Vec<OwnedFd> =
            (0..3).map(|_| File::open("/dev/null").map(OwnedFd::from).unwrap()).collect();
        hand(&ours, &made).unwrap();
        assert_eq!(take(&theirs).unwrap(), FIRST + 2);
        for number in FIRST..FIRST + 3 {
            assert_eq!(
                std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap().to_str(),
                Some("/dev/null")
            );
        }
        let many: Vec<OwnedFd> = (0..=MOST).map(|_| made[0].try_clone().unwrap()).collect();
        assert!(hand(&ours, &many).is_err());
        drop(ours);
        assert!(take(&theirs).is_err());
    }
}
