//! Laying a tree out in a directory, so that nothing in it can reach outside.
//!
//! Every step goes down from an open directory by one name and follows no link (`O_NOFOLLOW`); a [`Tree`] has no name `..`
//! and nothing below a link. Files are made anew (`O_EXCL`), so that nothing that was there is written through. This
//! holds even against someone who changes the directory meanwhile.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use crate::store::{ChunkStore, StoreError};
use crate::tree::{ChunkRef, Node, Tree};

/// Why a tree could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayError {
    /// A chunk could not be had.
    #[error("the content of {path:?} could not be read")]
    Chunk {
        /// The file of the tree.
        path: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The disk, or the quota on it, is full.
    #[error("the disk is full at {path:?}")]
    DiskFull {
        /// The file of the tree.
        path: String,
    },
    /// The system refused.
    #[error("{path:?} could not be written")]
    Io {
        /// The file of the tree.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Whom the files shall belong to; root only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Writes `tree`, with its chunks from `store`, into `dest`, an open directory that should be empty: files 0644 or
/// 0755, directories 0755.
///
/// Nothing is synced; whoever needs that syncs the file system afterwards.
///
/// # Errors
/// [`LayError`]; then part of the tree may be there.
pub fn materialise(
    tree: &Tree,
    store: &ChunkStore,
    dest: BorrowedFd<'_>,
    owner: Option<Owner>,
) -> Result<(), LayError> {
    let mut laying = Laying { dest, store, owner, open: Vec::new() };
    for entry in tree.entries() {
        laying.entry(&entry.path, &entry.node)?;
    }
    Ok(())
}

struct Laying<'a> {
    dest: BorrowedFd<'a>,
    store: &'a ChunkStore,
    owner: Option<Owner>,
    /// The directories that lead to the last entry: entries of one directory come after one another.
    open: Vec<(String, OwnedFd)>,
}

impl Laying<'_> {
    fn entry(&mut self, path: &str, node: &Node) -> Result<(), LayError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LayError::DiskFull { path: path.to_owned() }
            }
            _ => LayError::Io { path: path.to_owned(), source },
        };
        let (parents, name) =
            path.rsplit_once('/').map_or((None, path), |(parents, name)| (Some(parents), name));
        self.enter(parents).map_err(failed)?;
        let dir = self.open.last().map_or(self.dest, |(_, dir)| dir.as_fd());
        match node {
            Node::Link { target } => {
                rustix::fs::symlinkat(target.as_str(), dir, name).map_err(|error| failed(error.into()))?;
                self.give_link(dir, name).map_err(failed)
            }
            Node::File { exec, chunks, .. } => {
                let mode = Mode::from_raw_mode(if *exec { 0o755 } else { 0o644 });
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    rustix::fs::openat(dir, name, flags, mode).map_err(|error| failed(error.into()))?;
                let mut file = std::fs::File::from(file);
                for ChunkRef { hash, len } in chunks {
                    let bytes = self.store.get(hash).map_err(|source| chunk_failed(path, source))?;
                    if bytes.len() != usize::try_from(*len).unwrap_or(usize::MAX) {
                        return Err(chunk_failed(path, StoreError::WrongSize(*hash)));
                    }
                    file.write_all(&bytes).map_err(failed)?;
                }
                self.give(&file, mode).map_err(failed)
            }
        }
    }

    /// Makes the directories `parents` of the next entry the open ones.
    fn enter(&mut self, parents: Option<&str>) -> io::Result<()> {
        let segments: Vec<&str> = parents.into_iter().flat_map(|parents| parents.split('/')).collect();
        let shared =
            self.open.iter().zip(&segments).take_while(|((name, _), segment)| name == *segment).count();
        self.open.truncate(shared);
        for segment in segments.into_iter().skip(shared) {
            let above = self.open.last().map_or(self.dest, |(_, dir)| dir.as_fd());
            match rustix::fs::mkdirat(above, segment, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(above, segment, flags, Mode::empty())?;
            self.give(&dir, Mode::from_raw_mode(0o755))?;
            self.open.push((segment.to_owned(), dir));
        }
        Ok(())
    }

    /// Sets the mode whatever our umask is, and the owner.
    fn give(&self, fd: impl AsFd, mode: Mode) -> io::Result<()> {
        if let Some(Owner { uid, gid }) = self.owner {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(rustix::fs::fchmod(fd, mode)?)
    }

    fn give_link(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let Some(Owner { uid, gid }) = self.owner else {
            return Ok(());
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn chunk_failed(path: &str, source: StoreError) -> LayError {
    LayError::Chunk { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkId;
    use crate::tree::Entry;
    use crate::walk;
    use proptest::prelude::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    fn store_of(dir: &Path, contents: &[&[u8]]) -> ChunkStore {
        let store = ChunkStore::open(&dir.join("chunks"), &"default".parse().unwrap()).unwrap();
        for content in contents {
            store.put(&ChunkId::of(content), content).unwrap();
        }
        store
    }

    fn file(path: &str, content: &[u8]) -> Entry {
        let chunk = ChunkRef { hash: ChunkId::of(content), len: u32::try_from(content.len()).unwrap() };
        let node = Node::File { exec: false, size: u64::from(chunk.len), chunks: vec![chunk] };
        Entry { path: path.to_owned(), node }
    }

    #[test]
    fn what_was_packed_is_laid_out_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::write(source.join("a/b/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(source.join("a/b/run"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::write(source.join("a-b"), vec![7; 1_000_000]).unwrap();
        fs::write(source.join("empty"), "").unwrap();
        symlink("b/run", source.join("a/link")).unwrap();
        let packed = walk::pack(&source).unwrap();
        let store = store_of(dir.path(), &[]);
        for chunk in packed.tree().chunks() {
            store.put(&chunk, &packed.read(&chunk).unwrap()).unwrap();
        }
        let dest = dir.path().join("dest");
        fs::create_dir(&dest).unwrap();
        materialise(packed.tree(), &store, File::open(&dest).unwrap().as_fd(), None).unwrap();
        assert_eq!(walk::pack(&dest).unwrap().tree().id(), packed.tree().id());
        assert_eq!(fs::metadata(dest.join("a/b/run")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(dest.join("a-b")).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn what_is_in_the_way_is_never_followed_or_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let store = store_of(dir.path(), &[b"new"]);
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "old").unwrap();
        let dest = dir.path().join("dest");
        fs::create_dir(&dest).unwrap();
        symlink(&outside, dest.join("d")).unwrap();
        symlink(outside.join("x"), dest.join("f")).unwrap();
        for path in ["d/x", "d/y", "f"] {
            let tree = Tree::new(vec![file(path, b"new")]).unwrap();
            assert!(materialise(&tree, &store, File::open(&dest).unwrap().as_fd(), None).is_err(), "{path}");
        }
        assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "old");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_or_lying_chunk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = store_of(dir.path(), &[b"abc"]);
        let lying = ChunkRef { hash: ChunkId::of(b"abc"), len: 2 };
        let node = Node::File { exec: false, size: 2, chunks: vec![lying] };
        let tree = Tree::new(vec![Entry { path: "x".into(), node }]).unwrap();
        let dest = dir.path().join("dest");
        fs::create_dir(&dest).unwrap();
        let dest = File::open(&dest).unwrap();
        assert!(matches!(materialise(&tree, &store, dest.as_fd(), None), Err(LayError::Chunk { .. })));
        let tree = Tree::new(vec![file("y", b"missing")]).unwrap();
        assert!(matches!(materialise(&tree, &store, dest.as_fd(), None), Err(LayError::Chunk { .. })));
    }

    /// All paths below `root`, and where links lead.
    fn world(root: &Path) -> Vec<String> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            seen.push(format!("{path:?} {:?}", fs::read_link(&path).ok()));
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                seen.extend(world(&path));
            }
        }
        seen.sort();
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_tree_however_hostile_writes_outside(
            entries in prop::collection::vec(
                ("((\\.\\.|\\.|a|b|c|)/?){1,4}", prop::option::of("/?((\\.\\.|\\.|a|b|c|outside)/?){1,5}")), 1..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let store = store_of(dir.path(), &[b"evil"]);
            let outside = dir.path().join("outside");
            fs::create_dir_all(outside.join("a")).unwrap();
            fs::write(outside.join("b"), "safe").unwrap();
            let dest = dir.path().join("dest");
            fs::create_dir(&dest).unwrap();
            let entries: Vec<Entry> = entries.into_iter().map(|(path, target)| match target {
                Some(target) => Entry { path, node: Node::Link { target } },
                None => file(&path, b"evil"),
            }).collect();
            // Given as JSON, as an attacker would; of what is refused together, as much as is taken.
            let json = |entries: &[Entry]| serde_json::json!({ "entries": entries }).to_string();
            let mut taken: Vec<Entry> = Vec::new();
            for entry in entries {
                let before = taken.clone();
                taken.push(entry);
                taken.sort_by(|a, b| a.path.cmp(&b.path));
                if Tree::from_json(json(&taken).as_bytes()).is_err() {
                    taken.clone_from(&before);
                }
            }
            let tree = Tree::from_json(json(&taken).as_bytes()).unwrap();
            let before = world(&outside);
            drop(materialise(&tree, &store, File::open(&dest).unwrap().as_fd(), None));
            prop_assert_eq!(world(&outside), before);
            prop_assert_eq!(fs::read_to_string(outside.join("b")).unwrap(), "safe");
            let mut beside: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            beside.sort();
            prop_assert_eq!(beside, ["chunks", "dest", "outside"]);
            // And whatever was made inside resolves to a place inside, if to any.
            let real = fs::canonicalize(&dest).unwrap();
            for entry in tree.entries() {
                if let Ok(resolved) = fs::canonicalize(dest.join(&entry.path)) {
                    prop_assert!(resolved.starts_with(&real), "{:?} is {:?}", entry, resolved);
                }
            }
        }
    }
}
