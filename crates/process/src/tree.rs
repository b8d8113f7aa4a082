//! A program and everything it started, found and ended as one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use berth_clock::Clock;
use rustix::process::Signal;

use crate::cgroup::Cgroup;
use crate::child::{open_pidfd, wait_readable};
use crate::identity::{BootId, Identity, Mark};
use crate::procfs::{self, Has, Stat};

/// Why a tree could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// Processes are left at the end of the time given: we may not signal them, or the kernel holds them.
    #[error("processes {0:?} could not be ended in time")]
    Survivors(Vec<u32>),
    /// The processes could not be looked at or signalled.
    #[error("the processes of the tree could not be looked at")]
    System(#[from] io::Error),
}

/// A tree of processes, known by what is known of it: its root, its mark, its control group.
///
/// A control group is exact, once nobody is left who would start something into it: as root, with a root that is known, nothing else is
/// looked at. Otherwise the tree is what is in the group, what descends from the root, what shares a session or process
/// group that was made inside the tree, and what carries the mark in its environment. As an ordinary user and without
/// control groups one thing escapes: a process that left its session, dropped its environment and whose ancestors
/// in the tree have all ended before anybody looked. A subreaper as the root (the shim is one) closes that while it lives.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The process at the top; it belongs to the tree.
    pub root: Option<Identity>,
    /// The mark that its processes carry.
    pub mark: Option<Mark>,
    /// The control group that its processes (perhaps not the root) are in.
    pub cgroup: Option<Cgroup>,
}

/// What earlier looks found, by which a later look knows processes whose ancestors have ended meanwhile.
#[derive(Debug, Default)]
struct Known {
    /// Start times by pid.
    members: BTreeMap<u32, u64>,
    /// Sessions and process groups that were made inside the tree.
    fences: BTreeSet<u32>,
    /// How many looks in a row found nobody, though some process could not be told.
    unclear: u32,
}

/// So many looks that found nobody, though some process ended or changed its program meanwhile, count as one that
/// could tell of all: on a busy machine some process always does.
const UNCLEAR_LOOKS: u32 = 20;

/// What one look at all processes found.
struct Look {
    members: Vec<Stat>,
    /// Whether every process could be told to be a member or none.
    clear: bool,
}

