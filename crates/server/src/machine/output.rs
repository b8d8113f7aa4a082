//! What a build prints, kept for whoever follows its deployment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use berth_build::{LogLine, Sink};
use tokio::sync::watch;

/// How many lines of one build are kept: what a person reads back, some 100 KiB.
const KEPT: usize = 1_000;
/// How long a kept line may be, in bytes.
const LINE_MAX: usize = 2_000;

/// The output of one build. Cheap to clone; all clones are the same output.
#[derive(Debug, Clone)]
pub struct BuildOutput {
    lines: Arc<Mutex<Lines>>,
    count: Arc<watch::Sender<usize>>,
}

/// A build's log goes where followers read it.
pub(super) struct ToOutput(pub(super) BuildOutput);

impl Sink for ToOutput {
    fn line(&self, line: LogLine) {
        self.0.push(&line.text);
    }
}

#[derive(Debug, Default)]
struct Lines {
    /// How many were dropped at the front.
    dropped: usize,
    kept: VecDeque<String>,
}

impl Default for BuildOutput {
    fn default() -> Self {
        Self { lines: Arc::default(), count: Arc::new(watch::Sender::new(0)) }
    }
}

impl BuildOutput {
    /// Adds a line.
    pub fn push(&self, line: &str) {
        let end = line.floor_char_boundary(LINE_MAX);
        let count = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.kept.len() == KEPT {
                lines.kept.pop_front();
                lines.dropped += 1;
            }
            lines.kept.push_back(line.get(..end).unwrap_or_default().to_owned());
            lines.dropped + lines.kept.len()
        };
        self.count.send_replace(count);
    }

    /// The lines after the first `seen`, once there are any. Lines that were dropped meanwhile are replaced by a marker, so that
    /// counting goes on.
    pub async fn after(&self, seen: usize) -> Vec<String> {
        let mut count = self.count.subscribe();
        if count.wait_for(|count| *count > seen).await.is_err() {
            // The sender is part of self.
            return Vec::new();
        }
        self.so_far(seen)
    }

    /// How many lines there were so far.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// The lines after the first `seen` that there are, as [`Self::after`] gives them.
    #[must_use]
    pub fn so_far(&self, seen: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = lines.dropped.saturating_sub(seen);
        let marker = (0..missed).map(|_| "[a line was dropped]".to_owned());
        marker.chain(lines.kept.iter().skip(seen.saturating_sub(lines.dropped)).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_comes_late_counts_on() {
        let output = BuildOutput::default();
        for line in 0..KEPT + 10 {
            output.push(&line.to_string());
        }
        let lines = output.after(5).await;
        assert_eq!(lines.len(), KEPT + 5);
        assert_eq!((lines[4].as_str(), lines[5].as_str()), ("[a line was dropped]", "10"));
        assert_eq!(output.after(KEPT + 9).await, [(KEPT + 9).to_string()]);
        assert_eq!(output.count(), KEPT + 10);
        assert!(output.so_far(KEPT + 10).is_empty());
    }
}
