//! Getting the tools that samples need: from Debian, npm and PyPI, where we may.
//!
//! What npm and PyPI bring lies below `target/apps/tools`, with a folder of links to the programs alone: whoever has that in front of
//! the search path sees no other `python3` for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::sample::{Sample, Tool};
use crate::program::{self, Program};
use crate::provision;

/// The tools of this run.
pub(super) struct Tools {
    folder: PathBuf,
    missing: BTreeSet<String>,
}

impl Tools {
    /// Installs what the samples need and names what cannot be had.
    pub(super) fn provide(
        folder: &Path,
        known: &BTreeMap<String, Tool>,
        samples: &[&Sample],
    ) -> Result<Self> {
        std::fs::create_dir_all(folder.join("bin"))?;
        let mut tools = Self { folder: folder.to_owned(), missing: BTreeSet::new() };
        let wanted: BTreeSet<&String> = samples.iter().flat_map(|sample| &sample.tools).collect();
        let wanted: Vec<(&String, &Tool)> =
            wanted.into_iter().filter_map(|name| Some((name, known.get(name)?))).collect();
        let packages: Vec<&str> = wanted
            .iter()
            .filter(|(_, tool)| !tools.has(tool))
            .flat_map(|(_, tool)| tool.apt.iter().map(String::as_str))
            .collect();
        provision::install(&packages);
        for (name, tool) in wanted {
            if !tools.has(tool)
                && let Err(error) = tools.fetch(tool)
            {
                println!("!! {name} could not be fetched: {error:#}");
            }
            if !tools.has(tool) {
                println!("!! NOT INSTALLED: {name}. {}", how_to_get(tool));
                tools.missing.insert(name.clone());
            }
        }
        Ok(tools)
    }

    /// The first tool of the sample that is not there.
    pub(super) fn lacking<'a>(&self, sample: &'a Sample) -> Option<&'a str> {
        sample.tools.iter().find(|tool| self.missing.contains(*tool)).map(String::as_str)
    }

    /// The search path with the tools in front.
    pub(super) fn path(&self) -> OsString {
        let mut path = self.folder.join("bin").into_os_string();
        if let Some(ours) = std::env::var_os("PATH") {
            path.push(":");
            path.push(ours);
        }
        path
    }

    fn has(&self, tool: &Tool) -> bool {
        if let Some(file) = &tool.file {
            return file.is_file();
        }
        let Some(program) = &tool.program else { return false };
        let ours = self.folder.join("bin").join(program);
        let Some(found) = Some(ours).filter(|file| file.is_file()).or_else(|| program::find(program)) else {
            return false;
        };
        tool.least.is_none_or(|least| {
            let said = Program::new(found).arg("--version").output().unwrap_or_default();
            major(&said).is_some_and(|major| major >= least)
        })
    }

    fn fetch(&self, tool: &Tool) -> Result<()> {
        let Some(program) = &tool.program else { return Ok(()) };
        if let Some(package) = &tool.npm {
            println!("fetching {package}");
            let folder = self.folder.join("npm");
            std::fs::create_dir_all(&folder)?;
            let npm =
                Program::new("npm").args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
            npm.arg(&folder).arg(package).run()?;
            self.link(program, &folder.join("node_modules/.bin"))?;
        }
        if let Some(package) = &tool.pip {
            println!("fetching {package}");
            // Each in an environment of its own: poetry and pipenv want other versions of the same.
            let folder = self.folder.join("python").join(program);
            // Not the first python3 of PATH: pyenv's lies in a home that build users cannot enter.
            Program::new("/usr/bin/python3").args(["-m", "venv"]).arg(&folder).run()?;
            Program::new(folder.join("bin/pip")).args(["install", "--quiet", package.as_str()]).run()?;
            self.link(program, &folder.join("bin"))?;
        }
        Ok(())
    }

    fn link(&self, program: &str, folder: &Path) -> Result<()> {
        let (from, to) = (folder.join(program).canonicalize()?, self.folder.join("bin").join(program));
        if to.is_symlink() {
            std::fs::remove_file(&to)?;
        }
        std::os::unix::fs::symlink(&from, &to).with_context(|| format!("cannot link {}", to.display()))
    }
}

fn how_to_get(tool: &Tool) -> String {
    if let Some(package) = tool.npm.as_ref() {
        format!("It comes from npm as {package}")
    } else if let Some(package) = tool.pip.as_ref() {
        format!("It comes from PyPI as {package}")
    } else if tool.apt.is_empty() {
        "Debian does not have it".to_owned()
    } else {
        format!("`apt-get install {}`", tool.apt.join(" "))
    }
}

/// The first number in what a program says of its version.
fn major(said: &str) -> Option<u32> {
    let digits = said.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("PHP 8.2.35 (cli)"), Some(8));
        assert_eq!(major("none"), None);
    }
}
