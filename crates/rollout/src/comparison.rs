//! A new release beside an old one: what their seconds amount to.

use std::collections::BTreeSet;

use berth_spec::manifest::Analysis;

use crate::evidence::{Difference, Evidence, Side, Verdict};
use crate::latency::{BUCKETS, Latencies, bound};
use crate::odds::{Bets, Exposure};

/// The chance of ever condemning a release that is as good as the one before, over a whole rollout, all that is compared together.
pub const ALPHA: f64 = 0.01;
/// So many requests a release must have had since the step began for its step to have shown anything.
pub const REQUESTS_MIN: u64 = 100;
/// A release of which fewer requests were seen in all is not condemned: a visitor or two are not the world.
pub const CONDEMNED_FROM: u64 = 20;
/// The smallest difference of error rates that matters: a quarter of a percent of all requests, in millionths.
pub const ERRORS_MATTER: u64 = 2_500;
/// The smallest difference of latencies that matters: a quarter of the old release's, in hundredths of that, and at least so many
/// microseconds.
pub const LATENCY_MATTERS: (u64, u64) = (125, 5_000);
/// From these odds on a release is under suspicion: not condemned, and not let further either.
pub const SUSPECT: f64 = 5.0;
/// The first seconds in which a new release answers say nothing of its latency: what it keeps in memory is not there yet.
const COLD_SECONDS: u64 = 10;

/// What one release did within one second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// Requests that were sent to it, or could not be.
    pub requests: u64,
    /// Those among them that were answered with a status of 500 or more, or not at all.
    pub errors: u64,
    /// How long it took to the head of an answer, for those that got one from it.
    pub latencies: Latencies,
}

/// What both releases did within the same second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Second {
    /// The new one.
    pub new: Slice,
    /// The old one.
    pub old: Slice,
}

/// What was seen of both releases since the rollout began, or since whoever looks began to.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    new: Side,
    old: Side,
    seconds: u64,
    /// What the new one had had when the step began.
    before_step: u64,
    errors: Bets,
    slow: Bets,
    /// All latencies of the old release, of which the next second's idea of slow is made.
    past: Latencies,
    matched: Matched,
}

/// Sums over seconds in which each second counts for both releases alike, as many as if both had had as many requests: the estimate of
/// Mantel and Haenszel (Journal of the National Cancer Institute 22, 1959). What changes for both in the course of a day, or
/// while the shares change, is no difference between them.
#[derive(Debug, Clone, PartialEq)]
struct Matched {
    weight: f64,
    new_errors: f64,
    old_errors: f64,
    new_latencies: Vec<f64>,
    old_latencies: Vec<f64>,
}

impl Comparison {
    /// Nothing seen yet of a rollout of so many steps.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self {
            new: Side::default(),
            old: Side::default(),
            seconds: 0,
            before_step: 0,
            errors: Bets::new(steps),
            slow: Bets::new(steps),
            past: Latencies::default(),
            matched: Matched {
                weight: 0.0,
                new_errors: 0.0,
                old_errors: 0.0,
                new_latencies: vec![0.0; BUCKETS],
                old_latencies: vec![0.0; BUCKETS],
            },
        }
    }

    /// The next step begins: the new release gets another share.
    pub fn begin_step(&mut self) {
        self.before_step = self.new.requests;
        self.errors.begin();
        self.slow.begin();
    }

    /// A second has passed.
    pub fn add(&mut self, second: &Second) {
        let Second { new, old } = second;
        self.seconds += u64::from(new.requests > 0);
        self.new.add(new);
        self.old.add(old);
        self.errors.pay(errors_of(new), errors_of(old));
        self.matched.add_errors(new, old);
        if self.seconds > COLD_SECONDS {
            // By what was known before this second: what is slow must not be made of the very requests that are judged by it.
            if let Some(p99) = self.past.p99() {
                self.slow.pay(slow_of(new, p99), slow_of(old, p99));
            }
            self.matched.add_latencies(new, old);
        }
        self.past.add_all(&old.latencies);
    }

    /// What all of it amounts to, looking at what `analysis` names.
    #[must_use]
    pub fn evidence(&self, analysis: &BTreeSet<Analysis>) -> Evidence {
        let condemned_at = analysis.len().max(1) as f64 / ALPHA;
        let (new_errors, old_errors) = self.matched.error_rates();
        let errors = analysis.contains(&Analysis::ErrorRate).then(|| Difference {
            new: new_errors,
            old: old_errors,
            odds: whole(self.errors.odds()),
            matters: new_errors >= old_errors.saturating_add(ERRORS_MATTER),
        });
        let latency = self.matched.p99s().filter(|_| analysis.contains(&Analysis::LatencyP99));
        let latency = latency.map(|(new, old)| Difference {
            new,
            old,
            odds: whole(self.slow.odds()),
            matters: new >= old.saturating_mul(LATENCY_MATTERS.0) / 100 && new >= old + LATENCY_MATTERS.1,
        });
        let most = |odds: f64| {
            let matter = |it: &Difference| it.matters && it.odds as f64 >= odds;
            errors.iter().chain(&latency).any(matter)
        };
        let step = self.new.requests - self.before_step;
        let verdict = if most(condemned_at) && self.new.requests >= CONDEMNED_FROM {
            Verdict::Worse
        } else if most(SUSPECT) {
            Verdict::Unclear
        } else if step < REQUESTS_MIN || self.old.requests < REQUESTS_MIN {
            Verdict::TooFew
        } else {
            Verdict::AsGood
        };
        Evidence { verdict, seconds: self.seconds, new: self.new, old: self.old, errors, latency }
    }
}

