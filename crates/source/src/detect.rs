//! Saying how to build what is in a tree, by rules that are data.
//!
//! The first rule of [`RULES`] that fits decides. Detection reads names and the beginnings of a few files, starts
//! nothing, and gives its reasons, so that the same answer is had before sending and before building.

mod cargo;

use std::collections::BTreeMap;
use std::io;

use berth_spec::manifest::Builder;
use berth_spec::{AppName, Command, Manifest, ProcessName, RelativeDir};

use crate::recipe::Recipe;
use crate::store::ChunkStore;
use crate::tree::{Node, Tree};
use crate::walk::Packed;

/// The most of a file that detection reads, in bytes; enough for any Cargo.toml that a person wrote.
const HEAD_MAX: usize = 256 * 1024;

/// A tree's files, as detection sees them.
pub trait Files {
    /// The tree.
    fn tree(&self) -> &Tree;

    /// The beginning of the file at `path`, at most 256 KiB.
    ///
    /// # Errors
    /// When it cannot be read.
    fn head(&self, path: &str) -> io::Result<Vec<u8>>;
}

/// A tree whose content is in a store.
#[derive(Debug, Clone, Copy)]
pub struct StoredFiles<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// Where its chunks are.
    pub store: &'a ChunkStore,
}

impl Files for StoredFiles<'_> {
    fn tree(&self) -> &Tree {
        self.tree
    }

    fn head(&self, path: &str) -> io::Result<Vec<u8>> {
        first_chunk(self.tree, path, |chunk| self.store.get(chunk).map_err(io::Error::other))
    }
}

impl Files for Packed {
    fn tree(&self) -> &Tree {
        self.tree()
    }

    fn head(&self, path: &str) -> io::Result<Vec<u8>> {
        first_chunk(self.tree(), path, |chunk| self.read(chunk).map_err(io::Error::other))
    }
}

/// The first chunk is the head: a file of less than a chunk's least size has one, and what detection looks for at
/// the start of larger ones are magic numbers.
fn first_chunk(
    tree: &Tree,
    path: &str,
    read: impl Fn(&crate::ChunkId) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let Some(Node::File { chunks, .. }) = tree.node(path) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut head = Vec::new();
    for chunk in chunks {
        head.extend(read(&chunk.hash)?);
        if head.len() >= HEAD_MAX {
            head.truncate(HEAD_MAX);
            break;
        }
    }
    Ok(head)
}

/// How to build a tree and what to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// The builder.
    pub builder: Builder,
    /// What the builder does, where it follows a recipe.
    pub recipe: Recipe,
    /// What runs once before traffic, unless the manifest says.
    pub release_command: Option<Command>,
    /// What runs, never empty; paths in it are relative to the artifact.
    pub processes: BTreeMap<ProcessName, Command>,
    /// The reasons, as sentences.
    pub why: Vec<String>,
}

/// No rule fits, or one fits but cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum NothingFits {
    /// Nothing that was looked for is there.
    #[error("found nothing to run; looked for {}", looked_for())]
    Nothing,
    /// Something is there, but it does not say what to run.
    #[error("{problem}")]
    Unclear {
        /// What is unclear and what to write to make it clear.
        problem: String,
    },
    /// A file could not be read.
    #[error("{path} could not be read")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn unclear(problem: impl Into<String>) -> NothingFits {
    NothingFits::Unclear { problem: problem.into() }
}

fn looked_for() -> String {
    RULES.iter().map(|rule| rule.looks_for).collect::<Vec<_>>().join("; ")
}

