//! `cargo xtask apps`: sample apps, as the frameworks' generators make them, taken all the way; writes docs/apps.json and docs/apps.md.
//!
//! To add a sample: a table in a file of `xtask/apps`, files of its own in a folder of its name beside that, and its tools in
//! `tools.toml`. `sample.rs` says what each key means.

mod commands;
mod journey;
mod page;
mod peer;
mod record;
mod sample;
mod source;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use self::journey::{Ground, Order};
pub(crate) use self::record::Row;
use self::record::{Measured, Record};
pub(crate) use self::sample::lay_over;
use self::sample::{Sample, Table};
use self::tools::Tools;
use crate::args::{Args, UsageError};
use crate::machine;
use crate::program::Program;
use crate::stopwatch::{self, Stopwatch};
use crate::workspace::Workspace;

const RECORD: &str = "docs/apps.json";
const PAGE: &str = "docs/apps.md";

/// Which samples, and what they run on.
pub(crate) struct Run<'a> {
    /// The names of samples; all when there are none.
    pub names: &'a [String],
    /// Those of CI alone.
    pub of_ci: bool,
    /// The binary that runs the platforms, and the strict client.
    pub berth: &'a Path,
    pub load: &'a Path,
    /// Whether the tools' bare commands are timed, too.
    pub peers: bool,
    /// Whether a sample's folder stays when it is done.
    pub keep: bool,
    /// Whether each row is written into the record as soon as there is one: a run takes an hour, and is not always let end.
    pub note: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub rows: Vec<(String, Row)>,
    /// The samples whose tools could not be had, each with the tool.
    pub skipped: Vec<(String, String)>,
}

pub(crate) fn run(workspace: &Workspace, mut args: Args) -> Result<()> {
    let list = args.flag("--list");
    let (of_ci, no_peers, keep) = (args.flag("--ci"), args.flag("--no-peers"), args.flag("--keep"));
    let berth = args.option("--berth")?.map(PathBuf::from);
    let mut names = Vec::new();
    while let Some(name) = args.word() {
        names.push(name);
    }
    args.finish()?;
    if list {
        return print_list(&Table::read(workspace)?);
    }
    let (berth, load) = release(workspace, berth)?;
    let run = Run { names: &names, of_ci, berth: &berth, load: &load, peers: !no_peers, keep, note: true };
    let outcome = take(workspace, &run)?;
    println!("wrote {PAGE}");
    outcome.verdict()
}

/// The dozen that CI runs, on the debug build that its tests ran on. Nothing is timed beside them and nothing is noted.
///
/// # Errors
/// A sample fails, or none can be run.
pub(crate) fn of_ci(workspace: &Workspace) -> Result<()> {
    let debug = workspace.target_dir()?.join("debug");
    let (berth, load) = (debug.join("berth"), debug.join("examples/load"));
    let run =
        Run { names: &[], of_ci: true, berth: &berth, load: &load, peers: false, keep: false, note: false };
    take(workspace, &run)?.verdict()
}

/// The platform's binary and the strict client, as release builds. A binary that is given is taken as it is, and so is a client that
/// cargo has put beside it.
pub(crate) fn release(workspace: &Workspace, berth: Option<PathBuf>) -> Result<(PathBuf, PathBuf)> {
    let target = workspace.target_dir()?;
    let build =
        |args: &[&str]| Program::cargo(workspace, "build").args(["--quiet", "--release"]).args(args).run();
    let berth = match berth {
        Some(berth) => berth.canonicalize().with_context(|| format!("cannot find {}", berth.display()))?,
        None => {
            build(&["--package", "berth"])?;
            target.join("release/berth")
        }
    };
    let beside = berth.with_file_name("examples").join("load");
    if berth != target.join("release/berth") && beside.is_file() {
        return Ok((berth, beside));
    }
    build(&["--package", "berth-acceptance", "--example", "load"])?;
    Ok((berth, target.join("release/examples/load")))
}

