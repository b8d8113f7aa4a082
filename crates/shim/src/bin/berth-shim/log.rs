//! The app's output, line by line into bounded segments.
//!
//! Nothing here ever makes the app wait: what comes too fast, and what the disk does not take, is dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use berth_shim::config::LogPolicy;
use berth_shim::record::{
    BODY_MAX, CONTINUES, DROPPED, HEADER, MAGIC, Stream, encode, segment_name, segment_number,
};

/// A line without an end is written out after so many milliseconds: a prompt, a progress bar.
const PATIENCE: u64 = 1_000;
/// After the disk refused, it is left alone for so many milliseconds.
const DISK_PAUSE: u64 = 1_000;
/// Records are gathered up to so many bytes, so that a line does not cost a write each.
const BATCH: usize = 64 << 10;

/// The log of the instance.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    policy: LogPolicy,
    /// The segment that is written, and how long it is.
    current: Option<(File, u64)>,
    /// The numbers of the segments that exist, in order, the current one last.
    segments: Vec<u64>,
    /// The last number ever used.
    last: u64,
    bucket: u64,
    bucket_at: u64,
    /// Whether lines are being dropped until the bucket is half full again, so that there is one marker and not
    /// one per line.
    parched: bool,
    /// Lines dropped since the last marker, and ever.
    unmarked: u64,
    pub(crate) dropped: u64,
    /// Lines in `batch`.
    lines: u64,
    batch: Vec<u8>,
    pending: [Pending; 2],
    disk_until: u64,
}

#[derive(Debug, Default)]
struct Pending {
    line: Vec<u8>,
    since: u64,
}

const STREAMS: [Stream; 2] = [Stream::Out, Stream::Err];

