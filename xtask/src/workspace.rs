//! The workspace as cargo and git see it: members, their dependencies, files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::program::Program;

/// The checkout that we stand in.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

/// What `cargo metadata` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
    pub target_directory: PathBuf,
    /// Absent when asked for without dependencies.
    pub resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub license_file: Option<String>,
    /// The registry or repository it comes from; none for a folder.
    pub source: Option<String>,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
    /// What each of its features switches on.
    #[serde(default)]
    pub features: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package.
    #[serde(default)]
    pub name: String,
    /// What it is called there, if otherwise.
    #[serde(default)]
    pub rename: Option<String>,
    /// Whether a feature has to switch it on.
    #[serde(default)]
    pub optional: bool,
    /// `dev` or `build`; none for a normal one.
    pub kind: Option<String>,
    /// The folder, for a dependency inside the workspace.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub id: String,
    /// The packages that it may use.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// Its features that are on.
    #[serde(default)]
    pub features: Vec<String>,
}

impl Workspace {
    /// The workspace that this program belongs to.
    ///
    /// # Errors
    /// Its folder is gone.
    pub(crate) fn open() -> Result<Self> {
        // What cargo says now comes before what it said when this was compiled: the checkout may have moved.
        let manifest =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("xtask lies in a folder of the workspace")?;
        let root = root.canonicalize().with_context(|| format!("cannot open {}", root.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Reads a file below the root.
    ///
    /// # Errors
    /// It cannot be read or is not UTF-8.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = self.root.join(path);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The members alone, without what they depend on.
    ///
    /// # Errors
    /// Cargo fails.
    pub(crate) fn members(&self) -> Result<Metadata> {
        parse_metadata(&Program::cargo(self, "metadata").args(["--format-version=1", "--no-deps"]).output()?)
    }

    /// The whole graph for one target triple, every feature of the members on.
    ///
    /// # Errors
    /// Cargo fails.
    pub(crate) fn graph(&self, target: &str) -> Result<Metadata> {
        let cargo = Program::cargo(self, "metadata").args(["--format-version=1", "--all-features"]);
        parse_metadata(&cargo.arg("--filter-platform").arg(target).output()?)
    }

    /// Where cargo puts what it builds.
    ///
    /// # Errors
    /// Cargo fails.
    pub(crate) fn target_dir(&self) -> Result<PathBuf> {
        Ok(self.members()?.target_directory)
    }

    /// Every file that git has or would take, relative to the root, in order.
    ///
    /// # Errors
    /// Git fails.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let git = Program::git(self);
        let list = git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output()?;
        let mut files: Vec<PathBuf> =
            list.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        files.sort();
        files.dedup();
        // Git still lists a file that was just deleted.
        files.retain(|file| self.root.join(file).is_file());
        Ok(files)
    }
}

impl Metadata {
    /// The ids of the packages that are built, found from the members on; none without a graph.
    pub(crate) fn built(&self) -> Option<BTreeSet<String>> {
        let nodes: BTreeMap<&str, &Node> =
            self.resolve.as_ref()?.nodes.iter().map(|node| (&*node.id, node)).collect();
        let packages: BTreeMap<&str, &Package> =
            self.packages.iter().map(|package| (&*package.id, package)).collect();
        let (mut built, mut todo) = (BTreeSet::new(), self.workspace_members.clone());
        while let Some(id) = todo.pop() {
            let (Some(node), Some(package)) = (nodes.get(&*id), packages.get(&*id)) else { continue };
            if !built.insert(id.clone()) {
                continue;
            }
            let used = node.dependencies.iter().filter(|below| {
                packages.get(below.as_str()).is_some_and(|below| package.uses(below, &node.features))
            });
            todo.extend(used.cloned());
        }
        Some(built)
    }

    /// The members, by the name of their folder.
    pub(crate) fn by_folder(&self) -> BTreeMap<String, &Package> {
        let members = self.packages.iter().filter(|package| self.workspace_members.contains(&package.id));
        members.map(|package| (package.folder(), package)).collect()
    }
}

impl Package {
    /// Whether it uses `other` when these of its features are on. Cargo's graph also has what a weak feature (`ring?/alloc`) only speaks of,
    /// and which is never built.
    pub(crate) fn uses(&self, other: &Self, features: &[String]) -> bool {
        let named = self.dependencies.iter().filter(|dependency| dependency.name == other.name);
        named.into_iter().any(|dependency| {
            let alias = dependency.rename.as_deref().unwrap_or(&dependency.name);
            let on = |switch: &String| {
                let part = switch.split('/').next().unwrap_or_default();
                part == alias || part.strip_prefix("dep:") == Some(alias)
            };
            let switched = || features.iter().filter_map(|name| self.features.get(name)).flatten().any(on);
            !dependency.optional || switched()
        })
    }

    /// The name of the folder it lies in, which is how the house calls it.
    pub(crate) fn folder(&self) -> String {
        let folder = self.manifest_path.parent().and_then(Path::file_name).unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }
}

fn parse_metadata(json: &str) -> Result<Metadata> {
    serde_json::from_str(json).context("cargo metadata wrote something unexpected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_weak_feature_speaks_of_is_not_built() {
        let json = r#"{
            "workspace_members": ["top"], "target_directory": "", "packages": [
                {"id": "top", "name": "top", "version": "1.0.0", "manifest_path": "top/Cargo.toml", "features": {},
                    "dependencies": [{"name": "tls", "optional": false}]},
                {"id": "tls", "name": "tls", "version": "1.0.0", "manifest_path": "tls/Cargo.toml",
                    "features": {"std": ["ring?/std", "fast"], "fast": ["dep:aws"], "old": ["dep:ring"]},
                    "dependencies": [{"name": "ring", "optional": true}, {"name": "aws-lc", "rename": "aws", "optional": true}]},
                {"id": "ring", "name": "ring", "version": "1.0.0", "manifest_path": "", "dependencies": []},
                {"id": "aws", "name": "aws-lc", "version": "1.0.0", "manifest_path": "", "dependencies": []}],
            "resolve": {"nodes": [{"id": "top", "dependencies": ["tls"]}, {"id": "ring"}, {"id": "aws"},
                {"id": "tls", "dependencies": ["ring", "aws"], "features": ["FEATURES"]}]}}"#;
        let built = |features: &str| {
            let metadata: Metadata = serde_json::from_str(&json.replace("FEATURES", features)).unwrap();
            metadata.built().unwrap().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(built(r#"std", "fast"#), ["aws", "tls", "top"]);
        assert_eq!(built("old"), ["ring", "tls", "top"]);
    }
}
