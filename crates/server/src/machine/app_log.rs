//! The log of an app: the logs of its instances, merged by time, with a cursor that outlives control.
//!
//! The shims write each instance's log themselves, so it is whole whatever happened to control. A cursor says for every instance
//! how far it was read; an instance that it does not name is read from its beginning.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use berth_shim::record::Stream;
use berth_shim::segment::{Batch, Cursor, Segments};
use berth_spec::{AppId, InstanceId, Timestamp};

/// How many bytes of one instance's log are read at a time: of all instances that an app may have and the ended ones that are kept, some 8 MiB.
const READ: usize = 64 << 10;
/// How many bytes of lines a tail gives at most, whatever their number.
const TAIL_BYTES: usize = 4 << 20;

/// A place in an app's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppCursor(BTreeMap<String, Cursor>);

/// A text that is no place in an app's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a log")]
pub struct NoAppCursor(String);

impl fmt::Display for AppCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (instance, cursor)) in self.0.iter().enumerate() {
            write!(f, "{}{instance}:{cursor}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for AppCursor {
    type Err = NoAppCursor;
    fn from_str(text: &str) -> Result<Self, NoAppCursor> {
        let refuse = || NoAppCursor(text.chars().take(80).collect());
        let mut places = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (instance, cursor) = part.split_once(':').ok_or_else(refuse)?;
            places.insert(instance.to_owned(), cursor.parse().map_err(|_no_cursor| refuse())?);
        }
        Ok(Self(places))
    }
}

impl AppCursor {
    /// Moves on behind `line`. Lines carry their own place alone: each with the places of all instances would be many times their size.
    pub fn pass(&mut self, line: &Line) {
        self.0.insert(line.instance.short(), line.place);
    }
}

/// A line of an app's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The place after it in the log of its instance.
    place: Cursor,
    /// Its place in time among the lines of other instances: that of the newest line up to it. Within an instance the order is that of
    /// writing, also where the clock was set back.
    order: Timestamp,
    /// When it was read from the app.
    pub at: Timestamp,
    /// Who wrote it.
    pub instance: InstanceId,
    /// Where.
    pub stream: Stream,
    /// The line; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Which instances' lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this process alone.
    pub process: Option<String>,
    /// Of this instance alone: `web.7`.
    pub instance: Option<String>,
}

impl Filter {
    fn takes(&self, id: &InstanceId) -> bool {
        self.process.as_deref().is_none_or(|process| id.process.as_str() == process)
            && self.instance.as_deref().is_none_or(|instance| id.short() == instance)
    }
}

/// The log of one app.
#[derive(Debug, Clone)]
pub struct AppLog {
    app: AppId,
    dir: PathBuf,
}

impl AppLog {
    /// The log of `app` below `logs`.
    #[must_use]
    pub fn new(logs: &Path, app: &AppId) -> Self {
        let dir = logs.join(app.tenant.as_str()).join(app.project.as_str()).join(app.app.as_str());
        Self { app: app.clone(), dir }
    }

    fn instances(&self, filter: &Filter) -> io::Result<Vec<(InstanceId, Segments)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| format!("{}/{name}", self.app).parse::<InstanceId>().ok());
            if let Some(id) = id.filter(|id| filter.takes(id)) {
                found.push((id, Segments::new(&self.dir.join(&name))));
            }
        }
        found.sort_by_key(|(id, _)| id.ordinal);
        Ok(found)
    }

    /// The instances that have a log.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn instance_ids(&self) -> io::Result<Vec<InstanceId>> {
        Ok(self.instances(&Filter::default())?.into_iter().map(|(id, _)| id).collect())
    }

    /// The newest `count` lines, oldest first, and the place before them. Where the place after all of them is, [`AppCursor::pass`] tells.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn tail(&self, filter: &Filter, count: usize) -> io::Result<(Vec<Line>, AppCursor)> {
        let mut places = AppCursor::default();
        let mut lines = Vec::new();
        for (id, segments) in self.instances(filter)? {
            let batch = segments.tail(count)?;
            places.0.insert(id.short(), batch.next);
            lines.extend(into_lines(&id, batch));
            // After each instance, so that no more is held than twice what is asked for.
            keep_newest(&mut lines, count);
        }
        for line in lines.iter().rev() {
            // The beginning of the segment of an instance's first line: resuming there may repeat what the tail left out of that segment,
            // and never loses a line.
            let before = Cursor { segment: line.place.segment, offset: 0 };
            places.0.insert(line.instance.short(), before);
        }
        Ok((lines, places))
    }

    /// Some of the lines after `from`, in the order of time as far as they are there, and the place to pass them from: `from` without the
    /// instances that have no log any more.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn read(&self, filter: &Filter, from: &AppCursor) -> io::Result<(Vec<Line>, AppCursor)> {
        let mut places = AppCursor::default();
        let mut lines = Vec::new();
        for (id, segments) in self.instances(&Filter::default())? {
            let place = from.0.get(&id.short()).copied();
            places.0.extend(place.map(|place| (id.short(), place)));
            if filter.takes(&id) {
                let batch = segments.read(place.unwrap_or_default(), READ)?;
                lines.extend(into_lines(&id, batch));
            }
        }
        lines.sort_by_key(|line| line.order);
        Ok((lines, places))
    }
}