impl Log {
    pub(crate) fn new(dir: PathBuf, policy: LogPolicy, now: u64) -> Self {
        let mut segments: Vec<u64> = fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| segment_number(entry.ok()?.file_name().to_str()?))
            .collect();
        segments.sort_unstable();
        Self {
            dir,
            policy,
            current: None,
            last: segments.last().copied().unwrap_or(0),
            segments,
            bucket: policy.burst,
            bucket_at: now,
            parched: false,
            unmarked: 0,
            dropped: 0,
            lines: 0,
            batch: Vec::new(),
            pending: [Pending::default(), Pending::default()],
            disk_until: 0,
        }
    }

    /// Takes what stream `index` gave at `now` (steady), `wall` (wall clock).
    pub(crate) fn feed(&mut self, index: usize, mut bytes: &[u8], now: u64, wall: u64) {
        while !bytes.is_empty() {
            let pending = &mut self.pending[index];
            let room = BODY_MAX - pending.line.len();
            let within = bytes.get(..room).unwrap_or(bytes);
            let end = within.iter().position(|byte| *byte == b'\n');
            if end.is_none() && within.len() < room {
                if pending.line.is_empty() {
                    pending.since = now;
                }
                pending.line.extend_from_slice(within);
                return;
            }
            let cut = end.unwrap_or(room);
            let mut line = std::mem::take(&mut pending.line);
            line.extend_from_slice(&bytes[..cut]);
            self.record(STREAMS[index], if end.is_some() { 0 } else { CONTINUES }, &line, now, wall);
            bytes = &bytes[cut + usize::from(end.is_some())..];
            // The place is used again, unless a long line made it large.
            if line.capacity() <= 4 << 10 {
                line.clear();
                self.pending[index].line = line;
            }
        }
    }

    /// Writes out what stream `index` left without an end: the stream has ended.
    pub(crate) fn end(&mut self, index: usize, now: u64, wall: u64) {
        let line = std::mem::take(&mut self.pending[index].line);
        if !line.is_empty() {
            self.record(STREAMS[index], 0, &line, now, wall);
        }
    }

    /// Writes out everything, also how many lines are missing: it may be long until there is a next one.
    pub(crate) fn finish(&mut self, now: u64, wall: u64) {
        if self.unmarked > 0 {
            self.mark(wall);
        }
        self.flush(now);
    }

    /// Does what the passing of time asks for, and gives the milliseconds until it does so again.
    pub(crate) fn tick(&mut self, now: u64, wall: u64) -> Option<u64> {
        let mut next = None;
        for (index, stream) in STREAMS.into_iter().enumerate() {
            let pending = &mut self.pending[index];
            if pending.line.is_empty() {
                continue;
            }
            let left = (pending.since + PATIENCE).saturating_sub(now);
            if left == 0 {
                let line = std::mem::take(&mut pending.line);
                self.record(stream, CONTINUES, &line, now, wall);
            } else {
                next = Some(next.map_or(left, |next: u64| next.min(left)));
            }
        }
        if self.unmarked > 0 {
            self.refill(now);
            if !self.parched && now >= self.disk_until {
                self.mark(wall);
            } else {
                next = Some(next.map_or(100, |next| next.min(100)));
            }
        }
        self.flush(now);
        next
    }

    /// Writes a line of the shim's own, which costs the app nothing of its rate.
    pub(crate) fn say(&mut self, line: &str, wall: u64) {
        encode(&mut self.batch, wall, Stream::Shim, 0, line.as_bytes());
        self.lines += 1;
    }

    fn record(&mut self, stream: Stream, flags: u8, line: &[u8], now: u64, wall: u64) {
        let cost = (line.len() + HEADER) as u64;
        self.refill(now);
        if self.parched || self.bucket < cost || now < self.disk_until {
            self.parched |= self.bucket < cost;
            self.lose(1);
            return;
        }
        self.bucket -= cost;
        if self.unmarked > 0 {
            self.mark(wall);
        }
        encode(&mut self.batch, wall, stream, flags, line);
        self.lines += 1;
        if self.batch.len() >= BATCH {
            self.flush(now);
        }
    }

    fn lose(&mut self, lines: u64) {
        self.unmarked += lines;
        self.dropped += lines;
    }

    /// Says in the log how many lines are missing.
    fn mark(&mut self, wall: u64) {
        encode(&mut self.batch, wall, Stream::Shim, DROPPED, &self.unmarked.to_le_bytes());
        self.unmarked = 0;
    }

    fn refill(&mut self, now: u64) {
        let gained = self.policy.rate.saturating_mul(now.saturating_sub(self.bucket_at)) / 1_000;
        if gained > 0 {
            self.bucket = self.bucket.saturating_add(gained).min(self.policy.burst);
            self.bucket_at = now;
        }
        self.parched &= self.bucket < self.policy.burst / 2;
    }

    /// Writes out what was gathered.
    pub(crate) fn flush(&mut self, now: u64) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let lines = std::mem::take(&mut self.lines);
        if !self.write(&batch) {
            // The disk is full, most likely. The lines are lost, the app goes on.
            self.lose(lines.max(1));
            self.disk_until = now + DISK_PAUSE;
        }
        if batch.capacity() <= 16 << 10 {
            self.batch = batch;
            self.batch.clear();
        }
    }

    fn write(&mut self, batch: &[u8]) -> bool {
        let length = batch.len() as u64;
        let full = self.current.as_ref().is_none_or(|(_, at)| at + length > self.policy.segment_bytes);
        if full && !self.rotate() {
            return false;
        }
        let Some((file, at)) = self.current.as_mut() else {
            return false;
        };
        if file.write_all(batch).is_ok() {
            *at += length;
            return true;
        }
        // Part of it may have been written; a reader must not find half a record before the next one.
        if file.set_len(*at).is_err() || std::io::Seek::seek(file, std::io::SeekFrom::Start(*at)).is_err() {
            self.current = None;
        }
        false
    }

    /// Begins a new segment. The oldest is removed before, so that there is never one too many.
    fn rotate(&mut self) -> bool {
        self.current = None;
        while self.segments.len() as u64 >= self.policy.segments {
            drop(fs::remove_file(self.dir.join(segment_name(self.segments.remove(0)))));
        }
        let number = self.last + 1;
        let path = self.dir.join(segment_name(number));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let Ok(mut file) = opened else {
            return false;
        };
        if file.write_all(MAGIC).is_err() {
            drop(fs::remove_file(&path));
            return false;
        }
        self.last = number;
        self.segments.push(number);
        self.current = Some((file, MAGIC.len() as u64));
        true
    }
}

