//! A clock that moves only when it is told to, and draws from a seed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_spec::{Millis, Timestamp};

use crate::Clock;

/// A clock for tests and the simulation.
#[derive(Debug)]
pub struct ManualClock {
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    now: Timestamp,
    monotonic: Duration,
    random: u64,
}

impl ManualClock {
    /// A clock that stands at `now` and draws from `seed`.
    #[must_use]
    pub fn new(now: Timestamp, seed: u64) -> Self {
        Self { inside: Mutex::new(Inside { now, monotonic: Duration::ZERO, random: seed }) }
    }

    /// Lets `span` pass on both the wall clock and the monotonic one.
    pub fn advance(&self, span: Millis) {
        self.with(|inside| {
            inside.now = inside.now + span;
            inside.monotonic += span.as_duration();
        });
    }

    /// Lets the wall clock jump to `now`, forth or back; the monotonic one stands still.
    pub fn jump(&self, now: Timestamp) {
        self.with(|inside| inside.now = now);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inside) -> T) -> T {
        work(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.with(|inside| inside.now)
    }

    fn monotonic(&self) -> Duration {
        self.with(|inside| inside.monotonic)
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): repeatable, not fit for secrets.
    fn fill_random(&self, bytes: &mut [u8]) {
        self.with(|inside| {
            for chunk in bytes.chunks_mut(8) {
                inside.random = inside.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut word = inside.random;
                word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                word ^= word >> 31;
                chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random_bytes;

    #[test]
    fn it_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp(1_000), 7);
        assert_eq!(clock.now(), Timestamp(1_000));
        clock.advance(Millis(5));
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp(1_005), Duration::from_millis(5)));
        clock.jump(Timestamp(3));
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp(3), Duration::from_millis(5)));
    }

    #[test]
    fn the_same_seed_draws_the_same_bytes() {
        let draw = |seed| random_bytes::<20>(&ManualClock::new(Timestamp(0), seed));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
