//! `cargo xtask layers`: the rings. `layers.toml` says which crate may use which; this compares it with what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::args::Args;
use crate::program::Program;
use crate::rust_source::RustSource;
use crate::workspace::{Metadata, Workspace};

const TABLE: &str = "xtask/layers.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    pure: Pure,
    crates: BTreeMap<String, Row>,
}

/// What the pure ring does without.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pure {
    ring: u8,
    crates: Vec<String>,
    code: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Row {
    ring: u8,
    uses: BTreeSet<String>,
    #[serde(default)]
    dev_only: bool,
    /// Entries of [`Pure`] that do not hold for this crate.
    #[serde(default)]
    pure_except: BTreeSet<String>,
    /// Why the row is an exception.
    because: Option<String>,
}

/// The members of the workspace that each member uses outside its tests and build script.
type Uses = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn run(workspace: &Workspace, args: Args) -> Result<()> {
    args.finish()?;
    let layers: Layers =
        toml::from_str(&workspace.read(TABLE)?).with_context(|| format!("cannot read {TABLE}"))?;
    let metadata = workspace.members()?;
    let mut complaints = check_rows(&layers);
    complaints.extend(check_uses(&layers, &uses_of(&metadata)));
    let files = workspace.files()?;
    for (name, row) in layers.crates.iter().filter(|(_, row)| row.ring == layers.pure.ring) {
        let Some(package) = metadata.by_folder().get(name).map(|package| package.name.clone()) else {
            continue;
        };
        let tree = Program::cargo(workspace, "tree")
            .args(["-e", "normal", "--prefix", "none", "--format", "{p}", "-p"]);
        complaints.extend(check_tree(&layers.pure, name, row, &tree.arg(package).output()?));
        let sources = Path::new("crates").join(name).join("src");
        for path in files
            .iter()
            .filter(|path| path.starts_with(&sources) && path.extension().is_some_and(|e| e == "rs"))
        {
            complaints.extend(check_code(&layers.pure, row, path, &workspace.read(path)?));
        }
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} things stand between the rings", complaints.len());
    }
    println!("layers: {} crates, each uses only what its row lists", layers.crates.len());
    Ok(())
}

fn uses_of(metadata: &Metadata) -> Uses {
    let members = metadata.by_folder();
    let folder_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let uses = members.iter().map(|(folder, package)| {
        let normal = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
        (folder.clone(), normal.filter_map(|dependency| folder_of(dependency.path.as_deref()?)).collect())
    });
    uses.collect()
}

/// The table in itself: rows point inwards or sideways, and an exception says why.
fn check_rows(layers: &Layers) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, row) in &layers.crates {
        for used in &row.uses {
            match layers.crates.get(used) {
                None => complaints.push(format!("{TABLE}: {name} uses {used}, which has no row")),
                Some(inner) if inner.ring > row.ring => {
                    complaints.push(format!(
                        "{TABLE}: {name} of ring {} uses {used} of ring {}",
                        row.ring, inner.ring
                    ));
                }
                Some(inner) if inner.dev_only => {
                    complaints.push(format!("{TABLE}: {name} uses {used}, which is for tests only"));
                }
                Some(_) => {}
            }
        }
        if (row.dev_only || !row.pure_except.is_empty()) && row.because.is_none() {
            complaints.push(format!("{TABLE}: {name} is an exception and does not say why (`because`)"));
        }
    }
    complaints
}

/// The table against the workspace.
fn check_uses(layers: &Layers, uses: &Uses) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, used) in uses {
        let Some(row) = layers.crates.get(name) else {
            complaints.push(format!("{TABLE}: the crate {name} has no row"));
            continue;
        };
        for other in used.difference(&row.uses) {
            let allowed = row.uses.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            complaints.push(format!("crates/{name}/Cargo.toml: uses {other}; its row lists only: {allowed}"));
        }
    }
    let missing = layers.crates.keys().filter(|name| !uses.contains_key(*name));
    complaints.extend(missing.map(|name| format!("{TABLE}: there is no crate {name}")));
    complaints
}

/// A pure crate's whole tree of dependencies, one `name vVERSION` a line.
fn check_tree(pure: &Pure, name: &str, row: &Row, tree: &str) -> Vec<String> {
    let found: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let banned = pure
        .crates
        .iter()
        .filter(|krate| !row.pure_except.contains(*krate) && found.contains(krate.as_str()));
    banned
        .map(|krate| {
            format!("crates/{name}/Cargo.toml: ring {} is pure, but `cargo tree` shows {krate}", pure.ring)
        })
        .collect()
}

fn check_code(pure: &Pure, row: &Row, path: &Path, text: &str) -> Vec<String> {
    if path.file_stem().is_some_and(|stem| stem == "tests") {
        return Vec::new();
    }
    let source = RustSource::new(text);
    let banned = pure.code.iter().filter(|word| !row.pure_except.contains(*word));
    let lines =
        banned.flat_map(|word| source.lines_with_word(word).into_iter().map(move |line| (line, word)));
    lines
        .filter(|(line, _)| *line <= source.production_lines())
        .map(|(line, word)| format!("{}:{line}: ring {} is pure: no `{word}`", path.display(), pure.ring))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        toml::from_str(
            r#"
            [pure]
            ring = 0
            crates = ["tokio", "getrandom"]
            code = ["HashMap"]
            [crates.spec]
            ring = 0
            uses = []
            [crates.server]
            ring = 2
            uses = ["spec"]
            "#,
        )
        .unwrap()
    }

    fn uses(list: &[(&str, &[&str])]) -> Uses {
        list.iter()
            .map(|(name, used)| ((*name).to_owned(), used.iter().map(|u| (*u).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn a_crate_uses_what_its_row_lists() {
        assert!(check_uses(&layers(), &uses(&[("spec", &[]), ("server", &["spec"])])).is_empty());
        assert_eq!(check_uses(&layers(), &uses(&[("spec", &["server"]), ("server", &[])])).len(), 1);
    }

    #[test]
    fn table_and_workspace_name_the_same_crates() {
        assert_eq!(check_uses(&layers(), &uses(&[("spec", &[]), ("edge", &[])])).len(), 2);
    }

    #[test]
    fn rows_point_inwards_and_exceptions_say_why() {
        assert!(check_rows(&layers()).is_empty());
        let mut wrong = layers();
        wrong.crates.get_mut("spec").unwrap().uses.insert("server".to_owned());
        wrong.crates.get_mut("spec").unwrap().pure_except.insert("getrandom".to_owned());
        assert_eq!(check_rows(&wrong).len(), 2);
    }

    #[test]
    fn purity_goes_all_the_way_down() {
        let layers = layers();
        let row = &layers.crates["spec"];
        assert_eq!(check_tree(&layers.pure, "spec", row, "berth-spec v0.0.0 (/x)\ntokio v1.0.0\n").len(), 1);
        assert!(check_tree(&layers.pure, "spec", row, "berth-spec v0.0.0\ntokio-not v1.0.0\n").is_empty());
        let code = "//! HashMap\nuse std::collections::HashMap;\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n";
        assert_eq!(
            check_code(&layers.pure, row, Path::new("a.rs"), code),
            ["a.rs:2: ring 0 is pure: no `HashMap`"]
        );
    }
}
