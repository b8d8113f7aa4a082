//! Sample apps from source to an answer: cold and after a one-line change, each beside the tool's own commands. And how fast garbage goes.

use anyhow::Result;

use super::Context;
use super::measured::Measured;
use super::statistics::Samples;
use crate::apps::{self, Row, Run};

/// The name of the peer in the record.
const BARE: &str = "bare commands";

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let (berth, load) = apps::release(context.workspace, None)?;
    let run = Run {
        names: &[],
        of_ci: context.quick,
        berth: &berth,
        load: &load,
        peers: true,
        keep: false,
        note: true,
    };
    let outcome = apps::take(context.workspace, &run)?;
    let mut measured = Measured::default();
    for (name, row) in &outcome.rows {
        match &row.problem {
            None => sample(name, row, &mut measured),
            Some(problem) => {
                let first = problem.lines().next().unwrap_or_default();
                measured.notes.push(format!("{name} did not come all the way: {first}"));
            }
        }
    }
    let good: Vec<&Row> =
        outcome.rows.iter().map(|(_, row)| row).filter(|row| row.problem.is_none()).collect();
    let median = |of: fn(&Row) -> Option<f64>| good.iter().filter_map(|row| of(row)).collect::<Samples>();
    measured.percentile("cold", 50, "s", &median(|row| row.measured.cold_s));
    measured.percentile("warm", 50, "s", &median(|row| row.measured.warm_s));
    let sum = |of: fn(&Row) -> Option<u64>| good.iter().filter_map(|row| of(row)).sum::<u64>();
    let requests = sum(|row| row.measured.requests);
    measured.figure("failed_requests", number(sum(|row| row.measured.failed_requests)), "requests", requests);
    let count = |many: usize| u64::try_from(many).unwrap_or(u64::MAX);
    measured.figure("samples_served", number(count(good.len())), "samples", count(outcome.rows.len()));
    measured.absent.extend(outcome.skipped.iter().map(|(name, tool)| format!("{name} (needs {tool})")));
    super::garbage::figures(context, &mut measured)?;
    measured.notes.push(
        "cold: from `berth deploy` to the first right answer through edge, with empty caches; warm: the same after a one-line change, while \
         50 requests are sent each second. The peer is the tool's own commands in the same run, with empty caches and once more after the \
         change; who begins takes turns"
            .to_owned(),
    );
    Ok(measured)
}

/// The figures of one sample, as `cold_vite_react_s`.
fn sample(name: &str, row: &Row, measured: &mut Measured) {
    let name = name.replace('-', "_");
    let figures = &row.measured;
    for (stem, ours, bare) in
        [("cold", figures.cold_s, figures.bare_cold_s), ("warm", figures.warm_s, figures.bare_warm_s)]
    {
        if let Some(ours) = ours {
            let figure = measured.figure(&format!("{stem}_{name}_s"), ours, "s", 1);
            if let Some(bare) = bare {
                figure.peer(BARE, bare);
            }
        }
    }
    for (stem, bytes) in [("sent", figures.sent_bytes), ("added", figures.added_bytes)] {
        if let Some(bytes) = bytes {
            measured.figure(&format!("{stem}_{name}_bytes"), number(bytes), "bytes", 1);
        }
    }
}

fn number(value: u64) -> f64 {
    // Exact below 2^53: sizes of samples and counts are.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let number = value as f64;
    number
}
