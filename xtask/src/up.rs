//! `cargo xtask up`: from a clone to an app that answers, in one command.

use anyhow::Result;

use crate::args::Args;
use crate::program::Program;
use crate::workspace::Workspace;

const EXAMPLE: &str = "examples/simple-web-app";

/// Builds the release binary and becomes `berth up`, which deploys the example unless another `--deploy` is given.
pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    let deploy = args.option("--deploy")?.map_or_else(|| workspace.root().join(EXAMPLE), Into::into);
    println!("building berth (the first time takes some minutes)");
    Program::cargo(workspace, "build").args(["--release", "-p", "berth"]).run()?;
    let berth = workspace.target_dir()?.join("release/berth");
    Err(Program::new(berth).arg("up").arg("--deploy").arg(deploy).args(args.rest()).become_it())
}
