//! Cutting files into chunks where their content says so, and naming a chunk by its hash.
//!
//! FastCDC (Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data Deduplication",
//! USENIX ATC 2016): a gear hash rolls over the bytes and a cut is where its high bits are all nought. Before the
//! average size the condition is stricter, after it laxer, which keeps sizes near the average (section 3.4 there).
//! The constants are part of the format: another gear table cuts elsewhere, and every client would send all again.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// No chunk but a file's last is smaller, in bytes.
pub const CHUNK_MIN: usize = 16 * 1024;
/// Chunks are about this large, in bytes.
pub const CHUNK_AVERAGE: usize = 64 * 1024;
/// No chunk is larger, in bytes.
pub const CHUNK_MAX: usize = 256 * 1024;

/// Two bits more and two bits fewer than the 16 of the average: normalisation level 2 of the paper.
const MASK_BEFORE_AVERAGE: u64 = u64::MAX << (64 - 18);
const MASK_AFTER_AVERAGE: u64 = u64::MAX << (64 - 14);
const GEAR: [u64; 256] = gear();

/// 256 numbers without a pattern: `SplitMix64` from a seed.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0x4265_7274_6843_4443_u64;
    let mut at = 0;
    while at < table.len() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        table[at] = word ^ (word >> 31);
        at += 1;
    }
    table
}

/// The length of the first chunk of `data`, which begins where a chunk does and holds at least [`CHUNK_MAX`]
/// bytes or all that is left.
#[must_use]
pub fn cut(data: &[u8]) -> usize {
    let end = data.len().min(CHUNK_MAX);
    let middle = end.min(CHUNK_AVERAGE);
    let mut hash = 0_u64;
    for (range, mask) in
        [(CHUNK_MIN.min(end)..middle, MASK_BEFORE_AVERAGE), (middle..end, MASK_AFTER_AVERAGE)]
    {
        let start = range.start;
        for (offset, byte) in data.get(range).unwrap_or_default().iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if hash & mask == 0 {
                return start + offset;
            }
        }
    }
    end
}

/// Reads `source` to its end and gives every chunk of it to `take`, in order. Stops early when `take` fails.
///
/// # Errors
/// What `source` or `take` fails with.
pub fn split<E: From<io::Error>>(
    mut source: impl Read,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; 4 * CHUNK_MAX];
    let (mut start, mut end, mut ended) = (0, 0, false);
    loop {
        while !ended && end - start < CHUNK_MAX {
            if end == buffer.len() {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            match source.read(&mut buffer[end..]) {
                Ok(0) => ended = true,
                Ok(count) => end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if start == end {
            return Ok(());
        }
        let length = cut(&buffer[start..end]);
        take(&buffer[start..start + length])?;
        start += length;
    }
}

/// The id of a chunk: the SHA-256 of its bytes, 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChunkId([u8; 32]);

/// A text that is not the id of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a chunk: 64 lower-case hex digits")]
pub struct InvalidChunkId(String);

impl ChunkId {
    /// The id of the chunk with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChunkId {
    type Err = InvalidChunkId;
    fn from_str(text: &str) -> Result<Self, InvalidChunkId> {
        let mut bytes = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if lower => Ok(Self(bytes)),
            _ => Err(InvalidChunkId(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for ChunkId {
    type Error = InvalidChunkId;
    fn try_from(text: String) -> Result<Self, InvalidChunkId> {
        text.parse()
    }
}

impl From<ChunkId> for String {
    fn from(id: ChunkId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes without a pattern.
    fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend(seed.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn chunks(data: &[u8]) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        split::<io::Error>(data, |chunk| {
            chunks.push(chunk.to_vec());
            Ok(())
        })
        .unwrap();
        chunks
    }

    /// If this fails, every id changes and every client sends everything again.
    #[test]
    fn the_cuts_are_the_published_ones() {
        let lengths: Vec<usize> = chunks(&noise(1_000_000, 42)).iter().map(Vec::len).collect();
        assert_eq!(
            lengths,
            [90133, 74112, 83640, 71984, 106_633, 85147, 98286, 100_475, 66373, 91058, 104_797, 27362]
        );
        let berth = "5c2f64c7f21efd5fb5e3d6a499abe5eacb248ae6f6f0085387c9a056d10ef5fd";
        assert_eq!(ChunkId::of(b"berth").to_string(), berth);
    }

    #[test]
    fn a_byte_in_front_moves_only_the_first_cuts() {
        let data = noise(4_000_000, 7);
        let shifted = [b"x".as_slice(), &data].concat();
        let before = chunks(&data);
        let after = chunks(&shifted);
        let same = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(same + 3 >= after.len(), "{same} of {}", after.len());
    }

    #[test]
    fn ids_are_lower_case_hex() {
        let id = ChunkId::of(b"");
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        for bad in ["", "ab", &id.to_string().to_uppercase(), &format!("{id}00"), "../../../../etc/passwd"] {
            assert!(bad.parse::<ChunkId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn chunks_put_together_are_the_file(length in 0..1_500_000_usize, seed in 1..u64::MAX, repeat in any::<bool>()) {
            let data = if repeat { vec![b'a'; length] } else { noise(length, seed) };
            let chunks = chunks(&data);
            prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
            prop_assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() >= CHUNK_MIN));
            prop_assert_eq!(chunks.concat(), data);
        }
    }
}
