//! How fast garbage goes: releases that nothing needs any more and caches of builds that nobody used, collected by the real builder.
//!
//! `garbage DIRECTORY APPS` makes for each app some releases and a cache of many small files, as `node_modules` has them, collects all but
//! the last release of each, and prints what went and how long it took as JSON.

#![expect(clippy::print_stdout, reason = "what was measured is printed")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_build::{
    BuildRequest, Builder, Config, Engines, Keeping, LogLine, Platform, Sink, ToolchainPlaces,
};
use berth_clock::{Clock, SystemClock};
use berth_source::{ChunkStore, TreeId, walk};
use berth_spec::manifest::Builder as Kind;
use berth_spec::{AppId, Command, Manifest, Millis};
use tokio_util::sync::CancellationToken;

/// Releases of an app, of which one is kept.
const RELEASES: usize = 5;
/// Files of a release, and of a cache.
const FILES: usize = 400;
/// Bytes of a file: the median of a `node_modules` is about that.
const BYTES: usize = 2_000;

struct Nobody;

impl Sink for Nobody {
    fn line(&self, _line: LogLine) {}
}

/// Writes the files of a release or a cache, twenty to a folder.
fn write_files(dir: &Path, seed: usize) -> std::io::Result<()> {
    for file in 0..FILES {
        let folder = dir.join(format!("package-{}", file / 20));
        fs::create_dir_all(&folder)?;
        let line = format!("release {seed} file {file}\n");
        let repeated = line.repeat(BYTES / line.len() + 1);
        fs::write(folder.join(format!("file-{file}.js")), &repeated.as_bytes()[..BYTES])?;
    }
    Ok(())
}

fn builder(dir: &Path, clock: &Arc<dyn Clock>) -> Builder {
    let config = Config {
        chunks: dir.join("chunks"),
        artifacts: dir.join("artifacts"),
        builds: dir.join("builds"),
        passage_gid: None,
        sealed_uid: None,
        parallel: 1,
        timeout: Millis::from_secs(60),
        toolchains: ToolchainPlaces::from_env(),
        platform: Platform::current(),
        cgroups: None,
        enclosure: None,
        memory_max: None,
        env: BTreeMap::new(),
        processes_max: 1_024,
        weight_max: u64::MAX,
        reserve: 0,
        low_water: 0,
        // Whatever was not used within the last millisecond goes.
        keeping: Keeping { per_app: u64::MAX, in_all: u64::MAX, unused: Millis(1) },
        engines: Engines::default(),
    };
    Builder::new(config, Arc::clone(clock))
}

fn stored(dir: &Path, app: &AppId, seed: usize) -> Result<TreeId, Box<dyn Error>> {
    let source = dir.join("source");
    write_files(&source, seed)?;
    fs::write(source.join("run"), "#!/bin/sh\n")?;
    let packed = walk::pack(&source)?;
    let store = ChunkStore::open(&dir.join("chunks"), &app.tenant)?;
    for chunk in packed.tree().chunks() {
        store.put(&chunk, &packed.read(&chunk)?)?;
    }
    Ok(store.put_tree(packed.tree())?)
}

fn request(app: &AppId, tree: TreeId) -> Result<BuildRequest, Box<dyn Error>> {
    let mut manifest: Manifest = Manifest::default();
    manifest.build.builder = Some(Kind::Copy);
    manifest.processes = BTreeMap::from([("web".parse()?, Command::parse("./run")?)]);
    Ok(BuildRequest {
        app: app.clone(),
        tree,
        manifest,
        user: None,
        app_gid: None,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        sink: Arc::new(Nobody),
        cancel: CancellationToken::new(),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let dir = PathBuf::from(words.next().ok_or("garbage DIRECTORY APPS")?);
    let apps: usize = words.next().ok_or("garbage DIRECTORY APPS")?.parse()?;
    fs::create_dir_all(&dir)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let builder = builder(&dir, &clock);
    let mut trees = Vec::new();
    let first: AppId = "default/default/app-0".parse()?;
    for seed in 0..RELEASES {
        trees.push(stored(&dir, &first, seed)?);
    }
    let mut unneeded = Vec::new();
    for app in 0..apps {
        let app: AppId = format!("default/default/app-{app}").parse()?;
        for (number, tree) in trees.iter().enumerate() {
            let built = builder.build(request(&app, *tree)?).await?;
            if number + 1 < RELEASES {
                unneeded.push((app.clone(), built.artifact));
            }
        }
        write_files(&dir.join(format!("builds/.cache/{app}/npm")), 0)?;
    }
    // What is on no disk yet goes for nothing; garbage lay there for long.
    rustix::fs::syncfs(fs::File::open(&dir)?)?;
    let began = clock.monotonic();
    for (app, artifact) in &unneeded {
        builder.remove(app, artifact).await?;
    }
    let releases = clock.monotonic().saturating_sub(began);
    // The time of use has whole seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = clock.monotonic();
    let collected = builder.collect(0).await?;
    let caches = clock.monotonic().saturating_sub(began);
    if collected.things != apps {
        return Err(format!("{apps} caches should have gone: {collected:?}").into());
    }
    println!(
        "{{\"releases\":{},\"releases_s\":{},\"caches\":{apps},\"caches_s\":{},\"files_each\":{FILES},\"bytes_each\":{}}}",
        unneeded.len(),
        releases.as_secs_f64(),
        caches.as_secs_f64(),
        FILES * BYTES
    );
    Ok(())
}
