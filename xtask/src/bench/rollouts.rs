//! How often a rollout that is as good as the release before is taken back, and how often one that is worse gets through.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Context;
use super::measured::Measured;
use crate::program::Program;

/// What the simulation prints of one scenario.
#[derive(Debug, Deserialize)]
struct Tried {
    name: String,
    expected: String,
    rollouts: u64,
    back: u64,
    median_s: Option<u64>,
}

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    simulated(context, &mut measured)?;
    Ok(measured)
}

/// Adds `wrong_rollback_pct` and `missed_regression_pct`, and of each scenario how many of its rollouts were taken back and after how many seconds half of
/// those were.
pub(super) fn simulated(context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    // As the tests have built it already, and optimised for this: nothing of it is timed.
    let package = ["--workspace", "--example", "rollouts"];
    Program::cargo(context.workspace, "build").args(["--quiet"]).args(package).run()?;
    let rollouts = if context.quick { "200" } else { "1000" };
    let program = context.workspace.target_dir()?.join("debug/examples/rollouts");
    let text = Program::new(program).arg(rollouts).output()?;
    let all: Vec<Tried> =
        serde_json::from_str(text.trim()).context("what the simulation of rollouts printed")?;
    add(&all, measured);
    Ok(())
}

fn add(all: &[Tried], measured: &mut Measured) {
    let sum = |expected: &str| {
        let those = all.iter().filter(|it| it.expected == expected);
        those.fold((0, 0), |(back, rollouts), it| (back + it.back, rollouts + it.rollouts))
    };
    let (wrong, good) = sum("through");
    measured.figure("wrong_rollback_pct", percent(wrong, good), "%", good);
    let (found, bad) = sum("back");
    measured.figure("missed_regression_pct", percent(bad - found, bad), "%", bad);
    for it in all {
        measured.figure(&format!("{}_back_pct", it.name), percent(it.back, it.rollouts), "%", it.rollouts);
        if let Some(median) = it.median_s.filter(|_| it.back > 1) {
            measured.figure(&format!("{}_back_p50_s", it.name), median as f64, "s", it.back);
        }
    }
    measured.notes.push(
        "simulated: steps of 5, 25 and 50 % of a minute each, 50 requests/s of which 0.1 % fail, latencies around 40 ms, unless the key says otherwise; \
         `errors_2`: 2 % of the new release's requests fail beside those; `slower_1_5`: it takes 1.5 times as long; bursts: now and then both fail and are slow for seconds, and one stands still for one; \
         drift: traffic, errors and latency of both change threefold within ten minutes; little traffic: 1 request/s, much: 300"
            .to_owned(),
    );
    measured.notes.push(
        "missed are those that went through in `errors_*`, `slower_1_5*`, `slower_2*` and `all_fail_little_traffic`; `slower_1_1`, `errors_1_over_5` and `errors_5_little_traffic` count for nothing: \
         too small to matter, or too little traffic to tell"
            .to_owned(),
    );
}

fn percent(some: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { some as f64 * 100.0 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_and_what_was_missed_are_summed_up() {
        let of = |name: &str, expected: &str, back| Tried {
            name: name.to_owned(),
            expected: expected.to_owned(),
            rollouts: 100,
            back,
            median_s: Some(30),
        };
        let all = [
            of("same", "through", 1),
            of("same_b", "through", 0),
            of("errors", "back", 98),
            of("slow", "either", 7),
        ];
        let mut measured = Measured::default();
        add(&all, &mut measured);
        let value = |key: &str| measured.figures.get(key).map(|figure| figure.value);
        assert_eq!((value("wrong_rollback_pct"), value("missed_regression_pct")), (Some(0.5), Some(2.0)));
        assert_eq!((value("errors_back_p50_s"), value("same_back_p50_s")), (Some(30.0), None));
    }
}
