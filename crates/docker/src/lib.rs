//! Docker by its API, or Podman by the same, for machines that have it: containers to run in, images to run from, Dockerfiles built.
//!
//! Berth does not need it. Where somebody insists, [`Engine`] speaks with the daemon over its Unix socket; plain structs go in and come out, and
//! every call blocks, since who calls does so from a thread that may.
#![warn(missing_docs)]

mod archive;
mod build;
mod container;
mod engine;
mod error;
#[cfg(feature = "testing")]
pub mod testing;

pub use archive::{Archive, Layer};
pub use build::{Context, Dockerfile, Watched};
pub use container::{Bind, Container, Net, Stray};
pub use engine::{Engine, Facts, Product, podman_sockets, sockets};
pub use error::EngineError;
