//! How fast garbage goes, beside `rm -rf` on trees of the same kind.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use super::measured::Measured;
use crate::apps::lay_over;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// The name of the peer in the record.
const PEER: &str = "rm -rf";

/// The figures; all keys begin with `garbage_`.
pub(super) fn figures(context: &Context<'_>, measured: &mut Measured) -> Result<()> {
    let build = Program::cargo(context.workspace, "build").args(["--quiet", "--release"]);
    build.args(["--package", "berth-build", "--example", "garbage"]).run()?;
    let apps: u64 = if context.quick { 10 } else { 100 };
    let target = context.workspace.target_dir()?;
    let dir = target.join("bench-garbage");
    if dir.try_exists()? {
        std::fs::remove_dir_all(&dir)?;
    }
    let garbage = Program::new(target.join("release/examples/garbage"));
    let said = garbage.arg(&dir).arg(apps.to_string()).output()?;
    let said: Value = serde_json::from_str(&said).context("what the example printed")?;
    let number =
        |key: &str| said.get(key).and_then(Value::as_f64).with_context(|| format!("no {key}: {said}"));
    let (files, bytes) = (number("files_each")?, number("bytes_each")?);
    let peer = bare(&dir, apps)?;
    for (stem, what) in [("releases", "releases"), ("caches", "caches")] {
        let (count, seconds) = (number(stem)?, number(&format!("{stem}_s"))?);
        ensure!(seconds > 0.0, "no time passed: {said}");
        let n = said.get(stem).and_then(Value::as_u64).unwrap_or_default();
        measured
            .figure(&format!("garbage_{what}_per_s"), count / seconds, &format!("{what}/s"), n)
            .peer(PEER, peer);
        let mebibytes = count * bytes / seconds / f64::from(1 << 20);
        measured.figure(&format!("garbage_{what}_mib_per_s"), mebibytes, "MiB/s", n);
    }
    std::fs::remove_dir_all(&dir)?;
    measured.notes.push(format!(
        "garbage: a release and a cache have {files} files of {} bytes each; {PEER} removes as many folders of such files, one after the other",
        bytes / files
    ));
    Ok(())
}

/// Folders in a second that `rm -rf` removes.
fn bare(dir: &Path, folders: u64) -> Result<f64> {
    let at = dir.join("bare");
    for folder in 0..folders {
        lay_over(&dir.join("source"), &at.join(folder.to_string()))?;
    }
    // What is on no disk yet goes for nothing; garbage lay there for long.
    Program::new("sync").arg("--file-system").arg(&at).run()?;
    let stopwatch = Stopwatch::start();
    for folder in 0..folders {
        Program::new("rm").arg("-rf").arg(at.join(folder.to_string())).run()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    let folders = folders as f64;
    Ok(folders / stopwatch.seconds())
}
