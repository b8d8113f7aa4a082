//! Walking a directory into a tree, with its ignore rules.
//!
//! Left out is what `.gitignore` and `.berthignore` files in the tree name, and `.git`; nothing else. Only files
//! below the packed directory count: no global ignore file, no `.git/info/exclude`, no `.gitignore` of a parent, so that
//! the same directory is the same tree on every machine. `target` and `node_modules` are left out when they are ignored,
//! as they usually are, and packed when they are not. A `.berthignore` wins over a `.gitignore`.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::chunk::{self, CHUNK_MAX, ChunkId};
use crate::tree::{ENTRIES_MAX, Entry, InvalidTree, Node, SIZE_MAX, Tree, check_path, check_target};

/// A directory as a tree, and where its chunks can be read.
#[derive(Debug, Default)]
pub struct Packed {
    root: PathBuf,
    tree: Tree,
    places: BTreeMap<ChunkId, Place>,
}

/// Where a chunk lies in the packed directory.
#[derive(Debug)]
struct Place {
    path: String,
    offset: u64,
    len: usize,
}

/// Why a directory could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// There is no such directory.
    #[error("{0:?} is not a directory")]
    NotADirectory(PathBuf),
    /// Something in it cannot be read.
    #[error("{path:?} cannot be read")]
    Read {
        /// What cannot be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket, device or pipe.
    #[error("{path:?} is a {kind}, not a file; remove it or leave it out by a .berthignore")]
    Special {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A name that other systems and JSON cannot hold.
    #[error("the name of {0:?} is not UTF-8; rename it or leave it out by a .berthignore")]
    NotUtf8(PathBuf),
    /// The tree as a whole, a path or a link is refused.
    #[error("the directory cannot be packed")]
    Tree(#[from] InvalidTree),
    /// A file is not what it was when it was packed.
    #[error("{path:?} changed while it was sent; try again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A chunk was asked for that is not of this tree.
    #[error("chunk {0} is not part of the tree")]
    Unknown(ChunkId),
}

/// Packs the directory at `root`.
///
/// # Errors
/// [`PackError`] for the first thing, in the order of paths, that cannot be part of a tree.
pub fn pack(root: &Path) -> Result<Packed, PackError> {
    if !std::fs::metadata(root).map_err(|source| read_error(root, source))?.is_dir() {
        return Err(PackError::NotADirectory(root.to_owned()));
    }
    let mut builder = WalkBuilder::new(root);
    builder.standard_filters(false).git_ignore(true).require_git(false);
    builder.add_custom_ignore_filename(".berthignore");
    builder.filter_entry(|entry| entry.file_name() != ".git");
    builder.sort_by_file_name(Ord::cmp);
    let mut packing = Packing { root, entries: Vec::new(), places: BTreeMap::new(), size: 0 };
    for found in builder.build() {
        let found = found.map_err(|error| walk_error(root, error))?;
        if found.depth() > 0 {
            packing.add(found.path())?;
        }
    }
    let tree = Tree::new(packing.entries)?;
    Ok(Packed { root: root.to_owned(), tree, places: packing.places })
}

struct Packing<'r> {
    root: &'r Path,
    entries: Vec<Entry>,
    places: BTreeMap<ChunkId, Place>,
    size: u64,
}

impl Packing<'_> {
    fn add(&mut self, path: &Path) -> Result<(), PackError> {
        let metadata = std::fs::symlink_metadata(path).map_err(|source| read_error(path, source))?;
        if metadata.is_dir() {
            return Ok(());
        }
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let name = relative.to_str().ok_or_else(|| PackError::NotUtf8(relative.to_owned()))?;
        check_path(name)
            .map_err(|problem| InvalidTree::Path { path: name.chars().take(200).collect(), problem })?;
        if self.entries.len() == ENTRIES_MAX {
            return Err(InvalidTree::TooMany.into());
        }
        let node = if metadata.is_symlink() {
            link(path, name)?
        } else if let Some(kind) = special(&metadata) {
            return Err(PackError::Special { path: relative.to_owned(), kind });
        } else {
            self.file(path, name)?
        };
        self.entries.push(Entry { path: name.to_owned(), node });
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str) -> Result<Node, PackError> {
        let failed = |source| read_error(path, source);
        let file = open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(PackError::Changed { path: path.to_owned() });
        }
        let too_large = || PackError::from(InvalidTree::TooLarge { path: name.to_owned() });
        // Asked before reading: a sparse file of a terabyte should not be hashed first.
        if self.size.saturating_add(metadata.len()) > SIZE_MAX {
            return Err(too_large());
        }
        let (mut size, mut chunks) = (0_u64, Vec::new());
        let read = chunk::split(&file, |bytes| {
            let hash = ChunkId::of(bytes);
            let place = || Place { path: name.to_owned(), offset: size, len: bytes.len() };
            self.places.entry(hash).or_insert_with(place);
            let len = u32::try_from(bytes.len()).expect("a chunk is at most 256 KiB long");
            chunks.push(crate::tree::ChunkRef { hash, len });
            size += u64::from(len);
            // A file that grows while it is read must end, too.
            if self.size + size > SIZE_MAX {
                Err(io::Error::from(io::ErrorKind::FileTooLarge))
            } else {
                Ok(())
            }
        });
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(too_large()),
            Err(error) => return Err(failed(error)),
        }
        self.size += size;
        Ok(Node::File { exec: metadata.permissions().mode() & 0o100 != 0, size, chunks })
    }
}

