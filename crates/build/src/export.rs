//! Artifacts on their way into a backup and out of one.
//!
//! What a build made is read without following a link of its own, and laid out again in the same way: whoever wrote a backup decides what is
//! in an artifact, and not where it lies.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_spec::AppId;
use rustix::fs::{FileType, Mode, OFlags};

use crate::artifact::ArtifactId;
use crate::error::{BuildError, failed};
use crate::layout::Layout;
use crate::log::{Log, LogLine, Sink};
use crate::remove::{names, open_dir, open_dir_at, remove_all};
use crate::seal::{SealedOwner, seal};

/// The deepest directory that is read; each level takes a descriptor, and no artifact is deeper.
const DEPTH_MAX: usize = 130;

/// A part of an artifact.
#[derive(Debug)]
pub enum Part {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// It, open for reading.
        file: File,
        /// Whether it may be executed.
        exec: bool,
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: String,
    },
}

/// Shows every part of the artifact in `dir` to `visit`, with its path, a directory before what is in it. What is neither file, directory nor link, or has a name
/// that is not UTF-8, is left out: no program that was deployed as text can name it.
///
/// # Errors
/// When something cannot be read, or what `visit` fails with.
pub fn read_artifact<E: From<io::Error>>(
    dir: &Path,
    visit: &mut dyn FnMut(&str, Part) -> Result<(), E>,
) -> Result<(), E> {
    let open = open_dir(dir)?;
    visit("", Part::Directory)?;
    read_below(open.as_fd(), "", 0, visit)
}

fn read_below<E: From<io::Error>>(
    dir: BorrowedFd<'_>,
    path: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str, Part) -> Result<(), E>,
) -> Result<(), E> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("it is too deep").into());
    }
    let mut found = names(dir)?;
    found.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, kind) in found {
        let Ok(text) = name.to_str() else { continue };
        let inner = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
        let system = |error: rustix::io::Errno| E::from(io::Error::from(error));
        match kind {
            FileType::Directory => {
                let below = open_dir_at(dir, &name).map_err(system)?;
                visit(&inner, Part::Directory)?;
                read_below(below.as_fd(), &inner, depth + 1, visit)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(dir, &name, flags, Mode::empty()).map_err(system)?);
                let stat = rustix::fs::fstat(&file).map_err(system)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                visit(&inner, Part::File { file, exec: stat.st_mode & 0o100 != 0, size })?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, &name, Vec::new()).map_err(system)?;
                if let Ok(target) = target.into_string() {
                    visit(&inner, Part::Link { target })?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The folder of artifacts of a home that is being restored.
#[derive(Debug)]
pub struct Shelf {
    layout: Layout,
    sealed_uid: Option<u32>,
}

/// An artifact that is being laid out.
#[derive(Debug)]
pub struct Unsealed {
    dir: OwnedFd,
    staging: PathBuf,
    place: PathBuf,
}

struct Nowhere;

impl Sink for Nowhere {
    fn line(&self, _: LogLine) {}
}

impl Shelf {
    /// The folder `artifacts`. As root members of `passage` may pass through it, and `sealed_uid` owns what is in it.
    #[must_use]
    pub fn new(artifacts: PathBuf, passage: Option<u32>, sealed_uid: Option<u32>) -> Self {
        // Nothing is built here.
        let layout = Layout { builds: artifacts.clone(), artifacts, passage };
        Self { layout, sealed_uid }
    }

    /// Where the note of an artifact belongs, its folder made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn note(&self, app: &AppId, id: &ArtifactId) -> Result<PathBuf, BuildError> {
        self.layout.make(&self.layout.artifacts, &self.layout.artifacts_of(app))?;
        Ok(self.layout.note(app, id))
    }

    /// Begins to lay an artifact out.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn begin(&self, app: &AppId, id: &ArtifactId) -> Result<Unsealed, BuildError> {
        self.layout.make(&self.layout.artifacts, &self.layout.artifacts_of(app))?;
        let staging = self.layout.staging(app, id);
        remove_all(&staging).map_err(failed(&staging, "removed"))?;
        std::fs::create_dir(&staging).map_err(failed(&staging, "made"))?;
        let dir = open_dir(&staging).map_err(failed(&staging, "made"))?;
        Ok(Unsealed { dir, staging, place: self.layout.artifact(app, id) })
    }

    /// Seals it for the app whose group is `gid`, and puts it into its place.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn finish(&self, artifact: Unsealed, gid: Option<u32>) -> Result<(), BuildError> {
        let Unsealed { dir, staging, place } = artifact;
        drop(dir);
        let owner = self.sealed_uid.zip(gid).map(|(uid, gid)| SealedOwner { uid, gid });
        seal(&staging, owner, &BTreeSet::new(), &Log::new(Arc::new(Nowhere), &[]))?;
        std::fs::rename(&staging, &place).map_err(failed(&place, "made"))
    }
}