#[cfg(test)]
mod tests {
    use berth_shim::record::{Record, decode};

    use super::*;

    fn log(dir: &std::path::Path, policy: LogPolicy) -> Log {
        Log::new(dir.to_owned(), policy, 0)
    }

    fn read(dir: &std::path::Path) -> Vec<Record> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let mut records = Vec::new();
        for name in names {
            let bytes = fs::read(name).unwrap();
            let mut rest = bytes.strip_prefix(MAGIC).unwrap();
            while let Some((record, length)) = decode(rest) {
                records.push(record);
                rest = &rest[length..];
            }
            assert!(rest.is_empty());
        }
        records
    }

    #[test]
    fn a_full_disk_costs_lines_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), LogPolicy::default());
        log.feed(0, b"before\n", 0, 1);
        log.flush(0);
        // The kernel's own full disk.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (_, at) = log.current.replace((full, 99)).unwrap();
        assert!(at > MAGIC.len() as u64);
        log.feed(1, b"lost\nlost too\n", 10, 2);
        log.flush(10);
        assert_eq!(log.dropped, 2);
        // It is left alone for a while, then tried again with a new segment.
        log.feed(0, b"lost as well\n", 20, 3);
        log.feed(0, b"after\n", 10 + DISK_PAUSE, 4);
        log.flush(10 + DISK_PAUSE);
        let records = read(dir.path());
        let told: Vec<_> = records.iter().map(|record| (record.body.as_slice(), record.dropped())).collect();
        assert_eq!(
            told,
            [(&b"before"[..], None), (&3_u64.to_le_bytes()[..], Some(3)), (&b"after"[..], None)]
        );
    }

    #[test]
    fn no_more_segments_than_allowed_are_ever_there() {
        let dir = tempfile::tempdir().unwrap();
        let policy = LogPolicy { segment_bytes: 4_096, segments: 3, rate: u64::MAX, burst: u64::MAX };
        let mut log = log(dir.path(), policy);
        for number in 0..500 {
            log.feed(0, format!("{number:0>100}\n").as_bytes(), number, number);
            log.flush(number);
            assert!(fs::read_dir(dir.path()).unwrap().count() <= 3);
        }
        let records = read(dir.path());
        assert_eq!(records.last().unwrap().at, 499);
        assert!(records.windows(2).all(|pair| pair[0].at + 1 == pair[1].at));
    }

    #[test]
    fn beyond_the_rate_lines_are_dropped_with_one_marker() {
        let dir = tempfile::tempdir().unwrap();
        let policy = LogPolicy { rate: 1_000, burst: 1_000, ..LogPolicy::default() };
        let mut log = log(dir.path(), policy);
        for _ in 0..100 {
            log.feed(0, b"0123456789\n", 0, 0);
        }
        assert!(log.tick(100, 0).is_some());
        log.feed(0, b"later\n", 600, 0);
        log.finish(600, 0);
        let records = read(dir.path());
        let markers: Vec<u64> = records.iter().filter_map(Record::dropped).collect();
        assert_eq!(markers, [100 - 1_000 / (10 + HEADER as u64)]);
        assert_eq!(records.last().unwrap().body, b"later");
    }

    #[test]
    fn a_line_without_an_end_is_written_after_a_while_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), LogPolicy::default());
        log.feed(0, b"name? ", 0, 0);
        assert_eq!(log.tick(0, 0), Some(PATIENCE));
        assert_eq!(log.tick(PATIENCE, 0), None);
        log.feed(0, b"x\n", PATIENCE, 0);
        log.finish(PATIENCE, 0);
        let told: Vec<_> = read(dir.path()).into_iter().map(|record| (record.flags, record.body)).collect();
        assert_eq!(told, [(CONTINUES, b"name? ".to_vec()), (0, b"x".to_vec())]);
    }
}
