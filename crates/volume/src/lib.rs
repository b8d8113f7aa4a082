//! Volumes: directories of apps that outlive releases and instances.
//!
//! They lie at `volumes/TENANT/PROJECT/APP/NAME` of the home. What is in one was put there by an app, which wishes us ill until
//! shown otherwise: nothing here follows a link, everything is done by descriptors, and no tree is so deep or so large that it
//! costs more than time. Snapshots are kept beside them, in `.snapshots`.
#![warn(missing_docs)]

mod archive;
mod copy;
mod error;
mod owner;
mod quota;
mod snapshot;
mod store;
mod walk;

pub use archive::{Numbers, unpack};
pub use error::VolumeError;
pub use owner::Owner;
pub use quota::{Kept, Limit, NotKept, entries_of, size_kept};
pub use store::Store;
pub use walk::Used;
