//! Tools that other users may not reach, made reachable by hard links: the tool is opened, and not the home around it.
//!
//! A file that holds the place it was installed at cannot be linked as it is. Two kinds of them are known and copied with the
//! place changed: scripts whose first line names an interpreter beside them, and small programs that look for their
//! libraries beside them (a Python that is built with a shared library).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{BuildError, failed};
use crate::layout::{Layout, entries};
use crate::remove::remove_all;

/// Programs up to this size are looked at for the place of their libraries: those that only start a library are small.
const LAUNCHER_MAX: u64 = 1024 * 1024;
/// Where a program finds the libraries beside it, wherever it lies.
const BESIDE: &[u8] = b"$ORIGIN/../lib";

/// What of a tool is mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// These parts of the folder, `bin` among them.
    Parts(PathBuf, Vec<String>),
    /// One program, which needs nothing beside it.
    Program(PathBuf),
}

/// Makes the mirror called `name` if it is missing, and gives its folder. Programs lie in its `bin`.
pub(crate) fn provide(layout: &Layout, name: &str, source: &Source) -> Result<PathBuf, BuildError> {
    let mirrors = layout.toolchains();
    layout.make(&layout.builds, &mirrors)?;
    let mirror = mirrors.join(name);
    if mirror.try_exists().map_err(failed(&mirror, "read"))? {
        return Ok(mirror);
    }
    // Two builds may mirror at once: each makes its own, and the second to rename finds it done.
    let fresh = mirrors.join(format!(".new-{}-{:?}", std::process::id(), std::thread::current().id()));
    remove_all(&fresh).map_err(failed(&fresh, "removed"))?;
    fs::create_dir_all(fresh.join("bin")).map_err(failed(&fresh, "made"))?;
    match source {
        Source::Parts(root, parts) => {
            let mirroring = Mirroring { root, mirror: &mirror };
            for part in parts {
                mirroring.tree(&root.join(part), &fresh.join(part))?;
            }
        }
        Source::Program(program) => {
            let root = program.parent().unwrap_or(Path::new("/"));
            let to = fresh.join("bin").join(program.file_name().unwrap_or_default());
            Mirroring { root, mirror: &mirror }.tree(program, &to)?;
        }
    }
    open_to_all(&fresh.join("bin"))?;
    open_to_all(&fresh)?;
    if let Err(error) = fs::rename(&fresh, &mirror) {
        let lost = matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists);
        remove_all(&fresh).map_err(failed(&fresh, "removed"))?;
        if !lost {
            return Err(failed(&mirror, "made")(error));
        }
    }
    Ok(mirror)
}

/// Whether a user who is in none of our groups can run the program at `path`, which has no links in it.
pub(crate) fn everybody_runs(path: &Path) -> bool {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |found| found.mode());
    path.ancestors().skip(1).all(|dir| mode(dir) & 0o001 != 0) && mode(path) & 0o005 == 0o005
}

struct Mirroring<'a> {
    root: &'a Path,
    mirror: &'a Path,
}

impl Mirroring<'_> {
    /// Makes `to` hold the files of `from`, as hard links, or copies where the two are on different disks. Links in it
    /// stay links.
    fn tree(&self, from: &Path, to: &Path) -> Result<(), BuildError> {
        let found = match fs::symlink_metadata(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed(from, "read"))?,
        };
        if found.is_dir() {
            fs::create_dir_all(to).map_err(failed(to, "made"))?;
            open_to_all(to)?;
            for entry in entries(from) {
                self.tree(&entry, &to.join(entry.file_name().unwrap_or_default()))?;
            }
            return Ok(());
        }
        if found.is_symlink() {
            let target = fs::read_link(from).map_err(failed(from, "read"))?;
            return std::os::unix::fs::symlink(target, to).map_err(failed(to, "made"));
        }
        if !found.is_file() {
            return Ok(());
        }
        let mode = if found.mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        let moved = if mode == 0o755 && found.len() <= LAUNCHER_MAX { self.moved(from)? } else { None };
        if let Some(content) = moved {
            fs::write(to, content).map_err(failed(to, "written"))?;
        } else {
            // A file that others may not read would be as useless linked as where it is: a link shares the mode.
            if found.mode() & 0o004 != 0 && fs::hard_link(from, to).is_ok() {
                return Ok(());
            }
            fs::copy(from, to).map_err(failed(to, "written"))?;
        }
        fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(failed(to, "made"))
    }

    /// The program at `path` as it has to be in the mirror, when it holds the place it was installed at.
    fn moved(&self, path: &Path) -> Result<Option<Vec<u8>>, BuildError> {
        let content = fs::read(path).map_err(failed(path, "read"))?;
        let root = self.root.as_os_str().as_encoded_bytes();
        if content.starts_with(b"#!") {
            let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let Some(at) = find(line, root) else {
                return Ok(None);
            };
            let (before, after) = (content.get(..at), content.get(at + root.len()..));
            let place = self.mirror.as_os_str().as_encoded_bytes();
            return Ok(before.zip(after).map(|(before, after)| [before, place, after].concat()));
        }
        let libraries = [root, b"/lib\0"].concat();
        let at = find(&content, &libraries).filter(|_| content.starts_with(b"\x7fELF"));
        let room = libraries.len().checked_sub(BESIDE.len() + 1);
        let Some((at, room)) = at.zip(room) else {
            return Ok(None);
        };
        let mut moved = content;
        let place = [BESIDE, &vec![0; room + 1]].concat();
        moved.splice(at..at + place.len(), place);
        Ok(Some(moved))
    }
}

/// Where `needle` first stands in `text`.
pub(crate) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

fn open_to_all(dir: &Path) -> Result<(), BuildError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(failed(dir, "made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_its_place_is_copied_with_the_place_changed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("python");
        fs::create_dir_all(root.join("bin")).unwrap();
        let program = |name: &str, content: &[u8]| {
            fs::write(root.join("bin").join(name), content).unwrap();
            fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("pip", format!("#!{}/bin/python3\nx", root.display()).as_bytes());
        let elf = [b"\x7fELF..".as_slice(), root.as_os_str().as_encoded_bytes(), b"/lib\0tail"].concat();
        program("python3", &elf);
        program("node", b"\x7fELF");
        let layout = Layout { artifacts: dir.path().join("a"), builds: dir.path().join("b"), passage: None };
        let source = Source::Parts(root.clone(), vec!["bin".to_owned(), "lib".to_owned()]);
        let mirror = provide(&layout, "python-3", &source).unwrap();
        let pip = fs::read_to_string(mirror.join("bin/pip")).unwrap();
        assert_eq!(pip, format!("#!{}/bin/python3\nx", mirror.display()));
        let python = fs::read(mirror.join("bin/python3")).unwrap();
        assert_eq!(python.len(), elf.len());
        assert!(find(&python, b"\x7fELF..$ORIGIN/../lib\0").is_some() && python.ends_with(b"\0tail"));
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(mirror.join("bin/node")), inode(root.join("bin/node")));
        let alone = provide(&layout, "uv-1", &Source::Program(root.join("bin/node"))).unwrap();
        assert_eq!(entries(&alone.join("bin")), [alone.join("bin/node")]);
    }
}
