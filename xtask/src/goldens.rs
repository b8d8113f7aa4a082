//! `cargo xtask goldens`: what we write outside - API documents, samples of events, help texts - is recorded in `contracts/`.
//!
//! A golden test has `golden` in its name. It compares, and fails on a difference; with `BERTH_UPDATE_GOLDENS=1` it writes.

use anyhow::{Result, bail};

use crate::args::Args;
use crate::program::Program;
use crate::runner::{Selection, run_tests};
use crate::workspace::Workspace;

pub(crate) const FOLDER: &str = "contracts";

pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    let update = args.flag("--update");
    args.finish()?;
    let selection = Selection { name: Some("golden"), ..Selection::default() };
    let env: &[(&str, &str)] = if update { &[("BERTH_UPDATE_GOLDENS", "1")] } else { &[] };
    if !run_tests(workspace, &selection, env)?.passed {
        bail!("the goldens differ: look at each difference, then `cargo xtask goldens --update`");
    }
    if update {
        return Program::git(workspace).args(["status", "--short", FOLDER]).run();
    }
    check_unchanged(workspace)
}

/// Fails when the folder differs from what is committed, new files included.
pub(crate) fn check_unchanged(workspace: &Workspace) -> Result<()> {
    Program::git(workspace).args(["diff", "--exit-code", FOLDER]).run()?;
    let status = Program::git(workspace).args(["status", "--porcelain", FOLDER]).output()?;
    if !status.is_empty() {
        bail!("not committed:\n{status}");
    }
    println!("goldens: {FOLDER}/ is what the code writes");
    Ok(())
}
