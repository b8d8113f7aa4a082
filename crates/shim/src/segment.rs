//! Reading log segments, also while they are written.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::record::{self, BODY_MAX, HEADER, MAGIC, Record};

/// A place in a log, between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    /// The segment's number; 0 is before any.
    pub segment: u64,
    /// The offset in it.
    pub offset: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.segment, self.offset)
    }
}

/// The text is not a place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoCursor;

impl std::fmt::Display for NoCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a place in a log is written as two numbers, 3.4096 say")
    }
}

impl std::error::Error for NoCursor {}

impl FromStr for Cursor {
    type Err = NoCursor;
    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (segment, offset) = text.split_once('.').ok_or(NoCursor)?;
        match (segment.parse(), offset.parse()) {
            (Ok(segment), Ok(offset)) => Ok(Self { segment, offset }),
            _ => Err(NoCursor),
        }
    }
}

/// The most bytes that one reading gives, whatever was asked for.
const READ_MOST: usize = 4 << 20;

/// What one reading gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The records, each with the place after it.
    pub records: Vec<(Cursor, Record)>,
    /// Where to read on.
    pub next: Cursor,
    /// Whether records were removed between the place read from and the first one given.
    pub gap: bool,
}

/// The log of an instance.
#[derive(Debug, Clone)]
pub struct Segments {
    dir: PathBuf,
}

impl Segments {
    /// The log in folder `dir`, which need not exist.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The numbers of the segments that exist, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            numbers.extend(entry?.file_name().to_str().and_then(record::segment_number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads whole records from `from` on, about `most` of their bytes and at least one record. An empty batch
    /// means that there is nothing yet.
    ///
    /// # Errors
    /// When a segment cannot be read. One that is removed meanwhile is a gap, not an error.
    pub fn read(&self, from: Cursor, most: usize) -> io::Result<Batch> {
        let mut batch = Batch { next: from, ..Batch::default() };
        let numbers = self.list()?;
        let mut left = most.clamp(1, READ_MOST);
        for number in numbers.iter().copied().filter(|number| *number >= from.segment) {
            if number != batch.next.segment {
                // Segments are numbered without holes: one that is missing was removed.
                batch.gap |= batch.next.segment != 0 && number != batch.next.segment + 1;
                batch.next = Cursor { segment: number, offset: 0 };
            }
            left = left.saturating_sub(self.read_segment(&mut batch, left)?);
            if left == 0 {
                break;
            }
        }
        Ok(batch)
    }

    /// The last `count` records, and where to read on.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn tail(&self, count: usize) -> io::Result<Batch> {
        let mut records = std::collections::VecDeque::new();
        let mut next = Cursor::default();
        for number in self.list()?.into_iter().rev() {
            let mut batch = Batch { next: Cursor { segment: number, offset: 0 }, ..Batch::default() };
            // A segment has a few megabytes; all of it is read and what is not asked for dropped.
            while self.read_segment(&mut batch, 1 << 20)? > 0 {
                let spare = batch.records.len().saturating_sub(count);
                batch.records.drain(..spare);
            }
            next = next.max(batch.next);
            let wanted = count.saturating_sub(records.len());
            for entry in batch.records.into_iter().rev().take(wanted) {
                records.push_front(entry);
            }
            if records.len() >= count {
                break;
            }
        }
        Ok(Batch { records: records.into(), next, gap: false })
    }

    /// Adds records of the segment of `batch.next` to the batch and gives how many bytes it took.
    fn read_segment(&self, batch: &mut Batch, most: usize) -> io::Result<usize> {
        let mut file = match File::open(self.dir.join(record::segment_name(batch.next.segment))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        if batch.next.offset == 0 {
            let mut magic = [0; MAGIC.len()];
            match file.read_exact(&mut magic) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => other?,
            }
            if magic != *MAGIC {
                return Ok(0);
            }
            batch.next.offset = MAGIC.len() as u64;
        }
        file.seek(SeekFrom::Start(batch.next.offset))?;
        // A record that begins within what is asked for must fit as a whole, or it would be taken for a torn one.
        let window = most + HEADER + BODY_MAX;
        let mut bytes = Vec::new();
        file.take(window as u64).read_to_end(&mut bytes)?;
        let mut taken = 0;
        while taken < most
            && let Some((record, length)) = bytes.get(taken..).and_then(record::decode)
        {
            taken += length;
            batch.next.offset += length as u64;
            batch.records.push((batch.next, record));
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Stream, encode, segment_name};

    fn write(dir: &Path, number: u64, lines: &[&str]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        lines.iter().for_each(|line| encode(&mut bytes, 5, Stream::Out, 0, line.as_bytes()));
        fs::write(dir.join(segment_name(number)), &bytes).unwrap();
        bytes
    }

    fn lines(batch: &Batch) -> Vec<String> {
        batch.records.iter().map(|(_, record)| String::from_utf8(record.body.clone()).unwrap()).collect()
    }

    #[test]
    fn a_log_is_read_over_segments_and_on_from_any_place() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3, &["a", "b"]);
        write(dir.path(), 4, &["c"]);
        let log = Segments::new(dir.path());
        let all = log.read(Cursor::default(), 1 << 20).unwrap();
        assert_eq!((lines(&all), all.gap), (vec!["a".into(), "b".into(), "c".into()], false));
        let after_first = log.read(all.records[0].0, 1 << 20).unwrap();
        assert_eq!(lines(&after_first), ["b", "c"]);
        assert_eq!(lines(&log.read(all.next, 1 << 20).unwrap()), Vec::<String>::new());
        assert_eq!(lines(&log.read(Cursor::default(), 1).unwrap()), ["a"]);
        assert_eq!(lines(&log.tail(2).unwrap()), ["b", "c"]);
        assert_eq!(log.tail(2).unwrap().next, all.next);
        assert_eq!(all.next.to_string().parse::<Cursor>(), Ok(all.next));
    }

    #[test]
    fn a_torn_tail_is_waited_for_and_passed_once_a_later_segment_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let whole = write(dir.path(), 1, &["a", "torn"]);
        let path = dir.path().join(segment_name(1));
        fs::write(&path, &whole[..whole.len() - 2]).unwrap();
        let log = Segments::new(dir.path());
        let first = log.read(Cursor::default(), 1 << 20).unwrap();
        assert_eq!(lines(&first), ["a"]);
        fs::write(&path, &whole).unwrap();
        assert_eq!(lines(&log.read(first.next, 1 << 20).unwrap()), ["torn"]);
        fs::write(&path, &whole[..whole.len() - 2]).unwrap();
        write(dir.path(), 2, &["b"]);
        assert_eq!(lines(&log.read(first.next, 1 << 20).unwrap()), ["b"]);
    }

    #[test]
    fn what_was_removed_shows_as_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, &["a"]);
        let log = Segments::new(dir.path());
        let place = log.read(Cursor::default(), 1 << 20).unwrap().next;
        fs::remove_file(dir.path().join(segment_name(1))).unwrap();
        write(dir.path(), 7, &["z"]);
        let batch = log.read(place, 1 << 20).unwrap();
        assert_eq!((lines(&batch), batch.gap), (vec!["z".to_owned()], true));
        assert_eq!(Segments::new(Path::new("/nowhere")).list().unwrap(), Vec::<u64>::new());
    }
}
