//! What seconds of two releases amount to.

use super::*;
use proptest::prelude::*;

const BOTH: [Analysis; 2] = [Analysis::ErrorRate, Analysis::LatencyP99];

fn slice(requests: u64, errors: u64, micros: u64) -> Slice {
    let mut latencies = Latencies::default();
    (0..requests).for_each(|_| latencies.add(micros));
    Slice { requests, errors, latencies }
}

fn after(seconds: u64, second: impl Fn(u64) -> Second) -> Evidence {
    let mut comparison = Comparison::new(4);
    (0..seconds).for_each(|at| comparison.add(&second(at)));
    comparison.evidence(&BOTH.into())
}

#[test]
fn what_fails_is_condemned_and_what_does_not_is_not() {
    let second = |errors| Second { new: slice(5, errors, 9_000), old: slice(45, 0, 9_000) };
    let bad = after(20, |_| second(1));
    assert_eq!(bad.verdict, Verdict::Worse);
    assert_eq!(bad.errors.map(|it| (it.new, it.old)), Some((200_000, 0)));
    assert_eq!(after(60, |_| second(0)).verdict, Verdict::AsGood);
    assert_eq!(after(3, |_| second(0)).verdict, Verdict::TooFew);
    assert_eq!(after(5, |_| Second { new: slice(1, 1, 1), old: slice(9, 0, 1) }).verdict, Verdict::Unclear);
}

#[test]
fn what_is_slower_is_condemned_after_it_has_warmed_up() {
    let second = |micros| Second { new: slice(5, 0, micros), old: slice(45, 0, 20_000) };
    assert_eq!(after(60, |at| second(if at < 10 { 900_000 } else { 20_000 })).verdict, Verdict::AsGood);
    let slow = after(60, |_| second(40_000));
    assert_eq!(slow.verdict, Verdict::Worse);
    assert!(slow.latency.is_some_and(|it| it.matters && it.new > it.old));
    // A tenth more is slower beyond doubt, and does not matter.
    assert_eq!(after(60, |_| second(23_000)).verdict, Verdict::AsGood);
}

#[test]
fn only_what_is_asked_for_is_looked_at() {
    let mut comparison = Comparison::new(1);
    for _ in 0..60 {
        comparison.add(&Second { new: slice(5, 5, 90_000), old: slice(45, 0, 20_000) });
    }
    let evidence = comparison.evidence(&[].into());
    assert_eq!((evidence.verdict, evidence.errors, evidence.latency), (Verdict::AsGood, None, None));
    let evidence = comparison.evidence(&[Analysis::LatencyP99].into());
    assert_eq!((evidence.verdict, evidence.errors), (Verdict::Worse, None));
}

#[test]
fn what_goes_up_for_both_is_no_difference() {
    // The share of the new one grows while errors and latency do: together its requests look far worse.
    let evidence = after(120, |at| {
        if at < 60 {
            Second { new: slice(2, 0, 10_000), old: slice(98, 0, 10_000) }
        } else {
            Second { new: slice(50, 5, 80_000), old: slice(50, 5, 80_000) }
        }
    });
    assert_eq!(evidence.verdict, Verdict::AsGood, "{evidence:?}");
    assert!(evidence.new.errors * evidence.old.requests > 2 * evidence.old.errors * evidence.new.requests);
}

proptest! {
    /// Whatever edge says, the arithmetic holds: no panic, and errors are no more than requests.
    #[test]
    fn any_second_is_taken(seconds in proptest::collection::vec((any::<(u32, u32, u32, u32)>(), any::<(u64, u64)>()), 0..40)) {
        let mut comparison = Comparison::new(3);
        for ((new, new_errors, old, old_errors), (micros, others)) in seconds {
            let one = |requests: u32, errors: u32, micros| {
                let mut latencies = Latencies::default();
                latencies.add_to(crate::latency::bucket(micros), requests.into());
                Slice { requests: requests.into(), errors: errors.into(), latencies }
            };
            comparison.add(&Second { new: one(new, new_errors, micros), old: one(old, old_errors, others) });
            comparison.begin_step();
        }
        let evidence = comparison.evidence(&BOTH.into());
        prop_assert!(evidence.new.errors <= evidence.new.requests);
        prop_assert!(evidence.sentences("v2", "v1").len() <= 4);
    }
}
