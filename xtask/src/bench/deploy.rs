//! The main job, measured on the release build: deploys, rollbacks, what an idle platform costs, what the journal does, and whether a request
//! fails while all that happens.

pub(super) mod example;
mod http;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::example::APP;
use self::http::Client;
use super::Context;
use super::measured::Measured;
use super::process_usage;
use super::statistics::Samples;
use crate::platform::Platform;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// Requests in a second while deploys are counted, and over how many connections.
const RATE: &str = "2000";
const CONNECTIONS: &str = "64";
/// How many clients change configuration at once, each of an app of its own.
const CLIENTS: u64 = 64;

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    for args in [
        &["--package", "berth"][..],
        &["--package", "berth-acceptance", "--example", "load"],
        &["--package", "berth-server", "--example", "replay"],
    ] {
        Program::cargo(context.workspace, "build").args(["--quiet", "--release"]).args(args).run()?;
    }
    let target = context.workspace.target_dir()?;
    let platform = Platform::start(&target.join("release/berth"), &target.join("bench-deploy"), Vec::new())?;
    idle(&platform, context, "idle_pss_0_apps_mb", None, &mut measured)?;
    deploys(&platform, context, &mut measured)?;
    idle(&platform, context, "idle_pss_mb", Some("idle_cpu_pct"), &mut measured)?;
    shim(&platform, &mut measured)?;
    failed_requests(&platform, context, &mut measured)?;
    commands(&platform, context, &mut measured)?;
    many_apps(&platform, context, &mut measured)?;
    platform.down()?;
    journal(context, &mut measured)?;
    Ok(measured)
}

/// Deploys and rollbacks, each until a client sees the new instance through edge.
fn deploys(platform: &Platform, context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let source = example::copy(platform, context.workspace)?;
    platform.berth(&["deploy", &source])?;
    let mut client = Client::connect(platform.edge(), APP)?;
    let (unchanged, changed, rollbacks) = if context.quick { (20, 5, 20) } else { (100, 20, 100) };
    let mut times = Vec::new();
    for _ in 0..unchanged {
        times.push(until_new(platform, &mut client, &["deploy", &source])?);
    }
    measured.percentile("deploy_unchanged", 50, "ms", &times.into_iter().collect::<Samples>());
    let mut times = Vec::new();
    for round in 0..changed {
        example::change(&source, round)?;
        times.push(until_new(platform, &mut client, &["deploy", &source])?);
    }
    measured.percentile("deploy_changed", 50, "ms", &times.into_iter().collect::<Samples>());
    let mut times = Vec::new();
    for _ in 0..rollbacks {
        times.push(until_new(platform, &mut client, &["rollback", "--app", APP])?);
    }
    measured.percentile("rollback", 99, "ms", &times.into_iter().collect::<Samples>());
    measured.notes.push(
        "a deploy's time is from the start of the command to the first answer through edge with a new INSTANCE_ID; a rollback's, \
         likewise, from the other release's warm instance"
            .to_owned(),
    );
    Ok(())
}

/// Runs a verb and gives the milliseconds until another instance answers than before; the verb must end well too.
fn until_new(platform: &Platform, client: &mut Client, verb: &[&str]) -> Result<f64> {
    let before = client.instance()?;
    let stopwatch = Stopwatch::start();
    let running = platform.spawn(verb)?;
    let took = loop {
        let now = client.instance()?;
        if now != before {
            break stopwatch.elapsed();
        }
        ensure!(stopwatch.elapsed() < Duration::from_secs(120), "{verb:?} did not show within two minutes");
    };
    platform.wait(running, verb)?;
    Ok(took.as_secs_f64() * 1_000.0)
}