impl Tree {
    /// The processes of the tree that have not ended, without ourselves.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn members(&self) -> io::Result<Vec<Stat>> {
        Ok(self.look(&mut Known::default(), false)?.members)
    }

    /// Kills the whole tree and waits until no process of it is left, for at most `limit`.
    ///
    /// Processes are first stopped, until a look finds none that still moves: a tree that keeps forking would otherwise
    /// outrun one that kills. Each is signalled through a pidfd whose start time was compared after opening it, so
    /// that a reused pid is never hit.
    ///
    /// # Errors
    /// [`KillError`] when something is left.
    pub fn kill(&self, clock: &dyn Clock, limit: Duration) -> Result<(), KillError> {
        let deadline = clock.monotonic() + limit;
        if let (Some(root), Some(cgroup)) = (&self.root, &self.cgroup)
            // Whoever is not root may have left a group that is his own.
            && rustix::process::geteuid().is_root()
            && cgroup.is_there()?
        {
            return kill_held(root, cgroup, clock, deadline);
        }
        let mut known = Known::default();
        loop {
            if let Some(cgroup) = &self.cgroup {
                cgroup.kill()?;
            }
            let members = self.stop(&mut known, clock, deadline)?;
            if members.is_empty() {
                return Ok(());
            }
            let pidfds: Vec<OwnedFd> = members
                .iter()
                .filter_map(|stat| send(stat, Signal::KILL).transpose())
                .collect::<io::Result<_>>()?;
            for pidfd in &pidfds {
                let left = deadline.saturating_sub(clock.monotonic());
                wait_readable(&[pidfd.as_fd()], left)?;
            }
            if clock.monotonic() >= deadline {
                let left: Vec<u32> =
                    self.look(&mut known, false)?.members.iter().map(|stat| stat.pid).collect();
                return if left.is_empty() { Ok(()) } else { Err(KillError::Survivors(left)) };
            }
        }
    }

    /// Stops the members until a look finds all of them standing, or in a sleep that nothing interrupts, where they
    /// do not fork either. Gives them.
    fn stop(&self, known: &mut Known, clock: &dyn Clock, deadline: Duration) -> io::Result<Vec<Stat>> {
        let mut signalled = BTreeSet::new();
        loop {
            let Look { members, clear } = self.look(known, true)?;
            if members.is_empty() && !clear && known.unclear < UNCLEAR_LOOKS {
                known.unclear += 1;
                continue;
            }
            known.unclear = 0;
            let fresh: Vec<&Stat> =
                members.iter().filter(|stat| !signalled.contains(&(stat.pid, stat.starttime))).collect();
            let standing = members.iter().all(|stat| stat.is_stopped() || stat.state == b'D');
            if (fresh.is_empty() && standing) || clock.monotonic() >= deadline {
                return Ok(members);
            }
            for stat in &fresh {
                send(stat, Signal::STOP)?;
                signalled.insert((stat.pid, stat.starttime));
            }
            if fresh.is_empty() {
                // A stop takes effect when its process next runs; there is no event for that to wait for.
                wait_readable(&[], Duration::from_millis(1))?;
            }
        }
    }

    /// One look at all processes, each read in one go and the marked ones `stop`ped on the spot: one that forks and ends
    /// at once would be gone when we came back to it.
    fn look(&self, known: &mut Known, stop: bool) -> io::Result<Look> {
        let own = std::process::id();
        let assignment = self.mark.map(|mark| mark.assignment());
        let (mut stats, mut found, mut clear) = (BTreeMap::new(), BTreeSet::new(), true);
        for pid in procfs::pids()?.into_iter().filter(|pid| *pid != own && *pid != 1) {
            let Some(stat) = procfs::stat(pid)? else {
                clear = false;
                continue;
            };
            stats.insert(pid, stat);
            let Some(assignment) = assignment.as_ref().filter(|_| !stat.is_dead()) else {
                continue;
            };
            match procfs::has_variable(pid, assignment) {
                Has::Yes => {
                    if stop && !stat.is_stopped() {
                        send(&stat, Signal::STOP)?;
                    }
                    found.insert(pid);
                }
                Has::Unclear => clear = false,
                Has::No => {}
            }
        }
        self.add_known(&stats, known, &mut found)?;
        known.fences.retain(|fence| match stats.get(fence) {
            // The number of a session whose leader ended is not given out while the session has members.
            None => true,
            Some(leader) => known.members.get(fence) == Some(&leader.starttime),
        });
        loop {
            for pid in &found {
                let stat = stats[pid];
                known.members.insert(*pid, stat.starttime);
                // Only a fence whose leader is of the tree was surely made inside it. To guess so when the leader has
                // ended would one day take the session of the terminal that Berth was started from for a tree's.
                known
                    .fences
                    .extend([stat.session, stat.group].into_iter().filter(|fence| found.contains(fence)));
            }
            let more: Vec<u32> = stats
                .values()
                .filter(|stat| {
                    !found.contains(&stat.pid)
                        && (found.contains(&stat.parent)
                            || known.fences.contains(&stat.session)
                            || known.fences.contains(&stat.group))
                })
                .map(|stat| stat.pid)
                .collect();
            if more.is_empty() {
                // The dead serve to find their groups, they need no killing.
                let members = found.iter().map(|pid| stats[pid]).filter(|stat| !stat.is_dead()).collect();
                return Ok(Look { members, clear });
            }
            found.extend(more);
        }
    }

    /// Adds to `found` the members that are known without their mark or relations.
    fn add_known(
        &self,
        stats: &BTreeMap<u32, Stat>,
        known: &Known,
        found: &mut BTreeSet<u32>,
    ) -> io::Result<()> {
        if let Some(root) = &self.root
            && stats.get(&root.pid).is_some_and(|stat| stat.starttime == root.starttime)
            && BootId::current()? == root.boot
        {
            found.insert(root.pid);
        }
        if let Some(cgroup) = &self.cgroup {
            found.extend(cgroup.pids()?.into_iter().filter(|pid| stats.contains_key(pid)));
        }
        let still =
            |(pid, start): &(&u32, &u64)| stats.get(pid).is_some_and(|stat| stat.starttime == **start);
        found.extend(known.members.iter().filter(still).map(|(pid, _)| *pid));
        Ok(())
    }
}

/// Ends `root` and then what is in `cgroup`, which it alone starts things into. A child of its that has not entered yet ends with it: the
/// shim's do, before they run anything else.
///
/// A look at all processes and their environments takes longer the more instances there are, so that to end them all would take the
/// square of their number.
fn kill_held(
    root: &Identity,
    cgroup: &Cgroup,
    clock: &dyn Clock,
    deadline: Duration,
) -> Result<(), KillError> {
    if let Some(pidfd) = root.pidfd()? {
        match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        wait_readable(&[pidfd.as_fd()], deadline.saturating_sub(clock.monotonic()))?;
    }
    loop {
        cgroup.kill()?;
        let mut left = cgroup.pids()?;
        if root.is_alive()? {
            left.push(root.pid);
        }
        if left.is_empty() {
            return Ok(());
        }
        if clock.monotonic() >= deadline {
            return Err(KillError::Survivors(left));
        }
        // What was killed takes a moment to end; v1 has no event for the last one.
        wait_readable(&[], Duration::from_millis(1))?;
    }
}

/// Sends `signal` to the very process that `stat` describes and gives its pidfd, `None` when it has ended. A
/// process that we may not signal is passed over: it shows as a survivor.
fn send(stat: &Stat, signal: Signal) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = open_pidfd(stat.pid)? else { return Ok(None) };
    if procfs::stat(stat.pid)?.is_none_or(|now| now.starttime != stat.starttime) {
        return Ok(None);
    }
    match rustix::process::pidfd_send_signal(&pidfd, signal) {
        Ok(()) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
