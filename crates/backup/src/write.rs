//! Writing an archive.

use std::io::{Read, Write};

use crate::error::BackupError;
use crate::place::Place;
use crate::sections::{Foot, Head, Sections};
use crate::tar::{BLOCK, Flag, Header, padding};

/// How much of a file is in memory at a time.
const BUFFER: usize = 64 << 10;

/// Writes an archive, entry by entry.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    sections: Sections,
    missing: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W, head: &Head) -> Result<Self, BackupError> {
        let mut writer = Self { out, sections: Sections::default(), missing: Vec::new() };
        let text = serde_json::to_vec_pretty(head).expect("a head is plain data with string keys");
        writer.file(&Place::Head, false, text.len() as u64, &text[..])?;
        Ok(writer)
    }

    /// Adds a file of `size` bytes.
    ///
    /// # Errors
    /// When it cannot be read or written, or has another length by now.
    pub fn file(
        &mut self,
        place: &Place,
        exec: bool,
        size: u64,
        content: impl Read,
    ) -> Result<(), BackupError> {
        self.head(place, Flag::File, exec, size, "")?;
        let mut content = content.take(size);
        let mut buffer = vec![0; BUFFER];
        let mut left = size;
        while left > 0 {
            let length = content.read(&mut buffer)?;
            if length == 0 {
                return Err(BackupError::Changed { path: place.name() });
            }
            self.put(&buffer[..length])?;
            left -= length as u64;
        }
        self.put(&[0; BLOCK][..padding(size)])
    }

    /// Adds a directory of an artifact.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn directory(&mut self, place: &Place) -> Result<(), BackupError> {
        self.head(place, Flag::Directory, true, 0, "")
    }

    /// Adds a symbolic link of an artifact.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn link(&mut self, place: &Place, target: &str) -> Result<(), BackupError> {
        self.head(place, Flag::Link, false, 0, target)
    }

    /// Notes that something which belongs here is not there any more.
    pub fn missing(&mut self, place: &Place) {
        self.missing.push(place.name());
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<(W, Foot), BackupError> {
        let sections = std::mem::take(&mut self.sections).finish();
        let foot = Foot { sections, missing: std::mem::take(&mut self.missing) };
        let text = serde_json::to_vec(&foot).expect("a foot is plain data");
        self.file(&Place::Foot, false, text.len() as u64, &text[..])?;
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok((self.out, foot))
    }

    fn head(
        &mut self,
        place: &Place,
        flag: Flag,
        exec: bool,
        size: u64,
        target: &str,
    ) -> Result<(), BackupError> {
        if let Some(section) = place.section() {
            let together = self.sections.enter(&section, size);
            debug_assert!(together, "{section} is written at once");
        }
        let header = Header { name: place.name(), flag, exec, size, target: target.to_owned() };
        self.put(&header.encode())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.sections.feed(bytes);
        Ok(self.out.write_all(bytes)?)
    }
}
