//! The files that a Dockerfile is built from: the source, without what a `.dockerignore` leaves out.

use std::io::{self, Cursor, Read};
use std::path::Path;

use berth_docker::{Context, EngineError};
use berth_source::tree::{ChunkRef, Node};
use berth_source::{ChunkStore, Dockerignore, Tree};

use super::engine::in_full;
use crate::error::BuildError;

/// The longest `.dockerignore` that is read, in bytes.
const IGNORE_MAX: u64 = 1 << 20;

/// Packs them into a file without a name in `scratch`.
pub(super) fn pack(
    store: &ChunkStore,
    tree: &Tree,
    path: &str,
    scratch: &Path,
) -> Result<Context, BuildError> {
    let failed = |error: EngineError| {
        BuildError::Outcome(format!(
            "what the Dockerfile is built from could not be packed: {}",
            in_full(&error)
        ))
    };
    let ignore = match tree.node(".dockerignore") {
        Some(Node::File { size, chunks, .. }) if *size <= IGNORE_MAX => {
            let mut text = String::new();
            let read = Content::new(store, chunks).read_to_string(&mut text);
            read.map_err(|error| BuildError::Outcome(format!(".dockerignore cannot be read: {error}")))?;
            Dockerignore::new(&text)
        }
        _ => Dockerignore::new(""),
    };
    let mut context = Context::begin(scratch).map_err(failed)?;
    for entry in tree.entries() {
        // The Dockerfile itself is always sent.
        if ignore.leaves_out(&entry.path) && entry.path != path {
            continue;
        }
        let added = match &entry.node {
            Node::File { exec, size, chunks } => {
                context.file(&entry.path, *exec, *size, Content::new(store, chunks))
            }
            Node::Link { target } => context.link(&entry.path, target),
        };
        added.map_err(failed)?;
    }
    Ok(context)
}

/// The content of a file, chunk by chunk.
pub(super) struct Content<'a> {
    store: &'a ChunkStore,
    chunks: std::slice::Iter<'a, ChunkRef>,
    current: Cursor<Vec<u8>>,
}

impl<'a> Content<'a> {
    pub(super) fn new(store: &'a ChunkStore, chunks: &'a [ChunkRef]) -> Self {
        Self { store, chunks: chunks.iter(), current: Cursor::default() }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(chunk) = self.chunks.next() else { return Ok(0) };
            self.current = Cursor::new(self.store.get(&chunk.hash).map_err(io::Error::other)?);
        }
    }
}