impl Unsealed {
    /// Makes a directory.
    ///
    /// # Errors
    /// When the system refuses, also because a link is in the way.
    pub fn directory(&self, path: &str) -> io::Result<()> {
        self.parent(path, |dir, name| match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => open_dir_at(dir, name).map(drop),
            made => made,
        })
    }

    /// Makes a symbolic link; nothing follows it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn link(&self, path: &str, target: &str) -> io::Result<()> {
        self.parent(path, |dir, name| rustix::fs::symlinkat(target, dir, name))
    }

    /// Makes a file of what `content` gives.
    ///
    /// # Errors
    /// When the system refuses, or what `content` fails with.
    pub fn file(&self, path: &str, exec: bool, content: &mut dyn Read) -> io::Result<()> {
        let mode = if exec { Mode::RWXU } else { Mode::RUSR | Mode::WUSR };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        self.parent(path, |dir, name| {
            file = Some(rustix::fs::openat(dir, name, flags, mode)?);
            Ok(())
        })?;
        let Some(file) = file else { return Err(io::ErrorKind::InvalidInput.into()) };
        io::copy(content, &mut File::from(file)).map(drop)
    }

    /// Goes down to where `path` lies, by one name after the other and along no link.
    fn parent(
        &self,
        path: &str,
        make: impl FnOnce(BorrowedFd<'_>, &str) -> Result<(), rustix::io::Errno>,
    ) -> io::Result<()> {
        let (parents, name) = path.rsplit_once('/').map_or((None, path), |(above, name)| (Some(above), name));
        let mut open: Option<OwnedFd> = None;
        for segment in parents.into_iter().flat_map(|parents| parents.split('/')) {
            let above = open.as_ref().map_or(self.dir.as_fd(), AsFd::as_fd);
            open = Some(open_dir_at(above, segment)?);
        }
        Ok(make(open.as_ref().map_or(self.dir.as_fd(), AsFd::as_fd), name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn shelf(dir: &Path) -> (Shelf, AppId, ArtifactId) {
        let id = format!("a{}", "0".repeat(40)).parse().unwrap();
        (Shelf::new(dir.join("artifacts"), None, None), "a/b/shop".parse().unwrap(), id)
    }

    fn parts(dir: &Path) -> Vec<String> {
        let mut parts = Vec::new();
        let told = read_artifact::<io::Error>(dir, &mut |path, part| {
            parts.push(match part {
                Part::Directory => format!("{path}/"),
                Part::File { mut file, exec, size } => {
                    let mut text = String::new();
                    file.read_to_string(&mut text)?;
                    format!("{path} {exec} {size} {text}")
                }
                Part::Link { target } => format!("{path} -> {target}"),
            });
            Ok(())
        });
        told.unwrap();
        parts
    }

    #[test]
    fn an_artifact_is_laid_out_as_it_was_read() {
        let temp = tempfile::tempdir().unwrap();
        let from = temp.path().join("from");
        fs::create_dir_all(from.join("bin/empty")).unwrap();
        fs::write(from.join("bin/run"), "#!/bin/sh").unwrap();
        fs::set_permissions(from.join("bin/run"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(from.join("data"), "abc").unwrap();
        symlink("/etc/passwd", from.join("out")).unwrap();
        let read = parts(&from);
        assert_eq!(
            read,
            ["/", "bin/", "bin/empty/", "bin/run true 9 #!/bin/sh", "data false 3 abc", "out -> /etc/passwd"]
        );
        let (shelf, app, id) = shelf(temp.path());
        let artifact = shelf.begin(&app, &id).unwrap();
        read_artifact::<io::Error>(&from, &mut |path, part| match part {
            Part::Directory if path.is_empty() => Ok(()),
            Part::Directory => artifact.directory(path),
            Part::File { mut file, exec, .. } => artifact.file(path, exec, &mut file),
            Part::Link { target } => artifact.link(path, &target),
        })
        .unwrap();
        shelf.finish(artifact, Some(2_000_000_016)).unwrap();
        assert_eq!(parts(&temp.path().join(format!("artifacts/a/b/shop/{id}"))), read);
    }

    #[test]
    fn no_link_is_followed_while_it_is_laid_out() {
        let temp = tempfile::tempdir().unwrap();
        let (shelf, app, id) = shelf(temp.path());
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let artifact = shelf.begin(&app, &id).unwrap();
        artifact.link("out", outside.to_str().unwrap()).unwrap();
        artifact.directory("out").unwrap_err();
        artifact.directory("out/in").unwrap_err();
        artifact.file("out/file", false, &mut &b"x"[..]).unwrap_err();
        artifact.file("out", false, &mut &b"x"[..]).unwrap_err();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
