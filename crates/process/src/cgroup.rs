//! Control groups, as a fence that no process leaves: what is started inside stays inside.
//!
//! Three kinds of machines are known: v2 alone, a v2 hierarchy beside v1 ones ("hybrid", where v2 has no controllers but
//! can still hold, freeze and kill), and v1 alone, where the freezer serves. Which one it is and whether we may
//! use it is found out by trying; so are the controllers that limit a group ([`crate::Quota`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{open_pidfd, wait_readable};
use crate::quota::{Controller, Controllers, Quota, before_moving_aside};

/// The kind of hierarchy in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupKind {
    /// v2 alone.
    Unified,
    /// v2 beside v1 controllers.
    Hybrid,
    /// v1's freezer.
    Freezer,
}

impl std::fmt::Display for CgroupKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unified => "v2",
            Self::Hybrid => "hybrid",
            Self::Freezer => "v1",
        })
    }
}

/// A folder of control groups that we may make groups in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    dir: PathBuf,
    kind: CgroupKind,
    controllers: Controllers,
}

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    dir: PathBuf,
    kind: CgroupKind,
    /// The groups that limit it, where those are others, by their controllers. They need not exist.
    twins: BTreeMap<Controller, PathBuf>,
}

impl Cgroups {
    /// Finds a place for groups and makes the folder `name` in it, by trying the hierarchies in order of merit:
    /// for root at their top, else below our own group, where the system may have delegated it. `None` when none
    /// lets us.
    #[must_use]
    pub fn discover(name: &str) -> Option<Self> {
        let mounts = [
            ("/sys/fs/cgroup", "cgroup.controllers", CgroupKind::Unified, "0::"),
            ("/sys/fs/cgroup/unified", "cgroup.procs", CgroupKind::Hybrid, "0::"),
            ("/sys/fs/cgroup/freezer", "cgroup.procs", CgroupKind::Freezer, "freezer"),
        ];
        let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let as_root = rustix::process::geteuid().is_root();
        mounts.into_iter().find_map(|(mount, sign, kind, hierarchy)| {
            let mount = Path::new(mount);
            mount.join(sign).try_exists().ok().filter(|exists| *exists)?;
            let own = || own_group(mount, &ours, hierarchy).map(before_moving_aside);
            let parent = if as_root { mount.to_owned() } else { own()? };
            let mut groups = Self::attempt(&parent, name, kind)?;
            groups.controllers = Controllers::discover(&groups.dir, name, kind, &ours);
            Some(groups)
        })
    }

    fn attempt(parent: &Path, name: &str, kind: CgroupKind) -> Option<Self> {
        // Moving a process takes the right to write to the closest group above both places.
        OpenOptions::new().write(true).open(parent.join("cgroup.procs")).ok()?;
        let groups = Self { dir: parent.join(name), kind, controllers: Controllers::default() };
        make_dir(&groups.dir).ok()?;
        let trial = groups.create(&format!("trial-{}", std::process::id())).ok()?;
        let usable = Cgroup::door(&trial.dir).is_ok();
        trial.remove().ok()?;
        usable.then_some(groups)
    }

    /// The kind of hierarchy.
    #[must_use]
    pub fn kind(&self) -> CgroupKind {
        self.kind
    }

    /// The group `name`, made if need be.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self, name: &str) -> io::Result<Cgroup> {
        let group = self.group(name);
        make_dir(&group.dir)?;
        Ok(group)
    }

    /// What [`Cgroups::create_limited`] limits.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<Controller> {
        self.controllers.iter().collect()
    }

    /// The group `name`, made if need be, with its limits, as far as there are controllers for them.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create_limited(&self, name: &str, quota: &Quota) -> io::Result<Cgroup> {
        // The group that holds comes first and goes last: by its name the others are found again.
        let group = self.create(name)?;
        self.controllers.limit(&group.dir, name, quota)?;
        Ok(Cgroup { twins: self.controllers.needed_beside(name, quota), ..group })
    }

    /// Has what is in all groups of the folder get a quarter of the processors' time that others get who want it as much; nothing where there
    /// is no controller for it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn give_way(&self) -> io::Result<()> {
        self.controllers.give_way(&self.dir)
    }

    /// The group `name`, which need not exist.
    #[must_use]
    pub fn group(&self, name: &str) -> Cgroup {
        Cgroup { dir: self.dir.join(name), kind: self.kind, twins: self.controllers.beside(name) }
    }

    /// The names of the groups that exist.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes the folder itself, once it holds no groups.
    ///
    /// # Errors
    /// When it still holds some.
    pub fn remove(&self) -> io::Result<()> {
        self.controllers.remove()?;
        remove_dir(&self.dir)
    }
}

