//! Whether a request may wait for room, and whether that would be of use.

use std::time::Duration;

/// The most that a client is told to wait before it tries again.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Whether one of several that share `max` places may take another, when it has `own` of the `all` that are taken: only as long as it has
/// fewer than are free.
///
/// These are the dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6(2), 1998) with the factor 1. One alone gets
/// half; `n` that take all they can get come to `max / (n + 1)` each, and as much stays free for whoever comes next. So nobody's crowd
/// takes the places of another, and no place has to be set aside for those that need none.
#[must_use]
pub fn may_take(own: usize, all: usize, max: usize) -> bool {
    own < max.saturating_sub(all)
}

/// How fast those that wait in a line get their turn.
///
/// What counts is how long waiting takes and not how many wait (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012;
/// for requests: Maurer, "Fail at Scale", ACM Queue 13(8), 2015). `CoDel` drops at the head of a line what has waited for too long. A client is
/// better served by hearing at once that it would, so the delay of those that had their turn is taken as a forecast for who comes:
/// time in line over places in line is the time that each place takes (Little's law).
#[derive(Debug, Default, Clone, Copy)]
pub struct Pace {
    /// How long one place in the line takes, averaged; `None` until somebody had a turn.
    each: Option<Duration>,
    /// When there was a turn last, or the line began.
    last: Duration,
}

impl Pace {
    /// The pace of a line that begins at `now`. What another line was like says nothing of it.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { each: None, last: now }
    }

    /// One had its turn at `now`, which had waited for `waited` behind `ahead` others.
    pub fn had_turn(&mut self, now: Duration, waited: Duration, ahead: usize) {
        let each = waited / u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1);
        self.each = Some(self.each.map_or(each, |before| averaged(before, each)));
        self.last = self.last.max(now);
    }

    /// How long it takes at `now` until one has its turn that has `ahead` others before it.
    #[must_use]
    pub fn forecast(&self, now: Duration, ahead: usize) -> Duration {
        let since = now.saturating_sub(self.last);
        // A line that stands still shows that in no turn: the average as it would be if one came now.
        let each = self.each.map_or(since, |each| each.max(averaged(each, since)));
        each.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Whether to wait is of use at `now` for one that has `ahead` others before it and waits no longer than `patience`.
    ///
    /// # Errors
    /// After how long it may try again. Whoever would be the first in line may always wait, or nobody would learn that the line moves again.
    pub fn may_wait(&self, now: Duration, ahead: usize, patience: Duration) -> Result<(), Duration> {
        let forecast = self.forecast(now, ahead);
        if ahead == 0 || forecast <= patience { Ok(()) } else { Err(forecast.min(RETRY_MAX)) }
    }
}

/// The average moved by an eighth towards what was seen last, as TCP smooths the time of a round trip (RFC 6298).
fn averaged(before: Duration, seen: Duration) -> Duration {
    (before.saturating_mul(7).saturating_add(seen)) / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_that_stands_still_turns_newcomers_away() {
        let mut pace = Pace::new(SECOND);
        for turn in 1..=50 {
            pace.had_turn(SECOND + turn * SECOND / 100, SECOND / 10, 9);
        }
        let last = SECOND + SECOND / 2;
        assert_eq!(pace.may_wait(last, 400, 5 * SECOND), Ok(()));
        let refused = pace.may_wait(last + SECOND, 400, 5 * SECOND).unwrap_err();
        assert!(refused > 5 * SECOND && refused <= RETRY_MAX);
        assert_eq!(pace.may_wait(last + 100 * SECOND, 0, 5 * SECOND), Ok(()), "the first in line finds out");
    }

    #[test]
    fn nothing_is_known_of_a_line_that_begins() {
        let pace = Pace::new(SECOND);
        assert_eq!(pace.may_wait(SECOND, 1_000_000, Duration::ZERO), Ok(()));
        assert!(pace.may_wait(4 * SECOND, 1, 5 * SECOND).is_err());
    }

    proptest! {
        /// Whatever the pace, in a steady line the forecast is what waiting takes.
        #[test]
        fn a_steady_line_is_foretold(each in 1_u64..1_000_000, ahead in 0_usize..5_000, turns in 1_u32..100) {
            let each = Duration::from_micros(each);
            let mut pace = Pace::new(Duration::ZERO);
            let places = u32::try_from(ahead).unwrap() + 1;
            for turn in 1..=turns {
                pace.had_turn(each * turn, each * places, ahead);
            }
            let now = each * turns;
            let (foretold, real) = (pace.forecast(now, ahead), each * places);
            prop_assert!(foretold <= real && real - foretold <= Duration::from_nanos(8) * places, "{foretold:?} {real:?}");
            prop_assert!(pace.forecast(now, ahead + 1) > foretold);
        }

        /// Any that take all they can get leave as much to the next as they have.
        #[test]
        fn a_crowd_leaves_places_to_others(max in 1_usize..10_000, crowds in 1_usize..20) {
            let mut own = vec![0_usize; crowds];
            loop {
                let all: usize = own.iter().sum();
                prop_assert!(all <= max);
                let Some(next) = (0..crowds).find(|place| may_take(own[*place], all, max)) else { break };
                own[next] += 1;
            }
            let free = max - own.iter().sum::<usize>();
            prop_assert!(own.iter().all(|own| *own >= free));
            prop_assert!(free >= max / (1 << crowds.min(14)));
            prop_assert_eq!(free > 0, may_take(0, max - free, max));
        }
    }
}
