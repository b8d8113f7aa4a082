//! The machine's own clock and random numbers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_spec::Timestamp;

use crate::Clock;

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at nought now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the door that the ban points to")]
    #[expect(clippy::new_without_default, reason = "a default should not read the time")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door that the ban points to")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel gives random bytes once it has booted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random_bytes;

    #[test]
    fn random_bytes_differ() {
        let clock = SystemClock::new();
        assert_ne!(random_bytes::<16>(&clock), random_bytes::<16>(&clock));
    }
}
