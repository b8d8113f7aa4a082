//! Saying how to build what is in a tree, by rules that are data.
//!
//! The tables are in `languages`, a row for each package manager and framework; what they have in common is in `compose`.
//! Detection reads names and the beginnings of a few files, starts nothing, and gives its reasons, so that the same answer is had
//! before sending and before building. docs/detection.md is written from the tables.

mod cargo;
mod compose;
pub mod document;
mod fill;
mod languages;
mod rule;
mod sign;
mod view;
mod wish;

use std::collections::BTreeMap;
use std::io;

use berth_spec::manifest::Builder;
use berth_spec::{AppName, Command, Manifest, ProcessName, RelativeDir};

use self::compose::Composed;
use self::view::View;
use crate::recipe::{Recipe, Step, Tool, ToolNeed};
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
    /// A Dockerfile, and nothing else says how to build.
    #[error("there is a Dockerfile, which Docker, Podman or buildah builds, and nothing else that says how")]
    Dockerfile,
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

/// What makes a tree one of cargo's.
const CARGO_TOML: &str = "Cargo.toml";
/// Scripts that start an app where nothing else says how.
const START_SCRIPTS: [&str; 6] = ["bin/start", "start.sh", "run.sh", "bin/server", "start", "run"];

fn looked_for() -> String {
    let files = languages::LANGUAGES.iter().flat_map(|language| language.fits.files());
    let mut looked: Vec<&str> = std::iter::once(CARGO_TOML).chain(files).collect();
    looked.extend([
        "a Procfile",
        "`[processes]` in berth.toml",
        "start.sh",
        "index.html at the root, in public/ or in dist/",
        "exactly one executable ELF file",
    ]);
    looked.join(", ")
}

/// What rules yield.
struct Found {
    builder: Builder,
    recipe: Recipe,
    /// What to run when the manifest does not say.
    web: Option<Web>,
    /// What runs before traffic when the manifest does not say.
    release: Option<Command>,
    why: Vec<String>,
}

/// What serves an app.
enum Web {
    /// A program.
    Runs(Command),
    /// Berth, the files of a folder of the artifact.
    Site {
        root: RelativeDir,
        /// Whether paths that are no files are the app's own.
        single_page: bool,
    },
}

impl Web {
    fn command(self) -> Command {
        match self {
            Self::Runs(command) => command,
            Self::Site { root, single_page } => Command::StaticSite { root, single_page },
        }
    }
}

/// Says how to build what is in `files`, for the app `app` with `manifest`, which holds the Procfile's processes
/// where there is one.
///
/// # Errors
/// [`NothingFits`] says what was looked for, or what is unclear and how to make it clear.
pub fn detect(files: &dyn Files, manifest: &Manifest, app: &AppName) -> Result<Detection, NothingFits> {
    let view = View { files, manifest, app };
    let found = match manifest.build.builder {
        Some(builder) => named(&view, builder)?,
        None => {
            let mut found = guessed(&view)?;
            if view.has("Dockerfile") {
                found.why.push("its Dockerfile is not used: `build.dockerfile = \"Dockerfile\"` in berth.toml has it built".to_owned());
            }
            found
        }
    };
    finish(&view, found)
}

fn finish(view: &View<'_>, found: Found) -> Result<Detection, NothingFits> {
    let Found { builder, recipe, web, release, mut why } = found;
    let given = &view.manifest.processes;
    let processes = if given.is_empty() {
        let Some(web) = web else {
            return Err(unclear(
                "nothing says what to run: write `[processes]` with `web = \"...\"` into berth.toml",
            ));
        };
        let web = web.command();
        if !matches!(web, Command::StaticSite { .. }) {
            why.push(format!("web runs {web}"));
        }
        BTreeMap::from([(web_process(), web)])
    } else {
        let names: Vec<&str> = given.keys().map(ProcessName::as_str).collect();
        why.push(format!("berth.toml or the Procfile says what runs: {}", names.join(", ")));
        given.clone()
    };
    let release_command = view.manifest.deploy.release_command.clone().or(release);
    Ok(Detection { builder, recipe, release_command, processes, why })
}

fn web_process() -> ProcessName {
    ProcessName::new(ProcessName::WEB).expect("web is the name of a process")
}

