//! Processor time and memory of a tree of processes, from `/proc`.

use std::io;

use anyhow::{Context as _, Result};

/// Linux has counted in hundredths of a second towards programs on every architecture we run on, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of some processes, in kilobytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Each page counted as the share of the processes that map it.
    pub pss: u64,
    /// Pages that no other process maps.
    pub private: u64,
}

/// What one line of `/proc/PID/stat` says, as far as it is needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// User and system time of the process, and of its children that it has waited for, in ticks.
    ticks: u64,
    children_ticks: u64,
}

/// Processor seconds that `pids` and the children they have waited for have used so far.
///
/// # Errors
/// One of them is gone: the sum would fall, and a difference of two sums would lie.
pub(super) fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for &pid in pids {
        let stat = stat(pid)?;
        ticks += stat.ticks + stat.children_ticks;
    }
    let ticks = u32::try_from(ticks).context("more processor time than four hundred days")?;
    Ok(f64::from(ticks) / TICKS_PER_SECOND)
}

/// Memory that `pids` use now.
///
/// # Errors
/// One of them is gone or belongs to another user.
pub(super) fn memory(pids: &[u32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for &pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let memory = parse_memory(&text);
        sum.pss += memory.pss;
        sum.private += memory.private;
    }
    Ok(sum)
}

fn stat(pid: u32) -> Result<Stat> {
    let file = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    parse_stat(&text).with_context(|| io::Error::other(format!("{file} has another form")))
}

/// The second field is the program's name in parentheses and may hold anything, parentheses too: count from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // proc_pid_stat(5) numbers from 1 and the state, field 3, is the first one here.
    Some(Stat { ticks: number(11)? + number(12)?, children_ticks: number(13)? + number(14)? })
}

fn parse_memory(text: &str) -> Memory {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Memory { pss: field("Pss"), private: field("Private_Clean") + field("Private_Dirty") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 3 4 20 0 1 0 500 0 0";
        assert_eq!(parse_stat(text), Some(Stat { ticks: 33, children_ticks: 7 }));
        assert_eq!(parse_stat("42 (a) S"), None);
    }

    #[test]
    fn memory_is_summed_from_the_rollup() {
        let text = "0-1 ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss: 300 kB\nPss_Anon: 1 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 20 kB\n";
        assert_eq!(parse_memory(text), Memory { pss: 300, private: 30 });
    }

    #[test]
    fn this_process_can_be_measured() {
        let me = std::process::id();
        assert!(cpu_seconds(&[me]).unwrap() >= 0.0);
        assert!(memory(&[me]).unwrap().pss > 0);
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }
}
