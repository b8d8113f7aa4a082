//! The only door to time and randomness, real and manual.
//!
//! Everything that needs the time or a random number takes an `Arc<dyn Clock>`. [`SystemClock`] asks the machine;
//! [`ManualClock`] moves only when it is told to and draws from a seed, so that a test is repeatable bit for bit.
//! `clippy.toml` bans the other doors.
#![warn(missing_docs)]

mod manual;
mod system;

use std::time::Duration;

use berth_spec::Timestamp;

pub use manual::ManualClock;
pub use system::SystemClock;

/// Time and randomness.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall clock. It may jump, in both directions: never use it for a deadline.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point; never goes back. For deadlines, backoff and latency.
    fn monotonic(&self) -> Duration;

    /// Fills `bytes` with random ones, fit for keys and tokens when the clock is the system's.
    fn fill_random(&self, bytes: &mut [u8]);
}

/// `N` random bytes from `clock`.
#[must_use]
pub fn random_bytes<const N: usize>(clock: &dyn Clock) -> [u8; N] {
    let mut bytes = [0; N];
    clock.fill_random(&mut bytes);
    bytes
}
