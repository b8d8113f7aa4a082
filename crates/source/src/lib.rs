//! A source tree: walk it with its ignore rules, hash, chunk, keep and lay it out again; detection rules as data.
//!
//! The CLI [`pack`](walk::pack)s a directory into a [`Tree`] and sends the chunks that the platform lacks. There a
//! [`ChunkStore`] keeps them per tenant, and [`materialise`](lay::materialise) lays a tree out for a build, so that no path and
//! no link in it, however hostile, leaves the directory. [`detect()`] says how to build what is in it, and [`import`] what another
//! platform's file says of it; [`stack`] takes a compose file apart into apps.
#![warn(missing_docs)]

pub mod archive;
pub mod chunk;
pub mod detect;
mod dockerignore;
pub mod import;
pub mod lay;
pub mod recipe;
pub mod stack;
pub mod store;
pub mod tree;
pub mod version;
pub mod walk;

pub use chunk::ChunkId;
pub use detect::{Detection, Files, NothingFits, detect};
pub use dockerignore::Dockerignore;
pub use recipe::Recipe;
pub use store::{ChunkStore, StoreError};
pub use tree::{Entry, InvalidTree, Node, Tree, TreeId};
