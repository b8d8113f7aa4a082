//! A layer into a directory, in the form in which the kernel's overlay takes it.
//!
//! The archive is a stranger's, and control, which unpacks it, may be root. So every path is looked up by the kernel below the layer's
//! own directory and through no link (see `beneath.rs`), everything is made anew under a name of one segment, and what an image has no use for is left
//! out: devices, attributes that give rights or steer the overlay. An entry that leads through a link of its own layer is an error,
//! where Docker follows the link: no builder writes such a layer, because it packs what it finds in a tree.

mod archive;
mod laying;
mod meter;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use crate::digest::Digest;
use crate::error::ImageError;
use archive::Archive;
use laying::Laying;
use meter::Meter;

/// Bounds of an image. All are meant to be beyond what an honest one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most entries of a layer.
    pub entries: u64,
    /// The most bytes of the files of a layer.
    pub bytes: u64,
    /// The most bytes of a layer as it is sent.
    pub compressed: u64,
    /// How many times its length a layer may grow when it is uncompressed ...
    pub ratio: u64,
    /// ... once it is this long, in bytes.
    pub ratio_from: u64,
    /// The longest path, in bytes.
    pub path: usize,
    /// The most segments of a path.
    pub depth: usize,
    /// How many bytes are left free on the disk.
    pub reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            bytes: 32 << 30,
            compressed: 16 << 30,
            ratio: 200,
            ratio_from: 256 << 20,
            path: 4_095,
            depth: 256,
            reserve: 256 << 20,
        }
    }
}

/// Whom the files of a layer belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    /// Whoever unpacks: what an ordinary user can do. Where that is root, root.
    Own,
    /// As root: the image's id 0 is the host's `base`, its 1 is `base` + 1, and so on for 65,536 of them.
    Mapped {
        /// The first host id.
        base: u32,
    },
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// How many entries were laid out.
    pub entries: u64,
    /// The bytes of its files.
    pub bytes: u64,
    /// How many devices were left out.
    pub devices: u64,
}

/// Unpacks `layer`, compressed or not, into `into`, an empty directory that nobody else can reach. Nothing is synced. `cancelled` ends it.
///
/// # Errors
/// [`ImageError`]; then part of it may lie in `into`, and nothing anywhere else.
pub fn unpack(
    layer: File,
    into: BorrowedFd<'_>,
    ownership: Ownership,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<Unpacked, ImageError> {
    let meter = Meter::new(layer, limits, cancelled).map_err(|error| meter::told(error, "cannot be read"))?;
    let mut archive = Archive::new(meter, limits);
    let mut laying = Laying::new(into, ownership, limits)?;
    while let Some(entry) = archive.next()? {
        laying.entry(entry, &mut archive)?;
    }
    let diff_id = archive.drain()?.digest();
    laying.finish(diff_id)
}

#[cfg(test)]
mod tests;
