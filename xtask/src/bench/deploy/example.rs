//! The example app, as the bench deploys and changes it.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::platform::Platform;
use crate::program::Program;
use crate::workspace::Workspace;

pub(in crate::bench) const APP: &str = "simple-web-app";

/// A copy of its source, to be changed.
pub(in crate::bench) fn copy(platform: &Platform, workspace: &Workspace) -> Result<String> {
    let to = platform.dir().join("source");
    std::fs::create_dir_all(to.join("src"))?;
    let from = workspace.root().join("examples").join(APP);
    for file in ["Cargo.toml", "Cargo.lock", "berth.toml", "src/main.rs"] {
        std::fs::copy(from.join(file), to.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(to.display().to_string())
}

/// Makes the source another one, so that it is compiled anew.
pub(super) fn change(source: &str, round: u32) -> Result<()> {
    let path = Path::new(source).join("src/main.rs");
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    writeln!(file, "\n/// Changed in round {round}.\nconst _ROUND_{round}: u32 = {round};")?;
    Ok(())
}

/// A directory that holds the program alone: a prebuilt executable.
pub(super) fn built(platform: &Platform) -> Result<String> {
    let artifacts = platform.home().join("artifacts/default/default").join(APP);
    let program = std::fs::read_dir(&artifacts)?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(APP)))
        .find(|path| path.is_file())
        .context("no artifact of the example")?;
    let dir = platform.dir().join("program");
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(program, dir.join("server"))?;
    Program::new("chmod").arg("755").arg(dir.join("server")).run()?;
    Ok(dir.display().to_string())
}

/// The shims: parents of its processes.
pub(super) fn shims(platform: &Platform) -> Result<Vec<u32>> {
    let listed: Value = serde_json::from_str(&platform.berth(&["ps", "--app", APP, "--json"])?)?;
    let instances = listed.get("instances").and_then(Value::as_array).context("no instances")?;
    let apps: Vec<u64> = instances.iter().filter_map(|it| it.get("pid")?.as_u64()).collect();
    let mut shims = Vec::new();
    for pid in apps {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let parent = text.lines().find_map(|line| line.strip_prefix("PPid:"));
        shims.extend(parent.and_then(|parent| parent.trim().parse::<u32>().ok()));
    }
    if shims.is_empty() {
        bail!("no instance runs");
    }
    Ok(shims)
}
