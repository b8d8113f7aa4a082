//! What is special about a build with cargo: its arguments and environment, and which programs it made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Deserialize;

use crate::error::{BuildError, failed};
use crate::remove::{open_dir, open_dir_at};
use crate::toolchain::Toolchain;

/// The most programs of one build.
const PROGRAMS_MAX: usize = 256;

/// The arguments: `--locked` when there is a lock file, so that what was tested is what is built.
pub(crate) fn args(has_lock: bool) -> Vec<String> {
    let mut args = vec!["build", "--release", "--message-format=json-render-diagnostics"];
    if has_lock {
        args.push("--locked");
    }
    args.into_iter().map(str::to_owned).collect()
}

/// The environment beside that of every build.
pub(crate) fn env(toolchain: &Toolchain, cache: &Path) -> BTreeMap<String, String> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    BTreeMap::from([
        ("CARGO_HOME".to_owned(), text(cache.join("cargo"))),
        ("CARGO_TARGET_DIR".to_owned(), text(cache.join("target"))),
        ("CARGO_TERM_COLOR".to_owned(), "never".to_owned()),
        ("RUSTC".to_owned(), text(toolchain.root.join("bin/rustc"))),
    ])
}

/// A message of cargo, as far as we read it.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// The programs that cargo says it made.
#[derive(Debug, Default)]
pub(crate) struct Programs(BTreeSet<PathBuf>);

impl Programs {
    /// Reads one line of cargo's standard output. What is not a message is not for us.
    pub(crate) fn read(&mut self, line: &str) {
        let Ok(Message { reason, executable: Some(path), target: Some(target) }) = serde_json::from_str(line)
        else {
            return;
        };
        let made = reason == "compiler-artifact" && target.kind.iter().any(|kind| kind == "bin");
        if made && self.0.len() < PROGRAMS_MAX {
            self.0.insert(path);
        }
    }

    /// Copies the programs from below `target` into `bin/` of the tree at `tree`, and gives their names.
    ///
    /// The messages, both directories and all in them are the tenant's: what is copied must be a file below `target`
    /// reached without any link, and owned by `builder` where that is given, so that nothing that only we may
    /// read gets into an artifact.
    pub(crate) fn collect(
        &self,
        target: &Path,
        tree: &Path,
        builder: Option<u32>,
    ) -> Result<BTreeSet<String>, BuildError> {
        let from = open_dir(target).map_err(failed(target, "read"))?;
        let to = open_dir(tree).map_err(failed(tree, "read"))?;
        let bin = enter(&to, "bin").map_err(failed(&tree.join("bin"), "made"))?;
        let mut names = BTreeSet::new();
        for path in &self.0 {
            let Some((relative, name)) =
                path.strip_prefix(target).ok().zip(path.file_name().and_then(|name| name.to_str()))
            else {
                return Err(BuildError::Outcome(format!(
                    "cargo names {path:?}, which is not below its target directory"
                )));
            };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let opened = rustix::fs::openat2(from.as_fd(), relative, flags, Mode::empty(), resolve);
            let mut program = File::from(opened.map_err(failed(path, "read"))?);
            let found = program.metadata().map_err(failed(path, "read"))?;
            if !found.is_file() || builder.is_some_and(|builder| builder != found.uid()) {
                return Err(BuildError::Outcome(format!(
                    "cargo names {path:?}, which is not a file of the build"
                )));
            }
            make_room(&bin, name).map_err(failed(&tree.join("bin").join(name), "written"))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(&bin, name, flags, Mode::RWXU).map_err(failed(path, "written"))?;
            io::copy(&mut program, &mut File::from(copy)).map_err(failed(path, "written"))?;
            names.insert(name.to_owned());
        }
        Ok(names)
    }
}

/// Makes `target/release/NAME` of the tree at `tree` lead to `bin/NAME`, for the Procfiles that name programs by where
/// cargo puts them.
pub(crate) fn link_where_cargo_puts_them(tree: &Path, names: &BTreeSet<String>) -> Result<(), BuildError> {
    let path = tree.join("target/release");
    let link = || {
        let release = enter(&enter(&open_dir(tree)?, "target")?, "release")?;
        for name in names {
            make_room(&release, name)?;
            rustix::fs::symlinkat(format!("../../bin/{name}"), &release, name.as_str())?;
        }
        io::Result::Ok(())
    };
    link().map_err(failed(&path, "made"))
}

/// The directory `name` below `dir`, made if it is missing. A link in its place is refused.
fn enter(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(open_dir_at(dir, name)?),
        Err(error) => Err(error.into()),
    }
}

/// Removes the file or link `name` below `dir`, if there is one.
fn make_room(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn message(path: &Path) -> String {
        serde_json::json!({"reason": "compiler-artifact", "executable": path, "target": {"kind": ["bin"]}})
            .to_string()
    }

    #[test]
    fn only_files_of_the_build_are_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (target, tree) = (dir.path().join("target"), dir.path().join("tree"));
        fs::create_dir_all(target.join("release")).unwrap();
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(dir.path().join("precious"), "secret").unwrap();
        fs::write(target.join("release/shop"), "program").unwrap();
        symlink("../../precious", target.join("release/soft")).unwrap();
        symlink("../..", target.join("up")).unwrap();
        symlink(dir.path().join("precious"), tree.join("bin/shop")).unwrap();
        let collect = |path: &Path| {
            let mut programs = Programs::default();
            programs.read("not json");
            programs.read(r#"{"reason":"build-finished","success":true}"#);
            programs.read(&message(path));
            programs.collect(&target, &tree, None)
        };
        assert_eq!(collect(&target.join("release/shop")).unwrap(), BTreeSet::from(["shop".to_owned()]));
        assert_eq!(fs::read_to_string(tree.join("bin/shop")).unwrap(), "program");
        assert_eq!(fs::read_to_string(dir.path().join("precious")).unwrap(), "secret");
        for hostile in ["release/soft", "up/precious", "../precious", "release", "release/missing"] {
            assert!(collect(&target.join(hostile)).is_err(), "{hostile}");
        }
        assert!(collect(&dir.path().join("precious")).is_err());
        let mut programs = Programs::default();
        programs.read(&message(&target.join("release/shop")));
        assert!(programs.collect(&target, &tree, Some(4_000_000)).is_err());
        fs::remove_dir_all(tree.join("bin")).unwrap();
        symlink(&target, tree.join("bin")).unwrap();
        assert!(programs.collect(&target, &tree, None).is_err());
        let names = BTreeSet::from(["shop".to_owned()]);
        fs::create_dir_all(tree.join("target/release")).unwrap();
        fs::write(tree.join("target/release/shop"), "old").unwrap();
        link_where_cargo_puts_them(&tree, &names).unwrap();
        let led = fs::read_link(tree.join("target/release/shop")).unwrap();
        assert_eq!(led, Path::new("../../bin/shop"));
        fs::remove_dir_all(tree.join("target")).unwrap();
        symlink(&target, tree.join("target")).unwrap();
        assert!(link_where_cargo_puts_them(&tree, &names).is_err());
    }
}
