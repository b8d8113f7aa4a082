//! A layer's tar stream, entry by entry, with nothing believed that was not bounded.
//!
//! Where tar has several readings, this one is that of Go's `archive/tar`, with which registries, scanners and other runtimes read
//! layers: two readings of one stream would let an archive show one tree to a scanner and another one to us. Read are ustar, GNU's and
//! pax' long names and numbers, and sparse files of GNU's format and of pax 0.1 and 1.0.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use crate::error::{ImageError, shown};
use crate::unpack::Limits;
use crate::unpack::meter::told;

const BLOCK: usize = 512;
/// The longest extended header, in bytes: attributes of a file may take 64 KiB each.
const EXTENDED_MAX: u64 = 1 << 20;
/// The most pieces of a sparse file.
const PIECES_MAX: usize = 65_536;
/// The longest apparent length of a file, in bytes. Holes take no room, but what copies the file fills them.
const APPARENT_MAX: u64 = 1 << 40;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file of this length, whose content lies in these pieces: offset and length.
    File {
        length: u64,
        pieces: Vec<(u64, u64)>,
    },
    Directory,
    Symlink(Vec<u8>),
    /// Another name of an entry that came before.
    Hardlink(Vec<u8>),
    Fifo,
    /// A character or block device.
    Device,
}

/// The head of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// The twelve bits of its mode.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    /// Extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What extended headers say of the entry after them.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

#[derive(Debug, Default)]
struct Sparse {
    /// The map itself, of version 0.1.
    map: Option<Vec<u8>>,
    /// Whether the map stands before the content, as in version 1.0.
    in_content: bool,
    length: Option<u64>,
    name: Option<Vec<u8>>,
}

/// Reads the entries of a stream.
pub(crate) struct Archive<'a, R> {
    stream: R,
    limits: &'a Limits,
    /// Of the content of the last entry: what was not read yet, and what fills its last block.
    left: u64,
    padding: u64,
    entries: u64,
}

fn damaged(why: &str) -> ImageError {
    ImageError::invalid(format!("a layer's archive is damaged: {why}"))
}

impl<'a, R: Read> Archive<'a, R> {
    pub(crate) fn new(stream: R, limits: &'a Limits) -> Self {
        Self { stream, limits, left: 0, padding: 0, entries: 0 }
    }

