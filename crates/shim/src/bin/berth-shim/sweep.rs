//! The end of everything that the app started.
//!
//! The shim is the subreaper of its tree: whatever lost its parent became a child of the shim, so that descent alone finds
//! all of it. The crate `process` looks for trees too, from outside and by other signs; the shim links nothing of it.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::system;

/// Kills all descendants of this process but `kept` and what it started, and gives how many there still are. Called until that is none.
///
/// They are stopped first, until a look finds no new ones: a tree that keeps forking would outrun the killing.
pub(crate) fn sweep(cgroup_door: Option<&str>, kept: Option<u32>) -> usize {
    if let Some(group) = cgroup_door.and_then(|door| door.strip_suffix("cgroup.procs")) {
        // Kernels without it are served by what follows.
        system::unheeded(fs::write(format!("{group}cgroup.kill"), "1"));
    }
    let stopped = stop(|| descendants(rustix::process::getpid().as_raw_pid(), kept));
    // Descendants of ours keep their pids until we reap them or their parent, which stands still, does.
    stopped.iter().for_each(|pid| send(*pid, Signal::KILL));
    stopped.len()
}

/// Kills all descendants of `child`, and it itself where it has none. Called until it is reaped: by then whatever lost its parent has become
/// its child. A pid that is no child of ours any more is left alone.
pub(crate) fn sweep_below(child: u32) {
    let own = rustix::process::getpid().as_raw_pid();
    let Some(child) = i32::try_from(child).ok().filter(|child| living(*child) == Some(own)) else { return };
    send(child, Signal::STOP);
    let stopped = stop(|| descendants(child, None));
    stopped.iter().for_each(|pid| send(*pid, Signal::KILL));
    send(child, if stopped.is_empty() { Signal::KILL } else { Signal::CONT });
}

/// The living children of a child of ours.
pub(crate) fn children_of(child: u32) -> Vec<i32> {
    i32::try_from(child).map(children).unwrap_or_default()
}

/// Has all that are found stand still, until a look finds no new ones.
fn stop(find: impl Fn() -> Vec<i32>) -> BTreeSet<i32> {
    let mut stopped = BTreeSet::new();
    // Each turn finds the children of those that the turn before stopped; more turns than that only a race takes.
    for _ in 0..64 {
        let fresh: Vec<i32> = find().into_iter().filter(|pid| stopped.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.into_iter().for_each(|pid| send(pid, Signal::STOP));
    }
    stopped
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended meanwhile is what we want.
        system::unheeded(kill_process(pid, signal));
    }
}

/// The living descendants of the process `top`, without `kept` and its own.
fn descendants(top: i32, kept: Option<u32>) -> Vec<i32> {
    let kept = kept.and_then(|pid| i32::try_from(pid).ok());
    let own = rustix::process::getpid().as_raw_pid();
    // Kernels may be built without these lists. To look at every process takes longer the more instances the machine has.
    let all = fs::read(format!("/proc/self/task/{own}/children")).is_err().then(processes);
    let mut found = vec![top];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        match &all {
            Some(all) => found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid)),
            None => found.extend(children(parent)),
        }
        if next == 0 {
            found.retain(|pid| Some(*pid) != kept);
        }
        next += 1;
    }
    found.split_off(1)
}

/// The living processes and their parents.
fn processes() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| living(pid).map(|parent| (pid, parent))).collect()
}

/// The living children of a process, which its threads have. The kernel may leave out one of a process whose children end meanwhile; when that process
/// ends too, all that it leaves are our own, and of those none is left out, since nobody but us reaps them.
fn children(parent: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().map(str::parse).collect::<Vec<_>>());
    pids.flatten().filter(|pid| living(*pid).is_some()).collect()
}

/// The parent of a process that lives.
fn living(pid: i32) -> Option<i32> {
    parent_of(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// When this process started, in clock ticks since boot.
pub(crate) fn own_starttime() -> u64 {
    let text = fs::read("/proc/self/stat").unwrap_or_default();
    fields(&text).and_then(|fields| fields.get(19)?.parse().ok()).unwrap_or(0)
}

/// The parent in the text of `/proc/<pid>/stat`, `None` for the dead.
fn parent_of(stat: &[u8]) -> Option<i32> {
    match fields(stat)?.as_slice() {
        ["Z" | "X", ..] => None,
        [_, parent, ..] => parent.parse().ok(),
        _ => None,
    }
}

/// The fields of `/proc/<pid>/stat` behind the name, which may hold anything, also `)`.
fn fields(stat: &[u8]) -> Option<Vec<&str>> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    Some(std::str::from_utf8(stat.get(name_end + 1..)?).ok()?.split_ascii_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_of(b"9 (a) Z 1 (x) S 42 9 9"), Some(42));
        assert_eq!(parent_of(b"9 (a) Z 42 9 9"), None);
        assert_eq!(parent_of(b"9 (a"), None);
    }
}
