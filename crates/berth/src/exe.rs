//! A copy of this binary where every app's user can execute it.
//!
//! The binary may lie where other users cannot go, below /root or in a developer's target folder. A descriptor of it, handed
//! down through control and the shim, was the other way; but a shim restarts its app by argument vector while control is
//! away, and a path is what it can keep for weeks. The copy is made at every start under one name, so that it is of the
//! version that runs; whoever runs the old one keeps its inode.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::home::{Home, HomeError};

/// Puts the copy into the home and gives its path.
pub(crate) fn publish(home: &Home) -> Result<PathBuf, HomeError> {
    let own = Path::new("/proc/self/exe");
    let path = home.path.join("bin/berth");
    let fail = |source| HomeError::Io { attempt: "copy the binary to", path: path.clone(), source };
    // The link's target, for linking: a magic link itself cannot be linked without a capability.
    let source = fs::read_link(own).map_err(fail)?;
    let beside = path.with_extension("new");
    place(own, &source, &beside).and_then(|()| fs::rename(&beside, &path)).map_err(fail)?;
    Ok(path)
}

/// Puts another copy of this binary at `path`, in one step for whoever looks.
pub(crate) fn keep_as(path: &Path) -> io::Result<()> {
    let own = Path::new("/proc/self/exe");
    let beside = path.with_extension("new");
    place(own, &fs::read_link(own)?, &beside)?;
    fs::rename(&beside, path)?;
    // Between two names of one file rename(2) does nothing, and the one beside would stay.
    absent(&beside)
}

fn absent(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Links where that is safe: the same file system, our own file, executable by all already. Otherwise copies.
fn place(own: &Path, source: &Path, beside: &Path) -> io::Result<()> {
    absent(beside)?;
    let running = fs::metadata(own)?;
    let is_ours = running.uid() == rustix::process::geteuid().as_raw();
    let serves_all = running.mode() & 0o777 == 0o755;
    if is_ours && serves_all && fs::hard_link(source, beside).is_ok() {
        let linked = fs::metadata(beside)?;
        if (linked.dev(), linked.ino()) == (running.dev(), running.ino()) {
            return Ok(());
        }
        // The path has another file by now: a build replaced it while we run.
        fs::remove_file(beside)?;
    }
    fs::copy(own, beside)?;
    fs::set_permissions(beside, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_twice_is_one_file() {
        let temp = tempfile::tempdir().unwrap();
        let kept = temp.path().join("previous");
        for _ in 0..2 {
            keep_as(&kept).unwrap();
            let names: Vec<_> =
                fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["previous"]);
        }
    }

    #[test]
    fn a_copy_is_executable_by_all_and_whole() {
        let temp = tempfile::tempdir().unwrap();
        let (source, copy) = (temp.path().join("source"), temp.path().join("copy"));
        fs::write(&source, "program").unwrap();
        for mode in [0o700, 0o755, 0o755] {
            fs::set_permissions(&source, fs::Permissions::from_mode(mode)).unwrap();
            place(&source, &source, &copy).unwrap();
            assert_eq!(fs::read(&copy).unwrap(), b"program");
            assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o755);
            let linked = fs::metadata(&copy).unwrap().ino() == fs::metadata(&source).unwrap().ino();
            assert_eq!(linked, mode == 0o755, "only what serves all is linked");
        }
    }

    #[test]
    fn what_replaced_the_binary_meanwhile_is_not_taken() {
        let temp = tempfile::tempdir().unwrap();
        let [running, replaced, copy] = ["running", "replaced", "copy"].map(|name| temp.path().join(name));
        for path in [&running, &replaced] {
            fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        place(&running, &replaced, &copy).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), running.as_os_str().as_encoded_bytes());
    }
}
