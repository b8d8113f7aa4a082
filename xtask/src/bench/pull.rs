//! An image from its registry to the first answer of what runs of it, with nothing of it on the machine before, beside Docker.

mod docker;
mod registry;
mod sample;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::docker::Docker;
use self::registry::Registry;
use self::sample::Sample;
use super::measured::Measured;
use super::statistics::Samples;
use super::{Context, wake};
use crate::http::Connection;
use crate::platform::Platform;
use crate::program::Program;
use crate::provision::Tool;
use crate::stopwatch::Stopwatch;

/// What it takes beside the platform.
pub(super) const PEERS: &[Tool] = &[
    Tool { program: "busybox", package: "busybox-static", for_what: "is the app in the image" },
    Tool { program: "docker-registry", package: "docker-registry", for_what: "is pulled from" },
    Tool { program: "skopeo", package: "skopeo", for_what: "pushes the image" },
    Tool { program: "dockerd", package: "docker.io", for_what: "pulls beside Berth" },
];
/// Pulls of each, in turn. The first finds the registry's files on the disk and is not counted.
const ROUNDS: usize = 7;
const QUICK: usize = 3;
/// What does not answer for so long does not answer.
const HANG: Duration = Duration::from_secs(300);
const APP: &str = "pulled";

pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let berth = wake::program(context, &mut measured)?;
    pulls(context, &berth, &mut measured)?;
    Ok(measured)
}

/// Adds `pull_start_p50_ms`: an image of 200 MB is pulled, verified, unpacked, started and has answered.
pub(super) fn pulls(context: &Context<'_>, berth: &Path, measured: &mut Measured) -> Result<()> {
    let has = |name: &str| context.peers.iter().any(|tool| tool.program == name);
    if let Some(missing) = ["docker-registry", "skopeo"].into_iter().find(|name| !has(name)) {
        measured.notes.push(format!("pull_start: not measured, since {missing} is not installed"));
        return Ok(());
    }
    let scratch = context.workspace.target_dir()?.join("bench-pull");
    if scratch.try_exists()? {
        std::fs::remove_dir_all(&scratch)?;
    }
    std::fs::create_dir_all(&scratch)?;
    let sample = Sample::make(&scratch.join("sample"))?;
    let registry = Registry::start(&scratch.join("registry"))?;
    let image = registry.push(&sample)?;
    let rounds = if context.quick { QUICK } else { ROUNDS };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let counts = round > 0;
        // Each has a folder of its own every time, and nothing is removed before the end. For minutes after files were removed, ext4 looks
        // at each of theirs before it gives a new one its place (`recently_deleted` in fs/ext4/ialloc.c): seconds, for either.
        let (home, data) =
            (scratch.join(format!("platform-{round}")), scratch.join(format!("docker-{round}")));
        let docker = if has("dockerd") { Some(Docker::start(&data)?) } else { None };
        // Whoever comes second writes to a disk that is busy with what the first one left, so that they change places.
        for turn in [round % 2 == 0, round % 2 == 1] {
            settle()?;
            if turn {
                ours.extend(Some(by_berth(berth, &home, &image)?).filter(|_| counts));
            } else if let Some(docker) = &docker {
                theirs.extend(Some(docker.pull(&image)?).filter(|_| counts));
            }
        }
    }
    drop(registry);
    std::fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    record(&sample, ours, theirs, measured);
    Ok(())
}

fn record(sample: &Sample, ours: Vec<f64>, theirs: Vec<f64>, measured: &mut Measured) {
    let (ours, theirs): (Samples, Samples) = (ours.into_iter().collect(), theirs.into_iter().collect());
    measured.percentile("pull_start", 50, "ms", &ours);
    let figure = measured.figures.get_mut("pull_start_p50_ms");
    if let (Some(figure), Some(value)) = (figure, theirs.percentile(50)) {
        figure.peer("docker", value);
    }
    measured.notes.push(format!(
        "pull_start: an image of {}, with none of it on the machine, from the beginning of `berth deploy --image` to the first answer through edge, what the journal is told, the \
         probes and the sync of each layer to the disk with it; the peer is `docker pull`, which syncs nothing, and `docker run` in the machine's network; both pull from Debian's \
         registry at loopback, in turns, each with empty folders of its own",
        sample.in_words()
    ));
}

/// What the one before has left to be written is written.
fn settle() -> Result<()> {
    Program::new("sync").run()
}

/// A platform that is new each time, so that nothing is there of the image.
fn by_berth(berth: &Path, home: &Path, image: &str) -> Result<f64> {
    let platform = Platform::start(berth, home, Vec::new())?;
    let source = platform.dir().join("nothing");
    std::fs::create_dir_all(&source)?;
    let source = source.display().to_string();
    let stopwatch = Stopwatch::start();
    let verb = ["deploy", &source, "--app", APP, "--image", image];
    let mut deploying = platform.spawn(&verb)?;
    let host = format!("{APP}.localhost");
    // Edge has no such host until the app is there, and says so at once.
    while !answers(platform.edge(), &host) {
        let failed = deploying.try_wait()?.is_some_and(|status| !status.success());
        ensure!(!failed && stopwatch.elapsed() < HANG, "the image was not deployed");
        platform.rest(Duration::from_millis(2));
    }
    let took = stopwatch.seconds() * 1_000.0;
    platform.wait(deploying, &verb)?;
    platform.leave()?;
    Ok(took)
}

/// Whether the page of the image is served there.
fn answers(address: SocketAddr, host: &str) -> bool {
    let request = format!("GET /index.html HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = Connection::open(address).and_then(|mut connection| connection.exchange(&request));
    answer.is_ok_and(|answer| answer.status == 200 && answer.body == sample::PAGE)
}
