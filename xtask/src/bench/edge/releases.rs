//! Whether a request fails while releases come and go and the platform becomes another program.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::bench::Context;
use crate::bench::deploy::example;
use crate::bench::measured::Measured;
use crate::platform::Platform;
use crate::program::Program;

/// Requests in a second, and over how many connections, half of which are new ones for each request.
const RATE: &str = "2000";
const CONNECTIONS: &str = "64";

/// Adds `failed_requests`: of what the strict client sent while `berth` was told to deploy, to roll back and to upgrade itself.
pub(super) fn measure(context: &Context<'_>, berth: &Path, measured: &mut Measured) -> Result<()> {
    let package = ["--package", "berth-acceptance", "--example", "load"];
    Program::cargo(context.workspace, "build").args(["--quiet", "--release"]).args(package).run()?;
    let (deploys, rollbacks, upgrades) = if context.quick { (20, 5, 2) } else { (1_000, 100, 20) };
    let target = context.workspace.target_dir()?;
    let platform = Platform::start(berth, &target.join("bench-edge-releases"), Vec::new())?;
    let source = example::copy(&platform, context.workspace)?;
    platform.berth(&["deploy", &source])?;
    let load = target.join("release/examples/load");
    let load = platform.spawn_load(&load, &[example::APP, RATE, CONNECTIONS])?;
    let (mut rolled_back, mut upgraded) = (0, 0);
    for number in 1..=deploys {
        platform.berth(&["deploy", &source])?;
        // Spread evenly over the deploys.
        if number * rollbacks / deploys > rolled_back {
            rolled_back += 1;
            platform.berth(&["rollback", "--app", example::APP])?;
        }
        if number * upgrades / deploys > upgraded {
            upgraded += 1;
            platform.berth(&["upgrade", "--from", &berth.display().to_string()])?;
        }
    }
    let outcome = platform.stop_load(load)?;
    platform.down()?;
    let failed = outcome.get("failed").and_then(Value::as_f64).context("no count of failures")?;
    let sent = outcome.get("sent").and_then(Value::as_u64).unwrap_or(0);
    measured.figure("failed_requests", failed, "requests", sent);
    measured.notes.push(format!(
        "failed_requests: {deploys} deploys, {rollbacks} rollbacks and {upgrades} upgrades of the platform under {RATE} requests/s of HTTP/1 over {CONNECTIONS} connections, half of them a new one for each request; \
         HTTP/2, event streams, WebSockets, slow uploads and kills are not in it: tests have them (docs/failure-modes.md, `cargo xtask soak`)"
    ));
    Ok(())
}
