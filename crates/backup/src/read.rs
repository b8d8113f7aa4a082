//! Reading an archive that somebody else may have made.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::error::BackupError;
use crate::place::Place;
use crate::sections::{FOOT_MAX, Foot, HEAD_MAX, Head, Sections};
use crate::tar::{BLOCK, Flag, Header, padding};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// Whether it may be executed.
        exec: bool,
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link. It is data: nothing may follow it while the archive is laid out.
    Link {
        /// Where it leads.
        target: String,
    },
    /// A directory.
    Directory,
}

/// A file, link or directory of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it belongs.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// Reads an archive, entry by entry. Every entry has a place in a home and fits it; the hashes are compared at the end, so nothing that was
/// read may count before [`Reader::next`] has given its last.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    head: Head,
    sections: Sections,
    /// Of the file that was given last: how much of it was not read yet, and its padding.
    left: u64,
    padding: usize,
    at: String,
    foot: Option<Foot>,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// When there is none, or a newer version wrote it.
    pub fn begin(input: R) -> Result<Self, BackupError> {
        #[derive(serde::Deserialize)]
        struct FormatAlone {
            format: u32,
        }
        let mut reader = Self {
            input,
            head: Head::default(),
            sections: Sections::default(),
            left: 0,
            padding: 0,
            at: "its head".to_owned(),
            foot: None,
        };
        let foreign = |what: String| BackupError::Foreign(what);
        match reader.entry()? {
            Some(Entry { place: Place::Head, kind: Kind::File { size, .. } }) => {
                let text = reader.whole(size, HEAD_MAX)?;
                let unreadable =
                    |error: serde_json::Error| foreign(format!("its head cannot be read: {error}"));
                // The format is read by itself first: a newer one may have other fields.
                let FormatAlone { format } = serde_json::from_slice(&text).map_err(unreadable)?;
                if format > Head::FORMAT {
                    return Err(BackupError::Newer { found: format });
                }
                reader.head = serde_json::from_slice(&text).map_err(unreadable)?;
                Ok(reader)
            }
            _ => Err(foreign("it does not begin with a head".to_owned())),
        }
    }

    /// What stands at its beginning.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What stands at its end, once that was reached.
    #[must_use]
    pub fn foot(&self) -> Option<&Foot> {
        self.foot.as_ref()
    }

    /// The next entry; what was not read of the one before is passed over. None at the end, where every hash was compared.
    ///
    /// # Errors
    /// [`BackupError`]: it is cut short, damaged, or holds what no backup holds.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend the content of an entry")]
    pub fn next(&mut self) -> Result<Option<Entry>, BackupError> {
        if self.foot.is_some() {
            return Ok(None);
        }
        let short = || BackupError::Short { at: "the place where its manifest should be".to_owned() };
        let entry = self.entry()?.ok_or_else(short)?;
        match (&entry.place, &entry.kind) {
            (Place::Foot, Kind::File { size, .. }) => {
                let size = *size;
                self.end(size)?;
                Ok(None)
            }
            (Place::Head | Place::Foot, _) => {
                Err(BackupError::hostile(&entry.place.name(), "is in the wrong place"))
            }
            _ => Ok(Some(entry)),
        }
    }

    /// Reads a file's content to its end, which must not be longer than `max`.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn whole(&mut self, size: u64, max: u64) -> Result<Vec<u8>, BackupError> {
        if size > max {
            return Err(BackupError::hostile(&self.at, "is longer than it may be"));
        }
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(|error| self.told(error))?;
        Ok(content)
    }

    /// The error of reading a content, as what it means for the archive.
    pub fn told(&self, error: io::Error) -> BackupError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Short { at: self.at.clone() },
            _ => BackupError::Io(error),
        }
    }

    /// The foot, then nothing.
    fn end(&mut self, size: u64) -> Result<(), BackupError> {
        self.sections.close();
        let text = self.whole(size, FOOT_MAX)?;
        let foot: Foot = serde_json::from_slice(&text)
            .map_err(|error| BackupError::Foreign(format!("its manifest cannot be read: {error}")))?;
        self.skip()?;
        let mut told = foot.sections.iter();
        for found in self.sections.done() {
            match told.next() {
                Some(told) if told == found => {}
                Some(told) if told.name == found.name => {
                    return Err(BackupError::Damaged { what: found.name.clone() });
                }
                _ => return Err(BackupError::hostile(&found.name, "its manifest does not have here")),
            }
        }
        if let Some(lost) = told.next() {
            return Err(BackupError::Short { at: lost.name.clone() });
        }
        // Two blocks of noughts end a tar, and a backup ends with it.
        let mut last = [1; BLOCK];
        let ended = self.entry()?.is_none();
        self.fill(&mut last)?;
        if !ended || last != [0; BLOCK] || self.input.read(&mut last)? != 0 {
            return Err(BackupError::Foreign("something follows its manifest".to_owned()));
        }
        self.foot = Some(foot);
        Ok(())
    }

    /// The next entry of any kind; none at the end of the tar.
    fn entry(&mut self) -> Result<Option<Entry>, BackupError> {
        self.skip()?;
        let mut raw = Vec::new();
        let Some(mut header) = self.header(&mut raw)? else { return Ok(None) };
        if header.flag == Flag::Extended {
            let size = usize::try_from(header.size).expect("an extended head is short");
            let mut records = vec![0; size + padding(header.size)];
            self.fill(&mut records)?;
            raw.extend_from_slice(&records);
            let next = self.header(&mut raw)?.filter(|next| next.flag != Flag::Extended);
            let next = next.ok_or_else(|| BackupError::Short { at: self.at.clone() })?;
            header = next.extended_by(records.get(..size).unwrap_or_default())?;
        }
        let place = Place::of(&header.name)?;
        match place.section() {
            Some(section) if self.sections.enter(&section, header.size) => {}
            Some(_) => return Err(BackupError::hostile(&header.name, "comes apart from what belongs to it")),
            None => self.sections.close(),
        }
        self.sections.feed(&raw);
        let in_artifact = matches!(place, Place::Artifact(..));
        let kind = match header.flag {
            Flag::File => Kind::File { exec: header.exec, size: header.size },
            Flag::Link if in_artifact && !header.target.is_empty() && !header.target.contains('\0') => {
                Kind::Link { target: header.target }
            }
            Flag::Directory if in_artifact => Kind::Directory,
            Flag::Link | Flag::Directory | Flag::Extended => {
                return Err(BackupError::hostile(&header.name, "must be a file"));
            }
        };
        (self.left, self.padding, self.at) = (header.size, padding(header.size), header.name);
        Ok(Some(Entry { place, kind }))
    }

    fn header(&mut self, raw: &mut Vec<u8>) -> Result<Option<Header>, BackupError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        raw.extend_from_slice(&block);
        Header::decode(&block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(buffer).map_err(|error| self.told(error))
    }

    /// Passes over what is left of the last entry.
    fn skip(&mut self) -> Result<(), BackupError> {
        io::copy(self, &mut io::sink()).map_err(|error| self.told(error))?;
        let mut rest = vec![0; std::mem::take(&mut self.padding)];
        self.fill(&mut rest)?;
        self.sections.feed(&rest);
        Ok(())
    }
}

/// The content of the entry that was given last.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let length = self.input.read(buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        self.sections.feed(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Reads an archive from its beginning to its end and compares every hash: of sections, of the journal, of each chunk and tree with its
/// name.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(input: impl Read) -> Result<(Head, Foot), BackupError> {
    let mut reader = Reader::begin(input)?;
    while let Some(entry) = reader.next()? {
        let expected = match &entry.place {
            Place::Journal => reader.head().journal_sha256.clone(),
            Place::Chunk(_, hash) => hash.clone(),
            Place::Tree(_, id) => id.trim_start_matches('t').to_owned(),
            _ => continue,
        };
        let mut hash = Sha256::new();
        io::copy(&mut reader, &mut hash).map_err(|error| reader.told(error))?;
        if hex::encode(hash.finalize()) != expected {
            return Err(BackupError::Damaged { what: entry.place.name() });
        }
    }
    let foot = reader.foot.unwrap_or_default();
    Ok((reader.head, foot))
}

#[cfg(test)]
mod tests;
