//! What each of two releases does that requests are shared between, counted for whoever compares them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use berth_rollout::Latencies;
use berth_rollout::latency::{BUCKETS, bucket};
use berth_routing::wire::ReleaseCounts;
use berth_spec::ReleaseNumber;

/// One release's requests since they were last taken.
#[derive(Debug)]
pub(crate) struct Tally {
    release: ReleaseNumber,
    requests: AtomicU64,
    errors: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Tally {
    pub(crate) fn new(release: ReleaseNumber) -> Self {
        let latencies = std::array::from_fn(|_| AtomicU64::new(0));
        Self { release, requests: AtomicU64::new(0), errors: AtomicU64::new(0), latencies }
    }

    /// The head of an answer came from it after `took`.
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        self.left(took);
        self.errors.fetch_add(u64::from(status >= 500), Relaxed);
    }

    /// The client left after `took`, and there was no answer yet. No error, since nobody knows; but a release that hangs is slow by this.
    pub(crate) fn left(&self, took: Duration) {
        self.requests.fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latencies[bucket(micros)].fetch_add(1, Relaxed);
    }

    /// No answer came from it, nor will one.
    pub(crate) fn failed(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.errors.fetch_add(1, Relaxed);
    }

    /// What there was since the last call, if there was anything.
    pub(crate) fn take(&self) -> Option<ReleaseCounts> {
        // Errors first: an answer that comes in between is a request whose error is told the next time, never the other way round.
        let errors = self.errors.swap(0, Relaxed);
        let requests = self.requests.swap(0, Relaxed);
        if requests == 0 && errors == 0 {
            return None;
        }
        let mut latencies = Latencies::default();
        for (place, count) in self.latencies.iter().enumerate() {
            latencies.add_to(place, count.swap(0, Relaxed));
        }
        Some(ReleaseCounts { release: self.release, requests, errors, latencies })
    }
}

/// Adds what was counted of the same release.
pub(crate) fn add(sum: &mut Vec<ReleaseCounts>, more: ReleaseCounts) {
    match sum.iter_mut().find(|it| it.release == more.release) {
        None => sum.push(more),
        Some(sum) => {
            sum.requests += more.requests;
            sum.errors += more.errors;
            sum.latencies.add_all(&more.latencies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_told_once() {
        let tally = Tally::new(ReleaseNumber(2));
        assert_eq!(tally.take(), None);
        tally.answered(200, Duration::from_millis(3));
        tally.answered(503, Duration::from_millis(3));
        tally.failed();
        tally.left(Duration::from_secs(9));
        let told = tally.take().unwrap();
        assert_eq!((told.requests, told.errors, told.latencies.count()), (4, 2, 3));
        assert_eq!(tally.take(), None);
    }

    #[test]
    fn what_could_not_be_told_adds_up() {
        let tally = Tally::new(ReleaseNumber(2));
        let mut sum = Vec::new();
        for _ in 0..3 {
            tally.answered(200, Duration::from_millis(3));
            add(&mut sum, tally.take().unwrap());
        }
        assert_eq!((sum.len(), sum[0].requests, sum[0].latencies.count()), (1, 3, 3));
    }
}
