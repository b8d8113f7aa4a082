//! The programs that run in the guest: compiled as for any test, without what only a debugger reads, in a folder of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::inside;
use super::plan::Suite;
use crate::program::Program;
use crate::workspace::Workspace;

/// What cargo says of something that it has made, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    profile: Profile,
}

#[derive(Debug, Default, Deserialize)]
struct Target {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Profile {
    #[serde(default)]
    test: bool,
}

/// Puts what the suites need below `place`, and gives the folder.
pub(super) fn stage(workspace: &Workspace, place: &Path, suites: &[&Suite]) -> Result<PathBuf> {
    // All targets, as whoever runs all tests builds them: anything else has other features and compiles half the world again.
    let build = Program::cargo(workspace, "build").args(["--quiet", "--workspace", "--all-targets"]);
    let said = build.arg("--message-format=json-render-diagnostics").output()?;
    let artifacts =
        said.lines().map(|line| serde_json::from_str(line).context("cargo says something unexpected"));
    let artifacts: Vec<Artifact> = artifacts.collect::<Result<_>>()?;
    let stage = place.join("stage");
    let _gone = std::fs::remove_dir_all(&stage);
    std::fs::create_dir_all(&stage)?;
    let programs: BTreeSet<_> = suites.iter().map(|suite| (suite.folder, suite.target, true)).collect();
    for (folder, target, is_test) in
        programs.into_iter().chain([("berth", "berth", false), (inside::PROGRAM, inside::PROGRAM, false)])
    {
        let made = artifacts.iter().find(|artifact| artifact.is(folder, target, is_test));
        let made = made.and_then(|artifact| artifact.executable.as_deref());
        let made = made.with_context(|| format!("cargo made no {target} of {folder}"))?;
        let name = if is_test { inside::test_program(folder, target) } else { target.to_owned() };
        Program::new("strip").arg("--strip-debug").arg("-o").arg(stage.join(name)).arg(made).run()?;
    }
    app(workspace, &stage)?;
    Ok(stage)
}

/// The app that the black-box tests deploy, which they would have cargo build otherwise.
fn app(workspace: &Workspace, stage: &Path) -> Result<()> {
    let target = workspace.root().join("target/examples-of-tests");
    let build =
        Program::cargo(workspace, "build").args(["--quiet", "--release", "--target-dir"]).arg(&target);
    build.dir(&workspace.root().join("crates/acceptance/apps/actor")).run()?;
    let built = target.join("release/actor");
    std::fs::copy(&built, stage.join("actor")).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(())
}

impl Artifact {
    fn is(&self, folder: &str, target: &str, is_test: bool) -> bool {
        self.reason == "compiler-artifact"
            && self.executable.is_some()
            && self.profile.test == is_test
            && self.target.name == target
            && self.manifest_path.parent().is_some_and(|path| path.ends_with(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_told_from_the_program_of_the_same_name() {
        let line = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/crates/berth/Cargo.toml","target":{{"name":"berth","kind":["bin"]}},
                "profile":{{"test":{test},"opt_level":"0"}},"executable":"/t/berth","fresh":true}}"#
            )
        };
        let read = |test| serde_json::from_str::<Artifact>(&line(test)).unwrap();
        assert!(read(true).is("berth", "berth", true) && !read(true).is("berth", "berth", false));
        assert!(read(false).is("berth", "berth", false) && !read(false).is("server", "berth", false));
        let other: Artifact = serde_json::from_str(r#"{"reason":"build-finished","success":true}"#).unwrap();
        assert!(!other.is("berth", "berth", false));
    }
}
