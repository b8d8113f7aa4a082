//! The form of a log segment: a magic, then records.
//!
//! ```text
//! segment = "BERTHLG\x01" record*
//! record  = length u32 | crc u32 | time u64 (ms) | stream u8 | flags u8 | 0 u16 | body (length bytes)      little-endian
//! ```
//!
//! The sum (CRC-32 of IEEE 802.3) covers what follows it. A record that is cut short or whose sum is wrong ends a segment: it is
//! still being written, or its writer died over it. A writer never appends to a segment of another's.

/// What every segment begins with.
pub const MAGIC: &[u8; 8] = b"BERTHLG\x01";

/// Bytes of a record before its body.
pub const HEADER: usize = 20;

/// The longest body; longer lines are split.
pub const BODY_MAX: usize = 64 << 10;

/// The line goes on in the next record of the same stream.
pub const CONTINUES: u8 = 1;
/// The body is a number (u64): so many lines were dropped before the next record.
pub const DROPPED: u8 = 2;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The app's output.
    Out,
    /// The app's errors.
    Err,
    /// The shim itself.
    Shim,
}

impl Stream {
    fn number(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::Err => 2,
            Self::Shim => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Out, Self::Err, Self::Shim].into_iter().find(|stream| stream.number() == number)
    }
}

/// A record. The body is what the app wrote, any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When the shim read it, in wall clock milliseconds.
    pub at: u64,
    /// Where it came from.
    pub stream: Stream,
    /// [`CONTINUES`], [`DROPPED`].
    pub flags: u8,
    /// The line without its end.
    pub body: Vec<u8>,
}

impl Record {
    /// How many lines were dropped here, when that is what the record tells.
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        let count = u64::from_le_bytes(self.body.as_slice().try_into().ok()?);
        (self.flags & DROPPED != 0).then_some(count)
    }
}

/// Appends a record to `out`. A body beyond [`BODY_MAX`] is cut there.
pub fn encode(out: &mut Vec<u8>, at: u64, stream: Stream, flags: u8, body: &[u8]) {
    let body = body.get(..BODY_MAX).unwrap_or(body);
    let length = u32::try_from(body.len()).expect("a body is at most 64 KiB");
    let start = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[stream.number(), flags, 0, 0]);
    out.extend_from_slice(body);
    let sum = crc32(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Reads the first record of `bytes` and gives it with its length; `None` when it is not whole.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let (length, header) = header.split_first_chunk::<4>()?;
    let (sum, header) = header.split_first_chunk::<4>()?;
    let (at, header) = header.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= BODY_MAX)?;
    let body = rest.get(..length)?;
    let summed = bytes.get(8..HEADER + length)?;
    if crc32(summed) != u32::from_le_bytes(*sum) {
        return None;
    }
    let stream = Stream::from_number(header[0])?;
    let record = Record { at: u64::from_le_bytes(*at), stream, flags: header[1], body: body.to_vec() };
    Some((record, HEADER + length))
}

/// The name of segment `number`.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// The number of the segment called `name`, `None` when that is no segment.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(u32::MAX, |sum, byte| TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    let mut seed = 0;
    while index < table.len() {
        let (mut entry, mut bit): (u32, u8) = (seed, 0);
        while bit < 8 {
            entry = if entry & 1 == 1 { 0xEDB8_8320 ^ (entry >> 1) } else { entry >> 1 };
            bit += 1;
        }
        table[index] = entry;
        index += 1;
        seed += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_is_the_one_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn segments_are_named_by_number() {
        assert_eq!(segment_number(&segment_name(42)), Some(42));
        for other in ["42", "x.log", ".log", "+1.log", "1.log.tmp"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_a_cut_one_does_not(at: u64, flags: u8, body: Vec<u8>, cut in 0_usize..400, flip in 0_usize..400) {
            let mut bytes = Vec::new();
            encode(&mut bytes, at, Stream::Err, flags, &body);
            let expected = Record { at, stream: Stream::Err, flags, body };
            prop_assert_eq!(decode(&bytes), Some((expected, bytes.len())));
            prop_assert_eq!(decode(&bytes[..cut.min(bytes.len() - 1)]), None);
            let flip = flip % bytes.len();
            bytes[flip] ^= 0x10;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes).is_none_or(|(_, length)| length <= bytes.len()));
        }
    }
}
