//! How long the workspace takes to build and test: from nothing, again without a change, and after a touch at the bottom and at the top.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Context;
use super::measured::Measured;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// What is touched: the crate that all others use, and the one that uses all others.
const TOUCHED: &[(&str, &str)] = &[("spec", "crates/spec/src/lib.rs"), ("berth", "crates/berth/src/main.rs")];

/// Quick builds the binary alone; otherwise the tests are built and run too.
pub(super) fn run(context: &Context<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let folder = context.workspace.target_dir()?.join("bench-build");
    if folder.try_exists()? {
        std::fs::remove_dir_all(&folder)?;
    }
    // What is fetched is no part of the build.
    Program::cargo(context.workspace, "fetch").run()?;
    measured.figure("build_cold_s", time(context, &folder, &["build", "-p", "berth"])?, "s", 1);
    measured.figure("build_unchanged_s", time(context, &folder, &["build", "-p", "berth"])?, "s", 1);
    for (name, file) in TOUCHED {
        touch(&context.workspace.root().join(file))?;
        let seconds = time(context, &folder, &["build", "-p", "berth"])?;
        measured.figure(&format!("build_touched_{name}_s"), seconds, "s", 1);
    }
    if !context.quick {
        let tests = ["test", "--workspace", "--exclude", "berth-acceptance"];
        measured.figure("test_cold_s", time(context, &folder, &tests)?, "s", 1);
        measured.figure("test_warm_s", time(context, &folder, &tests)?, "s", 1);
        measured.notes.push(
            "the tests are those of every crate but acceptance; cold includes building them".to_owned(),
        );
    }
    measured
        .notes
        .push("the debug profile, into an empty target folder; the registry was fetched before".to_owned());
    std::fs::remove_dir_all(&folder)?;
    Ok(measured)
}

fn time(context: &Context<'_>, folder: &Path, words: &[&str]) -> Result<f64> {
    let (verb, args) = words.split_first().context("a verb comes first")?;
    let cargo =
        Program::cargo(context.workspace, verb).arg("--quiet").args(args).env("CARGO_TARGET_DIR", folder);
    let stopwatch = Stopwatch::start();
    cargo.run()?;
    Ok(stopwatch.seconds())
}

/// Cargo goes by the time of the last change.
fn touch(file: &Path) -> Result<()> {
    Program::new("touch").arg(file).run()
}
