//! Control groups, as a fence that no process leaves: what is started inside stays inside.
//!
//! Three kinds of machines are known: v2 alone, a v2 hierarchy beside v1 ones ("hybrid", where v2 has no controllers but
//! can still hold, freeze and kill), and v1 alone, where the freezer serves. How many processes a group may have is bounded
//! where the `pids` controller lets us. Which one it is and whether we may
//! use it is found out by trying.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{PidfdFlags, Signal};

use self::bound::Counting;
use crate::child::{pid_of, wait_readable};

mod bound;

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
    counting: Option<Counting>,
}

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    dir: PathBuf,
    kind: CgroupKind,
    /// The group that counts its processes, where that is another one. It need not exist.
    counter: Option<PathBuf>,
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
            let parent = if as_root { mount.to_owned() } else { own_group(mount, &ours, hierarchy)? };
            let mut groups = Self::attempt(&parent, name, kind)?;
            groups.counting = Counting::discover(&groups.dir, name, kind, &ours);
            Some(groups)
        })
    }

    fn attempt(parent: &Path, name: &str, kind: CgroupKind) -> Option<Self> {
        // Moving a process takes the right to write to the closest group above both places.
        OpenOptions::new().write(true).open(parent.join("cgroup.procs")).ok()?;
        let groups = Self { dir: parent.join(name), kind, counting: None };
        make_dir(&groups.dir).ok()?;
        let trial = groups.create(&format!("trial-{}", std::process::id())).ok()?;
        let usable = trial.door().is_ok();
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

    /// Whether [`Cgroups::create_bounded`] bounds.
    #[must_use]
    pub fn can_bound(&self) -> bool {
        self.counting.is_some()
    }

    /// The group `name`, made if need be, which may have `processes` at once, threads among them. Where [`Cgroups::can_bound`] says no it
    /// has no bound.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create_bounded(&self, name: &str, processes: u64) -> io::Result<Cgroup> {
        // The group that holds comes first and goes last: by its name the other is found again.
        let group = self.create(name)?;
        if self.counting.is_some() {
            let counted = group.counted();
            make_dir(counted)?;
            bound::set(counted, processes)?;
        }
        Ok(group)
    }

    /// The group `name`, which need not exist.
    #[must_use]
    pub fn group(&self, name: &str) -> Cgroup {
        let counter = self.counting.as_ref().and_then(|counting| counting.group(name));
        Cgroup { dir: self.dir.join(name), kind: self.kind, counter }
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
        self.counting.as_ref().map_or(Ok(()), Counting::remove)?;
        remove_dir(&self.dir)
    }
}

impl Cgroup {
    /// The file to which a process writes `0` to enter the group.
    #[must_use]
    pub fn door_path(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// That file, open.
    fn door(&self) -> io::Result<OwnedFd> {
        OpenOptions::new().write(true).open(self.door_path()).map(OwnedFd::from)
    }

    /// The files to which a process writes `0` to be held and, where the group is bounded, counted; open.
    pub(crate) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut doors = vec![self.door()?];
        if let Some(counter) = &self.counter {
            match OpenOptions::new().write(true).open(counter.join("cgroup.procs")) {
                Ok(door) => doors.push(door.into()),
                // The group was made without a bound.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(doors)
    }

    /// The folder of the group that counts its processes.
    fn counted(&self) -> &Path {
        self.counter.as_deref().unwrap_or(&self.dir)
    }

    /// How many times a process of the group could start no other, because the group may have no more; nothing when nobody counts.
    #[must_use]
    pub fn refused_processes(&self) -> Option<u64> {
        bound::refused(self.counted())
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
                Err(error) if self.lacks_kill(&error) => self.kill_frozen("cgroup.freeze", "1", "0"),
                other => ignore_gone(other),
            },
            CgroupKind::Freezer => self.kill_frozen("freezer.state", "FROZEN", "THAWED"),
        }
    }

    fn lacks_kill(&self, error: &io::Error) -> bool {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
            && self.dir.try_exists().unwrap_or(false)
    }

    fn kill_frozen(&self, file: &str, freeze: &str, thaw: &str) -> io::Result<()> {
        ignore_gone(self.write(file, freeze))?;
        let killed = self.wait_frozen().and_then(|()| self.pids()?.into_iter().try_for_each(kill_one));
        // Even when killing failed the group must not stay frozen; the kill reaches a v1 process only thawed.
        ignore_gone(self.write(file, thaw))?;
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
                Self { dir: entry.path(), kind: self.kind, counter: None }.remove()?;
            }
        }
        if let Some(counter) = &self.counter {
            remove_dir(counter)?;
        }
        remove_dir(&self.dir)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.dir.join(file))?;
        io::Write::write_all(&mut file, text.as_bytes())
    }
}

/// Sends SIGKILL to `pid` of a group whose processes stand still.
fn kill_one(pid: u32) -> io::Result<()> {
    match rustix::process::pidfd_open(pid_of(pid)?, PidfdFlags::empty())
        .and_then(|fd| rustix::process::pidfd_send_signal(fd, Signal::KILL))
    {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Our own group in the hierarchy mounted at `mount`, out of `/proc/self/cgroup`.
fn own_group(mount: &Path, ours: &str, hierarchy: &str) -> Option<PathBuf> {
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

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn remove_dir(dir: &Path) -> io::Result<()> {
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

    #[test]
    fn our_own_group_is_found_in_each_hierarchy() {
        let ours = "9:name=systemd:/a\n6:freezer,pids:/b/c\n0::/user.slice/x\n";
        let mount = Path::new("/m");
        assert_eq!(own_group(mount, ours, "0::"), Some("/m/user.slice/x".into()));
        assert_eq!(own_group(mount, ours, "freezer"), Some("/m/b/c".into()));
        assert_eq!(own_group(mount, "9:name=systemd:/a\n", "0::"), None);
    }

    #[test]
    fn a_group_is_made_and_removed_where_we_may() {
        let Some(groups) = Cgroups::discover(&format!("berth-test-{}", std::process::id())) else {
            return;
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
