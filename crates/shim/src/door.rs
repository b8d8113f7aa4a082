//! How a shim gets its descriptors: over a Unix socket, which is its standard input, or, where it is the first process of a container, at a
//! path in there.
//!
//! A container inherits none, and a child that does is one that has to do something between fork and exec, for which all tables of its
//! parent's memory are copied. So each is handed over, and gets the number that the configuration knows it by; the last one is the
//! configuration itself. Nothing of it is in a container's description, which anybody reads who may ask the daemon.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::dial;

/// The word for a shim whose door is its standard input.
pub const AT_INPUT: &str = "-";
/// The number of the first descriptor; the others follow.
pub const FIRST: i32 = 100;
/// The most that are handed over.
pub const MOST: usize = 3 * dial::MOST;

/// Hands over `descriptors`, in the order of their numbers: as many at once as go at once, and fewer than that, or none, at the end.
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
    let (whole, rest) = descriptors.as_chunks::<{ dial::MOST }>();
    whole.iter().try_for_each(|some| dial::answer(&to, some))?;
    dial::answer(&to, rest)
}

/// Takes them over, each at its number, and gives that of the last. They stay open until somebody takes them by their numbers.
///
/// # Errors
/// When none come, or what the system says.
pub fn take(from: impl AsFd) -> io::Result<i32> {
    use std::os::fd::IntoRawFd as _;
    let mut last = None;
    for (descriptor, number) in received(from)?.into_iter().zip(FIRST..) {
        let placed = rustix::io::fcntl_dupfd_cloexec(&descriptor, number)?;
        let got = placed.into_raw_fd();
        if got != number {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "a number is taken"));
        }
        last = Some(got);
    }
    last.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn received(from: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut all = Vec::new();
    loop {
        let some = dial::receive(&from)?;
        let is_end = some.len() < dial::MOST;
        all.extend(some);
        if is_end {
            return Ok(all);
        }
        if all.len() > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| File::open("/dev/null").map(OwnedFd::from).unwrap()).collect()
    }

    #[test]
    fn each_descriptor_comes_to_its_number() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        hand(&ours, &descriptors(3)).unwrap();
        assert_eq!(take(&theirs).unwrap(), FIRST + 2);
        for number in FIRST..FIRST + 3 {
            assert_eq!(
                std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap().to_str(),
                Some("/dev/null")
            );
        }
        drop(ours);
        assert!(take(&theirs).is_err());
    }

    #[test]
    fn more_arrive_than_go_at_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for count in [1, dial::MOST - 1, dial::MOST, dial::MOST + 1, MOST] {
            hand(&ours, &descriptors(count)).unwrap();
            assert_eq!(received(&theirs).unwrap().len(), count);
        }
        assert!(hand(&ours, &descriptors(MOST + 1)).is_err());
        drop(ours);
        assert!(received(&theirs).is_err());
    }
}
