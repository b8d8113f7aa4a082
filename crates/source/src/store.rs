//! Chunks and trees of a tenant, kept by their hashes.
//!
//! A name says what is in the file, so a file is written once, complete, and never changed. Two tenants never share a
//! chunk: whether one has it already would tell the other what it deploys.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use berth_spec::TenantName;

use crate::chunk::{CHUNK_MAX, ChunkId};
use crate::tree::{InvalidTree, JSON_MAX, Tree, TreeId};

/// The chunks and trees of one tenant: `ab/<hash>`, `trees/<id>` and what is being written in `incoming/`.
#[derive(Debug)]
pub struct ChunkStore {
    root: PathBuf,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes are not those that the id names.
    #[error("the bytes sent as chunk {0} have another hash")]
    WrongHash(ChunkId),
    /// The bytes are more than a chunk may have, or none.
    #[error("chunk {0} is empty or longer than {CHUNK_MAX} bytes")]
    WrongSize(ChunkId),
    /// Chunks of the tree were not sent.
    #[error("{} chunks of the tree are missing, {} the first", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Missing(Vec<ChunkId>),
    /// There is no such tree.
    #[error("there is no tree {0}")]
    NoTree(TreeId),
    /// What is kept under this name is not what was put there; it was removed, so that it can be sent again.
    #[error("the kept {name} was damaged; deploy again to send it anew")]
    Damaged {
        /// The chunk or tree.
        name: String,
    },
    /// The disk, or the quota on it, is full.
    #[error("the disk is full at {path:?}")]
    DiskFull {
        /// Where it is full.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path:?} could not be {verb}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `read`, `written`.
        verb: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The tree is none.
    #[error("the tree is refused")]
    Tree(#[from] InvalidTree),
}

impl StoreError {
    /// The stable code of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongHash(_) | Self::WrongSize(_) => "chunk_mismatch",
            Self::Missing(_) => "chunks_missing",
            Self::NoTree(_) => "tree_not_found",
            Self::Damaged { .. } => "source_damaged",
            Self::DiskFull { .. } => "disk_full",
            Self::Io { .. } => "storage_failed",
            Self::Tree(_) => "invalid_tree",
        }
    }
}

fn failed<'p>(path: &'p Path, verb: &'static str) -> impl Fn(io::Error) -> StoreError + 'p {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull { path: path.to_owned() }
        }
        _ => StoreError::Io { path: path.to_owned(), verb, source },
    }
}

impl ChunkStore {
    /// The store of `tenant` below `chunks`, made if it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when its directories cannot be made.
    pub fn open(chunks: &Path, tenant: &TenantName) -> Result<Self, StoreError> {
        let root = chunks.join(tenant.as_str());
        for dir in [root.join("trees"), root.join("incoming")] {
            make_dir(&dir)?;
        }
        Ok(Self { root })
    }

    /// Removes what a killed writer left half written. Call it while nobody writes: when control starts.
    ///
    /// # Errors
    /// [`StoreError`] when a file cannot be removed.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let incoming = self.root.join("incoming");
        for file in fs::read_dir(&incoming).map_err(failed(&incoming, "read"))? {
            let path = file.map_err(failed(&incoming, "read"))?.path();
            fs::remove_file(&path).map_err(failed(&path, "removed"))?;
        }
        Ok(())
    }

    /// Whether the chunk is here.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be found out.
    pub fn has(&self, id: &ChunkId) -> Result<bool, StoreError> {
        let path = self.chunk_path(id);
        path.try_exists().map_err(failed(&path, "read"))
    }

    /// Those of `ids` that are not here, in their order.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be found out.
    pub fn missing<'i>(
        &self,
        ids: impl IntoIterator<Item = &'i ChunkId>,
    ) -> Result<Vec<ChunkId>, StoreError> {
        let mut missing = Vec::new();
        for id in ids {
            if !self.has(id)? {
                missing.push(*id);
            }
        }
        Ok(missing)
    }

    /// Keeps a chunk. One that is here already is left as it is.
    ///
    /// # Errors
    /// [`StoreError::WrongHash`] and [`StoreError::WrongSize`] when `bytes` is not what `id` names; then nothing was kept.
    pub fn put(&self, id: &ChunkId, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() || bytes.len() > CHUNK_MAX {
            return Err(StoreError::WrongSize(*id));
        }
        if ChunkId::of(bytes) != *id {
            return Err(StoreError::WrongHash(*id));
        }
        if self.has(id)? { Ok(()) } else { self.write(&self.chunk_path(id), bytes) }
    }

    /// The bytes of a chunk, checked against its hash.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not here, [`StoreError::Damaged`] when its bytes are others.
    pub fn get(&self, id: &ChunkId) -> Result<Vec<u8>, StoreError> {
        let path = self.chunk_path(id);
        let bytes = read(&path, CHUNK_MAX)?.ok_or_else(|| StoreError::Missing(vec![*id]))?;
        if ChunkId::of(&bytes) == *id { Ok(bytes) } else { Err(remove_damaged(&path, id.to_string())) }
    }

    /// Keeps a tree and sees to it that it and its chunks survive a loss of power.
    ///
    /// # Errors
    /// [`StoreError::Missing`] names the chunks that have to be sent first.
    pub fn put_tree(&self, tree: &Tree) -> Result<TreeId, StoreError> {
        let chunks = tree.chunks();
        let missing = self.missing(&chunks)?;
        if !missing.is_empty() {
            return Err(StoreError::Missing(missing));
        }
        let id = tree.id();
        let path = self.tree_path(&id);
        if !path.try_exists().map_err(failed(&path, "read"))? {
            // The content of each chunk is on disk since it was put; here the names follow.
            let folders: BTreeSet<PathBuf> =
                chunks.iter().filter_map(|id| self.chunk_path(id).parent().map(Path::to_owned)).collect();
            for folder in folders.iter().chain([&self.root]) {
                sync_dir(folder)?;
            }
            self.write(&path, &tree.canonical_json())?;
        }
        sync_dir(&self.root.join("trees"))?;
        Ok(id)
    }

    /// The tree with this id.
    ///
    /// # Errors
    /// [`StoreError::NoTree`] when it is not here, [`StoreError::Damaged`] when it is not what it was.
    pub fn get_tree(&self, id: &TreeId) -> Result<Tree, StoreError> {
        let path = self.tree_path(id);
        let json = read(&path, JSON_MAX)?.ok_or(StoreError::NoTree(*id))?;
        match Tree::from_json(&json) {
            Ok(tree) if tree.id() == *id => Ok(tree),
            _ => Err(remove_damaged(&path, id.to_string())),
        }
    }

    fn chunk_path(&self, id: &ChunkId) -> PathBuf {
        let name = id.to_string();
        let folder: String = name.chars().take(2).collect();
        self.root.join(folder).join(name)
    }

    fn tree_path(&self, id: &TreeId) -> PathBuf {
        self.root.join("trees").join(id.to_string())
    }

    /// Writes a file so that it is there complete or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("incoming").join(format!("{}-{count}", std::process::id()));
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(failed(&temporary, "written"));
        let placed = written
            .and_then(|()| path.parent().map_or(Ok(()), make_dir))
            .and_then(|()| fs::rename(&temporary, path).map_err(failed(path, "written")));
        if placed.is_err() {
            // The first error is the one to tell; what stays behind goes with the next sweep.
            drop(fs::remove_file(&temporary));
        }
        placed
    }
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path, "made"))
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed(path, "synced"))
}

