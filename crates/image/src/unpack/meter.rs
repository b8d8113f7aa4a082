//! The uncompressed stream of a layer: hashed, measured, and ended where it is a bomb.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::unpack::Limits;

/// The largest window of zstd, as a power of two: 128 MiB of memory, which is its own default bound.
const WINDOW_LOG_MAX: u32 = 27;

/// A layer as it is uncompressed.
pub(crate) struct Meter<'a> {
    inner: Box<dyn Read>,
    /// How much of the compressed layer was taken.
    taken: Arc<AtomicU64>,
    given: u64,
    hash: Sha256,
    limits: &'a Limits,
    cancelled: &'a AtomicBool,
}

/// Why a stream is read no further; it travels within an [`io::Error`].
#[derive(Debug, Clone, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    TooLarge(String),
    #[error("cancelled")]
    Cancelled,
}

struct Counted {
    file: File,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl<'a> Meter<'a> {
    /// Uncompresses `file`, whose first bytes say how.
    pub(crate) fn new(mut file: File, limits: &'a Limits, cancelled: &'a AtomicBool) -> io::Result<Self> {
        use std::io::Seek as _;
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic)?;
        file.rewind()?;
        let taken = Arc::new(AtomicU64::new(0));
        let source = BufReader::with_capacity(128 << 10, Counted { file, taken: Arc::clone(&taken) });
        let inner: Box<dyn Read> = match *magic {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            // A frame, or one of those that may be passed over, as `zstd:chunked` has them.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            _ => Box::new(source),
        };
        Ok(Self { inner, taken, given: 0, hash: Sha256::new(), limits, cancelled })
    }

    /// The digest of all that was read.
    pub(crate) fn digest(self) -> Digest {
        Digest::end(self.hash)
    }
}

impl Read for Meter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other(Stop::Cancelled));
        }
        let length = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..length).unwrap_or_default());
        self.given += length as u64;
        let limits = self.limits;
        // Heads and padding come with the content: half as much again, and some.
        if self.given > limits.bytes.saturating_add(limits.bytes / 2).saturating_add(64 << 20) {
            let text = format!("a layer is larger than {} bytes when it is uncompressed", limits.bytes);
            return Err(io::Error::other(Stop::TooLarge(text)));
        }
        let taken = self.taken.load(Ordering::Relaxed);
        if self.given > limits.ratio_from && self.given / limits.ratio > taken {
            let text = format!(
                "a layer grows to more than {} times its length when it is uncompressed",
                limits.ratio
            );
            return Err(io::Error::other(Stop::TooLarge(text)));
        }
        Ok(length)
    }
}

/// What an error of reading a layer means; `how` says what its stream did: `breaks off`.
pub(crate) fn told(error: io::Error, how: &str) -> ImageError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Stop>()) {
        Some(Stop::TooLarge(text)) => ImageError::TooLarge(text.clone()),
        Some(Stop::Cancelled) => ImageError::Cancelled,
        None => ImageError::invalid(format!("a layer {how}: {error}")),
    }
}
