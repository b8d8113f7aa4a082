//! Rollouts by canary, a great many of them: how often one that is as good as the release before is taken back, and how often one that
//! is worse gets through.
//!
//! Only the arithmetic of `berth-rollout` runs here, against traffic that is made up: second by second, request by request, from a seed. That the rest of
//! the control plane does what it says is for [`crate::run`].

use berth_rollout::{Comparison, Latencies, Move, Second, Slice, course};
use berth_spec::Millis;
use berth_spec::manifest::Canary;

/// The median of a request's latency, in microseconds, and the spread of its logarithm: a web app with a database.
const MEDIAN: f64 = 40_000.0;
const SPREAD: f64 = 0.5;
/// A new instance is so much slower for its first seconds.
const COLD: (u64, f64) = (5, 3.0);

/// What should become of the rollouts of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// They go through: the releases are alike.
    Through,
    /// They are taken back.
    Back,
    /// Neither is wrong: there is too little traffic to tell, or too small a difference to matter.
    Either,
}

/// Traffic, and what is the matter with the new release.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name, as a key.
    pub name: &'static str,
    /// What should become of it.
    pub expected: Expected,
    /// Requests in a second, on average.
    pub rate: f64,
    /// How many of the old release's requests fail.
    pub errors: f64,
    /// How many more of the new one's do.
    pub more_errors: f64,
    /// How many times as long the new one takes.
    pub slower: f64,
    /// Whether now and then both fail and are slow for seconds, and now and then one of them stands still for one.
    pub bursts: bool,
    /// Whether traffic, errors and latency of both go up and down threefold.
    pub drift: bool,
}

/// What became of the rollouts of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    /// How many there were.
    pub rollouts: u64,
    /// How many were taken back.
    pub back: u64,
    /// After how many seconds these were, in order.
    pub seconds: Vec<u64>,
}

const PLAIN: Scenario = Scenario {
    name: "same",
    expected: Expected::Through,
    rate: 50.0,
    errors: 0.001,
    more_errors: 0.0,
    slower: 1.0,
    bursts: false,
    drift: false,
};
const WORSE: Scenario = Scenario { expected: Expected::Back, ..PLAIN };

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    PLAIN,
    Scenario { name: "same_no_errors", errors: 0.0, ..PLAIN },
    Scenario { name: "same_many_errors", errors: 0.05, ..PLAIN },
    Scenario { name: "same_much_traffic", rate: 300.0, ..PLAIN },
    Scenario { name: "same_little_traffic", rate: 1.0, errors: 0.02, ..PLAIN },
    Scenario { name: "same_bursts", bursts: true, ..PLAIN },
    Scenario { name: "same_drift", drift: true, errors: 0.01, ..PLAIN },
    Scenario { name: "same_bursts_and_drift", bursts: true, drift: true, errors: 0.01, ..PLAIN },
    Scenario { name: "errors_0_5", more_errors: 0.005, ..WORSE },
    Scenario { name: "errors_1", more_errors: 0.01, ..WORSE },
    Scenario { name: "errors_2", more_errors: 0.02, ..WORSE },
    Scenario { name: "errors_5", more_errors: 0.05, ..WORSE },
    Scenario { name: "errors_2_bursts_and_drift", more_errors: 0.02, bursts: true, drift: true, ..WORSE },
    Scenario { name: "slower_1_5", slower: 1.5, ..WORSE },
    Scenario { name: "slower_2", slower: 2.0, ..WORSE },
    Scenario { name: "slower_2_bursts_and_drift", slower: 2.0, bursts: true, drift: true, ..WORSE },
    Scenario { name: "slower_1_1", slower: 1.1, expected: Expected::Either, ..PLAIN },
    Scenario {
        name: "errors_1_over_5",
        errors: 0.05,
        more_errors: 0.01,
        expected: Expected::Either,
        ..PLAIN
    },
    Scenario {
        name: "errors_5_little_traffic",
        rate: 1.0,
        more_errors: 0.05,
        expected: Expected::Either,
        ..PLAIN
    },
    Scenario { name: "all_fail_little_traffic", rate: 1.0, more_errors: 0.999, ..WORSE },
];

/// Rolls out so many times, by the manifest's defaults.
#[must_use]
pub fn try_out(scenario: &Scenario, rollouts: u64, seed: u64) -> Tried {
    let canary = Canary::default();
    let mut tried = Tried { rollouts, ..Tried::default() };
    let name = scenario.name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    for number in 0..rollouts {
        let mut draws = Draws(name.wrapping_add(number.wrapping_mul(0x5851_F42D_4C95_7F2D)));
        if let Some(seconds) = roll_out(scenario, &canary, &mut draws) {
            tried.back += 1;
            tried.seconds.push(seconds);
        }
    }
    tried.seconds.sort_unstable();
    tried
}