/// Takes samples all the way, one after the other.
///
/// # Errors
/// A name is unknown, or nothing can be run at all. A sample that fails is in the outcome.
pub(crate) fn take(workspace: &Workspace, run: &Run<'_>) -> Result<Outcome> {
    let table = Table::read(workspace)?;
    let samples = chosen(&table, run)?;
    let folder = workspace.target_dir()?.join("apps");
    let tools = Tools::provide(&folder.join("tools"), &table.tools, &samples)?;
    // Not below the workspace: cargo and others look upwards for the project that they belong to.
    let scratch = std::env::temp_dir().join(format!("berth-apps-{}", std::process::id()));
    let ground = Ground {
        berth: run.berth,
        load: run.load,
        path: tools.path(),
        downloads: &folder.join("downloads"),
        scratch: &scratch,
        peers: run.peers,
    };
    let commit = machine::commit(workspace)?;
    let mut outcome = Outcome::default();
    for (at, sample) in samples.into_iter().enumerate() {
        if let Some(tool) = tools.lacking(sample) {
            println!("!! SKIPPED: {}, because {tool} is not installed", sample.name);
            outcome.skipped.push((sample.name.clone(), tool.to_owned()));
            continue;
        }
        let order = if at.is_multiple_of(2) { Order::PeerFirst } else { Order::PeerLast };
        let mut row = Row {
            what: sample.what.clone(),
            date: stopwatch::today(),
            commit: commit.clone(),
            builder: String::new(),
            processes: Vec::new(),
            problem: None,
            measured: Measured::default(),
            note: sample.note.clone(),
        };
        let stopwatch = Stopwatch::start();
        let files = table.files_of(sample);
        let taken = journey::take(&ground, sample, files.as_deref(), order, &mut row);
        row.problem = taken.err().map(|error| format!("{error:#}"));
        println!("{:<24} {} [{:.0} s in all]", sample.name, in_a_line(&row), stopwatch.seconds());
        if run.note {
            note(workspace, &table, &sample.name, &row)?;
        }
        outcome.rows.push((sample.name.clone(), row));
        if run.keep {
            println!("{:<24} kept in {}", "", scratch.join(&sample.name).display());
        } else {
            std::fs::remove_dir_all(scratch.join(&sample.name))?;
        }
    }
    if !run.keep && scratch.try_exists()? {
        std::fs::remove_dir_all(&scratch)?;
    }
    Ok(outcome)
}

/// Writes a row into the record, and the page anew. A row without its peer replaces none that has it.
fn note(workspace: &Workspace, table: &Table, name: &str, row: &Row) -> Result<()> {
    let file = workspace.root().join(RECORD);
    let mut record = Record::read(&file)?;
    record.machine = machine::describe(&workspace.target_dir()?)?;
    let fuller = |old: &Row| old.problem.is_none() && old.measured.bare_warm_s.is_some();
    if row.measured.bare_warm_s.is_some() || !record.rows.get(name).is_some_and(fuller) {
        record.rows.insert(name.to_owned(), row.clone());
    }
    record.rows.retain(|name, _| table.samples.iter().any(|sample| sample.name == *name));
    record.write(&file)?;
    std::fs::write(workspace.root().join(PAGE), page::render(&record, &table.untried))?;
    Ok(())
}

impl Outcome {
    /// Whether all that ran came all the way.
    ///
    /// # Errors
    /// Some did not, or nothing ran.
    pub(crate) fn verdict(&self) -> Result<()> {
        let failed: Vec<&str> = self
            .rows
            .iter()
            .filter(|(_, row)| row.problem.is_some())
            .map(|(name, _)| name.as_str())
            .collect();
        let (good, skipped) = (self.rows.len() - failed.len(), self.skipped.len());
        println!("samples: {good} came all the way, {} failed, {skipped} skipped", failed.len());
        ensure!(failed.is_empty(), "samples failed: {}", failed.join(", "));
        ensure!(good > 0, "no sample ran");
        Ok(())
    }
}

fn chosen<'a>(table: &'a Table, run: &Run<'_>) -> Result<Vec<&'a Sample>> {
    for name in run.names {
        if !table.samples.iter().any(|sample| sample.name == *name) {
            bail!(UsageError::new(format!(
                "there is no sample `{name}`; `cargo xtask apps --list` lists them"
            )));
        }
    }
    let wanted = |sample: &&Sample| {
        (run.names.is_empty() || run.names.contains(&sample.name)) && (!run.of_ci || sample.ci)
    };
    Ok(table.samples.iter().filter(wanted).collect())
}

fn print_list(table: &Table) -> Result<()> {
    for sample in &table.samples {
        let mark = if sample.ci { "ci" } else { "" };
        println!("{:<24} {mark:<3} {:<8} {}", sample.name, sample.builder, sample.what);
    }
    println!("{} samples", table.samples.len());
    Ok(())
}

fn in_a_line(row: &Row) -> String {
    let Measured { cold_s, warm_s, bare_cold_s, bare_warm_s, sent_bytes, added_bytes, requests, .. } =
        row.measured.clone();
    if let Some(problem) = &row.problem {
        return format!("FAILED: {problem}");
    }
    let seconds = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.2}"));
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    format!(
        "{}: cold {} s (bare {}), warm {} s (bare {}), sent {} B, added {} B, {} requests, none failed",
        row.builder,
        seconds(cold_s),
        seconds(bare_cold_s),
        seconds(warm_s),
        seconds(bare_warm_s),
        number(sent_bytes),
        number(added_bytes),
        number(requests)
    )
}
