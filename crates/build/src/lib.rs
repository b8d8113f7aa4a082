//! Source tree to artifact: build, cache, seal, garbage collection.
//!
//! [`Builder::build`] lays a tree out in a work directory, has the tenant's own build user run what there is to run, and makes
//! an artifact of the outcome: sealed (another owner, read-only), on disk for good, put into place by one rename. An
//! artifact's id is the hash of all it is made from, so that the same inputs are never built twice and the path is
//! known before the build.
//!
//! Nothing of a tenant runs as root, and nothing that a tenant's commands left behind is followed or trusted: see
//! and docs/decisions/0005-builds.md.
#![warn(missing_docs)]

mod artifact;
mod builder;
mod cargo;
mod collect;
mod dockerfile;
mod error;
mod export;
mod image;
mod kept;
mod layer;
mod layout;
mod log;
mod mirror;
mod network;
mod relocate;
mod remove;
mod run;
mod seal;
mod toolchain;
mod tools;
mod unmount;
mod weigh;
mod within;

pub use artifact::{ArtifactId, Platform};
pub use builder::{BuildRequest, Builder, Built, Config};
pub use collect::{Collected, Keeping};
pub use dockerfile::{BuiltImage, DockerfileRequest, EngineKind, Engines};
pub use error::BuildError;
pub use export::{Part, Shelf, Unsealed, read_artifact};
pub use image::{IMAGE_FILE, ImageRequest};
pub use log::{LogLine, Mask, Sink, Stream};
pub use network::{HANDED_ON, handed_on, leads_here};
pub use relocate::Relocation;
pub use remove::remove_all;
pub use toolchain::ToolchainPlaces;
pub use tools::installation;
