//! What a sample app is: how it is made, what is changed in it, what is expected of it. The table is `xtask/apps/*.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::workspace::Workspace;

/// The folder of the table, and of the files that samples are laid over with, each in a folder of its name.
const FOLDER: &str = "xtask/apps";
/// What most samples answer, before and after their one-line change.
const FIRST: &str = "This is the first release";
const SECOND: &str = "This is the second release";

/// A sample app.
///
/// Commands are written with one blank between two words; there is no quoting and no shell. `{name}` stands for the sample's name,
/// `{port}` in `bare.start` for the port to listen on, `{before}` for the day on which what a registry offers was fixed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    pub name: String,
    /// What it is: `Vite, React, TypeScript; npm`.
    pub what: String,
    /// Names of tools in `tools.toml`.
    #[serde(default)]
    pub tools: Vec<String>,
    /// One of the dozen that CI runs.
    #[serde(default)]
    pub ci: bool,
    /// Where it comes from, when not from a generator: said in docs/apps.md.
    #[serde(default)]
    pub note: String,
    /// Run one after the other in the folder that will hold the sample's: the generator.
    #[serde(default)]
    pub make: Vec<String>,
    /// Texts of the generator's that are replaced, once the sample's own files are laid over.
    #[serde(default)]
    pub change: Vec<Change>,
    /// Run last, in the sample's folder.
    #[serde(default)]
    pub finish: Vec<String>,
    /// The builder that must be detected, as `berth deploy --dry-run` names it.
    pub builder: String,
    /// The path that is asked for.
    #[serde(default = "root")]
    pub path: String,
    /// The one-line change, which must be seen in the answer.
    pub edit: Edit,
    /// The tool's own commands for the same, as the peer.
    pub bare: Bare,
}

/// A text in a file that is replaced by another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub file: PathBuf,
    pub from: String,
    pub to: String,
}

/// The one-line change. The texts are also what the answer holds before and after it, where `before` and `after` say nothing else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    pub file: PathBuf,
    #[serde(default = "first")]
    pub from: String,
    #[serde(default = "second")]
    pub to: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// What a person would type to build and start the sample without a platform.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bare {
    #[serde(default)]
    pub build: Vec<String>,
    pub start: String,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A tool that samples need beside Rust.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    /// The program that must be found.
    pub program: Option<String>,
    /// A file that must be there, where no program says it.
    pub file: Option<PathBuf>,
    /// The least major version of the program, as `PROGRAM --version` gives it.
    pub least: Option<u32>,
    /// Debian's packages that bring it.
    #[serde(default)]
    pub apt: Vec<String>,
    /// The npm package that brings it, with its version.
    pub npm: Option<String>,
    /// The PyPI package that brings it, with its version.
    pub pip: Option<String>,
}

/// The whole table.
#[derive(Debug)]
pub(super) struct Table {
    pub samples: Vec<Sample>,
    pub tools: BTreeMap<String, Tool>,
    /// What cannot be tried here, and why: for docs/apps.md.
    pub untried: Vec<Untried>,
    folder: PathBuf,
}

/// What is not among the samples.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Untried {
    pub what: String,
    pub why: String,
}

/// One file of the table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    sample: Vec<Sample>,
    #[serde(default)]
    tools: BTreeMap<String, Tool>,
    #[serde(default)]
    untried: Vec<Untried>,
}

fn root() -> String {
    "/".to_owned()
}

fn first() -> String {
    FIRST.to_owned()
}

fn second() -> String {
    SECOND.to_owned()
}

impl Edit {
    /// What the answer holds before the change.
    pub(super) fn before(&self) -> &str {
        self.before.as_deref().unwrap_or(&self.from)
    }

    /// What it holds after the change.
    pub(super) fn after(&self) -> &str {
        self.after.as_deref().unwrap_or(&self.to)
    }
}

impl Table {
    /// Reads the table and checks that it is sound.
    ///
    /// # Errors
    /// A file is missing or wrong, and which.
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.root().join(FOLDER);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let mut table = Self { samples: Vec::new(), tools: BTreeMap::new(), untried: Vec::new(), folder };
        for file in files {
            let text = std::fs::read_to_string(&file)?;
            let part: Part = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
            table.samples.extend(part.sample);
            table.tools.extend(part.tools);
            table.untried.extend(part.untried);
        }
        for (at, sample) in table.samples.iter().enumerate() {
            table.check(sample, &table.samples[..at]).with_context(|| format!("sample {}", sample.name))?;
        }
        Ok(table)
    }

    /// The folder of files that are laid over the sample's, if it has one.
    pub(super) fn files_of(&self, sample: &Sample) -> Option<PathBuf> {
        Some(self.folder.join(&sample.name)).filter(|folder| folder.is_dir())
    }

    fn check(&self, sample: &Sample, earlier: &[Sample]) -> Result<()> {
        ensure!(earlier.iter().all(|other| other.name != sample.name), "its name is given twice");
        for tool in &sample.tools {
            ensure!(self.tools.contains_key(tool), "there is no tool `{tool}` in tools.toml");
        }
        let (before, after) = (sample.edit.before(), sample.edit.after());
        // The load tells releases apart by them.
        if before.contains(after) || after.contains(before) {
            bail!("`{before}` and `{after}` cannot be told apart");
        }
        ensure!(sample.edit.file.is_relative(), "the change is in a file of the sample");
        ensure!(
            !sample.make.is_empty() || self.files_of(sample).is_some(),
            "it has neither a generator nor files in {FOLDER}"
        );
        Ok(())
    }
}

/// The words of a command, with what stands for something replaced.
pub(super) fn words(command: &str, values: &[(&str, &str)]) -> Vec<String> {
    let replaced = |word: &str| {
        values.iter().fold(word.to_owned(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
    };
    command.split(' ').filter(|word| !word.is_empty()).map(replaced).collect()
}

/// Copies a tree of files; what is there already is replaced.
pub(crate) fn lay_over(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            lay_over(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        let table = Table::read(&Workspace::open().unwrap()).unwrap();
        assert!(table.samples.len() >= 40, "{} samples", table.samples.len());
        let of_ci = table.samples.iter().filter(|sample| sample.ci).count();
        assert!((10..=16).contains(&of_ci), "{of_ci} samples in CI");
        for (name, tool) in &table.tools {
            assert!(tool.program.is_some() || tool.file.is_some(), "{name}: nothing says that it is there");
        }
    }

    #[test]
    fn words_are_split_at_blanks_and_filled_in() {
        assert_eq!(
            words("serve --port {port} {name}/dist", &[("port", "80"), ("name", "a")]),
            ["serve", "--port", "80", "a/dist"]
        );
    }
}
