//! What of a platform can be killed, and the seeded chance that chooses when and whom.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_clock::{ManualClock, random_bytes};
use berth_spec::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::connections;
use crate::leaks::Process;
use crate::platform::{PATIENCE, Platform};

/// What a platform has that a machine short of memory, or a person, may kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The supervisor. It does not return by itself.
    Supervisor,
    /// The role of that name.
    Control,
    /// The role of that name.
    Edge,
    /// The shim above some instance, warm and starting ones too.
    Shim,
    /// The process of some app's instance.
    Instance,
    /// A process of a build.
    Build,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Supervisor, Self::Control, Self::Edge, Self::Shim, Self::Instance, Self::Build];

    /// Whether requests may be in flight there. Where not, nobody may notice the kill.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Edge | Self::Shim | Self::Instance)
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Supervisor => "supervisor",
            Self::Control => "control",
            Self::Edge => "edge",
            Self::Shim => "shim",
            Self::Instance => "instance",
            Self::Build => "build",
        })
    }
}

/// A process that can be killed now.
#[derive(Debug)]
pub struct Prey {
    /// Its process id.
    pub pid: u32,
    process: OwnedFd,
    /// The app's process under a shim, which dies with it.
    below: Vec<OwnedFd>,
}

impl Prey {
    /// Holds on to the process, unless it has ended.
    fn catch(pid: u32, below: &[u32]) -> Option<Self> {
        let below = below.iter().filter_map(|pid| hold(*pid)).collect();
        Some(Self { pid, process: hold(pid)?, below })
    }

    /// Stops it for its last moments, and gives the clients' ports of the connections that it has accepted: those that die with it.
    #[must_use]
    pub fn stop(&self) -> BTreeSet<u16> {
        connections::accepted(self.pid, &self.process)
    }

    /// Kills it, and waits until it and what dies with it have ended: until then their connections live.
    ///
    /// Says whether it was alive, so that this killed it.
    #[must_use]
    pub fn kill(self) -> bool {
        let killed = !has_ended(&self.process, Duration::ZERO)
            && rustix::process::pidfd_send_signal(&self.process, Signal::KILL).is_ok();
        for process in [&self.process].into_iter().chain(&self.below) {
            assert!(has_ended(process, PATIENCE), "{} does not end although it was killed", self.pid);
        }
        killed
    }
}

impl Platform {
    /// The processes of this kind that live now, sorted by their ids.
    #[must_use]
    pub fn prey(&self, victim: Victim) -> Vec<Prey> {
        let mut prey: Vec<Prey> = match victim {
            Victim::Supervisor => Prey::catch(self.supervisor(), &[]).into_iter().collect(),
            Victim::Control | Victim::Edge => {
                self.role(&victim.to_string()).into_iter().filter_map(|pid| Prey::catch(pid, &[])).collect()
            }
            Victim::Shim => {
                self.instances().iter().filter_map(|(shim, below)| Prey::catch(*shim, below)).collect()
            }
            Victim::Instance => {
                let below = self.instances().into_iter().flat_map(|(_, below)| below);
                below.filter_map(|pid| Prey::catch(pid, &[])).collect()
            }
            Victim::Build => {
                let builds = self.home().join("builds");
                let builds = self.traces().processes_by(|process| process.is_in(&builds));
                builds.iter().filter_map(|process| Prey::catch(process.pid, &[])).collect()
            }
        };
        prey.sort_by_key(|prey| prey.pid);
        prey
    }

    /// Every shim above an instance, and its children.
    fn instances(&self) -> Vec<(u32, Vec<u32>)> {
        let of_home = self.home();
        let shims = self.traces().processes_by(|process| is_of_instance(process) && process.holds(&of_home));
        let shims: Vec<u32> = shims.iter().map(|shim| shim.pid).collect();
        let children = self.traces().processes_by(|process| shims.contains(&process.parent));
        // An ordinary user's instance has its way out beside it, which somebody keeps.
        let ways_out = self.traces().processes_by(|process| {
            process.arguments.split('\0').next().is_some_and(|program| program.ends_with("/slirp4netns"))
        });
        let keepers: Vec<u32> = ways_out.iter().map(|process| process.parent).collect();
        let below = |shim: u32| -> Vec<u32> {
            let own = children.iter().filter(|child| child.parent == shim && !keepers.contains(&child.pid));
            own.map(|child| child.pid).collect()
        };
        shims.into_iter().map(|shim| (shim, below(shim))).collect()
    }
}

fn is_of_instance(process: &Process) -> bool {
    let mut words = process.arguments.split('\0');
    // The shim of a command of a build has no id, which holds slashes.
    let is_id = |word: &str| word.contains('/') && !word.contains("release-command");
    words.next() == Some("berth-shim") && words.next().is_some_and(is_id)
}

pub(crate) fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn has_ended(process: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    matches!(rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)), Ok(1))
}

/// Chance that a seed repeats.
#[derive(Debug)]
pub struct Chance {
    clock: ManualClock,
}

impl Chance {
    /// The same draws for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { clock: ManualClock::new(Timestamp(0), seed) }
    }

    /// A number below `end`, which is not nought.
    #[must_use]
    pub fn below(&self, end: usize) -> usize {
        let drawn = u64::from_le_bytes(random_bytes(&self.clock)) % u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(drawn).expect("it is below a usize")
    }

    /// One of `these`, taken from them; none when there are none.
    pub fn take<T>(&self, these: &mut Vec<T>) -> Option<T> {
        if these.is_empty() { None } else { Some(these.swap_remove(self.below(these.len()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_draws_and_takes_everything_once() {
        let draw = |seed| {
            let chance = Chance::new(seed);
            let mut left: Vec<usize> = (0..20).collect();
            std::iter::from_fn(|| chance.take(&mut left)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let mut all = draw(9);
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
    }
}
