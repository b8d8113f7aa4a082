//! Replacing a path in text files and links: scripts of a virtual environment name the directory they were made in.
//!
//! The files are a tenant's. Nothing is followed, and no file is changed: one that holds the path is replaced by a new one, so that
//! another name of it keeps what it had.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::mirror::find;
use crate::remove::{names, open_dir_at};

/// A folder that lies elsewhere by now, and what holds its path.
#[derive(Debug, Clone, Copy)]
pub struct Relocation<'a> {
    from: &'a [u8],
    to: &'a [u8],
}

impl<'a> Relocation<'a> {
    /// The longest file that is looked at.
    pub const TEXT_MAX: u64 = TEXT_MAX;

    /// What lay in `from` lies in `to`.
    #[must_use]
    pub fn new(from: &'a Path, to: &'a Path) -> Self {
        Self { from: from.as_os_str().as_encoded_bytes(), to: to.as_os_str().as_encoded_bytes() }
    }

    /// What takes the place of a file's content: nothing when it does not hold the path, or is no text.
    #[must_use]
    pub fn text(self, content: &[u8]) -> Option<Vec<u8>> {
        let holds = !content.contains(&0) && find(content, self.from).is_some();
        holds.then(|| replaced(content, self.from, self.to))
    }

    /// What takes the place of a link's target: nothing when it leads elsewhere.
    #[must_use]
    pub fn target(self, target: &[u8]) -> Option<Vec<u8>> {
        let rest = target.strip_prefix(self.from).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))?;
        Some([self.to, rest].concat())
    }
}

/// A text that holds a path is a script or a setting; what is larger is data.
const TEXT_MAX: u64 = 1024 * 1024;
/// Deeper directories are left as they are: sealing refuses them.
const DEPTH_MAX: usize = 128;

/// Replaces `from` by `to` in all below `dir`, and gives the files and links that held it, relative to `dir`.
///
/// # Errors
/// When something cannot be read or written.
pub(crate) fn relocate(dir: BorrowedFd<'_>, from: &Path, to: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let relocation = Relocation::new(from, to);
    walk(dir, Path::new(""), 0, &mut |dir, name, kind, path| {
        if one(dir, name, kind, relocation)? {
            found.push(path);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Replaces `from` by `to` in the file or link at `path` below `dir`.
///
/// # Errors
/// When something cannot be read or written, or a directory on the way is a link.
pub(crate) fn relocate_at(dir: BorrowedFd<'_>, path: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let mut at: OwnedFd = dir.try_clone_to_owned()?;
    for segment in path.parent().into_iter().flat_map(Path::iter) {
        at = open_dir_at(&at, segment)?;
    }
    let name = std::ffi::CString::new(path.file_name().unwrap_or_default().as_encoded_bytes())?;
    let kind = FileType::from_raw_mode(rustix::fs::statat(&at, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    one(at.as_fd(), &name, kind, Relocation::new(from, to)).map(drop)
}

type Visit<'a> = dyn FnMut(BorrowedFd<'_>, &CStr, FileType, PathBuf) -> io::Result<()> + 'a;

fn walk(dir: BorrowedFd<'_>, path: &Path, depth: usize, visit: &mut Visit<'_>) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for (name, kind) in names(dir)? {
        let inner = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
        if kind == FileType::Directory {
            walk(open_dir_at(dir, &name)?.as_fd(), &inner, depth + 1, visit)?;
        } else {
            visit(dir, &name, kind, inner)?;
        }
    }
    Ok(())
}

/// Replaces the path in one file or link, if it holds it.
fn one(dir: BorrowedFd<'_>, name: &CStr, kind: FileType, relocation: Relocation<'_>) -> io::Result<bool> {
    match kind {
        FileType::RegularFile => file(dir, name, relocation),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
            let Some(moved) = relocation.target(&target) else {
                return Ok(false);
            };
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            rustix::fs::symlinkat(moved, dir, name)?;
            give(dir, name, stat.st_uid, stat.st_gid)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn file(dir: BorrowedFd<'_>, name: &CStr, relocation: Relocation<'_>) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        // What its owner may not read holds nothing that a program would.
        Err(rustix::io::Errno::ACCESS) => return Ok(false),
        opened => File::from(opened?),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() > TEXT_MAX {
        return Ok(false);
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let Some(moved) = relocation.text(&content) else {
        return Ok(false);
    };
    let fresh = c".berth-relocating";
    match rustix::fs::unlinkat(dir, fresh, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(dir, fresh, flags, Mode::RUSR | Mode::WUSR)?);
    copy.write_all(&moved)?;
    give(dir, fresh, found.uid(), found.gid())?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(found.mode() & 0o777))?;
    rustix::fs::renameat(dir, fresh, dir, name)?;
    Ok(true)
}

/// What replaces a file belongs to whom the file belonged to; as an ordinary user everything is our own.
fn give(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find(rest, from) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.extend_from_slice(to);
        rest = rest.get(at + from.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remove::open_dir;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_replaced_in_texts_and_links_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "/old/place").unwrap();
        let venv = dir.path().join("venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        fs::write(venv.join("bin/pip"), "#!/old/place/bin/python\nsee /old/place and /old/plaice").unwrap();
        fs::write(venv.join("bin/data"), b"/old/place\0").unwrap();
        fs::hard_link(outside.join("x"), venv.join("bin/hard")).unwrap();
        symlink("/old/place/bin/pip", venv.join("bin/pip3")).unwrap();
        symlink("/old/places", venv.join("bin/other")).unwrap();
        symlink(&outside, venv.join("out")).unwrap();
        let open = open_dir(&venv).unwrap();
        let mut held = relocate(open.as_fd(), Path::new("/old/place"), Path::new("/n")).unwrap();
        held.sort();
        assert_eq!(held, ["bin/hard", "bin/pip", "bin/pip3"].map(PathBuf::from));
        let text = |name: &str| fs::read_to_string(venv.join(name)).unwrap();
        assert_eq!(text("bin/pip"), "#!/n/bin/python\nsee /n and /old/plaice");
        assert_eq!((text("bin/hard"), text("bin/data")), ("/n".to_owned(), "/old/place\0".to_owned()));
        assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "/old/place");
        assert_eq!(fs::read_link(venv.join("bin/pip3")).unwrap(), Path::new("/n/bin/pip"));
        assert_eq!(fs::read_link(venv.join("bin/other")).unwrap(), Path::new("/old/places"));
        let back = Path::new("bin/pip");
        relocate_at(open.as_fd(), back, Path::new("/n"), Path::new("/old/place")).unwrap();
        assert!(text("bin/pip").starts_with("#!/old/place/bin/python"));
        assert!(relocate_at(open.as_fd(), Path::new("out/x"), Path::new("/old"), Path::new("/n")).is_err());
    }
}
