//! The archive that a platform is saved in: written as one stream, and read without trusting it.
//!
//! It is a tar of plain files (POSIX.1-2017 `pax`, of which a strict subset is read), so that anybody can look into it: a [`Head`] first, then
//! the journal, the chunks and trees of sources, the artifacts, the repositories, and a [`Foot`] last, which has a hash of every section. What is cut short
//! has no foot; what was changed has another hash. Neither reading nor writing holds more than a block of a file in memory.
#![warn(missing_docs)]

mod error;
mod key;
mod place;
mod read;
mod sections;
mod tar;
mod write;

pub use error::BackupError;
pub use key::KeyFile;
pub use place::Place;
pub use read::{Entry, Kind, Reader, verify};
pub use sections::{Foot, Head, Section};
pub use write::Writer;
