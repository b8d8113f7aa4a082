//! How many processes a group may have at once, by the kernel's `pids` controller.
//!
//! v2 has the controller in its own hierarchy. Beside v1 controllers it is in one of its own, so there a process is in two groups: the one
//! that holds it and the one that counts it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupKind, make_dir, own_group, remove_dir};

/// Where v1's controller is mounted, by convention.
const V1: &str = "/sys/fs/cgroup/pids";

/// Where the groups of a folder are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counting {
    /// In themselves.
    Within,
    /// In groups of the same names in this folder.
    Beside(PathBuf),
}

impl Counting {
    /// Finds out by trying whether groups in the folder `dir`, which is called `name`, can be counted.
    pub(super) fn discover(dir: &Path, name: &str, kind: CgroupKind, ours: &str) -> Option<Self> {
        match kind {
            CgroupKind::Unified => {
                // Where the first is refused it may have been done before us.
                let _refused = dir.parent().map(enable);
                enable(dir).ok().map(|()| Self::Within)
            }
            CgroupKind::Hybrid | CgroupKind::Freezer => {
                let mount = Path::new(V1);
                let as_root = rustix::process::geteuid().is_root();
                let parent = if as_root { mount.to_owned() } else { own_group(mount, ours, "pids")? };
                let folder = parent.join(name);
                // A folder that is not the controller's takes a file, and then is none that we may use.
                parent.join("cgroup.procs").try_exists().ok().filter(|exists| *exists)?;
                make_dir(&folder).ok()?;
                fs::OpenOptions::new().write(true).open(folder.join("pids.max")).ok()?;
                Some(Self::Beside(folder))
            }
        }
    }

    /// The folder of the group that counts, beside the group `name`.
    pub(super) fn group(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Within => None,
            Self::Beside(folder) => Some(folder.join(name)),
        }
    }

    /// Removes what [`Counting::discover`] made, once it holds no groups.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self {
            Self::Within => Ok(()),
            Self::Beside(folder) => remove_dir(folder),
        }
    }
}

/// Has the groups below `dir` counted.
fn enable(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("cgroup.subtree_control"), "+pids")
}

/// Sets how many processes, threads among them, the counting group in `dir` may have.
pub(super) fn set(dir: &Path, most: u64) -> io::Result<()> {
    fs::write(dir.join("pids.max"), most.to_string())
}

/// How many times a process of the counting group in `dir` could not start another for that; nothing when it is not told.
pub(super) fn refused(dir: &Path) -> Option<u64> {
    let events = fs::read_to_string(dir.join("pids.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok())
}