/// What the builder that berth.toml names makes of the tree.
fn named(view: &View<'_>, builder: Builder) -> Result<Found, NothingFits> {
    let why = "berth.toml names the builder".to_owned();
    let absent = |fits: &dyn std::fmt::Display| {
        unclear(format!("berth.toml says builder = \"{}\", but there is no {fits}", builder.name()))
    };
    let mut found = match builder {
        Builder::Cargo => match by_cargo(view)? {
            Some(found) => found?,
            None => return Err(absent(&"Cargo.toml at the root")),
        },
        Builder::Copy => copied(view, lone_executable(view)?.map(Web::Runs), Vec::new()),
        Builder::Static => {
            let root = site(view)?;
            let web = Some(Web::Site { root, single_page: false });
            Found { builder, ..copied(view, web, Vec::new()) }
        }
        _ => {
            let language = languages::LANGUAGES.iter().find(|language| language.builder == builder);
            let language = language.ok_or_else(|| absent(&"rule for it"))?;
            match compose::compose(view, language)? {
                Composed::Fits(found) => *found,
                Composed::Weak(problem) => return Err(problem),
                Composed::No => return Err(absent(&language.fits)),
            }
        }
    };
    found.why.insert(0, why);
    Ok(found)
}

/// What the first rule that fits makes of the tree. A language whose files are there without anything to run gives way to what comes
/// after; its complaint is the one that is told when nothing does.
fn guessed(view: &View<'_>) -> Result<Found, NothingFits> {
    let mut complaint = None;
    // With a command of one's own and Rust, one builds with cargo oneself.
    if view.manifest.build.command.is_none() {
        match by_cargo(view)? {
            None => {}
            Some(Ok(found)) => return with_browser_files(view, found),
            Some(Err(problem)) => complaint = Some(problem),
        }
    }
    let mut order = languages::LANGUAGES;
    order.sort_by_key(|language| !speaks(view, language));
    for language in order {
        match compose::compose(view, language)? {
            Composed::No => {}
            Composed::Fits(found) if language.builder == languages::FOR_BROWSERS.builder => {
                return Ok(*found);
            }
            Composed::Fits(found) => return with_browser_files(view, *found),
            Composed::Weak(problem) => complaint = complaint.or(Some(problem)),
        }
    }
    if view.manifest.build.command.is_some() {
        return Ok(copied(view, None, Vec::new()));
    }
    if !view.manifest.processes.is_empty() {
        let why = "its processes are named and there is nothing to build".to_owned();
        let mut found = copied(view, None, vec![why]);
        let spoken = languages::LANGUAGES.iter().filter(|language| speaks(view, language));
        found.recipe.tools.extend(spoken.map(|language| need(view, language.tool, true)));
        return Ok(found);
    }
    if let Some((web, why)) = start_script(view)? {
        return Ok(copied(view, Some(web), vec![why]));
    }
    if let Some((root, index)) = index_dir(view.tree()) {
        let web = Some(Web::Site { root, single_page: false });
        return Ok(Found {
            builder: Builder::Static,
            ..copied(view, web, vec![format!("there is {index}")])
        });
    }
    if let Some(web) = lone_executable(view)? {
        return Ok(copied(view, Some(Web::Runs(web)), vec!["there is exactly one executable".to_owned()]));
    }
    if view.has("Dockerfile") {
        return Err(NothingFits::Dockerfile);
    }
    Err(complaint.unwrap_or(NothingFits::Nothing))
}

/// Whether one of the given processes is a command of `language`.
fn speaks(view: &View<'_>, language: &rule::Language) -> bool {
    view.manifest.processes.values().any(|command| {
        let first = match command {
            Command::Argv(argv) => argv.first().map_or("", String::as_str),
            Command::Line(line) | Command::Shell(line) => line.split_whitespace().next().unwrap_or_default(),
            Command::StaticSite { .. } => "",
        };
        language.programs.contains(&first)
    })
}

/// The tree as it is, after `build.command` where there is one.
fn copied(view: &View<'_>, web: Option<Web>, mut why: Vec<String>) -> Found {
    let build = &view.manifest.build;
    let mut recipe = Recipe { output: build.output.clone(), ..Recipe::default() };
    if let Some(command) = &build.command {
        why.push(format!("`build.command` of berth.toml builds: {command}"));
        recipe.steps.push(Step {
            does: "building".to_owned(),
            command: command.clone(),
            env: BTreeMap::new(),
            layer: None,
        });
        // It may run cargo, which is nowhere where programs of the system are.
        if view.has(CARGO_TOML) {
            recipe.tools.push(need(view, Tool::Rust, false));
        }
    }
    Found { builder: Builder::Copy, recipe, web, release: None, why }
}

