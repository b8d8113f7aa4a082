//! `cargo xtask tidy`: the rules of the house that neither rustc nor clippy checks. CONTRIBUTING.md gives their reasons.

mod links;
mod manifests;
mod names;
mod promises;
mod rust;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::workspace::Workspace;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: PathBuf,
    /// From 1; 0 for the file as a whole.
    line: usize,
    text: String,
    /// Said, but not counted as a failure.
    only_a_warning: bool,
}

impl Finding {
    fn new(path: impl AsRef<Path>, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.as_ref().to_owned(), line, text: text.into(), only_a_warning: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.only_a_warning { "warning: " } else { "" };
        write!(formatter, "{}:{}: {kind}{}", self.path.display(), self.line.max(1), self.text)
    }
}

pub(crate) fn run(workspace: &Workspace, args: Args) -> Result<()> {
    args.finish()?;
    let files = workspace.files()?;
    let mut findings = text::check_sizes(workspace, &files)?;
    findings.extend(names::check(&files));
    for path in &files {
        // What is no UTF-8 is a picture or the like.
        let Ok(text) = std::fs::read_to_string(workspace.root().join(path)) else { continue };
        findings.extend(text::check(path, &text));
        if path.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(rust::check(path, &text));
        }
        if path.extension().is_some_and(|extension| extension == "md") {
            findings.extend(links::check(workspace.root(), path, &text));
        }
    }
    findings.extend(manifests::check(workspace, &files)?);
    findings.extend(promises::check(workspace, &files)?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let broken = findings.iter().filter(|finding| !finding.only_a_warning).count();
    if broken > 0 {
        bail!("{broken} rules of the house are broken; CONTRIBUTING.md says why they are there");
    }
    println!("tidy: {} files, nothing to say against them", files.len());
    Ok(())
}