/// Opens a file that was seen a moment ago: never through a link that took its place, never blocking on a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn link(path: &Path, name: &str) -> Result<Node, PackError> {
    let target = std::fs::read_link(path).map_err(|source| read_error(path, source))?;
    let target = target.into_os_string().into_string();
    let target = target.map_err(|raw| PackError::NotUtf8(PathBuf::from(raw)))?;
    check_target(name, &target).map_err(|problem| InvalidTree::Link {
        path: name.to_owned(),
        target: target.chars().take(200).collect(),
        problem,
    })?;
    Ok(Node::Link { target })
}

fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_fifo() {
        Some("named pipe")
    } else {
        Some("device")
    }
}

fn read_error(path: &Path, source: io::Error) -> PackError {
    PackError::Read { path: path.to_owned(), source }
}

fn walk_error(root: &Path, error: ignore::Error) -> PackError {
    let mut inner = &error;
    let mut path = root.to_owned();
    loop {
        inner = match inner {
            ignore::Error::WithPath { path: at, err } => {
                path.clone_from(at);
                err
            }
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => err,
            _ => break,
        };
    }
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other(text));
    read_error(&path, source)
}

impl Packed {
    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The directory that was packed.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads the bytes of a chunk again, to send them.
    ///
    /// # Errors
    /// [`PackError::Changed`] when the file has other bytes there by now.
    pub fn read(&self, id: &ChunkId) -> Result<Vec<u8>, PackError> {
        use std::os::unix::fs::FileExt as _;
        let place = self.places.get(id).ok_or(PackError::Unknown(*id))?;
        debug_assert!(place.len <= CHUNK_MAX, "only chunks have places");
        let path = self.root.join(&place.path);
        let changed = || PackError::Changed { path: path.clone() };
        let mut bytes = vec![0; place.len];
        match open(&path).and_then(|file| file.read_exact_at(&mut bytes, place.offset)) {
            Ok(()) if ChunkId::of(&bytes) == *id => Ok(bytes),
            Ok(()) => Err(changed()),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {
                Err(changed())
            }
            Err(source) => Err(read_error(&path, source)),
        }
    }
}

/// The `.berthignore` files of a source that is not on disk.
#[derive(Debug)]
pub(crate) struct LeftOut(BTreeMap<String, Gitignore>);

impl LeftOut {
    /// Of the texts of such files, by the folder that each lies in, without a slash at its end.
    pub(crate) fn new(texts: &BTreeMap<String, Vec<u8>>) -> Self {
        let rules = texts.iter().map(|(folder, text)| {
            let mut builder = GitignoreBuilder::new("");
            for line in String::from_utf8_lossy(text).lines() {
                // A line that is no rule leaves nothing out, as on disk.
                let _taken = builder.add_line(None, line);
            }
            (folder.clone(), builder.build().unwrap_or_else(|_no_rules| Gitignore::empty()))
        });
        Self(rules.collect())
    }

