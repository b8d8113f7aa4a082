//! Latencies in buckets: log-linear ones, as HdrHistogram has them, with a fixed number and no configuration.
//!
//! Each doubling from 64 us to 67 s is cut into eight, so that a latency is known to an eighth of itself or better; what is shorter is
//! in the first bucket and what is longer in the last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many pieces a doubling is cut into, as a power of two.
const CUT: u32 = 3;
/// The first doubling begins at two to this power, in microseconds.
const FIRST: u32 = 6;
/// How many doublings there are.
const DOUBLINGS: u32 = 20;
/// The number of buckets.
pub const BUCKETS: usize = ((DOUBLINGS << CUT) + 2) as usize;

/// The bucket of a latency in microseconds, below [`BUCKETS`].
#[must_use]
pub fn bucket(micros: u64) -> usize {
    if micros < 1 << FIRST {
        return 0;
    }
    let doubling = micros.ilog2();
    if doubling >= FIRST + DOUBLINGS {
        return BUCKETS - 1;
    }
    let piece = (micros >> (doubling - CUT)) & ((1 << CUT) - 1);
    let before = ((doubling - FIRST) << CUT) as usize;
    1 + before + usize::try_from(piece).unwrap_or(0)
}

/// The latency in microseconds that a bucket ends at: all in it are shorter. The last one has no end, and the one given is where it begins.
#[must_use]
pub fn bound(bucket: usize) -> u64 {
    let Some(place) = bucket.checked_sub(1) else { return 1 << FIRST };
    let place = u32::try_from(place).unwrap_or(u32::MAX).min(DOUBLINGS << CUT);
    if place == DOUBLINGS << CUT {
        return 1 << (FIRST + DOUBLINGS);
    }
    let (doubling, piece) = (FIRST + (place >> CUT), u64::from(place & ((1 << CUT) - 1)));
    ((1 << CUT) + piece + 1) << (doubling - CUT)
}

/// Latencies, by bucket; buckets with none are left out. Written as pairs of a bucket and a count: keys of an object would be text, which is not
/// read back as numbers within a message that says its kind in a field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Latencies(BTreeMap<u16, u64>);

impl From<Vec<(u16, u64)>> for Latencies {
    /// What is in no bucket is left out.
    fn from(pairs: Vec<(u16, u64)>) -> Self {
        let mut latencies = Self::default();
        pairs.into_iter().for_each(|(bucket, count)| latencies.add_to(bucket.into(), count));
        latencies
    }
}

impl From<Latencies> for Vec<(u16, u64)> {
    fn from(latencies: Latencies) -> Self {
        latencies.0.into_iter().collect()
    }
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, micros: u64) {
        self.add_to(bucket(micros), 1);
    }

    /// Adds so many to a bucket. What is in no bucket is left out.
    pub fn add_to(&mut self, bucket: usize, count: u64) {
        if let Ok(place) = u16::try_from(bucket)
            && bucket < BUCKETS
            && count > 0
        {
            let sum = self.0.entry(place).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds all of another.
    pub fn add_all(&mut self, others: &Self) {
        for (bucket, count) in others.buckets() {
            self.add_to(bucket, count);
        }
    }

    /// Each bucket that has some, with how many.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|(&bucket, &count)| (usize::from(bucket), count)).filter(|(at, _)| *at < BUCKETS)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// How many are in buckets behind this one.
    #[must_use]
    pub fn behind(&self, bucket: usize) -> u64 {
        self.buckets().filter(|(at, _)| *at > bucket).fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The bucket in which the 99th percentile is; none where there are too few latencies for one.
    #[must_use]
    pub fn p99(&self) -> Option<usize> {
        let count = self.count();
        if count < PERCENTILE_MIN {
            return None;
        }
        let beyond = count / 100;
        self.buckets().map(|(bucket, _)| bucket).find(|bucket| self.behind(*bucket) <= beyond)
    }
}

/// So few latencies have no 99th percentile.
pub const PERCENTILE_MIN: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_begin_where_the_one_before_ends() {
        assert_eq!((bucket(0), bucket(63), bucket(64), bucket(71), bucket(72)), (0, 0, 1, 1, 2));
        assert_eq!((bound(0), bound(1), bound(8)), (64, 72, 128));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for place in 0..BUCKETS - 1 {
            assert_eq!((bucket(bound(place) - 1), bucket(bound(place))), (place, place + 1));
        }
    }

    #[test]
    fn a_percentile_needs_a_hundred() {
        let mut latencies = Latencies::default();
        (0..98).for_each(|_| latencies.add(1_000));
        latencies.add(50_000);
        assert_eq!(latencies.p99(), None);
        latencies.add(1_000);
        assert_eq!(latencies.p99(), Some(bucket(1_000)));
        latencies.add(50_000);
        assert_eq!(latencies.p99(), Some(bucket(50_000)));
    }

    #[test]
    fn what_comes_from_elsewhere_is_held_to_the_buckets() {
        let odd: Latencies = serde_json::from_str("[[3, 2], [60000, 9], [3, 1]]").unwrap();
        assert_eq!(odd.count(), 3);
        assert_eq!(serde_json::to_string(&odd).unwrap(), "[[3,3]]");
    }

    proptest! {
        #[test]
        fn a_bucket_is_an_eighth_of_what_is_in_it(micros in 64_u64..67_000_000) {
            let place = bucket(micros);
            let (begins, ends) = (bound(place - 1), bound(place));
            prop_assert!(begins <= micros && micros < ends);
            prop_assert!((ends - begins) * 8 <= begins);
        }
    }
}
