//! How an artifact is made of a tree, as data: which tools, which steps, what is kept between builds, what its programs find.
//!
//! [`detect()`](crate::detect()) writes a recipe from rules; the crate `build` follows it without knowing a language. Paths are
//! relative to the root of the tree, which becomes the root of the artifact.

use std::collections::{BTreeMap, BTreeSet};

use berth_spec::{Command, RelativeDir};
use serde::Serialize;

/// How an artifact is made of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Recipe {
    /// The tools that must be there, each once, in the order in which their folders come in `PATH`.
    pub tools: Vec<ToolNeed>,
    /// What runs, one after the other, for every builder: `build.command` of the manifest is among them and in its place. The first that
    /// fails ends the build. A builder of its own (`cargo`) follows them.
    pub steps: Vec<Step>,
    /// The directory that becomes the artifact; the whole tree when not given. It is `build.output` of the manifest where that is given.
    pub output: Option<RelativeDir>,
    /// Environment of the steps and of every process of the artifact. `$ARTIFACT` in a value stands for the artifact's directory,
    /// and for the tree's while it is being built.
    pub env: BTreeMap<String, String>,
    /// Folders of the tree whose programs come first in `PATH`, for the steps and for every process.
    pub path: Vec<RelativeDir>,
    /// Variables that name a folder which is kept between the builds of an app, with that folder's name: `npm_config_cache`, `npm`.
    pub caches: BTreeMap<String, String>,
    /// Folders of the tree that are moved into it before the steps and out of it after: what a framework keeps for its next build.
    /// They are no part of the artifact.
    pub kept: BTreeSet<RelativeDir>,
    /// Folders of the tree in whose text files the path of the tree is replaced by the artifact's: scripts of a virtual environment.
    pub relocated: BTreeSet<RelativeDir>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it does, as the log says it: `installing dependencies`.
    pub does: String,
    /// What runs.
    pub command: Command,
    /// Environment of this step alone.
    pub env: BTreeMap<String, String>,
    /// What it makes, when that depends on some files alone.
    pub layer: Option<Layer>,
}

/// Folders that a step makes from some files and the tools alone. Releases with the same files share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// The files that decide, as paths of the tree that exist; sorted.
    pub inputs: BTreeSet<String>,
    /// The folders that are made; one that the step does not make is no error.
    pub makes: BTreeSet<RelativeDir>,
}

/// A tool that a recipe needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ToolNeed {
    /// Which.
    pub tool: Tool,
    /// The version that the source asks for.
    pub wanted: Option<Wanted>,
    /// Whether the app's processes need it, too, and not only its steps.
    pub at_run: bool,
}

/// A version that the source asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Wanted {
    /// As it is written: `20`, `>=18`, `v22.1.0`, `lts/*`, `3.12`.
    pub version: String,
    /// Where: `.nvmrc`, `engines.node of package.json`.
    pub by: String,
}

/// A tool by which sources are built or programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Tool {
    /// `cargo`, `rustc`.
    Rust,
    /// `node`, `npm`, `npx`.
    Node,
    /// `pnpm`.
    Pnpm,
    /// `yarn`.
    Yarn,
    /// `bun`.
    Bun,
    /// `deno`.
    Deno,
    /// `python3`, with its `venv` and `pip`.
    Python,
    /// `uv`.
    Uv,
    /// `poetry`.
    Poetry,
    /// `pipenv`.
    Pipenv,
    /// `go`.
    Go,
    /// `ruby`.
    Ruby,
    /// `bundle`.
    Bundler,
    /// `php`.
    Php,
    /// `composer`.
    Composer,
    /// `java`, `javac`.
    Java,
    /// `mvn`.
    Maven,
    /// `gradle`.
    Gradle,
    /// `dotnet`.
    Dotnet,
    /// `elixir`, `mix`.
    Elixir,
    /// `make`.
    Make,
}
