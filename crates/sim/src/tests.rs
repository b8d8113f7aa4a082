//! Many worlds, the same world twice, and planted bugs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::{Planted, Setup, Tally, run};

const STEPS: u32 = 1_000;
/// What has to come to pass somewhere, or the worlds have become too tame to find anything.
const SEEN: [&str; 59] = [
    "app_created",
    "app_destroyed",
    "app_destroying",
    "app_slept Frozen",
    "app_slept Stopped",
    "app_woken Deployed",
    "app_woken Requested",
    "app_woken ScaledDown",
    "app_woken VolumeWork",
    "activation_began",
    "config_changed",
    "cron_set_back",
    "cron_skipped StillRunning",
    "cron_skipped TooLate",
    "domains_changed",
    "instance_assigned",
    "instance_exited",
    "instance_gone Lost",
    "instance_gone NotStarted",
    "instance_gone Stopped",
    "instance_started",
    "instance_stopping Asleep",
    "instance_stopping Destroyed",
    "instance_stopping ReleaseFailed",
    "instance_stopping Replaced",
    "instance_stopping Retired",
    "instance_stopping ScaledDown",
    "instances_adopted",
    "processes_handed_over",
    "project_created",
    "release_activated",
    "release_built",
    "release_command_finished",
    "release_failed app_destroying",
    "release_failed build_failed",
    "release_failed build_timed_out",
    "release_failed crashed_at_start",
    "release_failed edge_unresponsive",
    "release_failed listens_elsewhere",
    "release_failed never_listened",
    "release_failed release_command_failed",
    "release_failed start_failed",
    "release_submitted",
    "release_superseded",
    "routed",
    "run_assigned",
    "run_ended",
    "run_ended Destroyed",
    "run_ended NotStarted",
    "run_ended Replaced",
    "run_ended TimeOver",
    "run_ended Unattended",
    "scale_changed",
    "secrets_changed",
    "warm_ended Displaced",
    "warm_ended Expired",
    "warm_ended Gone",
    "warm_ended MemoryPressure",
    "warm_ended Used",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("the variable holds a number"))
}

fn setup(seed: u64) -> Setup {
    Setup { seed, steps: STEPS, faults: true, planted: None, whole_trace: false }
}

/// `BERTH_SIM_SEEDS` says how many, for a soak.
#[test]
fn worlds_hold_and_settle() {
    let seeds = number("BERTH_SIM_SEEDS").unwrap_or(500);
    let next = AtomicU64::new(1);
    let (send, outcomes) = mpsc::channel();
    let mut tally = Tally::default();
    let (mut events, mut activated, mut seen) = (0, 0, BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds || send.send(run(setup(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for outcome in outcomes {
            match outcome {
                Ok(outcome) => {
                    tally.merge(&outcome.tally);
                    events += outcome.events;
                    activated += outcome.activated;
                    seen.extend(outcome.seen);
                }
                Err(failure) => panic!("\n{failure}"),
            }
        }
    });
    println!("{seeds} worlds of {STEPS} steps: {events} events, {activated} releases activated");
    println!("{tally}");
    println!("{seen:#?}");
    assert!(tally.missing().is_empty(), "never happened: {:?}", tally.missing());
    let never: Vec<&&str> = SEEN.iter().filter(|it| !seen.contains(**it)).collect();
    assert!(never.is_empty(), "never came to pass: {never:?}");
}

/// Deploys, rollbacks, scaling and changes of configuration alone never cost a request.
#[test]
fn without_faults_every_request_is_taken() {
    for seed in 1..=100 {
        let outcome = run(Setup { faults: false, ..setup(seed) });
        outcome.unwrap_or_else(|failure| panic!("\n{failure}"));
    }
}

#[test]
fn a_seed_gives_the_same_world_again() {
    for seed in 1..=12 {
        let [first, second] =
            [(); 2].map(|()| run(setup(seed)).unwrap_or_else(|failure| panic!("\n{failure}")));
        assert_eq!(first.hash, second.hash, "seed {seed}");
    }
}

/// Shows the whole trace of `BERTH_SIM_SEED`, and what became of it.
#[test]
fn replay() {
    let Some(seed) = number("BERTH_SIM_SEED") else {
        return;
    };
    // `BERTH_SIM_FAULTS=0` for a world without faults.
    let faults = number("BERTH_SIM_FAULTS") != Some(0);
    match run(Setup { whole_trace: true, faults, ..setup(seed) }) {
        Ok(outcome) => {
            for line in outcome.trace {
                println!("{line}");
            }
        }
        Err(failure) => panic!("\n{failure}"),
    }
}

#[test]
fn planted_bugs_are_caught() {
    const SEEDS: u64 = 60;
    for &planted in Planted::ALL {
        let caught = (1..=SEEDS).find_map(|seed| run(Setup { planted: Some(planted), ..setup(seed) }).err());
        let Some(failure) = caught else {
            panic!("{planted:?} was not caught in {SEEDS} worlds");
        };
        println!("{planted:?} by seed {}: {}", failure.setup.seed, failure.what);
        assert_eq!(failure.invariant, Some(planted.caught_by()), "{planted:?}\n{failure}");
    }
}
