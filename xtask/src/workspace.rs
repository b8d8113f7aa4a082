//! The workspace as cargo and git see it: members, their dependencies, files.

use std::collections::BTreeMap;
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
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
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
    /// The members, by the name of their folder.
    pub(crate) fn by_folder(&self) -> BTreeMap<String, &Package> {
        let members = self.packages.iter().filter(|package| self.workspace_members.contains(&package.id));
        members.map(|package| (package.folder(), package)).collect()
    }
}

impl Package {
    /// The name of the folder it lies in, which is how the house calls it.
    pub(crate) fn folder(&self) -> String {
        let folder = self.manifest_path.parent().and_then(Path::file_name).unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }
}

fn parse_metadata(json: &str) -> Result<Metadata> {
    serde_json::from_str(json).context("cargo metadata wrote something unexpected")
}