/// The content of a file of at most `max` bytes; one byte more, and so the wrong hash, when it is longer.
fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed(path, "read"))?,
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed(path, "read"))?;
    Ok(Some(bytes))
}

fn remove_damaged(path: &Path, name: String) -> StoreError {
    match fs::remove_file(path) {
        Ok(()) => StoreError::Damaged { name },
        Err(error) => failed(path, "removed")(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ChunkRef, Entry, Node};
    use std::os::unix::fs::PermissionsExt as _;

    fn store() -> (tempfile::TempDir, ChunkStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(dir.path(), &"default".parse().unwrap()).unwrap();
        (dir, store)
    }

    fn tree_of(bytes: &[u8]) -> Tree {
        let chunk = ChunkRef { hash: ChunkId::of(bytes), len: u32::try_from(bytes.len()).unwrap() };
        let node = Node::File { exec: false, size: u64::from(chunk.len), chunks: vec![chunk] };
        Tree::new(vec![Entry { path: "a".into(), node }]).unwrap()
    }

    #[test]
    fn a_chunk_comes_back_and_only_under_its_own_hash() {
        let (_dir, store) = store();
        let id = ChunkId::of(b"hello");
        assert!(matches!(store.get(&id), Err(StoreError::Missing(_))));
        store.put(&id, b"hello").unwrap();
        store.put(&id, b"hello").unwrap();
        assert_eq!(store.get(&id).unwrap(), b"hello");
        assert_eq!(fs::metadata(store.chunk_path(&id)).unwrap().permissions().mode() & 0o777, 0o600);
        let other = ChunkId::of(b"other");
        assert!(matches!(store.put(&other, b"hello"), Err(StoreError::WrongHash(_))));
        assert!(matches!(store.put(&ChunkId::of(b""), b""), Err(StoreError::WrongSize(_))));
        let long = vec![0; CHUNK_MAX + 1];
        assert!(matches!(store.put(&ChunkId::of(&long), &long), Err(StoreError::WrongSize(_))));
        assert_eq!(store.missing([&id, &other]).unwrap(), [other]);
        assert_eq!(fs::read_dir(store.root.join("incoming")).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_needs_its_chunks_and_comes_back() {
        let (_dir, store) = store();
        let tree = tree_of(b"hello");
        assert!(matches!(store.put_tree(&tree), Err(StoreError::Missing(missing)) if missing.len() == 1));
        assert!(matches!(store.get_tree(&tree.id()), Err(StoreError::NoTree(_))));
        store.put(&ChunkId::of(b"hello"), b"hello").unwrap();
        assert_eq!(store.put_tree(&tree).unwrap(), tree.id());
        assert_eq!(store.put_tree(&tree).unwrap(), tree.id());
        assert_eq!(store.get_tree(&tree.id()).unwrap(), tree);
    }

    #[test]
    fn what_was_damaged_on_disk_is_noticed_and_can_be_sent_again() {
        let (_dir, store) = store();
        let id = ChunkId::of(b"hello");
        for damage in [b"hallo".as_slice(), b"", &[0; CHUNK_MAX + 7]] {
            store.put(&id, b"hello").unwrap();
            fs::write(store.chunk_path(&id), damage).unwrap();
            assert!(matches!(store.get(&id), Err(StoreError::Damaged { .. })));
            assert!(!store.has(&id).unwrap());
        }
        store.put(&id, b"hello").unwrap();
        let tree = store.put_tree(&tree_of(b"hello")).unwrap();
        fs::write(store.tree_path(&tree), b"{}").unwrap();
        assert!(matches!(store.get_tree(&tree), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn the_sweep_removes_what_was_half_written() {
        let (_dir, store) = store();
        fs::write(store.root.join("incoming/1-1"), "half").unwrap();
        store.sweep().unwrap();
        assert_eq!(fs::read_dir(store.root.join("incoming")).unwrap().count(), 0);
    }
}
