//! What was built, where also another user reaches it: a clone may lie below a folder that keeps others out, as root's home does.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// `built`, or a second name of it that everybody can pass to. The same for every test process, so that no run leaves one more behind.
pub(crate) fn reachable(built: PathBuf) -> PathBuf {
    let open = |dir: &Path| fs::metadata(dir).is_ok_and(|found| found.mode() & 0o001 != 0);
    if !rustix::process::geteuid().is_root() || built.ancestors().skip(1).all(open) {
        return built;
    }
    let found = fs::metadata(&built).expect("what was built is there");
    let folder = std::env::temp_dir().join("berth-under-test");
    match DirBuilder::new().mode(0o755).create(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            panic!("{} cannot be made: {error}", folder.display())
        }
        _ => {}
    }
    let owner = fs::symlink_metadata(&folder).expect("the folder was made");
    assert!(owner.is_dir() && owner.uid() == 0, "somebody else made {}", folder.display());
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("the folder is ours");
    let name = built.file_name().unwrap_or_default().to_string_lossy();
    let here = folder.join(format!("{name}-{}-{}", found.ino(), found.mtime_nsec()));
    if here.try_exists().expect("the folder can be read") {
        return here;
    }
    // Another test process may be making it, too: whoever comes last puts the same file into place.
    let fresh = folder.join(format!(".{name}-{}", std::process::id()));
    if fs::hard_link(&built, &fresh).is_err() {
        fs::copy(&built, &fresh).expect("there is room for a copy of what was built");
    }
    fs::rename(&fresh, &here).expect("it was just made");
    here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_a_closed_door_gets_a_second_name() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("program");
        fs::write(&built, "x").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let here = reachable(built.clone());
        assert_eq!(here != built, rustix::process::geteuid().is_root());
        assert_eq!(fs::read(&here).unwrap(), b"x");
        assert_eq!(reachable(built.clone()), here, "the same every time");
        if here != built {
            fs::remove_file(here).unwrap();
        }
    }
}
