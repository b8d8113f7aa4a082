//! Draws from the seed.

use std::time::Duration;

use berth_clock::{Clock, ManualClock, random_bytes};
use berth_spec::{Millis, Timestamp};

/// The clock of the world and the only source of chance in it.
#[derive(Debug)]
pub(crate) struct Chance {
    clock: ManualClock,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { clock: ManualClock::new(Timestamp(1_700_000_000_000), seed) }
    }

    pub(crate) fn clock(&self) -> &ManualClock {
        &self.clock
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A number below `bound`, which is not nought.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let word = u64::from_le_bytes(random_bytes(&self.clock));
        let bound = u64::try_from(bound).expect("a bound fits into 64 bits");
        usize::try_from(word % bound).expect("it is below a bound that fits")
    }

    pub(crate) fn one_in(&self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }

    /// A span from `least` up to but not `most`.
    pub(crate) fn span(&self, least: u64, most: u64) -> Millis {
        let width = usize::try_from(most - least).expect("spans of the simulation are short");
        Millis(least + self.below(width) as u64)
    }

    /// A moment that a span from now.
    pub(crate) fn later(&self, least: u64, most: u64) -> Duration {
        self.now() + self.span(least, most).as_duration()
    }
}
