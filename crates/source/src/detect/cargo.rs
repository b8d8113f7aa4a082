//! What Cargo.toml files say about the programs of a project, without running cargo.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::view::{View, join, means};
use super::{CARGO_TOML, NothingFits, unclear};

/// The most packages of a workspace that are read.
const MEMBERS_MAX: usize = 500;
/// What to write when it is not clear which program is meant.
const WRITE: &str = "write `[processes]` with `web = \"bin/NAME\"` into berth.toml";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CargoToml {
    package: Option<PackageTable>,
    workspace: Option<WorkspaceTable>,
    #[serde(default)]
    bin: Vec<BinTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PackageTable {
    name: String,
    default_run: Option<String>,
    autobins: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WorkspaceTable {
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    default_members: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct BinTable {
    name: Option<String>,
}

/// The programs that `cargo build` makes at the root of a project.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Project {
    /// The programs, with the folders of their packages.
    programs: BTreeMap<String, String>,
    default_runs: BTreeSet<String>,
    workspace: bool,
}

/// Reads the Cargo.toml at the root and those of the packages that a build there builds; nothing when there is none.
pub(super) fn read(view: &View<'_>) -> Result<Option<Project>, NothingFits> {
    let Some(root) = cargo_toml(view, "")? else {
        return Ok(None);
    };
    let mut project = Project { workspace: root.workspace.is_some(), ..Project::default() };
    let members = root.workspace.as_ref().map(|workspace| built(workspace, root.package.is_some()));
    project.add(view, "", &root);
    for dir in members.iter().flat_map(|built| folders(view, built)) {
        if let Some(member) = cargo_toml(view, dir)? {
            project.add(view, dir, &member);
        }
    }
    Ok(Some(project))
}

/// The patterns of the packages that cargo builds without being told which, and of those that it leaves out.
fn built(workspace: &WorkspaceTable, has_root: bool) -> (Vec<&str>, &[String]) {
    let named = match &workspace.default_members {
        Some(default) => default.as_slice(),
        // The package at the root is built alone.
        None if has_root => &[],
        None => workspace.members.as_slice(),
    };
    (
        named.iter().map(|pattern| pattern.trim_start_matches("./").trim_end_matches('/')).collect(),
        &workspace.exclude,
    )
}

fn folders<'v>(view: &View<'v>, (named, exclude): &(Vec<&str>, &[String])) -> Vec<&'v str> {
    let dirs = view.paths().filter_map(|path| path.strip_suffix("/Cargo.toml"));
    let fits = |dir: &&str| {
        named.iter().any(|pattern| means(pattern, dir)) && !exclude.iter().any(|pattern| means(pattern, dir))
    };
    dirs.filter(fits).take(MEMBERS_MAX).collect()
}

fn cargo_toml(view: &View<'_>, dir: &str) -> Result<Option<CargoToml>, NothingFits> {
    let path = join(dir, CARGO_TOML);
    if !view.has(&path) {
        return Ok(None);
    }
    let bytes = view.bytes(&path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_not_text| unclear(format!("{path} is not UTF-8")))?;
    let read = toml::from_str(text);
    read.map(Some).map_err(|error| unclear(format!("{path} cannot be read: {}", error.message())))
}

impl Project {
    fn add(&mut self, view: &View<'_>, dir: &str, read: &CargoToml) {
        let Some(package) = &read.package else {
            return;
        };
        let mut names: BTreeSet<&str> = read.bin.iter().filter_map(|bin| bin.name.as_deref()).collect();
        let src = join(dir, "src/");
        let own = view
            .paths()
            .filter(|_| package.autobins != Some(false))
            .filter_map(|path| path.strip_prefix(&src));
        for path in own {
            let below = path.strip_prefix("bin/");
            let found = match below.map(|below| (below.strip_suffix(".rs"), below.strip_suffix("/main.rs"))) {
                _ if path == "main.rs" => Some(package.name.as_str()),
                Some((_, Some(folder))) if !folder.contains('/') => Some(folder),
                Some((Some(file), None)) if !file.contains('/') => Some(file),
                _ => None,
            };
            names.extend(found);
        }
        self.programs.extend(names.into_iter().map(|name| (name.to_owned(), dir.to_owned())));
        self.default_runs.extend(package.default_run.clone());
    }

    /// Whether it is a library and nothing else.
    pub(super) fn makes_nothing(&self) -> bool {
        self.programs.is_empty() && !self.workspace
    }

    /// The program that `web` runs, and why: the only one, the one cargo would run, or the one called like the app.
    pub(super) fn choose(&self, app: &str) -> Result<(&str, String), String> {
        let mut defaults = self.default_runs.iter();
        if let (Some(name), None) = (defaults.next(), defaults.next()) {
            return Ok((name, format!("default-run of Cargo.toml is {name}")));
        }
        let mut programs = self.programs.keys();
        match (programs.next(), programs.next()) {
            (Some(only), None) => Ok((only, format!("{only} is its only program"))),
            (Some(_), Some(_)) => match self.programs.get_key_value(app) {
                Some((name, _)) => Ok((
                    name,
                    format!("{name} of its {} programs is called like the app", self.programs.len()),
                )),
                None => {
                    let names: Vec<&str> = self.programs.keys().map(String::as_str).collect();
                    Err(format!(
                        "Cargo.toml has several programs ({}) and none is called {app}; {WRITE}",
                        names.join(", ")
                    ))
                }
            },
            (None, _) if self.workspace => Err(format!(
                "Cargo.toml is a workspace of which `cargo build` makes no program; name the package of one in `default-members`, or {WRITE}"
            )),
            (None, _) => Err(format!("Cargo.toml has no program, only a library; {WRITE}")),
        }
    }
}