fn keep_newest(lines: &mut Vec<Line>, count: usize) {
    lines.sort_by_key(|line| line.order);
    let mut bytes = 0;
    let newest = lines.iter().rev().take(count).take_while(|line| {
        bytes += line.text.len();
        bytes <= TAIL_BYTES
    });
    let newest = newest.count();
    lines.drain(..lines.len() - newest);
}

fn into_lines(id: &InstanceId, batch: Batch) -> impl Iterator<Item = Line> {
    let mut order = Timestamp::default();
    batch.records.into_iter().map(move |(place, record)| {
        let text = match record.dropped() {
            Some(count) => {
                format!("[{count} lines were dropped here: the app wrote faster than they are kept]")
            }
            None => String::from_utf8_lossy(&record.body).into_owned(),
        };
        let at = Timestamp(record.at);
        order = order.max(at);
        Line { place, order, at, instance: id.clone(), stream: record.stream, text }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_shim::record::{MAGIC, encode, segment_name};

    fn write(dir: &Path, instance: &str, lines: &[(u64, &str)]) {
        let dir = dir.join("a/b/shop").join(instance);
        std::fs::create_dir_all(&dir).unwrap();
        let mut bytes = MAGIC.to_vec();
        for (at, line) in lines {
            encode(&mut bytes, *at, Stream::Out, 0, line.as_bytes());
        }
        std::fs::write(dir.join(segment_name(1)), bytes).unwrap();
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_of_all_instances_come_in_the_order_of_time_and_go_on_at_any_cursor() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "web.1", &[(1, "a"), (4, "d")]);
        write(dir.path(), "worker.2", &[(2, "b"), (3, "c")]);
        let log = AppLog::new(dir.path(), &"a/b/shop".parse().unwrap());
        let all = Filter::default();
        let (lines, mut place) = log.read(&all, &AppCursor::default()).unwrap();
        assert_eq!(texts(&lines), ["a", "b", "c", "d"]);
        for (index, line) in lines.iter().enumerate() {
            place.pass(line);
            let cursor: AppCursor = place.to_string().parse().unwrap();
            assert_eq!(texts(&log.read(&all, &cursor).unwrap().0), texts(&lines[index + 1..]));
        }
        let (tail, mut end) = log.tail(&all, 2).unwrap();
        assert_eq!(texts(&tail), ["c", "d"]);
        tail.iter().for_each(|line| end.pass(line));
        assert_eq!(end, place);
        let (none, end) = log.tail(&all, 0).unwrap();
        assert_eq!((none.len(), end), (0, place.clone()));
        let of_worker = Filter { process: Some("worker".to_owned()), instance: None };
        assert_eq!(texts(&log.tail(&of_worker, 9).unwrap().0), ["b", "c"]);
        // An instance whose log is gone is not carried along, and neither is what a client makes up.
        std::fs::remove_dir_all(dir.path().join("a/b/shop/worker.2")).unwrap();
        let made_up: AppCursor = format!("{place},x.9:1.1").parse().unwrap();
        let (none, end) = log.read(&all, &made_up).unwrap();
        assert_eq!((none.len(), end.0.keys().map(String::as_str).collect()), (0, vec!["web.1"]));
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "web.1", &[(100, "a"), (50, "b"), (60, "c")]);
        write(dir.path(), "web.2", &[(55, "x")]);
        let log = AppLog::new(dir.path(), &"a/b/shop".parse().unwrap());
        let all = Filter::default();
        let (lines, mut place) = log.read(&all, &AppCursor::default()).unwrap();
        assert_eq!(texts(&lines), ["x", "a", "b", "c"]);
        lines.iter().for_each(|line| place.pass(line));
        assert!(log.read(&all, &place).unwrap().0.is_empty());
    }

    #[test]
    fn a_tail_is_bounded_in_bytes_too() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(8 << 10);
        let lines: Vec<(u64, &str)> = (0..700).map(|at| (at, long.as_str())).collect();
        write(dir.path(), "web.1", &lines);
        let log = AppLog::new(dir.path(), &"a/b/shop".parse().unwrap());
        let (tail, _) = log.tail(&Filter::default(), 10_000).unwrap();
        assert_eq!((tail.len(), tail.last().unwrap().at), (TAIL_BYTES / long.len(), Timestamp(699)));
    }
}
