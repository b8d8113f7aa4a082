//! What it costs to reach an instance in a network of its own, beside one at the machine's loopback.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Context;
use super::measured::Measured;
use crate::program::Program;

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    latency(context, &mut measured)?;
    Ok(measured)
}

/// Adds `netns_latency_p50_us`, a request of 64 bytes and its answer on a connection that is open, and `netns_connect_p50_us`, the same with
/// the making of the connection. The peer is the same app at the machine's loopback, in turns with it.
pub(super) fn latency(context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let package = ["--package", "berth-runtime", "--example", "measure"];
    Program::cargo(context.workspace, "build").args(["--quiet", "--release"]).args(package).run()?;
    let text = Program::new(context.workspace.target_dir()?.join("release/examples/measure"))
        .arg("latency")
        .output()?;
    let outcome: Value =
        serde_json::from_str(text.trim()).context("what the measurement of networks printed")?;
    let number = |key: &str| outcome.get(key).and_then(Value::as_f64).with_context(|| key.to_owned());
    let count = |key: &str| outcome.get(key).and_then(Value::as_u64).unwrap_or(0);
    measured
        .figure("netns_latency_p50_us", number("own_us")?, "us", count("n"))
        .peer("host loopback", number("host_us")?);
    measured
        .figure("netns_connect_p50_us", number("own_connect_us")?, "us", count("connections"))
        .peer("host loopback", number("host_connect_us")?);
    Ok(())
}
