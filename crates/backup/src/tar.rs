//! Heads of files in a tar: POSIX.1-2017 `pax`, and of that what we write ourselves.
//!
//! Rejected: a library for tar, which reads forty years of dialects (sparse files, devices, names in three places); what we do not write
//! is an attack or a mistake here.

use crate::error::BackupError;

/// Everything in a tar comes in blocks of so many bytes.
pub(crate) const BLOCK: usize = 512;
/// The longest extended head that is read: a path, a link, a length.
const EXTENDED_MAX: u64 = 16 << 10;
/// What fits the eleven octal digits of a length.
const OCTAL_MAX: u64 = (1 << 33) - 1;
const NAME: usize = 100;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    File,
    Link,
    Directory,
    /// Says more of the entry that follows.
    Extended,
}

impl Flag {
    const fn byte(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Link => b'2',
            Self::Directory => b'5',
            Self::Extended => b'x',
        }
    }
}

/// The head of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) flag: Flag,
    pub(crate) exec: bool,
    pub(crate) size: u64,
    pub(crate) target: String,
}

/// How many bytes follow `size` bytes up to the next block.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("a remainder is small");
    if over == 0 { 0 } else { BLOCK - over }
}

impl Header {
    /// The blocks that stand before the entry's content.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut records = String::new();
        if self.name.len() > NAME {
            records.push_str(&record("path", &self.name));
        }
        if self.target.len() > NAME {
            records.push_str(&record("linkpath", &self.target));
        }
        if self.size > OCTAL_MAX {
            records.push_str(&record("size", &self.size.to_string()));
        }
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let size = records.len() as u64;
            blocks.extend_from_slice(&block("pax", Flag::Extended, false, size, ""));
            blocks.extend_from_slice(records.as_bytes());
            blocks.resize(blocks.len() + padding(size), 0);
        }
        let size = if self.size > OCTAL_MAX { 0 } else { self.size };
        blocks.extend_from_slice(&block(&self.name, self.flag, self.exec, size, &self.target));
        blocks
    }

    /// The header in `block`; none for a block of noughts, which ends an archive.
    pub(crate) fn decode(block: &[u8; BLOCK]) -> Result<Option<Self>, BackupError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let foreign = |what: &str| BackupError::Foreign(what.to_owned());
        if &block[257..265] != b"ustar\x0000" || octal(&block[148..156]) != Some(checksum(block)) {
            return Err(foreign("it is no tar, or damaged"));
        }
        let text = |range: std::ops::Range<usize>| {
            let field = block[range].split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8(field.to_vec()).map_err(|_not_utf8| foreign("a name in it is not UTF-8"))
        };
        let name = text(0..100)?;
        let flag = match block[156] {
            b'0' => Flag::File,
            b'2' => Flag::Link,
            b'5' => Flag::Directory,
            b'x' => Flag::Extended,
            _ => return Err(BackupError::hostile(&name, "is neither a file, a link nor a directory")),
        };
        if block[345..].iter().any(|byte| *byte != 0) {
            return Err(BackupError::hostile(&name, "has a name in two parts"));
        }
        let mode = octal(&block[100..108]).ok_or_else(|| foreign("a mode in it is no number"))?;
        let size = octal(&block[124..136]).ok_or_else(|| foreign("a length in it is no number"))?;
        if flag != Flag::File && flag != Flag::Extended && size != 0 {
            return Err(BackupError::hostile(&name, "has content and is no file"));
        }
        if flag == Flag::Extended && size > EXTENDED_MAX {
            return Err(BackupError::hostile(&name, "is longer than it may be"));
        }
        Ok(Some(Self { name, flag, exec: mode & 0o100 != 0, size, target: text(157..257)? }))
    }

    /// The header with what an extended one said of it.
    pub(crate) fn extended_by(mut self, records: &[u8]) -> Result<Self, BackupError> {
        let refuse = || BackupError::Foreign("an extended head in it cannot be read".to_owned());
        let mut rest = std::str::from_utf8(records).map_err(|_not_utf8| refuse())?;
        while !rest.is_empty() {
            let (length, _) = rest.split_once(' ').ok_or_else(refuse)?;
            let length: usize = length.parse().map_err(|_no_number| refuse())?;
            let (this, next) = rest.split_at_checked(length).ok_or_else(refuse)?;
            let (_, pair) = this.split_once(' ').ok_or_else(refuse)?;
            let (key, value) =
                pair.strip_suffix('\n').and_then(|pair| pair.split_once('=')).ok_or_else(refuse)?;
            match key {
                "path" => self.name = value.to_owned(),
                "linkpath" => self.target = value.to_owned(),
                "size" if self.flag == Flag::File => {
                    self.size = value.parse().map_err(|_no_number| refuse())?
                }
                _ => return Err(refuse()),
            }
            rest = next;
        }
        Ok(self)
    }
}

/// `30 path=...\n`: the number is the length of all of it, itself included.
fn record(key: &str, value: &str) -> String {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + bare.to_string().len();
    length = bare + length.to_string().len();
    format!("{length} {key}={value}\n")
}

fn block(name: &str, flag: Flag, exec: bool, size: u64, target: &str) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    // A longer name stands in the extended head; what stands here is for programs that do not know it.
    let short =
        |text: &str| text.as_bytes().get(..text.floor_char_boundary(NAME)).unwrap_or_default().to_vec();
    put(0, &short(name));
    let mode = if exec || flag == Flag::Directory { 0o755 } else { 0o644 };
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(156, &[flag.byte()]);
    put(157, &short(target));
    put(257, b"ustar\x0000");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The sum of all bytes, its own place counted as blanks.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let own = 148..156;
    block.iter().enumerate().map(|(at, byte)| if own.contains(&at) { 32 } else { u64::from(*byte) }).sum()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() || text.contains('+') { None } else { u64::from_str_radix(text, 8).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(blocks: &[u8]) -> Header {
        let first: &[u8; BLOCK] = blocks[..BLOCK].try_into().unwrap();
        let header = Header::decode(first).unwrap().unwrap();
        if header.flag != Flag::Extended {
            return header;
        }
        let end = BLOCK + usize::try_from(header.size).unwrap();
        decode(&blocks[end + padding(header.size)..]).extended_by(&blocks[BLOCK..end]).unwrap()
    }

    proptest! {
        #[test]
        fn a_header_comes_back(name in "\\PC{1,300}", target in "\\PC{0,300}", exec in any::<bool>(), size in any::<u64>(), kind in 0..3) {
            let flag = [Flag::File, Flag::Link, Flag::Directory][usize::try_from(kind).unwrap()];
            let size = if flag == Flag::File { size } else { 0 };
            let header = Header { name, flag, exec: exec || flag == Flag::Directory, size, target };
            let blocks = header.encode();
            prop_assert_eq!(blocks.len() % BLOCK, 0);
            prop_assert_eq!(decode(&blocks), header);
        }

        #[test]
        fn no_block_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), BLOCK), records in prop::collection::vec(any::<u8>(), 0..60)) {
            let block: [u8; BLOCK] = bytes.try_into().unwrap();
            let header = Header { name: "a".into(), flag: Flag::File, exec: false, size: 0, target: String::new() };
            drop((Header::decode(&block), header.extended_by(&records)));
        }
    }
}
