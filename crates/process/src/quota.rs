//! How much memory, processor time and how many processes a control group may have.
//!
//! v2 has the controllers in its own hierarchy, once the groups above hand them down. On v1, and beside a v2 that has none,
//! each controller is in a hierarchy of its own, so there a process is in several groups of the same name: the one that holds it and
//! those that limit it. What a controller does, and whether we may use it, is found out by trying.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::{CgroupKind, make_dir, own_group, remove_dir};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory, and the kernel's choice of what to kill when it runs out.
    Memory,
    /// Processor time.
    Cpu,
    /// How many processes and threads there are.
    Processes,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Processes];

    /// The kernel's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "pids",
        }
    }
}

/// The limits of a group; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Bytes of memory, swap included.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

impl Quota {
    /// Of processes alone.
    #[must_use]
    pub fn of_processes(processes: u64) -> Self {
        Self { processes: Some(processes), ..Self::default() }
    }
}

/// The weight of what gives way, a quarter of what everything else has unless told otherwise: of v2 and of v1.
const GIVING_WAY: u32 = 100 / 4;
const SHARES_GIVING_WAY: u32 = 1_024 / 4;
/// The processor's time is shared out in periods of so many microseconds, as the kernel does unless told otherwise.
const PERIOD: u64 = 100_000;

/// Where the controllers of the groups of one folder are: nowhere else, or in folders of v1 hierarchies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Controllers(BTreeMap<Controller, Place>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In the groups themselves.
    Within,
    /// In groups of the same names in this folder.
    Beside(PathBuf),
}

impl Controllers {
    /// Finds out which there are for groups in the folder `dir`, which is called `name`. `ours` is the text of `/proc/self/cgroup`.
    pub(crate) fn discover(dir: &Path, name: &str, kind: CgroupKind, ours: &str) -> Self {
        if kind == CgroupKind::Unified {
            return Self(hand_down(dir).map(|controller| (controller, Place::Within)).collect());
        }
        let as_root = rustix::process::geteuid().is_root();
        let found = Controller::ALL.into_iter().filter_map(|controller| {
            let mount = Path::new("/sys/fs/cgroup").join(controller.name());
            let parent = if as_root { mount } else { own_group(&mount, ours, controller.name())? };
            // A folder that is not the controller's takes a file, and then is none that we may use.
            parent.join("cgroup.procs").try_exists().ok().filter(|exists| *exists)?;
            let folder = parent.join(name);
            make_dir(&folder).ok()?;
            fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs")).ok()?;
            Some((controller, Place::Beside(folder)))
        });
        Self(found.collect())
    }

    /// Those that there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Controller> {
        self.0.keys().copied()
    }

    /// The folders of the groups beside the group `name`, by their controllers.
    pub(crate) fn beside(&self, name: &str) -> BTreeMap<Controller, PathBuf> {
        let beside = |(controller, place): (&Controller, &Place)| match place {
            Place::Within => None,
            Place::Beside(folder) => Some((*controller, folder.join(name))),
        };
        self.0.iter().filter_map(beside).collect()
    }

    /// Gives the group that lies in `dir` and is called `name` its limits; those for which there is no controller are passed over.
    pub(crate) fn limit(&self, dir: &Path, name: &str, quota: &Quota) -> io::Result<()> {
        self.0.iter().try_for_each(|(controller, place)| match place {
            Place::Within => limit_within(dir, *controller, quota),
            Place::Beside(folder) => {
                let twin = folder.join(name);
                make_dir(&twin)?;
                limit_beside(&twin, *controller, quota)
            }
        })
    }

    /// Has all that is in the folder `dir` give way to what is beside it, where several want the processors.
    pub(crate) fn give_way(&self, dir: &Path) -> io::Result<()> {
        match self.0.get(&Controller::Cpu) {
            Some(Place::Within) => fs::write(dir.join("cpu.weight"), GIVING_WAY.to_string()),
            Some(Place::Beside(folder)) => {
                fs::write(folder.join("cpu.shares"), SHARES_GIVING_WAY.to_string())
            }
            None => Ok(()),
        }
    }

    /// Removes what [`Controllers::discover`] made, once it holds no groups.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.0.values().try_for_each(|place| match place {
            Place::Within => Ok(()),
            Place::Beside(folder) => remove_dir(folder),
        })
    }
}

/// Has the groups above `dir`, and `dir` itself, hand the controllers down. Gives those that they do.
///
/// A group that holds processes hands none down, unless it is the top one. That is so for a user's own group without delegation.
fn hand_down(dir: &Path) -> impl Iterator<Item = Controller> {
    for group in dir.parent().into_iter().chain([dir]) {
        for controller in Controller::ALL {
            // What fails shows in what is read below.
            drop(fs::write(group.join("cgroup.subtree_control"), format!("+{}", controller.name())));
        }
    }
    let text = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    Controller::ALL
        .into_iter()
        .filter(move |controller| text.split_whitespace().any(|word| word == controller.name()))
}

fn limit_within(dir: &Path, controller: Controller, quota: &Quota) -> io::Result<()> {
    let number = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    match controller {
        Controller::Memory => {
            fs::write(dir.join("memory.max"), number(quota.memory))?;
            // There is none on a machine without swap.
            if quota.memory.is_some() && dir.join("memory.swap.max").try_exists()? {
                fs::write(dir.join("memory.swap.max"), "0")?;
            }
            Ok(())
        }
        Controller::Cpu => {
            let time = quota.cpu_millis.map(|millis| u64::from(millis) * PERIOD / 1_000);
            fs::write(dir.join("cpu.max"), format!("{} {PERIOD}", number(time)))
        }
        Controller::Processes => fs::write(dir.join("pids.max"), number(quota.processes)),
    }
}

fn limit_beside(dir: &Path, controller: Controller, quota: &Quota) -> io::Result<()> {
    match controller {
        Controller::Memory => {
            let Some(bytes) = quota.memory else { return Ok(()) };
            // The limit with swap must never be the lower one of both.
            fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string())?;
            let with_swap = dir.join("memory.memsw.limit_in_bytes");
            if with_swap.try_exists()? { fs::write(with_swap, bytes.to_string()) } else { Ok(()) }
        }
        Controller::Cpu => {
            let Some(millis) = quota.cpu_millis else { return Ok(()) };
            fs::write(dir.join("cpu.cfs_period_us"), PERIOD.to_string())?;
            fs::write(dir.join("cpu.cfs_quota_us"), (u64::from(millis) * PERIOD / 1_000).to_string())
        }
        Controller::Processes => {
            let limit = quota.processes.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
            fs::write(dir.join("pids.max"), limit)
        }
    }
}
