//! A platform of ten thousand apps that are stopped: how soon it is up, how soon it lists them, what it takes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::measured::Measured;
use super::process_usage;
use super::statistics::Samples;
use crate::http::{Answer, Connection};
use crate::platform::Platform;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// As many as a page of a list has that a person looks at.
const PAGE: u64 = 100;

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    figures(context, &mut measured)?;
    Ok(measured)
}

/// The figures, for other benches too. All keys begin with `apps10k_`; quick measures a tenth of the apps, and says so.
pub(super) fn figures(context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    for args in [&["--package", "berth"][..], &["--package", "berth-server", "--example", "fill"]] {
        Program::cargo(context.workspace, "build").args(["--quiet", "--release"]).args(args).run()?;
    }
    let apps: u64 = if context.quick { 1_000 } else { 10_000 };
    let release = context.workspace.target_dir()?.join("release");
    let fill = release.join("examples/fill");
    let dir = context.workspace.target_dir()?.join("bench-apps10k");
    let mut platform = Platform::start(&release.join("berth"), &dir, Vec::new())?;
    let filled = |home: &Path| Program::new(&fill).arg(home).arg(apps.to_string()).run();
    measured.figure("apps10k_start_s", platform.start_again(filled)?, "s", apps);
    measured.figure("apps10k_start_with_snapshot_s", platform.start_again(|_| Ok(()))?, "s", apps);
    list(&platform, context, apps, measured)?;
    idle(&platform, context, measured)?;
    platform.down()?;
    measured.notes.push(format!(
        "{apps} apps of 20 releases and 50 events each, scaled to nothing; a start is from the command to the first answer of the API"
    ));
    Ok(())
}

/// Pages in turn over one connection, then all of them by the command line.
fn list(platform: &Platform, context: &Context<'_>, apps: u64, measured: &mut Measured) -> Result<()> {
    let token = platform.token()?;
    let mut connection = Connection::open(platform.api())?;
    let mut times = Vec::new();
    let rounds = if context.quick { 200 } else { 1_000 };
    let mut after = String::new();
    for _ in 0..rounds {
        let request = format!(
            "GET /api/v1/tenants/default/projects/default/apps?limit={PAGE}{after} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let stopwatch = Stopwatch::start();
        let Answer { status, body } = connection.exchange(&request)?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1_000.0);
        ensure!(status == 200, "the API answered {status}: {body}");
        let page: Value = serde_json::from_str(&body)?;
        after = page
            .get("next")
            .and_then(Value::as_str)
            .map_or_else(String::new, |next| format!("&after={next}"));
    }
    measured.percentile("apps10k_list", 99, "ms", &times.into_iter().collect::<Samples>());
    let mut times = Vec::new();
    for _ in 0..if context.quick { 5 } else { 100 } {
        let stopwatch = Stopwatch::start();
        let listed: Value = serde_json::from_str(&platform.berth(&["apps", "--json"])?)?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1_000.0);
        let count = listed.get("apps").and_then(Value::as_array).context("no apps in the list")?.len() as u64;
        ensure!(
            count == apps || listed.get("next").is_some_and(|next| !next.is_null()),
            "{count} apps were listed"
        );
    }
    measured.percentile("apps10k_cli_list", 99, "ms", &times.into_iter().collect::<Samples>());
    Ok(())
}

fn idle(platform: &Platform, context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let (settle, watch) = if context.quick { (5, 10) } else { (60, 60) };
    platform.rest(Duration::from_secs(settle));
    let pids = platform.own_pids()?;
    let memory = process_usage::memory(&pids)?;
    let mebibytes = f64::from(u32::try_from(memory.pss).unwrap_or(u32::MAX)) / 1024.0;
    measured.figure("apps10k_idle_pss_mb", mebibytes, "MiB", 1);
    let before = process_usage::cpu_seconds(&pids)?;
    platform.rest(Duration::from_secs(watch));
    let used = process_usage::cpu_seconds(&pids)? - before;
    let watched = f64::from(u32::try_from(watch).unwrap_or(1));
    measured.figure("apps10k_idle_cpu_pct", used * 100.0 / watched, "% of a core", 1);
    Ok(())
}
