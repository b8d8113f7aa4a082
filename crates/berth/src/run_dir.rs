//! The run directory: short, because the path of a Unix socket ends at 108 bytes, and gone with the machine's boot. Where it
//! lies the command line client knows, which must find it too.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_server::edge_link::EdgeClaims;

/// Why there is no run directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDirError {
    #[error("cannot {attempt} {}", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a directory of user {uid}'s: somebody else made it; remove it, or set XDG_RUNTIME_DIR to a directory of your own", path.display())]
    Foreign { path: PathBuf, uid: u32 },
}

/// Makes the run directory and its `i/`, or checks that the one which is there is ours. `/tmp` is everybody's, so one that
/// somebody else made there first is refused.
pub(crate) fn prepare(path: &Path, uid: u32) -> Result<(), RunDirError> {
    let fail = |attempt| move |source| RunDirError::Io { attempt, path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(fail("create"))?,
    }
    let metadata = fs::symlink_metadata(path).map_err(fail("examine"))?;
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(RunDirError::Foreign { path: path.to_owned(), uid });
    }
    // As root edge and the callers of api.sock pass through; what is inside has modes of its own.
    let mode = if uid == 0 { 0o711 } else { 0o700 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
    let shims = path.join("i");
    match DirBuilder::new().mode(0o700).create(&shims) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(fail("create the directory of sockets in")),
    }
}

/// Removes the run directory after a platform went down. What is still in it, an instance's socket say, keeps it.
pub(crate) fn remove(path: &Path) {
    for name in ["api.sock", "edge.sock", "handover.sock", "handover.sock.new"] {
        remove_if_there(fs::remove_file(path.join(name)), path);
    }
    EdgeClaims::below(path).remove();
    for folder in [path.join("i"), berth_runtime::dial_folder(path)] {
        remove_if_there(fs::remove_dir(folder), path);
    }
    remove_if_there(fs::remove_dir(path), path);
}

fn remove_if_there(result: io::Result<()>, path: &Path) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "something is left in the run directory");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_somebody_else_made_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let path = temp.path().join("run");
        prepare(&path, uid).unwrap();
        prepare(&path, uid).unwrap();
        assert!(matches!(prepare(&path, uid + 1), Err(RunDirError::Foreign { .. })));
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(prepare(&link, uid), Err(RunDirError::Foreign { .. })));
        remove(&path);
        assert!(!path.try_exists().unwrap());
    }
}