/// One rule of detection.
pub struct Rule {
    /// Its name, as `why` gives it.
    pub name: &'static str,
    /// What it looks for, as a person would say it.
    pub looks_for: &'static str,
    /// What it yields; nothing when it does not fit.
    find: fn(&View<'_>) -> Result<Option<Found>, NothingFits>,
}

/// The rules, in the order they are tried.
pub const RULES: [Rule; 6] = [
    Rule { name: "manifest", looks_for: "`build.builder` in berth.toml", find: by_manifest },
    Rule { name: "command", looks_for: "`build.command` in berth.toml", find: by_command },
    Rule { name: "cargo", looks_for: "a Cargo.toml with a program", find: by_cargo },
    Rule { name: "processes", looks_for: "`[processes]` in berth.toml or a Procfile", find: by_processes },
    Rule { name: "static", looks_for: "an index.html at the root, in public/ or in dist/", find: by_index },
    Rule { name: "executable", looks_for: "exactly one executable ELF file", find: by_executable },
];

/// What rules look at.
struct View<'a> {
    files: &'a dyn Files,
    manifest: &'a Manifest,
    app: &'a AppName,
}

/// What a rule yields.
struct Found {
    builder: Builder,
    /// What to run when the manifest does not say.
    web: Option<Command>,
    why: String,
}

/// Says how to build what is in `files`, for the app `app` with `manifest`, which holds the Procfile's processes
/// where there is one.
///
/// # Errors
/// [`NothingFits`] says what was looked for, or what is unclear and how to make it clear.
pub fn detect(files: &dyn Files, manifest: &Manifest, app: &AppName) -> Result<Detection, NothingFits> {
    let view = View { files, manifest, app };
    for rule in &RULES {
        if let Some(found) = (rule.find)(&view)? {
            return finish(&view, found);
        }
    }
    Err(NothingFits::Nothing)
}

fn finish(view: &View<'_>, found: Found) -> Result<Detection, NothingFits> {
    let mut why = vec![found.why];
    let given = &view.manifest.processes;
    let processes = match found.web {
        Some(web @ Command::StaticSite { .. }) => BTreeMap::from([(web_process(), web)]),
        _ if !given.is_empty() => {
            let names: Vec<&str> = given.keys().map(ProcessName::as_str).collect();
            why.push(format!("it runs {}", names.join(", ")));
            given.clone()
        }
        Some(web) => {
            why.push(format!("web runs {web}"));
            BTreeMap::from([(web_process(), web)])
        }
        None => {
            return Err(unclear(
                "nothing says what to run: write `[processes]` with `web = \"...\"` into berth.toml",
            ));
        }
    };
    Ok(Detection { builder: found.builder, recipe: Recipe::default(), release_command: None, processes, why })
}

fn web_process() -> ProcessName {
    ProcessName::new(ProcessName::WEB).expect("web is the name of a process")
}

fn by_manifest(view: &View<'_>) -> Result<Option<Found>, NothingFits> {
    let Some(builder) = view.manifest.build.builder else {
        return Ok(None);
    };
    let why = "berth.toml names the builder".to_owned();
    let found = match builder {
        Builder::Cargo => match by_cargo(view)? {
            Some(found) => Found { why, ..found },
            None => {
                return Err(unclear(
                    "berth.toml says builder = \"cargo\", but there is no Cargo.toml at the root",
                ));
            }
        },
        Builder::Copy => Found { builder, web: lone_executable(view)?, why },
        Builder::Static => Found { builder, web: Some(site(view)?), why },
        _ => Found { builder, web: None, why },
    };
    Ok(Some(found))
}

/// The static site that berth.toml asks for.
fn site(view: &View<'_>) -> Result<Command, NothingFits> {
    if view.manifest.build.output.is_some() {
        return Ok(Command::StaticSite { root: RelativeDir::here() });
    }
    match index_dir(view.files.tree()) {
        Some((root, _)) => Ok(Command::StaticSite { root }),
        None if view.manifest.build.command.is_some() => Err(unclear(
            "where `build.command` puts the static site is not known: write `output = \"dist\"` below `[build]`",
        )),
        None => Err(unclear("a static site needs an index.html at the root, in public/ or in dist/")),
    }
}

