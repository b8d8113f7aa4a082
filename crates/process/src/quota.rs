//! How much memory, processor time, how many processes and how much of a disk's time a control group may have.
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
    /// How fast a disk is read and written.
    Disk,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Processes, Self::Disk];

    /// The kernel's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "pids",
            Self::Disk => "io",
        }
    }

    /// The folder of its hierarchy in v1.
    fn folder(self) -> &'static str {
        if self == Self::Disk { "blkio" } else { self.name() }
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
    /// How fast one disk is read and written.
    pub disk: Option<DiskSpeed>,
}

/// How fast a disk is read and written, in bytes per second; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpeed {
    /// Which disk.
    pub disk: Disk,
    /// Bytes read in a second.
    pub read: Option<u64>,
    /// Bytes written in a second.
    pub write: Option<u64>,
}

/// A disk, by the kernel's numbers of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    major: u32,
    minor: u32,
}

impl Disk {
    /// The disk that the file system at `path` is on; `None` where it is on none of its own, as with btrfs or ZFS, or in memory.
    ///
    /// # Errors
    /// When `path` cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let device = rustix::fs::stat(path)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let known = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if !known.try_exists()? {
            return Ok(None);
        }
        if !known.join("partition").try_exists()? {
            return Ok(Some(Self { major, minor }));
        }
        // A partition is limited by its disk, which sysfs has above it.
        let text = fs::read_to_string(known.canonicalize()?.join("../dev"))?;
        let numbers = text.trim().split_once(':');
        Ok(numbers
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })))
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Quota {
    /// Whether a group of its own is needed for `controller` where that is in a hierarchy of its own. To be in one more takes time at each start,
    /// and few have a use for it.
    fn concerns(&self, controller: Controller) -> bool {
        controller != Controller::Disk || self.disk.is_some()
    }
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
            let mount = Path::new("/sys/fs/cgroup").join(controller.folder());
            let parent = if as_root { mount } else { own_group(&mount, ours, controller.folder())? };
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

    /// As [`Controllers::beside`], those alone that `quota` needs.
    pub(crate) fn needed_beside(&self, name: &str, quota: &Quota) -> BTreeMap<Controller, PathBuf> {
        let all = self.beside(name).into_iter();
        all.filter(|(controller, _)| quota.concerns(*controller)).collect()
    }

    /// Gives the group that lies in `dir` and is called `name` its limits; those for which there is no controller are passed over.
    pub(crate) fn limit(&self, dir: &Path, name: &str, quota: &Quota) -> io::Result<()> {
        let concerned = self.0.iter().filter(|(controller, _)| quota.concerns(**controller));
        concerned.into_iter().try_for_each(|(controller, place)| match place {
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
/// A group that holds processes hands none down, unless it is the top one: those of an ordinary user's own group, ourselves among them,
/// move into one below it first, if the group is the user's.
fn hand_down(dir: &Path) -> impl Iterator<Item = Controller> {
    for group in dir.parent().into_iter().chain([dir]) {
        for controller in Controller::ALL {
            let order = || fs::write(group.join("cgroup.subtree_control"), format!("+{}", controller.name()));
            // What fails shows in what is read below.
            match order() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    drop(move_aside(group).and_then(|()| order()));
                }
                _ => {}
            }
        }
    }
    let text = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    Controller::ALL
        .into_iter()
        .filter(move |controller| text.split_whitespace().any(|word| word == controller.name()))
}

/// The group that the processes of a user's own group move into, below it.
const ASIDE: &str = "berth-itself";

/// `group`, or the one above it, where it is one that processes were moved into.
pub(crate) fn before_moving_aside(group: PathBuf) -> PathBuf {
    if group.ends_with(ASIDE) { group.parent().map_or(group.clone(), Path::to_owned) } else { group }
}

/// Moves all processes of `group` into one below it.
fn move_aside(group: &Path) -> io::Result<()> {
    let (procs, aside) = (group.join("cgroup.procs"), group.join(ASIDE));
    make_dir(&aside)?;
    // What a process that was not moved yet has forked meanwhile takes another turn.
    for _ in 0..16 {
        let left = fs::read_to_string(&procs)?;
        if left.is_empty() {
            return Ok(());
        }
        for pid in left.lines() {
            match fs::write(aside.join("cgroup.procs"), pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
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
        Controller::Disk => {
            let Some(DiskSpeed { disk, read, write }) = quota.disk else { return Ok(()) };
            fs::write(dir.join("io.max"), format!("{disk} rbps={} wbps={}", number(read), number(write)))
        }
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
        Controller::Disk => {
            let Some(DiskSpeed { disk, read, write }) = quota.disk else { return Ok(()) };
            let files =
                [("blkio.throttle.read_bps_device", read), ("blkio.throttle.write_bps_device", write)];
            files.into_iter().try_for_each(|(file, speed)| match speed {
                Some(speed) => fs::write(dir.join(file), format!("{disk} {speed}")),
                None => Ok(()),
            })
        }
    }
}