/// What the platform itself takes when nothing happens: a minute after the last thing that did.
fn idle(
    platform: &Platform,
    context: &Context<'_>,
    memory_key: &str,
    cpu_key: Option<&str>,
    measured: &mut Measured,
) -> Result<()> {
    let (settle, watch) = if context.quick { (10, 10) } else { (60, 60) };
    platform.rest(Duration::from_secs(settle));
    let pids = platform.own_pids()?;
    let memory = process_usage::memory(&pids)?;
    measured.figure(memory_key, kib_to_mib(memory.pss), "MiB", 1);
    if let Some(key) = cpu_key {
        let before = process_usage::cpu_seconds(&pids)?;
        platform.rest(Duration::from_secs(watch));
        let used = process_usage::cpu_seconds(&pids)? - before;
        let watched = f64::from(u32::try_from(watch).unwrap_or(1));
        measured.figure(key, used * 100.0 / watched, "% of a core", 1);
        measured.notes.push(format!(
            "{memory_key} was read {settle} s after the last deploy, {key} over the {watch} s after that"
        ));
    }
    Ok(())
}

fn kib_to_mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

fn shim(platform: &Platform, measured: &mut Measured) -> Result<()> {
    let shims = example::shims(platform)?;
    let memory = process_usage::memory(&shims)?;
    let count = u64::try_from(shims.len()).unwrap_or(1).max(1);
    let each = f64::from(u32::try_from(memory.private / count).unwrap_or(u32::MAX));
    measured.figure("shim_private_kb", each, "KiB", count);
    Ok(())
}

/// Thirty deploys while the strict client sends.
fn failed_requests(platform: &Platform, context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let source = example::copy(platform, context.workspace)?;
    let load = context.workspace.target_dir()?.join("release/examples/load");
    let load = platform.spawn_load(&load, &[APP, RATE, CONNECTIONS])?;
    for round in 0..30 {
        if round % 3 == 0 {
            example::change(&source, 1_000 + round)?;
        }
        platform.berth(&["deploy", &source])?;
    }
    let outcome = platform.stop_load(load)?;
    let number =
        |key: &str| outcome.get(key).and_then(Value::as_f64).with_context(|| format!("{key} of the load"));
    let sent = outcome.get("sent").and_then(Value::as_u64).unwrap_or(0);
    measured.figure("failed_requests", number("failed")?, "requests", sent);
    measured.figure("load_rate_per_s", number("rate")?, "requests/s", sent);
    Ok(())
}

/// `config set` over HTTP by many clients at once, each change durable before its answer.
fn commands(platform: &Platform, context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let each: u64 = if context.quick { 50 } else { 300 };
    let token = platform.token()?;
    let api = platform.api();
    let stopwatch = Stopwatch::start();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let token = token.as_str();
                scope.spawn(move || http::change_config(api, token, client, each))
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
    })?;
    let all = CLIENTS * each;
    let rate = f64::from(u32::try_from(all).unwrap_or(u32::MAX)) / stopwatch.seconds();
    measured.figure("commands_per_s", rate, "commands/s", all);
    measured.notes.push(format!("commands_per_s: home on {}", platform.file_system()?));
    Ok(())
}

/// What the platform takes with a hundred apps.
fn many_apps(platform: &Platform, context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let program = example::built(platform)?;
    for number in 0..100 {
        platform.berth(&["deploy", &program, "--app", &format!("idle-{number}")])?;
    }
    idle(platform, context, "idle_pss_100_apps_mb", Some("idle_cpu_100_apps_pct"), measured)
}

fn journal(context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let apps = if context.quick { "500" } else { "10000" };
    let program = context.workspace.target_dir()?.join("release/examples/replay");
    let text = Program::new(program).arg(apps).output()?;
    let outcome: Value =
        serde_json::from_str(text.trim()).context("what the journal's measurement printed")?;
    let number = |key: &str| outcome.get(key).and_then(Value::as_f64).with_context(|| key.to_owned());
    let events = outcome.get("events").and_then(Value::as_u64).unwrap_or(0);
    measured.figure("replay_events_per_s", number("per_second")?, "events/s", events);
    measured.figure("start_s", number("start_s")?, "s", events);
    measured.figure("start_with_snapshot_s", number("start_with_snapshot_s")?, "s", events);
    measured
        .notes
        .push(format!("the replay decodes and folds the events of {apps} apps of 20 releases each"));
    Ok(())
}