impl Side {
    fn add(&mut self, slice: &Slice) {
        self.requests = self.requests.saturating_add(slice.requests);
        self.errors = self.errors.saturating_add(slice.errors.min(slice.requests));
    }
}

impl Matched {
    fn add_errors(&mut self, new: &Slice, old: &Slice) {
        let all = (new.requests + old.requests) as f64;
        if new.requests == 0 || old.requests == 0 {
            return;
        }
        self.weight += new.requests as f64 * old.requests as f64 / all;
        self.new_errors += errors_of(new).hits as f64 * old.requests as f64 / all;
        self.old_errors += errors_of(old).hits as f64 * new.requests as f64 / all;
    }

    fn add_latencies(&mut self, new: &Slice, old: &Slice) {
        let (of_new, of_old) = (new.latencies.count() as f64, old.latencies.count() as f64);
        if of_new < 1.0 || of_old < 1.0 {
            return;
        }
        let all = of_new + of_old;
        for (bucket, count) in new.latencies.buckets() {
            self.new_latencies[bucket] += count as f64 * of_old / all;
        }
        for (bucket, count) in old.latencies.buckets() {
            self.old_latencies[bucket] += count as f64 * of_new / all;
        }
    }

    /// Of the new one and the old one, in millionths.
    fn error_rates(&self) -> (u64, u64) {
        if self.weight <= 0.0 {
            return (0, 0);
        }
        let rate = |errors: f64| whole(errors / self.weight * 1e6);
        (rate(self.new_errors), rate(self.old_errors))
    }

    /// The 99th percentiles of the new one and the old one in microseconds, as far as the buckets tell; none where there is too little to say.
    fn p99s(&self) -> Option<(u64, u64)> {
        let of = |latencies: &[f64]| {
            let all: f64 = latencies.iter().sum();
            let mut behind = 0.0;
            let last = latencies.iter().enumerate().rev().find(|(_, count)| {
                behind += **count;
                behind > all / 100.0
            });
            last.map(|(bucket, _)| bound(bucket))
        };
        // A weight of fifty is a hundred requests of each in the best case.
        let enough = self.new_latencies.iter().sum::<f64>() >= 20.0;
        Some((of(&self.new_latencies)?, of(&self.old_latencies)?)).filter(|_| enough)
    }
}

fn errors_of(slice: &Slice) -> Exposure {
    Exposure { requests: slice.requests, hits: slice.errors.min(slice.requests) }
}

/// Those that took longer than `bucket`.
fn slow_of(slice: &Slice, bucket: usize) -> Exposure {
    Exposure { requests: slice.latencies.count(), hits: slice.latencies.behind(bucket) }
}

/// As a whole number, as near as one gets.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion of this kind ends at the bounds of the number"
)]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

#[cfg(test)]
mod tests;