fn by_command(view: &View<'_>) -> Result<Option<Found>, NothingFits> {
    if view.manifest.build.command.is_none() {
        return Ok(None);
    }
    let why = "berth.toml has a build command".to_owned();
    Ok(Some(Found { builder: Builder::Copy, web: None, why }))
}

fn by_cargo(view: &View<'_>) -> Result<Option<Found>, NothingFits> {
    const CARGO_TOML: &str = "Cargo.toml";
    if view.files.tree().node(CARGO_TOML).is_none() {
        return Ok(None);
    }
    let text = read(view, CARGO_TOML)?;
    let paths = view.files.tree().entries().iter().map(|entry| entry.path.as_str());
    let package = cargo::read(&text, paths).map_err(unclear)?;
    let web = if view.manifest.processes.is_empty() {
        let binary = package.choose(view.app.as_str()).map_err(unclear)?;
        Some(program(&format!("bin/{binary}"))?)
    } else {
        None
    };
    let why = "there is a Cargo.toml".to_owned();
    Ok(Some(Found { builder: Builder::Cargo, web, why }))
}

fn by_processes(view: &View<'_>) -> Result<Option<Found>, NothingFits> {
    let given = !view.manifest.processes.is_empty();
    let why = "its processes are named and there is nothing to compile".to_owned();
    Ok(given.then_some(Found { builder: Builder::Copy, web: None, why }))
}

fn by_index(view: &View<'_>) -> Result<Option<Found>, NothingFits> {
    Ok(index_dir(view.files.tree()).map(|(root, index)| Found {
        builder: Builder::Static,
        web: Some(Command::StaticSite { root }),
        why: format!("there is {index}"),
    }))
}

/// The directory of the index.html that a static site starts with, and where that is.
fn index_dir(tree: &Tree) -> Option<(RelativeDir, String)> {
    [".", "public", "dist"].into_iter().find_map(|dir| {
        let index = if dir == "." { "index.html".to_owned() } else { format!("{dir}/index.html") };
        matches!(tree.node(&index), Some(Node::File { .. }))
            .then(|| (RelativeDir::new(dir).expect("a plain name is a relative directory"), index))
    })
}

fn by_executable(view: &View<'_>) -> Result<Option<Found>, NothingFits> {
    Ok(lone_executable(view)?.map(|web| Found {
        builder: Builder::Copy,
        why: "there is exactly one executable".to_owned(),
        web: Some(web),
    }))
}

/// The only executable ELF file, if there is exactly one.
fn lone_executable(view: &View<'_>) -> Result<Option<Command>, NothingFits> {
    let mut only = None;
    for entry in view.files.tree().entries() {
        if !matches!(entry.node, Node::File { exec: true, size: 64.., .. })
            || !is_program(&read(view, &entry.path)?)
        {
            continue;
        }
        if only.replace(entry.path.as_str()).is_some() {
            return Ok(None);
        }
    }
    only.map(program).transpose()
}

/// Whether `head` begins an ELF file of a type that can be started. A shared library has the type of a
/// position-independent program; its exec bit is what tells them apart.
fn is_program(head: &[u8]) -> bool {
    // e_type is at byte 16, in the byte order that byte 5 gives.
    let kind = match (head.get(5), head.get(16), head.get(17)) {
        (Some(1), Some(low), Some(high)) | (Some(2), Some(high), Some(low)) => {
            u16::from_le_bytes([*low, *high])
        }
        _ => return false,
    };
    head.starts_with(b"\x7fELF") && matches!(kind, 2 | 3)
}

/// The command that runs the file at `path`. A path of one segment gets a `./`: without a slash it would be looked for in `PATH`.
fn program(path: &str) -> Result<Command, NothingFits> {
    let named = if path.contains('/') { path.to_owned() } else { format!("./{path}") };
    Command::from_argv(vec![named]).map_err(|error| unclear(format!("{path:?} cannot be run: {error}")))
}

fn read(view: &View<'_>, path: &str) -> Result<Vec<u8>, NothingFits> {
    view.files.head(path).map_err(|source| NothingFits::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
