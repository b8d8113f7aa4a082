//! What a comparison amounts to, in numbers and in sentences, and what to do about it.

use berth_spec::Millis;
use serde::{Deserialize, Serialize};

/// A step that looks bad and is not decided may take so many intervals in all.
pub const HELD_FOR: u64 = 4;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The new release does worse, beyond what chance explains, by an amount that matters.
    Worse,
    /// It looks worse, and chance may be all there is to it.
    Unclear,
    /// Too few requests came to say anything.
    TooFew,
    /// Nothing speaks against it.
    AsGood,
}

/// The requests of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Side {
    /// All that were compared.
    pub requests: u64,
    /// Those answered with a status of 500 or more, or not at all.
    pub errors: u64,
}

/// How the releases differ in one respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Of the new release: errors in millionths of the requests, or microseconds. Each second counts for both releases alike.
    pub new: u64,
    /// Of the old one.
    pub old: u64,
    /// What a bet on the new one's being worse has made of each unit: chance alone makes `x` once in `x` rollouts at most.
    pub odds: u64,
    /// Whether it is large enough to matter.
    pub matters: bool,
}

/// What a comparison amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// In a word.
    pub verdict: Verdict,
    /// In how many seconds the new release was asked anything.
    pub seconds: u64,
    /// The new release.
    pub new: Side,
    /// The old one.
    pub old: Side,
    /// Their error rates, if those are looked at.
    pub errors: Option<Difference>,
    /// Their 99th percentiles of latency, if those are looked at and there is enough to say.
    pub latency: Option<Difference>,
}

/// What to do with a release that is being rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Leave it as it is, and look again after this long at the latest.
    Wait(Millis),
    /// Give it its next share.
    GoOn,
    /// Take its share away.
    GoBack,
}

/// What to do after `elapsed` of a step that takes `interval`.
///
/// What is worse goes back at once. What looks worse is held until it is decided, for [`HELD_FOR`] intervals at most: the odds do not
/// allow to condemn it, and somebody waits. Where too few requests came, waiting would bring no more of them.
#[must_use]
pub fn course(evidence: &Evidence, elapsed: Millis, interval: Millis) -> Move {
    let until = match evidence.verdict {
        Verdict::Worse => return Move::GoBack,
        Verdict::Unclear => Millis(interval.0.saturating_mul(HELD_FOR)),
        Verdict::TooFew | Verdict::AsGood => interval,
    };
    // One that is held is looked at as each second arrives; the wait is for where none does.
    if elapsed >= until { Move::GoOn } else { Move::Wait(Millis(until.0 - elapsed.0)) }
}

impl Evidence {
    /// Nothing seen.
    #[must_use]
    pub fn none() -> Self {
        let (new, old) = (Side::default(), Side::default());
        Self { verdict: Verdict::TooFew, seconds: 0, new, old, errors: None, latency: None }
    }

    /// What it says, a sentence each, with the releases called `new` and `old`.
    #[must_use]
    pub fn sentences(&self, new: &str, old: &str) -> Vec<String> {
        let mut lines = vec![self.summary(new, old)];
        if self.new.requests == 0 {
            return lines;
        }
        lines.push(format!(
            "in the same {} s {new} answered {} of {} requests with an error, {old} {} of {}",
            self.seconds, self.new.errors, self.new.requests, self.old.errors, self.old.requests
        ));
        if let Some(errors) = &self.errors {
            let (of_new, of_old) = (percent(errors.new), percent(errors.old));
            lines.push(format!("error rate: {of_new} for {new}, {of_old} for {old}; {}", chance(errors)));
        }
        if let Some(latency) = &self.latency {
            let (of_new, of_old) = (millis(latency.new), millis(latency.old));
            lines.push(format!("p99 latency: {of_new} for {new}, {of_old} for {old}; {}", chance(latency)));
        }
        lines
    }

    /// The verdict as a sentence.
    #[must_use]
    pub fn summary(&self, new: &str, old: &str) -> String {
        let worse = |it: &Option<Difference>| it.is_some_and(|it| it.matters);
        let how = match (worse(&self.errors), worse(&self.latency)) {
            (true, true) => "it fails more often and is slower",
            (true, false) => "it fails more often",
            (false, true) => "it is slower",
            (false, false) => "it differs",
        };
        match self.verdict {
            Verdict::Worse => format!("{new} is worse than {old}: {how}"),
            Verdict::Unclear => format!("{new} looks worse than {old}, and it may be chance: {how}"),
            Verdict::TooFew => format!("too few requests to compare {new} with {old}"),
            Verdict::AsGood => format!("nothing speaks against {new} beside {old}"),
        }
    }
}

fn chance(difference: &Difference) -> String {
    if difference.new <= difference.old {
        return "no worse".to_owned();
    }
    match (difference.matters, difference.odds) {
        (_, 0..=1) => "chance explains it".to_owned(),
        (true, odds @ 2..) => format!("chance alone does this once in {} rollouts at most", many(odds)),
        (false, _) => "too little to matter".to_owned(),
    }
}

fn many(odds: u64) -> String {
    if odds >= 1_000_000 { "a million".to_owned() } else { odds.to_string() }
}

fn percent(millionths: u64) -> String {
    format!("{}.{:02} %", millionths / 10_000, millionths % 10_000 / 100)
}

fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(verdict: Verdict) -> Evidence {
        Evidence {
            verdict,
            seconds: 42,
            new: Side { requests: 314, errors: 31 },
            old: Side { requests: 5_934, errors: 6 },
            errors: Some(Difference { new: 98_700, old: 1_000, odds: 4_711, matters: true }),
            latency: Some(Difference { new: 9_216, old: 9_216, odds: 0, matters: false }),
        }
    }

    #[test]
    fn it_reads_as_sentences() {
        assert_eq!(
            evidence(Verdict::Worse).sentences("v2", "v1"),
            [
                "v2 is worse than v1: it fails more often",
                "in the same 42 s v2 answered 31 of 314 requests with an error, v1 6 of 5934",
                "error rate: 9.87 % for v2, 0.10 % for v1; chance alone does this once in 4711 rollouts at most",
                "p99 latency: 9.2 ms for v2, 9.2 ms for v1; no worse",
            ]
        );
        assert_eq!(Evidence::none().sentences("v2", "v1"), ["too few requests to compare v2 with v1"]);
    }

    #[test]
    fn what_is_worse_goes_back_at_once_and_what_looks_so_is_held() {
        let (interval, soon, after) = (Millis(1_000), Millis(1), Millis(1_000));
        assert_eq!(course(&evidence(Verdict::Worse), soon, interval), Move::GoBack);
        for verdict in [Verdict::TooFew, Verdict::AsGood] {
            assert_eq!(course(&evidence(verdict), soon, interval), Move::Wait(Millis(999)));
            assert_eq!(course(&evidence(verdict), after, interval), Move::GoOn);
        }
        let unclear = evidence(Verdict::Unclear);
        assert_eq!(course(&unclear, after, interval), Move::Wait(Millis(3_000)));
        assert_eq!(course(&unclear, Millis(4_000), interval), Move::GoOn);
    }

    #[test]
    fn it_is_kept_as_plain_data() {
        let evidence = evidence(Verdict::AsGood);
        let text = serde_json::to_string(&evidence).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
    }
}
