//! The lock on the home: one supervisor at a time, and the next one is told who has it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_process::BootId;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The line of one that stands in.
const STANDS_IN: &str = "stands in";

/// Held as long as the supervisor lives; the kernel releases it however that ends.
#[derive(Debug)]
pub(crate) struct HomeLock {
    file: File,
    stands_in: bool,
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("cannot lock {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the platform at {} runs already{holder}", home.display())]
    Held { home: PathBuf, holder: Holder },
}

/// What the holder wrote into the lock, as far as it has written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: Option<u32>,
    /// Whether it holds the home until somebody starts the platform.
    stands_in: bool,
    edge: Option<SocketAddr>,
    api: Option<SocketAddr>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pid) = self.pid {
            write!(f, ": process {pid}")?;
        }
        if let (Some(edge), Some(api)) = (self.edge, self.api) {
            write!(f, ", apps at {edge}, API at {api}")?;
        }
        Ok(())
    }
}

impl Holder {
    /// Whether it may be gone in a moment: it stands in for nobody but us, or it is dead, and what it had just started still has the lock
    /// open, or one that has not said yet who it is.
    pub(crate) fn gives_way(&self) -> bool {
        self.stands_in || !self.pid.is_some_and(lives)
    }

    fn parse(text: &str) -> Self {
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let address = |key| value(key).and_then(|text| text.parse().ok());
        Self {
            pid: value("pid ").and_then(|text| text.parse().ok()),
            stands_in: text.lines().any(|line| line == STANDS_IN),
            edge: address("edge "),
            api: address("api "),
        }
    }
}

/// Whether there is such a process, and it has not ended: whoever is to take note of its end may be slow.
fn lives(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // Behind the name, which may hold anything (proc_pid_stat(5)).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

impl HomeLock {
    /// Takes the lock of the home, without waiting.
    pub(crate) fn take(home: &Path, stands_in: bool) -> Result<Self, LockError> {
        let path = home.join("lock");
        let fail = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let mut lock = Self { file, stands_in };
                lock.write("").map_err(fail)?;
                Ok(lock)
            }
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(fail)?;
                Err(LockError::Held { home: home.to_owned(), holder: Holder::parse(&text) })
            }
            Err(error) => Err(fail(error.into())),
        }
    }

    /// Says in the lock where the platform listens.
    pub(crate) fn announce(&mut self, edge: SocketAddr, api: SocketAddr) -> io::Result<()> {
        self.write(&format!("edge {edge}\napi {api}\n"))
    }

    fn write(&mut self, more: &str) -> io::Result<()> {
        let stands_in = if self.stands_in { format!("{STANDS_IN}\n") } else { String::new() };
        let text = format!("pid {}\nboot {}\n{stands_in}{more}", std::process::id(), BootId::current()?);
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_has_it() {
        let home = tempfile::tempdir().unwrap();
        let mut first = HomeLock::take(home.path(), false).unwrap();
        let pid = std::process::id();
        assert!(
            HomeLock::take(home.path(), false).unwrap_err().to_string().contains(&format!("process {pid}"))
        );
        first.announce("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:7070".parse().unwrap()).unwrap();
        let message = HomeLock::take(home.path(), false).unwrap_err().to_string();
        assert!(message.contains("apps at 127.0.0.1:8080, API at 127.0.0.1:7070"), "{message}");
        drop(first);
        HomeLock::take(home.path(), false).unwrap();
    }

    #[test]
    fn who_stands_in_or_is_dead_gives_way() {
        let home = tempfile::tempdir().unwrap();
        let holder = |stands_in| {
            let _lock = HomeLock::take(home.path(), stands_in).unwrap();
            match HomeLock::take(home.path(), false) {
                Err(LockError::Held { holder, .. }) => holder,
                other => panic!("{other:?}"),
            }
        };
        assert!(!holder(false).gives_way() && holder(true).gives_way());
        // A process id is below 2^22.
        assert!(Holder { pid: Some(1 << 30), ..Holder::default() }.gives_way());
    }

    #[test]
    fn half_a_holder_is_no_trouble() {
        assert_eq!(Holder::parse(""), Holder::default());
        assert_eq!(Holder::parse("pid x\nedge 1").to_string(), "");
        assert!(Holder::default().gives_way(), "it has not said who it is");
    }
}
