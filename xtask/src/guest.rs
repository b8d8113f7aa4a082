//! `cargo xtask guest`: tests on a machine that has control groups of version 2 alone, as hosts have them today.
//!
//! The machine that develops or tests Berth may have version 1, or both, and then code for version 2 alone never runs. So a small machine is
//! booted under QEMU: Debian's kernel, this machine's files as they are (read-only, behind a layer of memory), a disk of its own, and nothing but
//! version 2; the disk limits projects, by which volumes are kept to their sizes (0045), and which kernels and disks seldom do otherwise; so does a second one, with XFS. In it the test programs that were compiled here run, as root and as an ordinary user who was given a part of the control groups. What
//! happened comes back over a serial line of its own, as [`word`]s; a test of which nothing is heard has failed.
//!
//! It takes no processor with virtualisation: QEMU translates, which makes everything about ten times slower. No figure from there says anything about a machine.

mod built;
mod initial;
mod inside;
mod kernel;
mod machine;
mod outcome;
mod plan;
mod word;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::args::Args;
use crate::guest::kernel::Kernel;
use crate::guest::machine::Parts;
use crate::guest::outcome::Outcome;
use crate::guest::plan::PLAN;
use crate::program;
use crate::provision::{self, Tool};
use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

/// What the machine itself needs.
const TOOLS: &[Tool] = &[
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", for_what: "boots the guest" },
    Tool {
        program: "busybox",
        package: "busybox-static",
        for_what: "is the guest's first program, which needs no library",
    },
    Tool { program: "mke2fs", package: "e2fsprogs", for_what: "makes the guest's disk" },
    Tool { program: "mkfs.xfs", package: "xfsprogs", for_what: "makes the guest's other disk" },
    Tool { program: "dpkg-deb", package: "dpkg", for_what: "unpacks the guest's kernel" },
    Tool { program: "strip", package: "binutils", for_what: "makes test programs small" },
];

pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    if args.flag("--inside") {
        return inside::run(&args.rest());
    }
    if args.flag("--enter") {
        return inside::enter(&args.rest());
    }
    let only = args.option("--only")?;
    args.finish()?;
    match test(workspace, only.as_deref())? {
        Verdict::Passed => Ok(()),
        Verdict::Untried(why) => bail!("no guest could be booted: {why}"),
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    Passed,
    /// This machine cannot boot a guest; why.
    Untried(String),
}

/// The step of `cargo xtask test`: where no guest can be booted that is said loudly, and is no failure.
///
/// # Errors
/// A test failed, or the guest did not do all that it should.
pub(crate) fn of_test(workspace: &Workspace) -> Result<()> {
    if let Verdict::Untried(why) = test(workspace, None)? {
        println!("!! NOT TESTED: control groups of version 2 alone, and sizes of volumes, in a guest: {why}");
    }
    Ok(())
}

/// Boots the guest and judges what it says. `only` names what is to be run of the plan.
fn test(workspace: &Workspace, only: Option<&str>) -> Result<Verdict> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Verdict::Untried(format!(
            "the guest is an x86_64, and this machine is {}",
            std::env::consts::ARCH
        )));
    }
    if let Some(tool) = provision::provide(TOOLS).first() {
        return Ok(Verdict::Untried(format!("{} is not installed", tool.program)));
    }
    let place = workspace.target_dir()?.join("guest");
    let kernel = match Kernel::have(&place) {
        Ok(kernel) => kernel,
        Err(error) => return Ok(Verdict::Untried(format!("there is no kernel for it: {error:#}"))),
    };
    let suites: Vec<_> =
        PLAN.iter().filter(|suite| only.is_none_or(|only| suite.name.contains(only))).collect();
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let stage = built::stage(workspace, &place, &suites)?;
    let parts = Parts { kernel: &kernel, place: &place, stage: &stage, suites: &names };
    let stopwatch = Stopwatch::start();
    let mut outcome = Outcome::of(&names);
    let machine = parts.boot()?;
    let end = machine.listen(|word| outcome.add(word));
    let problems = outcome.judge(end);
    print!("{outcome}");
    println!("the guest ran for {:.0} seconds", stopwatch.seconds());
    if problems.is_empty() {
        return Ok(Verdict::Passed);
    }
    for problem in &problems {
        println!("!! {problem}");
    }
    println!("all that the guest wrote is in {}", parts.console().display());
    bail!("{} in the guest", if problems.len() == 1 { "something failed" } else { "several things failed" })
}

/// Where a program is, in the folders of the system.
fn find(name: &str) -> Result<PathBuf> {
    program::find(name).ok_or_else(|| anyhow::anyhow!("{name} is not installed"))
}