/// One rollout; after how many seconds it was taken back, if it was.
fn roll_out(scenario: &Scenario, canary: &Canary, draws: &mut Draws) -> Option<u64> {
    let mut comparison = Comparison::new(canary.steps.len());
    let mut traffic = Traffic { scenario, now: 0, phase: draws.uniform(), trouble: 0 };
    for (at, &percent) in canary.steps.iter().enumerate().take_while(|(_, percent)| **percent < 100) {
        if at > 0 {
            comparison.begin_step();
        }
        for elapsed in 1.. {
            comparison.add(&traffic.second(f64::from(percent) / 100.0, draws));
            let evidence = comparison.evidence(&canary.analysis);
            match course(&evidence, Millis::from_secs(elapsed), canary.interval) {
                Move::Wait(_) => {}
                Move::GoOn => break,
                Move::GoBack => return Some(traffic.now),
            }
        }
    }
    None
}

/// The requests of an app as they come.
struct Traffic<'a> {
    scenario: &'a Scenario,
    now: u64,
    /// Where in its ups and downs it begins.
    phase: f64,
    /// So many seconds more both are in trouble.
    trouble: u64,
}

/// How one release does within one second.
struct Manner {
    errors: f64,
    slower: f64,
}

impl Traffic<'_> {
    fn second(&mut self, share: f64, draws: &mut Draws) -> Second {
        let Scenario { rate, errors, more_errors, slower, bursts, drift, .. } = *self.scenario;
        let turn = (self.now as f64 / 600.0 + self.phase) * std::f64::consts::TAU;
        let up = if drift { 2.0 + turn.sin() } else { 1.0 };
        self.trouble = self.trouble.saturating_sub(1);
        if bursts && self.trouble == 0 && draws.uniform() < 1.0 / 40.0 {
            self.trouble = 1 + draws.below(5);
        }
        let (failing, slowed) = if self.trouble > 0 { (0.3, 3.0) } else { (0.0, 1.0) };
        let mut pause = || if bursts && draws.uniform() < 1.0 / 60.0 { 4.0 } else { 1.0 };
        let cold = if self.now < COLD.0 { COLD.1 } else { 1.0 };
        let old = Manner { errors: errors * up + failing, slower: up * slowed * pause() };
        let new = Manner {
            errors: errors * up + failing + more_errors,
            slower: up * slowed * pause() * slower * cold,
        };
        let mut second = Second::default();
        for _ in 0..draws.poisson(rate * up) {
            if draws.uniform() < share {
                second.new.take(&new, draws);
            } else {
                second.old.take(&old, draws);
            }
        }
        self.now += 1;
        second
    }
}

/// Takes a request.
trait Take {
    fn take(&mut self, manner: &Manner, draws: &mut Draws);
}

impl Take for Slice {
    fn take(&mut self, manner: &Manner, draws: &mut Draws) {
        self.requests += 1;
        self.errors += u64::from(draws.uniform() < manner.errors);
        let micros = MEDIAN * manner.slower * (SPREAD * draws.normal()).exp();
        Latencies::add(&mut self.latencies, whole(micros));
    }
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): a hundred million draws in a run, which the clock's are too dear for.
struct Draws(u64);

impl Draws {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// At least nought and below one.
    fn uniform(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// By Box and Muller.
    fn normal(&mut self) -> f64 {
        let (radius, turn) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (turn * std::f64::consts::TAU).cos()
    }

    /// By Knuth for few; as many as a normal draw says for many.
    fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 50.0 {
            return whole(mean + mean.sqrt() * self.normal());
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            count += 1;
        }
        count
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion of this kind ends at the bounds of the number"
)]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred rollouts of each kind. The bounds are far from what is measured (docs/benchmarks.md), so that a seed does not break them.
    #[test]
    fn few_good_rollouts_are_taken_back_and_few_bad_ones_go_through() {
        let (mut wrong, mut through, mut missed, mut back) = (0, 0, 0, 0);
        for scenario in SCENARIOS.iter().filter(|it| it.rate < 100.0) {
            let tried = try_out(scenario, 60, 7);
            match scenario.expected {
                Expected::Through => (wrong, through) = (wrong + tried.back, through + tried.rollouts),
                Expected::Back => {
                    (missed, back) = (missed + tried.rollouts - tried.back, back + tried.rollouts);
                }
                Expected::Either => {}
            }
        }
        assert!(wrong * 100 <= through * 2, "{wrong} of {through} good ones were taken back");
        assert!(missed * 100 <= back * 10, "{missed} of {back} bad ones went through");
    }

    #[test]
    fn a_seed_gives_the_same_again() {
        let scenario = SCENARIOS.iter().find(|it| it.name == "errors_1").unwrap();
        assert_eq!(try_out(scenario, 5, 3).seconds, try_out(scenario, 5, 3).seconds);
    }
}