    /// Whether the file at `path` is left out. The rules nearest to it decide.
    pub(crate) fn names(&self, path: &str) -> bool {
        let folders = path.rmatch_indices('/').map(|(at, _)| path.get(..at).unwrap_or_default()).chain([""]);
        for folder in folders {
            let Some(rules) = self.0.get(folder) else { continue };
            let below = path.strip_prefix(folder).unwrap_or(path).trim_start_matches('/');
            match rules.matched_path_or_any_parents(below, false) {
                ignore::Match::None => {}
                matched => return matched.is_ignore(),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn paths(packed: &Packed) -> Vec<&str> {
        packed.tree().entries().iter().map(|entry| entry.path.as_str()).collect()
    }

    #[test]
    fn ignore_rules_of_the_tree_apply_and_no_others() {
        let dir = directory(&[
            (".gitignore", "target/\n*.log\n/only-root\n"),
            (".berthignore", "docs\n!keep.log\n"),
            (".git/config", "x"),
            (".git/info/exclude", "a.txt"),
            (".hidden/b", "x"),
            ("a-b", "x"),
            ("a/b", "x"),
            ("a.txt", "x"),
            ("docs/x", "x"),
            ("keep.log", "x"),
            ("lost.log", "x"),
            ("node_modules/m/i.js", "x"),
            ("only-root", "x"),
            ("sub/.gitignore", "c\n"),
            ("sub/c", "x"),
            ("sub/.git/HEAD", "x"),
            ("sub/only-root", "x"),
            ("target/debug/x", "x"),
        ]);
        fs::create_dir(dir.path().join("empty")).unwrap();
        let packed = pack(dir.path()).unwrap();
        assert_eq!(
            paths(&packed),
            [
                ".berthignore",
                ".gitignore",
                ".hidden/b",
                "a-b",
                "a.txt",
                "a/b",
                "keep.log",
                "node_modules/m/i.js",
                "sub/.gitignore",
                "sub/only-root",
            ]
        );
        // The rules of a parent directory do not reach into the packed one.
        let sub = pack(&dir.path().join("sub")).unwrap();
        assert_eq!(paths(&sub), [".gitignore", "only-root"]);
    }

    #[test]
    fn the_same_content_is_the_same_tree_wherever_it_lies() {
        let files = [("b", "2"), ("a/c", "1"), ("a.d", "3")];
        let one = pack(directory(&files).path()).map(|packed| packed.tree().id()).unwrap();
        let mut reversed = files;
        reversed.reverse();
        let dir = directory(&reversed);
        assert_eq!(pack(dir.path()).unwrap().tree().id(), one);
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(pack(dir.path()).unwrap().tree().id(), one);
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let refused = |make: &dyn Fn(&Path)| {
            let dir = directory(&[("ok", "x")]);
            make(dir.path());
            let error = pack(dir.path()).unwrap_err();
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        };
        let socket = refused(&|dir| drop(std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap()));
        assert_eq!(socket, "\"s\" is a socket, not a file; remove it or leave it out by a .berthignore");
        let pipe = refused(&|dir| {
            rustix::fs::mknodat(rustix::fs::CWD, dir.join("p"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
                .unwrap();
        });
        assert_eq!(pipe, "\"p\" is a named pipe, not a file; remove it or leave it out by a .berthignore");
        let outside = refused(&|dir| symlink("../../etc/passwd", dir.join("l")).unwrap());
        assert_eq!(
            outside,
            "the directory cannot be packed: the link \"l\" to \"../../etc/passwd\" leaves the tree"
        );
        let absolute = refused(&|dir| symlink("/etc/passwd", dir.join("l")).unwrap());
        assert_eq!(absolute, "the directory cannot be packed: the link \"l\" to \"/etc/passwd\" is absolute");
        let name = refused(&|dir| fs::write(dir.join(OsStr::from_bytes(b"\xff")), "x").unwrap());
        assert_eq!(name, "the name of \"\\xFF\" is not UTF-8; rename it or leave it out by a .berthignore");
        let newline = refused(&|dir| fs::write(dir.join("a\nb"), "x").unwrap());
        assert!(newline.contains("control character"), "{newline}");
        let large = refused(&|dir| File::create(dir.join("sparse")).unwrap().set_len(SIZE_MAX + 1).unwrap());
        assert!(large.contains("larger than 2 GiB together at \"sparse\""), "{large}");
        assert!(matches!(pack(Path::new("/nowhere/at/all")), Err(PackError::Read { .. })));
        assert!(matches!(pack(Path::new("/etc/passwd")), Err(PackError::NotADirectory(_))));
    }

    #[test]
    fn chunks_are_read_again_unless_the_file_changed() {
        let dir = directory(&[("a", "hello")]);
        let packed = pack(dir.path()).unwrap();
        let id = ChunkId::of(b"hello");
        assert_eq!(packed.read(&id).unwrap(), b"hello");
        assert!(matches!(packed.read(&ChunkId::of(b"x")), Err(PackError::Unknown(_))));
        for other in ["hallo", "he"] {
            fs::write(dir.path().join("a"), other).unwrap();
            assert!(matches!(packed.read(&id), Err(PackError::Changed { .. })));
        }
        fs::remove_file(dir.path().join("a")).unwrap();
        assert!(matches!(packed.read(&id), Err(PackError::Changed { .. })));
    }
}