    /// The next entry; what was not read of the one before is passed over. None at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut extended = Extended::default();
        let mut headers = 0_u32;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            // Counted with the heads that only say something of others, of which a stream could have no end.
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(ImageError::TooLarge(format!(
                    "a layer has more than {} entries",
                    self.limits.entries
                )));
            }
            let size = numeric(&header.as_old().size).ok_or_else(|| damaged("a length is no number"))?;
            let kind = header.entry_type();
            match kind {
                EntryType::XGlobalHeader => {
                    self.extended(size)?;
                }
                EntryType::XHeader => extended.read(&self.extended(size)?)?,
                EntryType::GNULongName => extended.path = Some(until_nul(self.extended(size)?)),
                EntryType::GNULongLink => extended.link = Some(until_nul(self.extended(size)?)),
                _ => return self.entry(&header, size, extended).map(Some),
            }
            headers += 1;
            if headers > 16 {
                return Err(damaged("extended headers follow one another without end"));
            }
        }
    }

    fn entry(&mut self, header: &Header, said: u64, extended: Extended) -> Result<Entry, ImageError> {
        let head = header.as_old();
        let number = |field: &[u8]| numeric(field).ok_or_else(|| damaged("an owner or a mode is no number"));
        let size = extended.size.unwrap_or(said);
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = || link.filter(|it| !it.is_empty()).ok_or_else(|| damaged("a link leads nowhere"));
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => self.file(size, &extended.sparse)?,
            EntryType::GNUSparse => self.gnu_sparse(header, size)?,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Link => Kind::Hardlink(link()?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            _ => return Err(damaged("it holds an entry of an unknown type")),
        };
        Ok(Entry {
            path: extended.sparse.name.unwrap_or(path),
            kind,
            mode: u32::try_from(number(&head.mode)? & 0o7777).expect("twelve bits"),
            uid: extended.uid.map_or_else(|| number(&head.uid), Ok)?,
            gid: extended.gid.map_or_else(|| number(&head.gid), Ok)?,
            mtime: extended.mtime.or_else(|| numeric(&head.mtime)?.try_into().ok()).unwrap_or(0),
            xattrs: extended.xattrs,
        })
    }

    fn file(&mut self, size: u64, sparse: &Sparse) -> Result<Kind, ImageError> {
        self.begin_content(size);
        let (length, map) = match (sparse.length, &sparse.map) {
            (Some(length), Some(map)) => (length, numbers(map, b',')?),
            (Some(length), None) if sparse.in_content => (length, self.map_in_content()?),
            _ => return Ok(Kind::File { length: size, pieces: vec![(0, size)] }),
        };
        self.pieces(length, map)
    }

    /// A file in GNU's format: the map stands in the header and in blocks after it.
    fn gnu_sparse(&mut self, header: &Header, size: u64) -> Result<Kind, ImageError> {
        let gnu = header.as_gnu().ok_or_else(|| damaged("a sparse file is in the wrong format"))?;
        let bad = |_not_a_number: io::Error| damaged("a sparse file's map is no number");
        let mut map = Vec::new();
        for piece in gnu.sparse.iter().filter(|piece| !piece.is_empty()) {
            map.extend([piece.offset().map_err(bad)?, piece.length().map_err(bad)?]);
        }
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.stream.read_exact(block.as_mut_bytes()).map_err(|error| told(error, "ends in a map"))?;
            for piece in block.sparse().iter().filter(|piece| !piece.is_empty()) {
                map.extend([piece.offset().map_err(bad)?, piece.length().map_err(bad)?]);
            }
            more = block.is_extended();
            if map.len() > PIECES_MAX * 2 {
                return Err(ImageError::TooLarge("a sparse file has too many pieces".to_owned()));
            }
        }
        self.begin_content(size);
        self.pieces(gnu.real_size().map_err(bad)?, map)
    }

    /// The map at the head of the content: decimal numbers, a line each, filled to whole blocks.
    fn map_in_content(&mut self) -> Result<Vec<u64>, ImageError> {
        let (mut text, mut wanted) = (Vec::new(), None);
        loop {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block).map_err(|error| told(error, "ends in a map"))?;
            text.extend_from_slice(&block);
            let lines = text.iter().filter(|byte| **byte == b'\n').count();
            if wanted.is_none() && lines > 0 {
                let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let pieces =
                    number(first).and_then(|it| usize::try_from(it).ok()).filter(|it| *it <= PIECES_MAX);
                wanted = Some(pieces.ok_or_else(|| damaged("a sparse file's map has no length"))? * 2 + 1);
            }
            match wanted {
                Some(wanted) if lines >= wanted => {
                    let lines = text.split(|byte| *byte == b'\n').take(wanted).skip(1);
                    let map: Option<Vec<u64>> = lines.map(number).collect();
                    return map.ok_or_else(|| damaged("a sparse file's map is no number"));
                }
                _ if text.len() > PIECES_MAX * 48 => {
                    return Err(ImageError::TooLarge("a sparse file's map is too long".to_owned()));
                }
                _ => {}
            }
        }
    }

    /// A sparse file, once its map is known to ascend, to stay within it, and to be as long as what follows.
    fn pieces(&self, length: u64, map: Vec<u64>) -> Result<Kind, ImageError> {
        if length > APPARENT_MAX {
            return Err(ImageError::TooLarge(format!("a sparse file is longer than {APPARENT_MAX} bytes")));
        }
        let (mut end, mut sum, mut pieces) = (0_u64, 0_u64, Vec::new());
        for piece in map.chunks(2) {
            let [offset, size] = *piece else { return Err(damaged("a sparse file's map is cut short")) };
            if offset < end || offset.checked_add(size).is_none_or(|it| it > length) {
                return Err(damaged("a sparse file's map does not fit it"));
            }
            end = offset + size;
            sum += size;
            pieces.push((offset, size));
        }
        if sum != self.left {
            return Err(damaged("a sparse file's map does not fit its content"));
        }
        Ok(Kind::File { length, pieces })
    }

    fn begin_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64).saturating_sub(size);
    }

    /// Passes over what is left of the last entry.
    fn skip(&mut self) -> Result<(), ImageError> {
        let rest = self.left.saturating_add(std::mem::take(&mut self.padding));
        self.left = 0;
        let passed = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())
            .map_err(|error| told(error, "breaks off"))?;
        if passed == rest { Ok(()) } else { Err(damaged("it ends in the middle of an entry")) }
    }

    /// Reads to the end of the stream: what lies behind the archive counts for its digest.
    pub(crate) fn drain(mut self) -> Result<R, ImageError> {
        io::copy(&mut self.stream, &mut io::sink()).map_err(|error| told(error, "breaks off"))?;
        Ok(self.stream)
    }

    /// The next header; none at the end, which is two blocks of noughts, or one, or nothing.
    fn header(&mut self) -> Result<Option<Header>, ImageError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            return match self.block(&mut second)? && second.iter().any(|byte| *byte != 0) {
                true => Err(damaged("something follows its first block of noughts")),
                false => Ok(None),
            };
        }
        let sum = header.as_bytes().iter().enumerate().map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        });
        if header.cksum().ok() != Some(sum.sum()) {
            return Err(damaged("the sum over a header is wrong"));
        }
        Ok(Some(header))
    }

    /// Fills a block; not when the stream is at its end.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ImageError> {
        let mut filled = Vec::with_capacity(BLOCK);
        let length = (&mut self.stream)
            .take(BLOCK as u64)
            .read_to_end(&mut filled)
            .map_err(|error| told(error, "breaks off"))?;
        match length {
            0 => Ok(false),
            BLOCK => {
                block.copy_from_slice(&filled);
                Ok(true)
            }
            _ => Err(damaged("it ends in the middle of a block")),
        }
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        if size > EXTENDED_MAX {
            return Err(ImageError::TooLarge(format!(
                "an extended header of a layer is longer than {EXTENDED_MAX} bytes"
            )));
        }
        self.begin_content(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|error| told(error, "ends in an extended header"))?;
        Ok(bytes)
    }
}

