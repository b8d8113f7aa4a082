//! A sequential test of whether something happens more often with the new release than with the old one.
//!
//! Somebody who believes that it does bets on it, second by second, against somebody who believes that it does not; [`Bets::odds`] is what
//! he has made of each unit that he began with. As long as it happens no more often, his fortune is not expected to grow, and it ever
//! reaches `x` with a chance of at most `1/x` (Ville, Étude critique de la notion de collectif, 1939). So it can be looked at all the time, and at
//! whichever moment it decides.
//!
//! - *The bet of one second.* Of the requests of both releases in that second let the share `w` be the new one's, and let `k` of them be
//!   hits, `x` of these the new release's. If hits fall on either alike, `x` is hypergeometric, whatever their rate and however it changes with
//!   the time of the day: that is why only requests of the same second are compared. The bet that hits are `r` times as likely with the new release pays
//!   `r^x / (r w + 1 - w)^k`, the likelihood ratio of Wald's test (Sequential Analysis, 1947) for a binomial `x`, as in the maximised test for
//!   the safety of drugs (Kulldorff and others, Sequential Analysis 30, 2011). A hypergeometric `x` is less spread than a binomial one (Hoeffding, JASA 58,
//!   1963, theorem 4), and the payment is convex in it, so that it is expected to pay no more than one.
//! - *Which `r`.* Nobody knows it: the fortune is spread evenly over [`RATIOS`] (the mixture of Robbins, Annals of Mathematical Statistics 41, 1970).
//! - *A bad second is not ten.* What is broken for a moment is broken for all who ask in that moment: hits of one second are not independent. No second pays more
//!   than [`PAYS_MOST`] times what was bet, which only makes the test more careful.
//! - *Trouble that begins late.* A release that is fine with few requests may not be with many. A part of the fortune is kept back for each
//!   step of the rollout, and is first bet when that begins ([`Bets::begin`]), so that what was lost before does not stand against it.

/// How many times as likely a hit is with the new release, as the bets have it.
pub const RATIOS: [f64; 5] = [1.5, 2.5, 5.0, 15.0, 60.0];
/// What one second pays at most.
pub const PAYS_MOST: f64 = 3.0;

/// The bets of one rollout on one kind of hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Bets {
    /// How many parts the fortune has.
    parts: usize,
    /// Of those that are bet, the logarithm of what each ratio has made.
    bet: Vec<[f64; RATIOS.len()]>,
}

/// The requests of one release in one second, and how many of them were hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposure {
    /// All of them.
    pub requests: u64,
    /// The hits among them.
    pub hits: u64,
}

impl Bets {
    /// Bets for a rollout of so many steps, the first of which begins.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        let mut bets = Self { parts: steps.max(1), bet: Vec::new() };
        bets.begin();
        bets
    }

    /// Another step begins.
    pub fn begin(&mut self) {
        if self.bet.len() < self.parts {
            self.bet.push([0.0; RATIOS.len()]);
        }
    }

    /// A second has passed.
    pub fn pay(&mut self, new: Exposure, old: Exposure) {
        let hits = new.hits + old.hits;
        if new.requests == 0 || old.requests == 0 || hits == 0 {
            return;
        }
        let share = new.requests as f64 / (new.requests + old.requests) as f64;
        for (at, ratio) in RATIOS.iter().enumerate() {
            let pays = new.hits as f64 * ratio.ln() - hits as f64 * (ratio * share + 1.0 - share).ln();
            let pays = pays.min(PAYS_MOST.ln());
            self.bet.iter_mut().for_each(|part| part[at] += pays);
        }
    }

    /// What was made of each unit that was there at the beginning.
    #[must_use]
    pub fn odds(&self) -> f64 {
        let made: f64 = self.bet.iter().flatten().map(|log| log.exp()).sum();
        let kept = (self.parts - self.bet.len()) as f64;
        (made / RATIOS.len() as f64 + kept) / self.parts as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(requests: u64, hits: u64) -> Exposure {
        Exposure { requests, hits }
    }

    /// The chance that of `hits` among all requests `x` are the new release's, when they fall on either alike.
    fn hypergeometric(new: u64, old: u64, hits: u64, x: u64) -> f64 {
        let choose = |from: u64, some: u64| -> f64 {
            if some > from { 0.0 } else { (0..some).map(|i| (from - i) as f64 / (some - i) as f64).product() }
        };
        choose(new, x) * choose(old, hits - x) / choose(new + old, hits)
    }

    #[test]
    fn what_fails_far_more_often_decides_within_seconds() {
        let mut bets = Bets::new(4);
        let mut seconds = 0;
        while bets.odds() < 200.0 {
            bets.pay(of(3, 1), of(57, 0));
            seconds += 1;
        }
        assert!((5..15).contains(&seconds), "{seconds}");
    }

    #[test]
    fn no_single_second_decides() {
        let mut bets = Bets::new(1);
        bets.pay(of(1_000, 1_000), of(1_000, 0));
        assert!((bets.odds() - PAYS_MOST).abs() < 1e-9);
    }

    #[test]
    fn trouble_that_begins_late_is_seen_as_soon() {
        let mut bets = Bets::new(2);
        (0..10_000).for_each(|_| bets.pay(of(50, 1), of(50, 1)));
        assert!(bets.odds() < 1.0);
        bets.begin();
        let mut seconds = 0;
        while bets.odds() < 200.0 {
            bets.pay(of(50, 5), of(50, 1));
            seconds += 1;
        }
        assert!(seconds < 30, "{seconds}");
    }

    #[test]
    fn without_both_nothing_is_bet() {
        let mut bets = Bets::new(1);
        bets.pay(of(0, 0), of(10, 10));
        bets.pay(of(10, 10), of(0, 0));
        bets.pay(of(10, 0), of(10, 0));
        assert!((bets.odds() - 1.0).abs() < 1e-12);
    }

    proptest! {
        /// However the requests of a second are spread, it is expected to pay no more than what was bet, if hits fall on either alike.
        #[test]
        fn a_second_is_expected_to_pay_no_more_than_was_bet(new in 1_u64..40, old in 1_u64..40, hits in 1_u64..40) {
            let hits = hits.min(new + old);
            let mut expected = 0.0;
            for x in hits.saturating_sub(old)..=hits.min(new) {
                let mut bets = Bets::new(1);
                bets.pay(of(new, x), of(old, hits - x));
                expected += hypergeometric(new, old, hits, x) * bets.odds();
            }
            prop_assert!(expected <= 1.0 + 1e-9, "{expected}");
        }

        /// More hits of the new release never speak for it.
        #[test]
        fn more_hits_make_more(new in 1_u64..100, old in 1_u64..100, x in 0_u64..99, y in 0_u64..99) {
            let (x, y) = (x.min(new - 1), y.min(old));
            let odds = |x: u64| {
                let mut bets = Bets::new(3);
                bets.pay(of(new, x), of(old, y));
                bets.odds()
            };
            prop_assert!(odds(x) <= odds(x + 1) + 1e-12);
        }
    }
}
