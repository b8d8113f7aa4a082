//! The access log: a line for each request, written by a thread of its own so that a slow disk delays nobody.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_clock::Clock;
use http::Version;

/// A thread's buffer is handed over when it holds so many bytes, or at the next tick.
const BUFFER_LEN: usize = 32 << 10;
/// So many buffers wait for the writer: 2 MiB, about 15,000 requests, which is what a disk that hangs for a tenth of
/// a second at the highest rate piles up. What does not fit is dropped and counted.
const BUFFERS_MAX: usize = 64;

/// Where the access log goes.
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Here, standard error in the usual case. Only the log's own thread writes to it, and may block.
    To(Box<dyn Write + Send>),
}

/// One line of the log.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    /// The address that the connection came from, or what a proxy that is believed says it was.
    pub(crate) client: &'a [u8],
    pub(crate) host: &'a [u8],
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) cut: bool,
    pub(crate) instance: &'a str,
    pub(crate) id: &'a str,
}

/// The writer's thread and the way to it.
pub(crate) struct Writer {
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread; `None` when the log is off.
    pub(crate) fn start(log: AccessLog) -> io::Result<Option<Self>> {
        let AccessLog::To(to) = log else { return Ok(None) };
        let (sender, receiver) = sync_channel(BUFFERS_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&dropped);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(to, &receiver, &counter))?;
        Ok(Some(Self { sender, dropped, thread }))
    }

    /// A buffer for one thread.
    pub(crate) fn buffer(&self, clock: &dyn Clock) -> Buffer {
        Buffer {
            bytes: Vec::with_capacity(BUFFER_LEN + 1024),
            sender: self.sender.clone(),
            dropped: Arc::clone(&self.dropped),
            wall: wall(clock),
        }
    }

    /// Waits until everything that was handed over is written. Every buffer must be gone.
    pub(crate) fn finish(self) {
        drop(self.sender);
        if self.thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

fn write_all(mut to: Box<dyn Write + Send>, receiver: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    for bytes in receiver {
        let lost = dropped.swap(0, Relaxed);
        if lost > 0 && writeln!(to, "- {lost} requests were not logged: the log is too slow").is_err() {
            dropped.fetch_add(lost, Relaxed);
        }
        if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
            dropped.fetch_add(lines(&bytes), Relaxed);
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// One thread's lines on their way to the writer.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    /// What to add to the monotonic time for the wall clock's, in ms. One clock is read per line, not two.
    wall: u64,
}

fn wall(clock: &dyn Clock) -> u64 {
    clock.now().0.saturating_sub(millis(clock.monotonic()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Buffer {
    pub(crate) fn push(&mut self, line: &Line<'_>) {
        self.write(line);
        if self.bytes.len() >= BUFFER_LEN {
            self.flush();
        }
    }

    /// Hands the lines over and looks at the wall clock again.
    pub(crate) fn tick(&mut self, clock: &dyn Clock) {
        self.wall = wall(clock);
        self.flush();
    }

    fn write(&mut self, line: &Line<'_>) {
        let out = &mut self.bytes;
        push_number(out, self.wall.saturating_add(millis(line.at)));
        out.push(b' ');
        out.extend_from_slice(line.client);
        out.push(b' ');
        // The host of a refused request may hold anything but control characters; the path holds no blank.
        out.extend(line.host.iter().map(|byte| if byte.is_ascii_graphic() { *byte } else { b'?' }));
        out.push(b' ');
        out.extend_from_slice(line.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(line.path.as_bytes());
        out.extend_from_slice(match line.version {
            Version::HTTP_2 => b" HTTP/2 ",
            Version::HTTP_10 => b" HTTP/1.0 ",
            _ => b" HTTP/1.1 ",
        });
        push_number(out, line.status.into());
        out.push(b' ');
        push_number(out, line.bytes);
        out.extend_from_slice(if line.cut { b" cut " } else { b" " });
        push_number(out, u64::try_from(line.took.as_micros()).unwrap_or(u64::MAX));
        out.extend_from_slice(b"us ");
        out.extend_from_slice(line.instance.as_bytes());
        out.push(b' ');
        out.extend_from_slice(line.id.as_bytes());
        out.push(b'\n');
    }

    fn flush(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut self.bytes, Vec::with_capacity(BUFFER_LEN + 1024));
        match self.sender.try_send(full) {
            Ok(()) => {}
            Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) => {
                self.dropped.fetch_add(lines(&lost), Relaxed);
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Decimal digits without the formatting machinery, which costs more than the rest of a line.
fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        if let Some(digit) = digits.get_mut(first) {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        }
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::ManualClock;
    use berth_spec::Timestamp;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(path: &str) -> Line<'_> {
        Line {
            at: Duration::from_millis(7),
            took: Duration::from_micros(812),
            client: b"203.0.113.9",
            host: b"shop.com",
            method: "GET",
            path,
            version: Version::HTTP_2,
            status: 200,
            bytes: 0,
            cut: false,
            instance: "web.1",
            id: "id",
        }
    }

    #[test]
    fn a_line_has_its_fields_in_order() {
        let sink = Sink::default();
        let writer = Writer::start(AccessLog::To(Box::new(sink.clone()))).unwrap().unwrap();
        let clock = ManualClock::new(Timestamp(1_000), 0);
        let mut buffer = writer.buffer(&clock);
        buffer.push(&line("/a"));
        buffer.push(&Line { host: b"a b\n", cut: true, bytes: 18_446_744_073_709_551_615, ..line("/b") });
        drop(buffer);
        writer.finish();
        let expected = "1007 203.0.113.9 shop.com GET /a HTTP/2 200 0 812us web.1 id\n\
                        1007 203.0.113.9 a?b? GET /b HTTP/2 200 18446744073709551615 cut 812us web.1 id\n";
        assert_eq!(String::from_utf8(sink.0.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_log_that_is_stuck_delays_nobody_and_loses_by_count() {
        struct Stuck(Receiver<()>, Sink);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Ends when the test lets go of its side.
                assert!(self.0.recv().is_err(), "nothing is ever sent");
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (let_go, stuck) = sync_channel(0);
        let sink = Sink::default();
        let writer = Writer::start(AccessLog::To(Box::new(Stuck(stuck, sink.clone())))).unwrap().unwrap();
        let mut buffer = writer.buffer(&ManualClock::new(Timestamp(0), 0));
        for _ in 0..100_000 {
            buffer.push(&line("/a"));
        }
        assert!(writer.dropped.load(Relaxed) > 0);
        drop(let_go);
        drop(buffer);
        writer.finish();
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(written.contains("requests were not logged"));
    }
}
