//! The chunks and trees that tenants have uploaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use berth_contract::{ChunkHash, Code, Problem, TreeId};
use berth_control::report::SourceDiff;
use berth_source::tree::Node;
use berth_source::{ChunkId, ChunkStore, StoreError, Tree};
use berth_spec::TenantName;
use tokio::sync::Semaphore;

use crate::api::Refused;

/// Where chunks are kept, a directory for each tenant.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    chunks: Arc<Path>,
    /// Uploads sync to the disk and so keep a thread for long; more at once would not be faster.
    turns: Arc<Semaphore>,
}

/// How many uploads are worked on at a time. More wait, each with its body in memory: as many as there are connections, of a chunk each.
const AT_ONCE: usize = 8;

impl Sources {
    /// The sources below `chunks`.
    #[must_use]
    pub(super) fn new(chunks: PathBuf) -> Self {
        Self { chunks: chunks.into(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The tenant's own store.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub(super) fn of(&self, tenant: &TenantName) -> Result<ChunkStore, StoreError> {
        ChunkStore::open(&self.chunks, tenant)
    }

    async fn with<T: Send + 'static>(
        &self,
        tenant: &TenantName,
        work: impl FnOnce(&ChunkStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refused> {
        let (this, tenant) = (self.clone(), tenant.clone());
        let turn = self.turns.acquire().await;
        let _turn = turn.expect("nobody closes the semaphore");
        let done = tokio::task::spawn_blocking(move || work(&this.of(&tenant)?)).await;
        match done {
            Ok(result) => Ok(result.map_err(|error| refused(&error))?),
            Err(error) => {
                Err(Problem::new(Code::Internal, format!("the chunk store failed: {error}")).into())
            }
        }
    }

    /// Those of `hashes` that the tenant does not have.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(super) async fn missing(
        &self,
        tenant: &TenantName,
        hashes: Vec<ChunkHash>,
    ) -> Result<Vec<ChunkHash>, Refused> {
        self.with(tenant, move |store| {
            let mut missing = Vec::new();
            for hash in hashes {
                if !store.has(&chunk_id(&hash))? {
                    missing.push(hash);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Keeps a chunk, if its bytes have its hash.
    ///
    /// # Errors
    /// When they do not, or the disk refuses.
    pub(super) async fn put(
        &self,
        tenant: &TenantName,
        hash: ChunkHash,
        bytes: Bytes,
    ) -> Result<(), Refused> {
        self.with(tenant, move |store| store.put(&chunk_id(&hash), &bytes)).await
    }

    /// Keeps a tree, all of whose chunks are there.
    ///
    /// # Errors
    /// When it is no tree, a chunk is missing, or the disk refuses.
    pub(super) async fn put_tree(&self, tenant: &TenantName, json: Bytes) -> Result<TreeId, Refused> {
        let tree =
            Tree::from_json(&json).map_err(|error| Problem::new(Code::InvalidTree, error.to_string()))?;
        let id = self.with(tenant, move |store| store.put_tree(&tree)).await?;
        Ok(id.to_string().parse().expect("both crates write tree ids alike"))
    }

    /// How the tree `new` differs from `old`, where both are there.
    pub(super) async fn difference(&self, tenant: &TenantName, old: &str, new: &str) -> Option<SourceDiff> {
        let (old, new): (berth_source::TreeId, berth_source::TreeId) = (old.parse().ok()?, new.parse().ok()?);
        let read = self.with(tenant, move |store| Ok((store.get_tree(&old)?, store.get_tree(&new)?))).await;
        let (old, new) = read.ok()?;
        let nodes = |tree: &Tree| -> BTreeMap<String, Node> {
            tree.entries().iter().map(|entry| (entry.path.clone(), entry.node.clone())).collect()
        };
        let (old, new) = (nodes(&old), nodes(&new));
        let only = |one: &BTreeMap<String, Node>, other: &BTreeMap<String, Node>| {
            one.keys().filter(|path| !other.contains_key(*path)).cloned().collect()
        };
        let changed = new.iter().filter(|(path, node)| old.get(*path).is_some_and(|before| before != *node));
        Some(SourceDiff {
            added: only(&new, &old),
            changed: changed.map(|(path, _)| path.clone()).collect(),
            removed: only(&old, &new),
        })
    }

    /// Whether the tree is there.
    ///
    /// # Errors
    /// When it is not.
    pub(super) async fn check_tree(&self, tenant: &TenantName, tree: &str) -> Result<(), Refused> {
        let id: berth_source::TreeId =
            tree.parse().map_err(|error| Problem::new(Code::TreeNotFound, format!("{error}")))?;
        self.with(tenant, move |store| store.get_tree(&id)).await.map(|_tree| ())
    }
}

fn chunk_id(hash: &ChunkHash) -> ChunkId {
    hash.as_str().parse().expect("both crates write hashes alike")
}

pub(super) fn refused(error: &StoreError) -> Refused {
    let code = Code::from_text(error.code());
    Problem::new(code.unwrap_or(Code::Internal), error.to_string()).into()
}