impl Cgroup {
    /// The folder of the controller's files of this group; its own where there is no other.
    #[must_use]
    pub fn dir(&self, controller: Controller) -> &Path {
        self.twins.get(&controller).unwrap_or(&self.dir)
    }

    /// Whether the controller has a folder of its own.
    #[must_use]
    pub fn is_beside(&self, controller: Controller) -> bool {
        self.twins.contains_key(&controller)
    }

    /// Its path from the top of the hierarchies, as another program is told it: for root the same in all of them.
    #[must_use]
    pub fn from_top(&self) -> String {
        let mount = match self.kind {
            CgroupKind::Unified => "/sys/fs/cgroup",
            CgroupKind::Hybrid => "/sys/fs/cgroup/unified",
            CgroupKind::Freezer => "/sys/fs/cgroup/freezer",
        };
        let within = self.dir.strip_prefix(mount).unwrap_or(&self.dir);
        Path::new("/").join(within).display().to_string()
    }

    /// The files to which a process writes `0` to be limited, where those are not [`Cgroup::door_path`].
    pub fn more_doors(&self) -> impl Iterator<Item = PathBuf> {
        self.twins.values().map(|twin| twin.join("cgroup.procs"))
    }

    /// The file that counts the kernel's kills for want of memory in the group, on a line `oom_kill N`; it need not be there.
    #[must_use]
    pub fn oom_counter(&self) -> PathBuf {
        match self.twins.get(&Controller::Memory) {
            Some(twin) => twin.join("memory.oom_control"),
            None => self.dir.join("memory.events"),
        }
    }