/// The content of the entry that was given last.
impl<R: Read> Read for Archive<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let length = self.stream.read(buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

impl Extended {
    /// Reads records of the form `LENGTH NAME=VALUE\n`; the length counts all of it.
    fn read(&mut self, mut records: &[u8]) -> Result<(), ImageError> {
        while !records.is_empty() {
            let bad = || damaged("an extended header is malformed");
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = number(records.get(..space).unwrap_or_default())
                .and_then(|it| usize::try_from(it).ok())
                .ok_or_else(bad)?;
            let record = records.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (name, value) = record.split_at(equals);
            self.record(name, value.get(1..).unwrap_or_default())?;
            records = records.get(length..).ok_or_else(bad)?;
        }
        Ok(())
    }

    fn record(&mut self, name: &[u8], value: &[u8]) -> Result<(), ImageError> {
        let bad = || damaged(&format!("{:?} of an extended header is no number", shown(name)));
        let whole = || number(value).map(Some).ok_or_else(bad);
        match name {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = whole()?,
            b"uid" => self.uid = whole()?,
            b"gid" => self.gid = whole()?,
            b"mtime" => {
                let seconds =
                    std::str::from_utf8(value).ok().and_then(|it| it.split('.').next()?.parse().ok());
                self.mtime = Some(seconds.ok_or_else(bad)?);
            }
            b"GNU.sparse.map" => self.sparse.map = Some(value.to_vec()),
            b"GNU.sparse.major" => self.sparse.in_content = value == b"1",
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.length = whole()?,
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                return Err(damaged("a sparse file is in pax' first format, which nobody writes any more"));
            }
            _ => {
                if let Some(attribute) = name.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((attribute.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    text
}

/// A number of a header: octal, nothing for nought, or GNU's base 256. None when it is neither, or negative.
fn numeric(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, rest) => {
            rest.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)))
        }
        (0x81..=0xff, _) => None,
        _ => {
            let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
            let text = text.split('\0').next().unwrap_or_default();
            if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
        }
    }
}

/// A decimal number of digits alone.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

fn numbers(text: &[u8], between: u8) -> Result<Vec<u64>, ImageError> {
    let parts = text.split(|byte| *byte == between).filter(|part| !part.is_empty());
    let numbers: Option<Vec<u64>> = parts.map(number).collect();
    numbers.ok_or_else(|| damaged("a sparse file's map is no number"))
}
