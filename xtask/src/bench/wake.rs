//! How long a request waits for an app that sleeps: from frozen, from stopped, and many at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::measured::Measured;
use super::statistics::Samples;
use crate::http;
use crate::platform::Platform;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// Apps of each depth. All of them fall asleep together, so that a round takes as long as one sleep.
const APPS: usize = 10;
/// How long they may take to fall asleep.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let berth = program(context, &mut measured)?;
    wakes(context, &berth, &mut measured)?;
    Ok(measured)
}

/// The program that is measured: a release build, unless `BERTH_BIN` names another.
pub(super) fn program(context: &Context<'_>, measured: &mut Measured) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("BERTH_BIN") {
        let note =
            "the platform that is measured is the program that BERTH_BIN names, which is no release build";
        measured.notes.push(note.to_owned());
        return Ok(given.into());
    }
    Program::cargo(context.workspace, "build").args(["--quiet", "--release", "--package", "berth"]).run()?;
    Ok(context.workspace.target_dir()?.join("release/berth"))
}

/// Adds the figures of wakes.
pub(super) fn wakes(context: &Context<'_>, berth: &Path, measured: &mut Measured) -> Result<()> {
    let dir = context.workspace.target_dir()?.join("bench-wake");
    let platform = Platform::start(berth, &dir, Vec::new())?;
    let (frozen, stopped) = (apps(&platform, "frozen", "4h")?, apps(&platform, "stopped", "0s")?);
    let rounds = if context.quick { 10 } else { 30 };
    let (mut from_frozen, mut from_stopped) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        until_asleep(&platform, &frozen, "frozen")?;
        for app in &frozen {
            from_frozen.push(wake(&platform, app)?);
        }
        until_asleep(&platform, &stopped, "stopped")?;
        for app in &stopped {
            from_stopped.push(wake(&platform, app)?);
        }
    }
    for (stem, times) in [("wake_frozen", from_frozen), ("wake_stopped", from_stopped)] {
        let samples: Samples = times.into_iter().collect();
        measured.percentile(stem, 50, "ms", &samples);
        measured.percentile(stem, 99, "ms", &samples);
    }
    for (stem, apps, depth) in
        [("wake_frozen_together", &frozen, "frozen"), ("wake_stopped_together", &stopped, "stopped")]
    {
        until_asleep(&platform, apps, depth)?;
        let samples: Samples = together(&platform, apps)?.into_iter().collect();
        measured.percentile(stem, 50, "ms", &samples);
    }
    platform.down()?;
    measured.notes.push(format!(
        "the apps are static sites, served by Berth, each in a sandbox where there is one; {APPS} of each depth are woken one after the other, and then all at once; \
         a time is from the connection to edge to the end of the answer"
    ));
    Ok(())
}

/// Deploys apps that sleep after a second, and gives their names.
fn apps(platform: &Platform, depth: &str, stop_after: &str) -> Result<Vec<String>> {
    let source = platform.dir().join(depth);
    std::fs::create_dir_all(&source)?;
    std::fs::write(source.join("index.html"), "here\n")?;
    let manifest = format!(
        "[deploy]\nwarm = \"0s\"\n[scale.web]\nmin = 0\nidle_after = \"1s\"\nstop_after = \"{stop_after}\"\n"
    );
    std::fs::write(source.join("berth.toml"), manifest)?;
    let source = source.display().to_string();
    let names: Vec<String> = (0..APPS).map(|number| format!("{depth}-{number}")).collect();
    for name in &names {
        platform.berth(&["deploy", &source, "--app", name])?;
    }
    Ok(names)
}

fn until_asleep(platform: &Platform, names: &[String], depth: &str) -> Result<()> {
    let stopwatch = Stopwatch::start();
    loop {
        let listed: Value = serde_json::from_str(&platform.berth(&["apps", "--json"])?)?;
        let apps = listed.get("apps").and_then(Value::as_array).context("no apps")?;
        let sleeps = |name: &String| {
            apps.iter().any(|app| {
                app.get("name").and_then(Value::as_str) == Some(name)
                    && app.pointer("/asleep/depth").and_then(Value::as_str) == Some(depth)
            })
        };
        if names.iter().all(sleeps) {
            // What was decided is done within moments: each instance has yet to stand still or to end.
            platform.rest(Duration::from_millis(500));
            return Ok(());
        }
        ensure!(stopwatch.elapsed() < PATIENCE, "not every app is asleep ({depth}): {listed}");
        platform.rest(Duration::from_millis(100));
    }
}

/// Asks for an app that sleeps, and gives the milliseconds until it has answered.
fn wake(platform: &Platform, app: &str) -> Result<f64> {
    let stopwatch = Stopwatch::start();
    let answer = http::get(platform.edge(), &format!("{app}.localhost"), "/")?;
    let took = stopwatch.seconds() * 1_000.0;
    ensure!(answer.status == 200, "{app} answered {}: {}", answer.status, answer.body);
    Ok(took)
}

/// Asks for all of them at once.
fn together(platform: &Platform, names: &[String]) -> Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = names.iter().map(|name| scope.spawn(|| wake(platform, name))).collect();
        asked.into_iter().map(|asked| asked.join().expect("nobody panics who asks")).collect()
    })
}
