//! Deploys go on under load while whatever the platform consists of is killed, at random moments: nothing that was said to be
//! done is lost, nobody notices but who was being answered by what died, and nothing is left.
//!
//! `BERTH_SOAK_DEPLOYS` says how many deploys and `BERTH_SOAK_RATE` how many requests in a second, `BERTH_SOAK_SEED` repeats the choice of
//! commands, victims and moments; `BERTH_SOAK_RECORD` names a file for what came of it, as JSON.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and what was reached is printed"
)]

mod record;
mod soak;

use berth_acceptance::{Options, Platform, User};
use berth_clock::{SystemClock, random_bytes};

use soak::Soak;

/// Requests in a second: what a debug build on two busy cores holds.
const RATE: u64 = 250;

/// A number from the environment, or `usual`.
fn number(name: &str, usual: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| usual(), |text| text.parse().expect("it is a number"))
}

fn survive(user: User, deploys: u64) {
    let seed = number("BERTH_SOAK_SEED", || u64::from(u32::from_le_bytes(random_bytes(&SystemClock::new()))));
    println!("BERTH_SOAK_SEED={seed}");
    let platform = Platform::start(Options { user, ..Options::default() });
    let rate = u32::try_from(number("BERTH_SOAK_RATE", || RATE)).expect("it can be sent");
    let mut soak = Soak::begin(platform, user, seed, rate);
    while soak.acknowledged() < deploys {
        soak.step();
    }
    soak.finish();
}

#[test]
fn soak_deploys_survive_random_kills() {
    survive(User::Own, number("BERTH_SOAK_DEPLOYS", || 30));
}

#[test]
fn soak_deploys_of_an_ordinary_user_survive_random_kills() {
    survive(User::Ordinary, number("BERTH_SOAK_DEPLOYS", || 30) / 3);
}