    /// How many processes of the group the kernel has killed for want of memory; nothing when nobody counts.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        let counter = fs::read_to_string(self.oom_counter()).ok()?;
        counter.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// Bytes of memory that the group holds, where that is counted.
    #[must_use]
    pub fn memory_used(&self) -> Option<u64> {
        let file = match self.twins.get(&Controller::Memory) {
            Some(twin) => twin.join("memory.usage_in_bytes"),
            None => self.dir.join("memory.current"),
        };
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// The file to which a process writes `0` to enter the group.
    #[must_use]
    pub fn door_path(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// The file to which the one thread of a process writes `0` to enter the group in `dir`, open. In v1 it is that for threads: to move a whole
    /// process the kernel waits until no process of the machine is in the middle of starting a thread (commit 9a3284fad42f, Linux 5.5).
    fn door(dir: &Path) -> io::Result<OwnedFd> {
        let open = |file: &str| OpenOptions::new().write(true).open(dir.join(file)).map(OwnedFd::from);
        match open("tasks") {
            Err(error) if is_gone(&error) => open("cgroup.procs"),
            door => door,
        }
    }

    /// The files to which a process writes `0` to be held and, where the group is limited, limited; open.
    pub(crate) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut doors = vec![Self::door(&self.dir)?];
        for twin in self.twins.values() {
            match Self::door(twin) {
                Ok(door) => doors.push(door),
                // The group was made without limits.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(doors)
    }

    /// How many times a process of the group could start no other, because the group may have no more; nothing when nobody counts.
    #[must_use]
    pub fn refused_processes(&self) -> Option<u64> {
        let events = fs::read_to_string(self.dir(Controller::Processes).join("pids.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok())
    }

    /// Whether there is such a group.
    ///
    /// # Errors
    /// When the group cannot be looked at.
    pub fn is_there(&self) -> io::Result<bool> {
        self.dir.try_exists()
    }

    /// The processes in the group; none when there is no such group.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        match fs::read_to_string(self.door_path()) {
            // 0 stands for a process outside our pid namespace.
            Ok(text) => {
                Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
            }
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Kills every process in the group, at once where the kernel can, else frozen so that none can fork away. They may
    /// take a moment to end after this returned.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> io::Result<()> {
        match self.kind {
            CgroupKind::Unified | CgroupKind::Hybrid => match self.write("cgroup.kill", "1") {
                // Before Linux 5.14 there is no such file, and the kernel file system lets none be made.
                Err(error) if self.lacks_kill(&error) => self.kill_frozen(),
                other => ignore_gone(other),
            },
            CgroupKind::Freezer => self.kill_frozen(),
        }
    }

    /// Has every process of the group stand still, and waits until they do, for at most two seconds. A process that is started into the
    /// group meanwhile stands still too.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn freeze(&self) -> io::Result<()> {
        let (file, freeze, _) = self.freezer();
        self.write(file, freeze)?;
        self.wait_frozen()
    }

    /// Has the group's processes go on.
    ///
    /// # Errors
    /// When the system refuses; a group that is not there has none that stand still.
    pub fn thaw(&self) -> io::Result<()> {
        let (file, _, thaw) = self.freezer();
        ignore_gone(self.write(file, thaw))
    }

    /// The file that freezes, and what it is told to.
    fn freezer(&self) -> (&'static str, &'static str, &'static str) {
        match self.kind {
            CgroupKind::Unified | CgroupKind::Hybrid => ("cgroup.freeze", "1", "0"),
            CgroupKind::Freezer => ("freezer.state", "FROZEN", "THAWED"),
        }
    }

    fn lacks_kill(&self, error: &io::Error) -> bool {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
            && self.dir.try_exists().unwrap_or(false)
    }

    fn kill_frozen(&self) -> io::Result<()> {
        let (file, freeze, _) = self.freezer();
        ignore_gone(self.write(file, freeze))?;
        let killed = self.wait_frozen().and_then(|()| self.pids()?.into_iter().try_for_each(kill_one));
        // Even when killing failed the group must not stay frozen; the kill reaches a v1 process only thawed.
        self.thaw()?;
        killed
    }

    /// Waits until every process of the group stands still, for at most two seconds: one in an uninterruptible
    /// sleep would keep us for ever, and it cannot fork either.
    fn wait_frozen(&self) -> io::Result<()> {
        for _ in 0..200 {
            let frozen = match self.kind {
                CgroupKind::Freezer => {
                    fs::read_to_string(self.dir.join("freezer.state")).map(|text| text.trim() == "FROZEN")
                }
                CgroupKind::Unified | CgroupKind::Hybrid => {
                    fs::read_to_string(self.dir.join("cgroup.events"))
                        .map(|text| text.lines().any(|line| line == "frozen 1"))
                }
            };
            match frozen {
                Ok(false) => wait_readable(&[], Duration::from_millis(10))?,
                Ok(true) => return Ok(()),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes the group, which must be empty; a group that is not there is removed already.
    ///
    /// # Errors
    /// When processes are left in it.
    pub fn remove(&self) -> io::Result<()> {
        // An app that runs as root within may have made groups below; they are empty once their processes ended.
        if let Ok(entries) = fs::read_dir(&self.dir) {
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                Self { dir: entry.path(), kind: self.kind, twins: BTreeMap::new() }.remove()?;
            }
        }
        self.twins.values().try_for_each(|twin| remove_dir(twin))?;
        remove_dir(&self.dir)
    }

    /// Removes what a maker of containers leaves behind, who was told to put them into the group `name` below this one: that group where it was killed,
    /// and in the hierarchies of v1 that we have no use for the groups above it, which it makes and nobody removes.
    ///
    /// # Errors
    /// When processes are left in it.
    pub fn remove_made_below(&self, name: &str) -> io::Result<()> {
        if self.kind == CgroupKind::Unified {
            return Ok(());
        }
        let own: BTreeSet<&Path> =
            self.twins.values().map(PathBuf::as_path).chain([self.dir.as_path()]).collect();
        let path = self.from_top();
        for mount in fs::read_dir("/sys/fs/cgroup")? {
            let mount = mount?;
            // Links lead to hierarchies of several controllers.
            if !mount.file_type()?.is_dir() {
                continue;
            }
            let group = mount.path().join(path.trim_start_matches('/'));
            remove_dir(&group.join(name))?;
            if own.contains(group.as_path()) {
                continue;
            }
            remove_dir(&group)?;
            if let Some(folder) = group.parent() {
                match fs::remove_dir(folder) {
                    // Another build of the platform has its group there.
                    Err(error)
                        if error.kind() == ErrorKind::DirectoryNotEmpty
                            || error.kind() == ErrorKind::ResourceBusy => {}
                    removed => ignore_gone(removed)?,
                }
            }
        }
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.dir.join(file))?;
        io::Write::write_all(&mut file, text.as_bytes())
    }
}

/// Sends SIGKILL to `pid` of a group whose processes stand still.
fn kill_one(pid: u32) -> io::Result<()> {
    let Some(pidfd) = open_pidfd(pid)? else { return Ok(()) };
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Our own group in the hierarchy mounted at `mount`, out of `/proc/self/cgroup`.
pub(crate) fn own_group(mount: &Path, ours: &str, hierarchy: &str) -> Option<PathBuf> {
    let path = ours.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let found = if hierarchy == "0::" {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|controller| controller == hierarchy)
        };
        found.then_some(path)
    })?;
    Some(mount.join(path.trim_start_matches('/')))
}

pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    // A group stays busy for a moment after its last process ended; half a second is far more than it takes.
    for _ in 0..50 {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                wait_readable(&[], Duration::from_millis(10))?;
            }
            other => return ignore_gone(other),
        }
    }
    fs::remove_dir(dir)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn ignore_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Disk, DiskSpeed};

    #[test]
    fn our_own_group_is_found_in_each_hierarchy() {
        let ours = "9:name=systemd:/a\n6:freezer,pids:/b/c\n0::/user.slice/x\n";
        let mount = Path::new("/m");
        assert_eq!(own_group(mount, ours, "0::"), Some("/m/user.slice/x".into()));
        assert_eq!(own_group(mount, ours, "freezer"), Some("/m/b/c".into()));
        assert_eq!(own_group(mount, "9:name=systemd:/a\n", "0::"), None);
    }

    #[test]
    fn a_group_is_given_its_limits_where_we_may() {
        let Some(groups) = Cgroups::discover(&format!("berth-quota-test-{}", std::process::id())) else {
            return println!("SKIPPED: no control group may be made");
        };
        let disk = Disk::of(Path::new("/var")).unwrap();
        let disk = disk.map(|disk| DiskSpeed { disk, read: Some(5 << 20), write: Some(1 << 20) });
        let quota = Quota { memory: Some(64 << 20), cpu_millis: Some(500), processes: Some(7), disk };
        let group = groups.create_limited("one", &quota).unwrap();
        for controller in groups.controllers() {
            if controller == Controller::Disk {
                let Some(DiskSpeed { disk, .. }) = disk else { continue };
                let read = |file: &str| fs::read_to_string(group.dir(controller).join(file)).unwrap();
                if group.is_beside(controller) {
                    assert_eq!(read("blkio.throttle.read_bps_device").trim(), format!("{disk} 5242880"));
                    assert_eq!(read("blkio.throttle.write_bps_device").trim(), format!("{disk} 1048576"));
                } else {
                    assert!(read("io.max").starts_with(&format!("{disk} rbps=5242880 wbps=1048576 ")));
                }
                continue;
            }
            let (file, limit) = match (controller, group.is_beside(controller)) {
                (Controller::Memory, true) => ("memory.limit_in_bytes", "67108864"),
                (Controller::Memory, false) => ("memory.max", "67108864"),
                (Controller::Cpu, true) => ("cpu.cfs_quota_us", "50000"),
                (Controller::Cpu, false) => ("cpu.max", "50000 100000"),
                (Controller::Processes, _) => ("pids.max", "7"),
                (Controller::Disk, _) => unreachable!("it is looked at above"),
            };
            let written = fs::read_to_string(group.dir(controller).join(file)).unwrap();
            assert_eq!(written.trim(), limit, "{file}");
        }
        assert!(group.more_doors().all(|door| door.try_exists().unwrap()));
        let modest = groups.create_limited("two", &Quota::of_processes(7)).unwrap();
        assert!(!modest.is_beside(Controller::Disk), "it is in no more groups than it needs");
        assert!(modest.more_doors().all(|door| door.try_exists().unwrap()));
        groups.group("two").remove().unwrap();
        groups.give_way().unwrap();
        if groups.controllers().contains(&Controller::Cpu) {
            let file =
                if group.is_beside(Controller::Cpu) { ("cpu.shares", "256") } else { ("cpu.weight", "25") };
            let folder = group.dir(Controller::Cpu).parent().unwrap();
            assert_eq!(fs::read_to_string(folder.join(file.0)).unwrap().trim(), file.1);
        }
        if groups.controllers().contains(&Controller::Memory) {
            assert!(fs::read_to_string(group.oom_counter()).unwrap().contains("oom_kill "));
            assert!(group.memory_used().is_some());
        }
        group.remove().unwrap();
        groups.remove().unwrap();
    }

    #[test]
    fn a_group_is_made_and_removed_where_we_may() {
        let Some(groups) = Cgroups::discover(&format!("berth-test-{}", std::process::id())) else {
            return println!("SKIPPED: no control group may be made");
        };
        let group = groups.create("one").unwrap();
        assert_eq!(group.pids().unwrap(), Vec::<u32>::new());
        assert_eq!(groups.names().unwrap(), ["one"]);
        group.kill().unwrap();
        group.remove().unwrap();
        group.remove().unwrap();
        group.kill().unwrap();
        groups.remove().unwrap();
    }
}
