//! Whose a volume is: its app's user, or a user of the image that the app is.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Uid};

use crate::error::{VolumeError, failed};
use crate::walk::{self, Found, open_dir};

/// Whose a volume has to be, where the platform runs as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user, by the machine's numbers.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The users that its files may belong to as they are: that user alone, or all of an image.
    pub users: Range<u32>,
    /// The users whose files become the owner's when the volume changes hands: those that an app of this platform may have had.
    pub former: Vec<Range<u32>>,
}

impl Owner {
    /// What a new volume may be done with: by one user alone where it is an app's, as in any image where it is an image's.
    fn mode(&self) -> Mode {
        if self.users.len() > 1 { Mode::from_raw_mode(0o755) } else { Mode::RWXU }
    }

    /// Gives the volume at `path` to the owner, unless it is one of the users' already. Files of anybody else but former users stay theirs:
    /// whatever name somebody got for them into a volume, they do not change hands by it.
    pub(crate) fn take_over(&self, path: &Path) -> Result<(), VolumeError> {
        let top = open_dir(path).map_err(failed("opened", path))?;
        let stat = rustix::fs::fstat(&top).map_err(failed("examined", path))?;
        if self.users.contains(&stat.st_uid) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let change = |found: &Found<'_>| -> io::Result<()> {
            if self.is_former(&found.stat) {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(found.dir, found.name, Some(uid), Some(gid), flags)?;
            }
            Ok(())
        };
        walk::walk(top.as_fd(), change).map_err(failed("given to its user", path))?;
        // Last: until then the next attempt begins anew.
        rustix::fs::fchmod(&top, self.mode()).map_err(failed("given to its user", path))?;
        rustix::fs::fchown(&top, Some(uid), Some(gid)).map_err(failed("given to its user", path))
    }

    fn is_former(&self, stat: &Stat) -> bool {
        self.former.iter().any(|users| users.contains(&stat.st_uid))
    }
}

/// The mode of a folder through which apps reach their volumes: as root they have users of their own.
pub(crate) fn passage() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 })
}
