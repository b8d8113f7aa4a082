//! How often somebody may ask: the generic cell rate algorithm.

use std::time::Duration;

/// A rate and how far it may be exceeded for a moment.
///
/// The virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A; ATM Forum, Traffic Management 4.0, 4.4.2): of each
/// principal one instant is kept, the theoretical arrival time of its next request. That is all that a bucket with tokens has, without
/// a clock that fills it, and with an answer to when the next request would be let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time from one request to the next at the rate.
    interval: Duration,
    /// How early a request may be: what a burst takes beyond its first request.
    tolerance: Duration,
    burst: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is let through.
    Pass {
        /// What is to be kept of the principal.
        next: Duration,
        /// How many more would be let through at once.
        remaining: u32,
    },
    /// It is not, and changes nothing.
    Refuse {
        /// After how long one would be.
        after: Duration,
    },
}

impl Rate {
    /// `requests` in every `per`, of which `burst` may come at once. Numbers below 1 count as 1.
    #[must_use]
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let interval = per / requests.max(1);
        let burst = burst.max(1);
        Self { interval, tolerance: interval.saturating_mul(burst - 1), burst }
    }

    /// Decides about a request at `now` of a principal of which `kept` is known, if anything.
    #[must_use]
    pub fn decide(&self, kept: Option<Duration>, now: Duration) -> Verdict {
        let due = kept.unwrap_or(now).max(now);
        let early = due - now;
        if early > self.tolerance {
            return Verdict::Refuse { after: early - self.tolerance };
        }
        let next = due.saturating_add(self.interval);
        let used = (next - now).as_nanos().div_ceil(self.interval.as_nanos().max(1));
        Verdict::Pass { next, remaining: self.burst.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX)) }
    }

    /// Whether what was `kept` says nothing more at `now`: who is not known is treated the same.
    #[must_use]
    pub fn is_over(kept: Duration, now: Duration) -> bool {
        kept <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many of `count` requests at `now` are let through.
    fn passed(rate: Rate, kept: &mut Option<Duration>, now: Duration, count: u32) -> u32 {
        let pass = |_: &u32| match rate.decide(*kept, now) {
            Verdict::Pass { next, .. } => {
                *kept = Some(next);
                true
            }
            Verdict::Refuse { .. } => false,
        };
        u32::try_from((0..count).filter(pass).count()).unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (rate, mut kept) = (Rate::new(10, SECOND, 5), None);
        assert_eq!(passed(rate, &mut kept, 9 * SECOND, 20), 5);
        assert_eq!(rate.decide(kept, 9 * SECOND), Verdict::Refuse { after: SECOND / 10 });
        assert_eq!(passed(rate, &mut kept, 9 * SECOND + SECOND / 10, 20), 1);
        assert_eq!(passed(rate, &mut kept, 10 * SECOND, 20), 5, "unused time is kept up to the burst");
        let first = Rate::new(1, 60 * SECOND, 1).decide(None, SECOND);
        assert_eq!(first, Verdict::Pass { next: 61 * SECOND, remaining: 0 });
    }

    #[test]
    fn what_remains_is_what_is_let_through() {
        let (rate, mut kept) = (Rate::new(3, SECOND, 4), None);
        for left in (0..4).rev() {
            let Verdict::Pass { next, remaining } = rate.decide(kept, SECOND) else { panic!("{left}") };
            assert_eq!(remaining, left);
            kept = Some(next);
        }
    }

    proptest! {
        /// In no span of time more is let through than the burst and the rate allow; and who asks after the time
        /// that he was told is let through.
        #[test]
        fn never_more_than_burst_and_rate(
            requests in 1_u32..100, millis in 1_u64..100_000, burst in 1_u32..50,
            gaps in proptest::collection::vec(0_u64..5_000, 1..200),
        ) {
            let per = Duration::from_millis(millis);
            let rate = Rate::new(requests, per, burst);
            let (mut kept, mut now, mut let_through) = (None, SECOND, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                match rate.decide(kept, now) {
                    Verdict::Pass { next, remaining } => {
                        prop_assert!(remaining < burst);
                        kept = Some(next);
                        let_through.push(now);
                    }
                    Verdict::Refuse { after } => {
                        prop_assert!(!after.is_zero());
                        let passes = matches!(rate.decide(kept, now + after), Verdict::Pass { .. });
                        prop_assert!(passes);
                    }
                }
            }
            for (first, start) in let_through.iter().enumerate() {
                for (last, end) in let_through.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u128;
                    let span = (*end - *start).as_nanos();
                    let allowed = u128::from(burst) + span / (per / requests).as_nanos();
                    prop_assert!(count <= allowed, "{count} within {span} ns, {allowed} allowed");
                }
            }
        }
    }
}
