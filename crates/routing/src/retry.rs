//! How many requests of an app may be sent twice.

use std::time::Duration;

/// What each request adds: it takes so many to pay for one that is repeated.
const REQUESTS_PER_REPEAT: u64 = 5;
/// What every second adds, so that an app with few requests has some too.
const REPEATS_PER_SECOND: u64 = 10;
/// For so many seconds what was not used is kept.
const KEPT: u64 = 10;
/// The most that a request pauses before it is sent again.
const JITTER_MAX: Duration = Duration::from_millis(25);

/// What an app has that was just met.
pub const FIRST: u64 = REPEATS_PER_SECOND * KEPT;

/// The repeats that an app has after a second in which `requests` were answered, when it had `left` before.
///
/// The budget of Finagle (<https://finagle.github.io/blog/2016/02/08/retry-budgets>), which Linkerd took over: a fifth of the requests and
/// ten a second, kept for ten seconds. Retries are what turns an app in trouble into one that is down, because they add most where most fails; with a
/// budget they add a fifth at most.
#[must_use]
pub fn refilled(left: u64, requests: u64) -> u64 {
    let more = REPEATS_PER_SECOND.saturating_add(requests / REQUESTS_PER_REPEAT);
    left.saturating_add(more).min(more.saturating_mul(KEPT))
}

/// How long to pause before a request is sent again, by a random number: requests that failed together shall not come back together.
#[must_use]
pub fn jitter(random: u32) -> Duration {
    JITTER_MAX.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_app_with_few_requests_may_repeat_some() {
        assert_eq!(refilled(0, 0), 10);
        assert_eq!((0..100).fold(0, |left, _| refilled(left, 0)), FIRST);
        assert_eq!(refilled(0, 1_000), 210);
    }

    proptest! {
        /// Whatever fails, over any time no more is repeated than the budget allows.
        #[test]
        fn repeats_stay_within_a_fifth_and_ten_a_second(seconds in proptest::collection::vec((0_u64..5_000, 0_u64..9_000), 0..100)) {
            let (mut left, mut requests, mut repeats) = (FIRST, 0, 0);
            for (answered, wanted) in &seconds {
                let taken = left.min(*wanted);
                left = refilled(left - taken, *answered);
                requests += answered;
                repeats += taken;
                prop_assert!(left >= REPEATS_PER_SECOND);
            }
            prop_assert!(repeats <= FIRST + 10 * seconds.len() as u64 + requests / 5);
        }

        #[test]
        fn a_pause_is_short(random in any::<u32>()) {
            prop_assert!(jitter(random) <= JITTER_MAX);
        }
    }
}
