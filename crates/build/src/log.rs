//! What a build prints: cut into lines, bounded, with secrets masked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A line is cut after so many bytes.
const LINE_MAX: usize = 8 * 1024;
/// So many bytes of a build's output are kept; the rest is read and dropped, so that the build never blocks on us.
const OUTPUT_MAX: usize = 4 * 1024 * 1024;
/// So many of the last lines go into the error of a failed build.
const TAIL: usize = 20;
/// Shorter values are not masked: masking every `1` would say more than it hides.
const SECRET_MIN: usize = 4;
const MASK: &str = "[masked]";

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Berth itself, about the build.
    Berth,
    /// The build's standard output.
    Out,
    /// The build's standard error.
    Err,
}

/// A line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it comes from.
    pub stream: Stream,
    /// Its text without the newline, at most 8 KiB.
    pub text: String,
}

/// Takes the lines of a build as they come. It is called from async code and must not block.
pub trait Sink: Send + Sync {
    /// Takes one line.
    fn line(&self, line: LogLine);
}

/// Hides secrets in what a program printed.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// The longest first: of two secrets one of which begins the other, the whole must go.
    secrets: Vec<String>,
}

impl Mask {
    /// Masks each of `secrets`, line by line for those that have several.
    #[must_use]
    pub fn new(secrets: &[String]) -> Self {
        let mut secrets: Vec<String> = secrets
            .iter()
            .flat_map(|secret| secret.lines().map(str::trim))
            .filter(|line| line.len() >= SECRET_MIN)
            .map(str::to_owned)
            .collect();
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// The line without the secrets.
    #[must_use]
    pub fn hide(&self, mut line: String) -> String {
        for secret in &self.secrets {
            if line.contains(secret.as_str()) {
                line = line.replace(secret.as_str(), MASK);
            }
        }
        line
    }

    /// The longest piece of a line that must be seen whole to be masked.
    fn overlap(&self) -> usize {
        self.secrets.first().map_or(0, String::len)
    }
}

/// The log of one build.
pub(crate) struct Log {
    sink: Arc<dyn Sink>,
    mask: Mask,
    kept: Mutex<Kept>,
}

struct Kept {
    left: usize,
    tail: VecDeque<String>,
}

impl Log {
    /// A log that masks each of `secrets`.
    pub(crate) fn new(sink: Arc<dyn Sink>, secrets: &[String]) -> Self {
        let kept = Mutex::new(Kept { left: OUTPUT_MAX, tail: VecDeque::new() });
        Self { sink, mask: Mask::new(secrets), kept }
    }

    /// Says something about the build.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.sink.line(LogLine { stream: Stream::Berth, text: self.mask.hide(text.into()) });
    }

    /// The last lines of the build's output.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).tail.iter().cloned().collect()
    }

    pub(crate) fn output(&self, stream: Stream, line: String) {
        let long = line.len() > LINE_MAX;
        let mut text = self.mask.hide(line);
        if long {
            // The line may have been cut within a secret, which then is not found as a whole.
            text.truncate(text.floor_char_boundary(text.len().saturating_sub(self.mask.overlap())));
            text.truncate(text.floor_char_boundary(LINE_MAX));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.tail.len() == TAIL {
            kept.tail.pop_front();
        }
        kept.tail.push_back(text.clone());
        if kept.left == 0 {
            return;
        }
        kept.left = kept.left.saturating_sub(text.len() + 1);
        let ended = kept.left == 0;
        drop(kept);
        self.sink.line(LogLine { stream, text });
        if ended {
            self.say("the build printed more than 4 MiB; the rest is left out");
        }
    }
}

/// Cuts bytes as they come into lines.
pub(crate) struct LineCutter {
    buffer: Vec<u8>,
    max: usize,
}

impl LineCutter {
    /// For lines of any length up to what the log keeps, with room for a secret across its end.
    pub(crate) fn new(log: &Log) -> Self {
        Self { buffer: Vec::new(), max: LINE_MAX + log.mask.overlap() }
    }

    /// For lines up to `max` bytes.
    pub(crate) fn with_max(max: usize) -> Self {
        Self { buffer: Vec::new(), max }
    }

    /// Gives every line that `bytes` completes to `take`. What is beyond the longest line is dropped up to its newline:
    /// to go on with it as a line of its own could show the second half of a secret.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(String)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = self.max - self.buffer.len();
            self.buffer.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if pieces.peek().is_some() {
                take(self.end());
            }
        }
    }

    /// The line that was begun, at the end of the output; nothing when there is none.
    pub(crate) fn rest(&mut self) -> Option<String> {
        (!self.buffer.is_empty()).then(|| self.end())
    }

    fn end(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.buffer);
        // A progress bar overwrites its line; what stands in the end is what a person would see.
        let line = line.trim_end_matches('\r').to_owned();
        self.buffer.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<LogLine>>);

    impl Sink for Lines {
        fn line(&self, line: LogLine) {
            self.0.lock().unwrap().push(line);
        }
    }

    fn printed(secrets: &[&str], pieces: &[&[u8]]) -> Vec<String> {
        let lines = Arc::new(Lines::default());
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let log = Log::new(lines.clone(), &secrets);
        let mut cutter = LineCutter::new(&log);
        for piece in pieces {
            cutter.feed(piece, |line| log.output(Stream::Out, line));
        }
        if let Some(line) = cutter.rest() {
            log.output(Stream::Out, line);
        }
        lines.0.lock().unwrap().iter().map(|line| line.text.clone()).collect()
    }

    #[test]
    fn lines_are_cut_and_secrets_masked() {
        assert_eq!(printed(&[], &[b"a\r\nb", b"c\n\n", b"\xffd"]), ["a", "bc", "", "\u{fffd}d"]);
        assert_eq!(
            printed(&["hunter22", "hunter2", "one\ntwo4\n"], &[b"x hunter22 hunter2 ", b"one two4\n"]),
            ["x [masked] [masked] one [masked]"]
        );
        let long =
            [vec![b'x'; LINE_MAX - 3], b"hunter2".to_vec(), vec![b'y'; 100_000], b"\nz".to_vec()].concat();
        let lines = printed(&["hunter2"], &[&long]);
        assert!(lines[0].len() <= LINE_MAX && !lines[0].contains("hun"), "{}", lines[0].len());
        assert_eq!(lines[1..], ["z"]);
        // Masking the long secrets in front shortens the line, which must not bring the cut one at its end into sight.
        let secret = "S".repeat(400);
        let long = [secret.repeat(20), format!("{}{secret}\n", "x".repeat(LINE_MAX + 300 - 8_000))].concat();
        assert!(!printed(&[&secret], &[long.as_bytes()])[0].contains('S'));
    }

    #[test]
    fn a_chatty_build_is_bounded() {
        let megabyte = [vec![b'x'; 1023], b"\n".to_vec()].concat().repeat(1024);
        let lines = printed(&[], &[&megabyte, &megabyte, &megabyte, &megabyte, &megabyte, b"end\n"]);
        assert!(lines.len() <= 4 * 1024 + 2, "{}", lines.len());
        assert!(lines.last().unwrap().contains("the rest is left out"));
    }

    proptest! {
        #[test]
        fn a_secret_never_shows_however_it_is_cut(
            before in "[a-z ]{0,30}", secret in "[A-Z]{4,20}", cuts in prop::collection::vec(0..80_usize, 0..6)
        ) {
            let text = format!("{before}{secret}{before}\n").into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(printed(&[&secret], &pieces), [format!("{before}{MASK}{before}")]);
        }
    }
}
