//! Known holes in what we depend on, from a clone of the RustSec database.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::workspace::Package;

pub(super) const HOW_TO_GET: &str = "Clone https://github.com/rustsec/advisory-db to ~/.cargo/advisory-db, or name a clone in BERTH_ADVISORY_DB";

/// A clone of the database: `crates/<package>/<id>.md`.
#[derive(Debug)]
pub(super) struct Advisories {
    folder: PathBuf,
}

/// The TOML block at the head of an advisory, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Head {
    advisory: Advisory,
    #[serde(default)]
    versions: Versions,
}

#[derive(Debug, Deserialize)]
struct Advisory {
    id: String,
    /// Set when it says something other than "this is a hole": `unmaintained`, `unsound`, `notice`.
    informational: Option<String>,
    withdrawn: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

impl Advisories {
    /// The database that the environment names, or the one in cargo's home.
    pub(super) fn at_hand() -> Option<Self> {
        let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home = cargo_home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
        let named = std::env::var_os("BERTH_ADVISORY_DB").map(PathBuf::from);
        let folder = named.or_else(|| Some(cargo_home?.join("advisory-db")))?;
        folder.join("crates").is_dir().then_some(Self { folder })
    }

    /// What the database says against `packages`. Holes and unsound code are complaints; that nobody looks after a crate any more
    /// is printed.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn check<'a>(
        &self,
        packages: impl Iterator<Item = &'a Package>,
        ignored: &[&str],
    ) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        // A folder of ours may have a stranger's name.
        for package in packages.filter(|package| package.source.is_some()) {
            let version = Version::parse(&package.version)?;
            let Ok(entries) = std::fs::read_dir(self.folder.join("crates").join(&package.name)) else {
                continue;
            };
            for entry in entries {
                let path = entry?.path();
                let text = std::fs::read_to_string(&path)?;
                let head = parse(&text).with_context(|| format!("cannot read {}", path.display()))?;
                let Advisory { id, informational, withdrawn } = &head.advisory;
                if withdrawn.is_some() || ignored.contains(&id.as_str()) || !head.versions.affect(&version) {
                    continue;
                }
                let kind = informational.as_deref().unwrap_or("vulnerable");
                let text =
                    format!("{} {version} is {kind}: https://rustsec.org/advisories/{id}", package.name);
                match kind {
                    "vulnerable" | "unsound" => complaints.push(text),
                    _ => println!("warning: {text}"),
                }
            }
        }
        Ok(complaints)
    }
}

impl Versions {
    fn affect(&self, version: &Version) -> bool {
        !self.patched.iter().chain(&self.unaffected).any(|range| range.matches(version))
    }
}

fn parse(text: &str) -> Result<Head> {
    let head = text
        .split("```")
        .nth(1)
        .and_then(|block| block.strip_prefix("toml"))
        .context("it has no TOML head")?;
    Ok(toml::from_str(head)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(version: &str) -> Package {
        serde_json::from_value(serde_json::json!({
            "id": "a", "name": "a", "version": version, "license": null, "license_file": null,
            "source": "registry+x", "manifest_path": "/x/Cargo.toml", "dependencies": [],
        }))
        .unwrap()
    }

    #[test]
    fn only_affected_versions_are_complained_about() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crates/a");
        std::fs::create_dir_all(&folder).unwrap();
        let advisory = |id: &str, extra: &str| {
            let text = format!(
                "```toml\n[advisory]\nid = \"{id}\"\n{extra}\n[versions]\npatched = [\">= 1.2.0\"]\nunaffected = [\"< 1.0\"]\n```\n# X\n"
            );
            std::fs::write(folder.join(format!("{id}.md")), text).unwrap();
        };
        advisory("R-1", "");
        advisory("R-2", "withdrawn = \"2025-01-01\"");
        advisory("R-3", "informational = \"unmaintained\"");
        let advisories = Advisories { folder: dir.path().to_owned() };
        let count = |version, ignored: &[&str]| {
            advisories.check([&package(version)].into_iter(), ignored).unwrap().len()
        };
        assert_eq!(count("1.1.0", &[]), 1);
        assert_eq!(count("1.1.0", &["R-1"]), 0);
        assert_eq!(count("1.2.0", &[]), 0);
        assert_eq!(count("0.9.0", &[]), 0);
    }
}
