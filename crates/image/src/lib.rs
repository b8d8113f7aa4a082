//! OCI images: what they are called, how they are had from a registry that is not trusted, and how they are laid out.
//!
//! A [`Reference`] names an image. What a registry gives for it is verified to the last byte and unpacked into layers in the form in which
//! the kernel's overlay takes them; layers are named by the digest of their content and shared by all images. Nothing runs here:
//! an image's [`ImageConfig`] and its layers are what a sandbox needs to run it.
#![warn(missing_docs)]

mod beneath;
mod config;
mod digest;
mod disk;
mod error;
pub mod hosted;
mod load;
mod manifest;
mod platform;
mod pull;
mod reference;
pub mod registry;
mod store;
pub mod unpack;
pub mod user;

pub use config::{Healthcheck, ImageConfig, Overrides, Port};
pub use digest::{Digest, InvalidDigest};
pub use error::ImageError;
pub use manifest::{CONFIG_MAX, Descriptor, Document, LAYERS_MAX, MANIFEST_MAX, Manifest};
pub use platform::Platform;
pub use pull::{Pulled, Step, Wanted};
pub use reference::{DEFAULT_REGISTRY, Reference, is_repository, is_tag};
pub use registry::Registries;
pub use store::{Image, Store, Swept};
pub use unpack::{Limits, Ownership};
