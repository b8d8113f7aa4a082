//! The names of processes: one that no pid reuse fools, and one that all of a tree carry.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use crate::child::open_pidfd;
use crate::procfs;

/// The boot of the machine, as `/proc/sys/kernel/random/boot_id` names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootId(String);

impl BootId {
    /// The boot that we run in.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        Ok(Self(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BootId {
    type Err = std::convert::Infallible;
    /// Takes any text: one that no kernel ever gave is simply another boot.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A process, for good: a pid alone is given to another process sooner or later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The boot in which it lives.
    pub boot: BootId,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub starttime: u64,
}

impl Identity {
    /// The identity of the process that has `pid` now, `None` when none has.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let boot = BootId::current()?;
        Ok(procfs::stat(pid)?.map(|stat| Self { boot, pid, starttime: stat.starttime }))
    }

    /// A pidfd of this very process, readable once it has ended; `None` when it has been reaped.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or there are too many open files.
    pub fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pidfd) = open_pidfd(self.pid)? else { return Ok(None) };
        // Compared after opening: from here on the pid cannot change hands unnoticed.
        let same = BootId::current()? == self.boot
            && procfs::stat(self.pid)?.is_some_and(|stat| stat.starttime == self.starttime);
        Ok(same.then_some(pidfd))
    }

    /// Whether this very process still runs. One that has ended and waits to be reaped does not.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn is_alive(&self) -> io::Result<bool> {
        if BootId::current()? != self.boot {
            return Ok(false);
        }
        let found = procfs::stat(self.pid)?;
        Ok(found.is_some_and(|stat| stat.starttime == self.starttime && !stat.is_dead()))
    }
}

/// A mark that a tree of processes carries in its environment, so that a process that left its session and lost
/// its parent is still found. 16 random bytes; nobody but the tree itself learns them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub [u8; 16]);

impl Mark {
    /// The environment variable that holds it.
    pub const VARIABLE: &'static str = "BERTH_TOKEN";

    /// The entry of the environment: `BERTH_TOKEN=<32 hex>`.
    #[must_use]
    pub fn assignment(&self) -> String {
        format!("{}={self}", Self::VARIABLE)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_start_or_another_boot_is_another_process() {
        let own = Identity::of(std::process::id()).unwrap().unwrap();
        assert!(own.is_alive().unwrap());
        let reused = Identity { starttime: own.starttime + 1, ..own.clone() };
        assert!(!reused.is_alive().unwrap());
        let earlier = Identity { boot: "another".parse().unwrap(), ..own };
        assert!(!earlier.is_alive().unwrap());
    }

    #[test]
    fn a_mark_is_32_hexadecimal_digits() {
        assert_eq!(Mark([0xAB; 16]).assignment(), format!("BERTH_TOKEN={}", "ab".repeat(16)));
    }
}
