//! Processes as `/proc` shows them.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

/// What `/proc/<pid>/stat` says about a process; see proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its process id.
    pub pid: u32,
    /// Its state's letter: `R`, `S`, `D`, `T`, `Z` ...
    pub state: u8,
    /// Its parent's process id, 0 when that lies outside the pid namespace.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// When it started, in clock ticks since boot: with the pid, what names it within this boot.
    pub starttime: u64,
}

impl Stat {
    /// Whether it has ended and only waits to be reaped.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether it is stopped, and so cannot fork.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't') || self.is_dead()
    }
}

/// The state of process `pid`, `None` when there is none.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The pids that `/proc` shows, highest and so mostly newest first: one that forks and ends all the time is met while
/// it is still there.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable_by(|left, right| right.cmp(left));
    Ok(pids)
}

/// Every process that `/proc` shows. A process that forks meanwhile may be missed.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> io::Result<Vec<Stat>> {
    pids()?.into_iter().filter_map(|pid| stat(pid).transpose()).collect()
}

/// Whether a process has something in its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// It has.
    Yes,
    /// It has not, or we may not look into it.
    No,
    /// It ended, or is between two programs: it may have had, or be about to have.
    Unclear,
}

/// Whether process `pid` was started with `assignment`, a `NAME=value`, in its environment.
#[must_use]
pub fn has_variable(pid: u32, assignment: &str) -> Has {
    // The kernel bounds an environment by a quarter of the stack limit; 8 MiB covers an unlimited stack as well.
    const MOST: u64 = 8 << 20;
    let mut environment = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(MOST).read_to_end(&mut environment));
    match read {
        // Empty is that of a kernel thread, of one that cleared it, and of one that execs or exits just now.
        Ok(0) if is_between_programs(pid) => Has::Unclear,
        Ok(_) if environment.split(|byte| *byte == 0).any(|entry| entry == assignment.as_bytes()) => Has::Yes,
        Err(error) if is_gone(&error) => Has::Unclear,
        Ok(_) | Err(_) => Has::No,
    }
}

/// Whether process `pid`, whose environment is empty, has no address space set up: it execs or exits just now.
fn is_between_programs(pid: u32) -> bool {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let Ok(text) = fs::read(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let Some(fields) = fields_after_name(&text) else {
        return true;
    };
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    // Fields 9 and 51: the kernel's flags, and where the environment ends.
    number(9).is_some_and(|flags| flags & KERNEL_THREAD == 0) && number(51) == Some(0)
}

/// The inodes of the sockets that process `pid` holds, empty when it ended or we may not look into it.
#[must_use]
pub fn socket_inodes(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(PathBuf::from(format!("/proc/{pid}/fd"))) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Whether reading failed because the process ended meanwhile.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let fields = fields_after_name(text)?;
    // Field 3 of the manual page is the first after the name.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        pid,
        state: *field(3)?.as_bytes().first()?,
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        starttime: field(22)?.parse().ok()?,
    })
}

/// The name in parentheses is the program's to choose and may hold blanks and parentheses, so the fields are
/// counted from the last `)`.
fn fields_after_name(text: &[u8]) -> Option<Vec<&str>> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    Some(std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let text = b"42 (a) R 1 (b) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat, Stat { pid: 42, state: b'S', parent: 7, group: 42, session: 41, starttime: 98765 });
    }

    #[test]
    fn we_find_ourselves() {
        let own = stat(std::process::id()).unwrap().unwrap();
        assert!(!own.is_dead() && own.starttime > 0);
        assert!(all().unwrap().iter().any(|stat| stat.pid == own.pid && stat.starttime == own.starttime));
        assert_eq!(stat(u32::MAX).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            parse_stat(&bytes);
        }
    }
}
