//! Whether a request fails while releases come and go, the platform becomes another program, and whatever it consists of is killed at random.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::bench::Context;
use crate::bench::measured::Measured;
use crate::program::Program;

/// Requests in a second.
const RATE: &str = "2000";
/// The test that does it and judges it; what is measured here is what it wrote down.
const TEST: &str = "soak_deploys_survive_random_kills";

/// Adds `failed_requests`: of what the strict client sent while `berth` was told to deploy, to roll back and to upgrade itself, and was killed,
/// what failed for no kill. A kill explains what was in flight where it struck, and nothing else.
pub(super) fn measure(context: &Context<'_>, berth: &Path, measured: &mut Measured) -> Result<()> {
    let record = context.workspace.target_dir()?.join("bench-edge-releases.json");
    let deploys = if context.quick { "20" } else { "1000" };
    let test = ["--release", "--quiet", "--package", "berth-acceptance", "--test", "soak", TEST];
    let judged = Program::cargo(context.workspace, "test")
        .args(test)
        .env("BERTH_BIN", berth)
        .env("BERTH_SOAK_DEPLOYS", deploys)
        .env("BERTH_SOAK_RATE", RATE)
        .env("BERTH_SOAK_RECORD", &record)
        .run();
    // A run that it judges bad is a figure like any other; one that came to no end wrote nothing down.
    let text = match (std::fs::read_to_string(&record), judged) {
        (Ok(text), _) => text,
        (Err(_), Err(error)) => return Err(error),
        (Err(error), Ok(())) => return Err(error).context("the test wrote nothing down"),
    };
    std::fs::remove_file(&record)?;
    let record: Value = serde_json::from_str(&text)?;
    let count = |key: &str| record[key].as_u64().with_context(|| format!("no count of {key}"));
    let sent = count("sent")?;
    let (unmatched, in_flight) = (count("unmatched")?, count("failed")?);
    measured.figure("failed_requests", f64::from(u32::try_from(unmatched)?), "requests", sent);
    measured.figure("failed_by_kills", f64::from(u32::try_from(in_flight - unmatched)?), "requests", sent);
    let right: Vec<String> = record["right"]
        .as_object()
        .context("nothing was right")?
        .iter()
        .map(|(kind, count)| format!("{count} of {kind}"))
        .collect();
    measured.notes.push(format!(
        "failed_requests: {} deploys, {} rollbacks and {} upgrades of the platform, in which {} of its processes were killed at random, under {:.0} requests/s \
         of HTTP/1.1 (half of them over connections of their own) and of HTTP/2, with event streams, WebSockets and slow uploads beside them: {} were right; \
         failed_by_kills, which are not in it, were in flight in what was killed, or came while nobody had the listeners: edge and the supervisor were killed in one moment {} times",
        count("deploys")?,
        count("rollbacks")?,
        count("upgrades")?,
        count("kills")?,
        record["rate"].as_f64().unwrap_or_default(),
        right.join(", "),
        count("lost")?,
    ));
    Ok(())
}
