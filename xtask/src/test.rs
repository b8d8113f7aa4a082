//! `cargo xtask test`: everything that must hold before a change goes in, the same on a laptop and in CI.
//!
//! All steps run, also after one failed, so that one run shows all there is to mend. Then come a table of the steps, and
//! last the test runner's closing line.

use std::fmt;

use anyhow::{Result, bail};

use crate::args::Args;
use crate::program::{self, Program};
use crate::runner::{Outcome, Selection, run_doc_tests, run_tests};
use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;
use crate::{apps, deny, goldens, guest, layers, provision, tidy};

/// Something failed; the table has said what.
#[derive(Debug)]
pub(crate) struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not everything holds")
    }
}

impl std::error::Error for Failed {}

pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    let quick = args.flag("--quick");
    args.finish()?;
    let mut steps = Steps::default();
    steps.step("tools", || {
        // What needs a missing tool fails by itself and says so.
        provision::provide(provision::FOR_TESTS);
        Ok(())
    });
    steps.step("fmt", || Program::cargo(workspace, "fmt").args(["--all", "--check"]).run());
    steps.step("tidy", || tidy::run(workspace, no_args()));
    steps.step("layers", || layers::run(workspace, no_args()));
    steps.step("deny", || deny::run(workspace, no_args()));
    steps.step("clippy", || {
        let clippy = Program::cargo(workspace, "clippy").args(["--quiet", "--workspace", "--all-targets"]);
        clippy.args(["--", "-D", "warnings"]).run()
    });
    steps.step("rustdoc", || {
        let doc = Program::cargo(workspace, "doc").args(["--quiet", "--workspace", "--no-deps"]);
        doc.env("RUSTDOCFLAGS", "-D warnings").run()
    });
    // All targets at once: a build of one package has other features and would compile half the world again.
    steps.step("build", || {
        Program::cargo(workspace, "build").args(["--quiet", "--workspace", "--all-targets"]).run()
    });
    steps.step("doc tests", || run_doc_tests(workspace));
    let mut outcome = Outcome::default();
    steps.step("tests", || {
        let binary = workspace.target_dir()?.join("debug/berth");
        let selection = Selection { quick, ..Selection::default() };
        outcome = run_tests(workspace, &selection, &[("BERTH_BIN", &binary.to_string_lossy())])?;
        if !outcome.passed {
            bail!("tests failed");
        }
        Ok(())
    });
    if !quick {
        steps.step("guest", || guest::of_test(workspace));
        steps.step("samples", || apps::of_ci(workspace));
    }
    if program::is_ci() {
        steps.step("goldens", || goldens::check_unchanged(workspace));
    }
    print!("{steps}");
    println!("{}", outcome.summary.as_deref().unwrap_or("no summary: the tests were not run"));
    if steps.failed() { Err(Failed.into()) } else { Ok(()) }
}

fn no_args() -> Args {
    Args::new(std::iter::empty())
}

/// What was done so far.
#[derive(Debug, Default)]
struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    seconds: f64,
    passed: bool,
}

impl Steps {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("== {name}");
        let stopwatch = Stopwatch::start();
        let result = work();
        if let Err(error) = &result {
            println!("== {name} failed: {error:#}");
        }
        self.done.push(Step { name, seconds: stopwatch.seconds(), passed: result.is_ok() });
    }

    fn failed(&self) -> bool {
        self.done.iter().any(|step| !step.passed)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n{:<12} {:>8}", "step", "seconds")?;
        for Step { name, seconds, passed } in &self.done {
            let word = if *passed { "" } else { "  FAILED" };
            writeln!(formatter, "{name:<12} {seconds:>8.1}{word}")?;
        }
        let total: f64 = self.done.iter().map(|step| step.seconds).sum();
        writeln!(formatter, "{:<12} {total:>8.1}", "all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_runs_and_the_table_names_what_failed() {
        let mut steps = Steps::default();
        steps.step("one", || bail!("no"));
        steps.step("two", || Ok(()));
        assert!(steps.failed());
        let table = steps.to_string();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[0].starts_with("one") && rows[0].ends_with("FAILED"));
        assert!(rows[1].starts_with("two") && !rows[1].ends_with("FAILED"));
    }
}
