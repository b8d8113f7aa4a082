//! Running tests: cargo-nextest when it is installed, else `cargo test`; both end in one closing line.

use anyhow::Result;

use crate::program::{self, Program};
use crate::workspace::Workspace;

/// Crates whose tests start whole platforms: they run one at a time and `--quick` leaves them out.
const HEAVY: &str = "berth-acceptance";

/// Which tests to run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Selection<'a> {
    /// Leave the black-box tests out.
    pub quick: bool,
    /// This package alone.
    pub package: Option<&'a str>,
    /// Tests with this in their name alone.
    pub name: Option<&'a str>,
    /// nextest's profile, when not the usual one.
    pub profile: Option<&'a str>,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub passed: bool,
    /// The runner's closing line, as it wrote it; none when it did not come that far.
    pub summary: Option<String>,
}

/// Runs the selected tests with `env` added to the environment.
///
/// # Errors
/// The runner cannot be started. Failing tests are no error here.
pub(crate) fn run_tests(
    workspace: &Workspace,
    selection: &Selection<'_>,
    env: &[(&str, &str)],
) -> Result<Outcome> {
    if program::find("cargo-nextest").is_some() {
        return run_nextest(workspace, selection, env);
    }
    println!("cargo-nextest is not installed: `cargo test` runs the tests instead");
    let mut totals = Totals::default();
    let mut passed = true;
    for heavy in [false, true] {
        if let Some(cargo) = cargo_test(workspace, selection, heavy) {
            let cargo = env.iter().fold(cargo, |cargo, (name, value)| cargo.env(name, value));
            passed &= cargo.watch(|line| totals.add(line))?;
        }
    }
    passed &= totals.passed + totals.failed > 0;
    Ok(Outcome { passed, summary: Some(totals.line(passed)) })
}

/// Runs the examples in the documentation, which nextest does not know.
///
/// # Errors
/// One fails, or the runner cannot be started.
pub(crate) fn run_doc_tests(workspace: &Workspace) -> Result<()> {
    Program::cargo(workspace, "test").args(["--doc", "--workspace", "--quiet"]).run()
}

fn run_nextest(workspace: &Workspace, selection: &Selection<'_>, env: &[(&str, &str)]) -> Result<Outcome> {
    let usual = if program::is_ci() { "ci" } else { "default" };
    let cargo =
        Program::cargo(workspace, "nextest run").args(["--profile", selection.profile.unwrap_or(usual)]);
    let cargo = cargo.args(package_args(selection, false)).args(selection.name);
    let cargo = env.iter().fold(cargo, |cargo, (name, value)| cargo.env(name, value));
    let mut summary = None;
    let passed = cargo.watch(|line| {
        if line.trim_start().starts_with("Summary [") {
            summary = Some(line.trim_start().to_owned());
        }
    })?;
    Ok(Outcome { passed, summary })
}

/// The heavy package gets a run of its own, because `cargo test` has no groups: one test at a time.
fn cargo_test(workspace: &Workspace, selection: &Selection<'_>, heavy: bool) -> Option<Program> {
    let wanted = match selection.package {
        Some(package) => (package == HEAVY) == heavy,
        None => !(heavy && selection.quick),
    };
    if !wanted {
        return None;
    }
    let cargo = Program::cargo(workspace, "test").args(["--no-fail-fast", "--lib", "--bins", "--tests"]);
    let cargo = if heavy { cargo.args(["-p", HEAVY]) } else { cargo.args(package_args(selection, true)) };
    let threads: &[&str] = if heavy { &["--test-threads=1"] } else { &[] };
    Some(cargo.args(selection.name).arg("--").args(threads))
}

fn package_args<'a>(selection: &Selection<'a>, without_heavy: bool) -> Vec<&'a str> {
    match selection.package {
        Some(package) => vec!["-p", package],
        None if selection.quick || without_heavy => vec!["--workspace", "--exclude", HEAVY],
        None => vec!["--workspace"],
    }
}

/// The sum of the closing lines that `cargo test` prints, one for each test binary.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
    seconds: f64,
}

impl Totals {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']).map(str::trim) {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
        let seconds = rest
            .rsplit_once("finished in ")
            .and_then(|(_, time)| time.trim_end_matches('s').parse::<f64>().ok());
        self.seconds += seconds.unwrap_or(0.0);
    }

    fn line(&self, passed: bool) -> String {
        let Self { passed: good, failed, ignored, seconds } = self;
        let word = if passed { "ok" } else { "FAILED" };
        format!(
            "test result: {word}. {good} passed; {failed} failed; {ignored} ignored; finished in {seconds:.2}s"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut totals = Totals::default();
        totals.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.25s",
        );
        totals.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s");
        totals.add("test a::b ... ok");
        assert_eq!(totals, Totals { passed: 4, failed: 2, ignored: 1, seconds: 1.75 });
        assert_eq!(
            totals.line(false),
            "test result: FAILED. 4 passed; 2 failed; 1 ignored; finished in 1.75s"
        );
    }

    #[test]
    fn the_quick_selection_leaves_the_heavy_tests_out() {
        let quick = Selection { quick: true, ..Selection::default() };
        assert_eq!(package_args(&quick, false), ["--workspace", "--exclude", HEAVY]);
        let workspace = Workspace::open().unwrap();
        assert!(cargo_test(&workspace, &quick, true).is_none());
        let alone = Selection { package: Some(HEAVY), ..Selection::default() };
        assert!(cargo_test(&workspace, &alone, false).is_none());
        assert!(cargo_test(&workspace, &alone, true).is_some());
    }
}