/// Adds the steps that build an app's files for browsers, where another language's app has such beside it.
fn with_browser_files(view: &View<'_>, mut found: Found) -> Result<Found, NothingFits> {
    let Some((beside, why)) = compose::beside(view, languages::FOR_BROWSERS)? else {
        return Ok(found);
    };
    if view.manifest.build.command.is_some() {
        return Ok(found);
    }
    let installed = found.recipe.steps.iter().take_while(|step| step.does.starts_with("installing")).count();
    found.recipe.steps.splice(installed..installed, beside.steps);
    found.recipe.tools.extend(beside.tools);
    found.recipe.caches.extend(beside.caches);
    found.recipe.path.extend(beside.path);
    found.why.push("package.json beside it builds files for browsers".to_owned());
    found.why.extend(why);
    Ok(found)
}

fn need(view: &View<'_>, tool: Tool, at_run: bool) -> ToolNeed {
    ToolNeed { tool, wanted: wish::wanted(view, &view::Facts::default(), tool), at_run }
}

/// What cargo makes of the tree; nothing when it is none of cargo's, a complaint when it does not say what to run.
fn by_cargo(view: &View<'_>) -> Result<Option<Result<Found, NothingFits>>, NothingFits> {
    let Some(project) = cargo::read(view)? else {
        return Ok(None);
    };
    if !view.manifest.processes.is_empty() && project.makes_nothing() {
        return Ok(None);
    }
    let mut why = vec!["there is a Cargo.toml: `cargo build --release`".to_owned()];
    let mut web = None;
    if view.manifest.processes.is_empty() {
        match project.choose(view.app.as_str()) {
            Ok((binary, because)) => {
                why.push(because);
                web = Some(Web::Runs(program(&format!("bin/{binary}"))?));
            }
            Err(problem) => return Ok(Some(Err(unclear(problem)))),
        }
    }
    let recipe = Recipe { tools: vec![need(view, Tool::Rust, false)], ..Recipe::default() };
    Ok(Some(Ok(Found { builder: Builder::Cargo, recipe, web, release: None, why })))
}

/// The static site that berth.toml asks for.
fn site(view: &View<'_>) -> Result<RelativeDir, NothingFits> {
    if view.manifest.build.output.is_some() {
        return Ok(RelativeDir::here());
    }
    match index_dir(view.tree()) {
        Some((root, _)) => Ok(root),
        None if view.manifest.build.command.is_some() => Err(unclear(
            "where `build.command` puts the static site is not known: write `output = \"dist\"` below `[build]`",
        )),
        None => Err(unclear("a static site needs an index.html at the root, in public/ or in dist/")),
    }
}

/// The script that starts the app, where there is one. One that may not be executed is given to the shell that its first line names.
fn start_script(view: &View<'_>) -> Result<Option<(Web, String)>, NothingFits> {
    let found = START_SCRIPTS.into_iter().find_map(|path| match view.tree().node(path) {
        Some(Node::File { exec, .. }) if *exec || path.ends_with(".sh") => Some((path, *exec)),
        _ => None,
    });
    let Some((path, exec)) = found else {
        return Ok(None);
    };
    let head = view.bytes(path)?;
    if !head.starts_with(b"#!") && !path.ends_with(".sh") {
        return Ok(None);
    }
    let bash = head.split(|byte| *byte == b'\n').next().is_some_and(|line| line.ends_with(b"bash"));
    let command = match (exec && head.starts_with(b"#!"), bash) {
        (true, _) => program(path)?,
        (false, true) => Command::Line(format!("bash {path}")),
        (false, false) => Command::Line(format!("sh {path}")),
    };
    Ok(Some((Web::Runs(command), format!("there is a script {path}"))))
}

/// The directory of the index.html that a static site starts with, and where that is.
fn index_dir(tree: &Tree) -> Option<(RelativeDir, String)> {
    [".", "public", "dist"].into_iter().find_map(|dir| {
        let index = if dir == "." { "index.html".to_owned() } else { format!("{dir}/index.html") };
        matches!(tree.node(&index), Some(Node::File { .. }))
            .then(|| (RelativeDir::new(dir).expect("a plain name is a relative directory"), index))
    })
}

/// The only executable ELF file, if there is exactly one.
fn lone_executable(view: &View<'_>) -> Result<Option<Command>, NothingFits> {
    let mut only = None;
    for entry in view.tree().entries() {
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
    view.bytes(path)
}

#[cfg(test)]
mod tests;
