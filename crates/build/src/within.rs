//! Ways within a directory that a tenant's commands may have changed: from one open directory to the next, through no link.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_source::lay::Owner;
use berth_spec::RelativeDir;
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use crate::remove::{make_writable, open_dir, open_dir_at};

/// A directory that holds a name, and the name.
pub(crate) struct Spot {
    pub(crate) above: OwnedFd,
    pub(crate) name: String,
}

impl Spot {
    /// The place of `dir` below `root`; `root` itself is found by the directory it lies in.
    ///
    /// # Errors
    /// When a directory on the way is missing or a link.
    pub(crate) fn find(root: &Path, dir: &RelativeDir) -> io::Result<Self> {
        Self::walk(root, dir, |above, name| open_dir_at(above, name))
    }

    /// The same, with the directories on the way made where they are missing, and given to `owner`.
    ///
    /// # Errors
    /// When one is a link, or cannot be made.
    pub(crate) fn make(root: &Path, dir: &RelativeDir, owner: Option<Owner>) -> io::Result<Self> {
        Self::walk(root, dir, |above, name| make_dir(above, name, owner))
    }

    fn walk(
        root: &Path,
        dir: &RelativeDir,
        step: impl Fn(&OwnedFd, &str) -> Result<OwnedFd, Errno>,
    ) -> io::Result<Self> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut spot = Self { above: open_dir(root.parent().unwrap_or(root))?, name: name(root) };
        for segment in dir.as_str().split('/').filter(|segment| *segment != ".") {
            spot = Self { above: step(&spot.above, &spot.name)?, name: segment.to_owned() };
        }
        Ok(spot)
    }

    /// Opens the directory there, not where a link leads.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        Ok(open_dir_at(&self.above, self.name.as_str())?)
    }

    /// Moves the directory there to `to`, a path of ours.
    ///
    /// # Errors
    /// When there is none, or it cannot be moved.
    pub(crate) fn move_to(&self, to: &Path) -> io::Result<()> {
        self.open()?;
        make_writable(&self.above, self.name.as_str())?;
        Ok(rustix::fs::renameat(&self.above, self.name.as_str(), rustix::fs::CWD, to)?)
    }

    /// The place as a path that leads through the open directory, for work that takes paths. It holds as long as this does.
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}", self.above.as_raw_fd())).join(&self.name)
    }
}

/// Makes the directory `name` below `above` if it is missing, gives a new one to `owner`, and opens it.
pub(crate) fn make_dir(
    above: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg + Copy,
    owner: Option<Owner>,
) -> Result<OwnedFd, Errno> {
    let made = rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755));
    let dir = match made {
        Ok(()) | Err(Errno::EXIST) => open_dir_at(&above, name)?,
        Err(error) => return Err(error),
    };
    if made.is_ok()
        && let Some(Owner { uid, gid }) = owner
    {
        rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(dir)
}
