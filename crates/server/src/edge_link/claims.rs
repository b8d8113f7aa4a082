//! Which edge processes there are, also those that have not connected yet.
//!
//! An edge that boots reads the durable snapshot by itself, and may do so while control is away, or beside an older edge that is connected.
//! Until it says hello control could overlook it and stop what it still sends to. So the supervisor makes a claim before it starts
//! an edge: a file of its own, locked by a description that edge inherits and that nobody else keeps. The kernel lets go of the lock
//! when the process ends, however it ends; as many locked files as there are, so many edges live.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

/// The folder of claims in the run directory.
const FOLDER: &str = "e";
/// A claim that is not locked yet.
const FRESH: &str = ".new-";

/// The claims of a platform's edges.
#[derive(Debug, Clone)]
pub struct EdgeClaims {
    folder: PathBuf,
}

impl EdgeClaims {
    /// The claims below a run directory.
    #[must_use]
    pub fn below(run_dir: &Path) -> Self {
        Self { folder: run_dir.join(FOLDER) }
    }

    /// Makes a claim for an edge that the supervisor with this process id is about to start. Whoever holds the descriptor keeps the claim:
    /// it is for the edge to inherit, and for the caller to drop.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn claim(&self, supervisor: u32) -> io::Result<OwnedFd> {
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Locked before it has its name, so that one with a name that is not locked is known to be over.
        let fresh = self.folder.join(format!("{FRESH}{supervisor}"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // Edges of the program that this process was before an upgrade may live on and have theirs.
        for number in 0_u64.. {
            let path = self.folder.join(format!("{supervisor}.{number}"));
            match rustix::fs::renameat_with(CWD, &fresh, CWD, &path, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                renamed => {
                    renamed?;
                    break;
                }
            }
        }
        Ok(file.into())
    }

    /// How many edges live. The claims of those that do not are removed.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be read.
    pub(super) fn living(&self) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut living = 0;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(FRESH) {
                continue;
            }
            let file = match File::open(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => living += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => fs::remove_file(entry.path())?,
            }
        }
        Ok(living)
    }

    /// Removes what is left of the claims of a platform that went down.
    pub fn remove(&self) {
        let left = fs::remove_dir_all(&self.folder);
        if let Err(error) = left.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            tracing::warn!(path = %self.folder.display(), %error, "the claims of edges are left over");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lives_as_long_as_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let claims = EdgeClaims::below(dir.path());
        assert_eq!(claims.living().unwrap(), 0);
        let first = claims.claim(1).unwrap();
        let second = claims.claim(1).unwrap();
        assert_eq!(claims.living().unwrap(), 2);
        // The one that edge inherited is what counts.
        let inherited = first.try_clone().unwrap();
        drop(first);
        assert_eq!(claims.living().unwrap(), 2);
        drop(inherited);
        assert_eq!(claims.living().unwrap(), 1);
        assert!(!dir.path().join("e/1.0").try_exists().unwrap(), "what is over is cleared away");
        drop(second);
        claims.remove();
        assert_eq!(claims.living().unwrap(), 0);
    }

    #[test]
    fn one_that_is_not_locked_yet_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let claims = EdgeClaims::below(dir.path());
        drop(claims.claim(1).unwrap());
        fs::write(dir.path().join("e/.new-1.1"), "").unwrap();
        assert_eq!(claims.living().unwrap(), 0);
        assert!(dir.path().join("e/.new-1.1").try_exists().unwrap());
    }
}
