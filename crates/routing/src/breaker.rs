//! When an instance that fails is passed over for a while, and how it comes back.

use std::collections::VecDeque;
use std::time::Duration;

/// So many failures in a row open a breaker, when they come within [`WINDOW`].
pub const FAILURES: usize = 5;
/// See [`FAILURES`].
pub const WINDOW: Duration = Duration::from_secs(10);
/// How long a breaker stays open the first time; each time in a row it is as much longer.
pub const OPEN: Duration = Duration::from_secs(30);
/// How long it stays open at most. One that was closed for so long starts over.
pub const OPEN_MAX: Duration = Duration::from_secs(300);

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything.
    Closed {
        /// Since when.
        since: Duration,
    },
    /// Nothing, until then.
    Open {
        /// When it is half open.
        until: Duration,
    },
    /// One request, whose outcome decides.
    HalfOpen,
}

/// Whether one instance fails, by the outcome of the requests that it got.
///
/// The circuit breaker of Nygard ("Release It!", 2007) with the counts and times of Envoy's detection of outliers
/// (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>): five failures in a row, 30 seconds times
/// the number of openings, 300 at most. In a row, and not in all: an app that fails one request in a hundred has five failures within ten seconds
/// as soon as it is busy, and so have all its instances.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    /// When the last failures were, without a success since.
    failures: VecDeque<Duration>,
    /// How often it opened in a row.
    openings: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { since: Duration::ZERO }, failures: VecDeque::new(), openings: 0 }
    }
}

impl Breaker {
    /// A request failed at `now`. True when that opened the breaker.
    pub fn failed(&mut self, now: Duration) -> bool {
        match self.state {
            State::Open { .. } => return false,
            State::HalfOpen => {}
            State::Closed { since } => {
                self.failures.push_back(now);
                if self.failures.len() > FAILURES {
                    self.failures.pop_front();
                }
                let first = self.failures.front().copied().unwrap_or(now);
                if self.failures.len() < FAILURES || now.saturating_sub(first) > WINDOW {
                    return false;
                }
                if now.saturating_sub(since) > OPEN_MAX {
                    self.openings = 0;
                }
            }
        }
        self.failures.clear();
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open { until: now.saturating_add(self.stays_open()) };
        true
    }

    /// A request succeeded at `now`. True when that closed the breaker.
    pub fn succeeded(&mut self, now: Duration) -> bool {
        match self.state {
            // It was sent before the breaker opened, or because there was nobody else.
            State::Open { .. } => false,
            State::Closed { .. } => {
                self.failures.clear();
                false
            }
            State::HalfOpen => {
                self.state = State::Closed { since: now };
                true
            }
        }
    }

    /// Closes it, whatever it knows: the failures are not the instance's own.
    pub fn close(&mut self, now: Duration) {
        *self = Self { state: State::Closed { since: now }, ..Self::default() };
    }

    /// Makes it half open when it was open for long enough at `now`. True when it did.
    pub fn try_again(&mut self, now: Duration) -> bool {
        let due = matches!(self.state, State::Open { until } if until <= now);
        if due {
            self.state = State::HalfOpen;
        }
        due
    }

    /// Whether it saw nothing since the last success that it has to remember.
    #[must_use]
    pub fn is_untroubled(&self) -> bool {
        matches!(self.state, State::Closed { .. }) && self.failures.is_empty()
    }

    /// How long it stays open by the number of times that it opened.
    #[must_use]
    pub fn stays_open(&self) -> Duration {
        OPEN.saturating_mul(self.openings.max(1)).min(OPEN_MAX)
    }
}

/// Whether `open` of `all` instances of an app are outliers, and not what the app is like: half of them at most. Beyond it nobody is passed over,
/// since the rest would have to carry what all together do not; so a lone instance never is.
#[must_use]
pub fn are_outliers(open: usize, all: usize) -> bool {
    open.saturating_mul(2) <= all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fails `breaker` at these seconds; the index of the failure that opened it.
    fn opened(breaker: &mut Breaker, seconds: &[u64]) -> Option<usize> {
        seconds.iter().position(|second| breaker.failed(at(*second)))
    }

    #[test]
    fn five_failures_within_ten_seconds_open_it_and_one_trial_decides() {
        let mut breaker = Breaker::default();
        assert_eq!(opened(&mut breaker, &[0, 3, 6, 9, 12, 13]), Some(5), "the five last, within ten seconds");
        assert!(!breaker.try_again(at(42)));
        assert!(!breaker.succeeded(at(42)), "an answer that comes late closes nothing");
        assert!(breaker.try_again(at(43)) && !breaker.try_again(at(43)));
        assert!(breaker.failed(at(43)), "the trial failed");
        assert!(!breaker.try_again(at(102)) && breaker.try_again(at(103)), "it stays open for twice as long");
        assert!(breaker.succeeded(at(104)) && breaker.is_untroubled());
        assert_eq!(opened(&mut breaker, &[105, 105, 105, 105, 105]), Some(4), "a closed one counts anew");
        assert_eq!(breaker.stays_open(), at(90));
    }

    #[test]
    fn a_success_in_between_starts_the_count_over() {
        let mut breaker = Breaker::default();
        for second in 0..100 {
            assert!(!breaker.failed(at(second)));
            if second % 4 == 3 {
                assert!(!breaker.is_untroubled());
                breaker.succeeded(at(second));
                assert!(breaker.is_untroubled());
            }
        }
    }

    #[test]
    fn what_was_well_for_long_starts_over() {
        let mut breaker = Breaker::default();
        assert_eq!(opened(&mut breaker, &[1, 1, 1, 1, 1]), Some(4));
        assert!(breaker.try_again(at(31)) && breaker.succeeded(at(31)));
        assert_eq!(opened(&mut breaker, &[332, 332, 332, 332, 332]), Some(4));
        assert_eq!(breaker.stays_open(), OPEN);
        breaker.close(at(333));
        assert!(breaker.is_untroubled());
    }

    proptest! {
        #[test]
        fn never_more_than_half_are_outliers_and_a_lone_one_never(open in 0_usize..100, all in 0_usize..100) {
            prop_assert_eq!(are_outliers(open, all), open <= all / 2);
            prop_assert!(!are_outliers(1, 1));
        }

        /// Whatever happens, it opens only by a failure, stays open for 30 to 300 seconds, and comes back by a trial.
        #[test]
        fn it_is_open_for_a_bounded_while(steps in proptest::collection::vec((0_u64..40, 0_u8..3), 0..200)) {
            let (mut breaker, mut now, mut open): (_, u64, Option<u64>) = (Breaker::default(), 0, None);
            for (passed, step) in steps {
                now += passed;
                match step {
                    0 => if breaker.failed(at(now)) {
                        prop_assert_eq!(open, None);
                        open = Some(now);
                    },
                    1 => { breaker.succeeded(at(now)); }
                    _ => {
                        let again = breaker.try_again(at(now));
                        if let Some(since) = open {
                            prop_assert!(again || now - since < 300);
                            prop_assert!(!again || now - since >= 30);
                        }
                        if again {
                            open = None;
                        }
                    }
                }
                prop_assert!((OPEN..=OPEN_MAX).contains(&breaker.stays_open()));
            }
        }
    }
}
