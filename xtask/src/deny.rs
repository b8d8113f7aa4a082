//! `cargo xtask deny`: banned crates, licences, sources and advisories, all from `deny.toml`.
//!
//! cargo-deny does it where it is installed. Where it is not - it takes many minutes to build - the same file is read here and
//! checked against `cargo metadata`: the keys that the file uses, and no others, so that a new key cannot be overlooked.

mod advisories;
mod licence;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use self::advisories::Advisories;
use self::licence::Expression;
use crate::args::Args;
use crate::program::{self, Program};
use crate::workspace::{Package, Workspace};

const RULES: &str = "deny.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    bans: Bans,
    licenses: Licences,
    sources: Sources,
    advisories: AdvisoryRules,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    targets: Vec<String>,
    /// Always so here.
    #[serde(rename = "all-features")]
    _all_features: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    deny: Vec<Ban>,
    /// cargo-deny's alone: here every dependency stands in the root manifest, in sight.
    #[serde(rename = "multiple-versions")]
    _multiple_versions: String,
    #[serde(rename = "wildcards")]
    _wildcards: String,
    #[serde(rename = "allow-wildcard-paths")]
    _allow_wildcard_paths: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
    /// Our own crates are checked like all others.
    #[serde(rename = "private")]
    _private: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    allow_registry: Vec<String>,
    allow_git: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvisoryRules {
    ignore: Vec<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ignored {
    id: String,
    #[serde(rename = "reason")]
    _reason: String,
}

pub(crate) fn run(workspace: &Workspace, args: Args) -> Result<()> {
    args.finish()?;
    let rules = parse(&workspace.read(RULES)?)?;
    let packages = packages(workspace, &rules.graph.targets)?;
    let has_cargo_deny = program::find("cargo-deny").is_some();
    let mut complaints = Vec::new();
    if has_cargo_deny {
        Program::cargo(workspace, "deny").args(["check", "bans", "licenses", "sources"]).run()?;
    } else {
        for package in packages.values() {
            complaints.extend(check(&rules, package));
        }
    }
    match Advisories::at_hand() {
        Some(advisories) => {
            let ignored: Vec<&str> =
                rules.advisories.ignore.iter().map(|ignored| ignored.id.as_str()).collect();
            complaints.extend(advisories.check(packages.values(), &ignored)?);
        }
        // It fetches a database of its own.
        None if has_cargo_deny => Program::cargo(workspace, "deny").args(["check", "advisories"]).run()?,
        None => {
            println!("!! ADVISORIES WERE NOT CHECKED: there is no database. {}", advisories::HOW_TO_GET);
        }
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} things that {RULES} does not let in", complaints.len());
    }
    println!("deny: {} packages, nothing that {RULES} does not let in", packages.len());
    Ok(())
}

fn parse(text: &str) -> Result<Rules> {
    let rules: Rules = toml::from_str(text).with_context(|| format!("cannot read {RULES}"))?;
    if rules.sources.unknown_registry != "deny" || rules.sources.unknown_git != "deny" {
        bail!("{RULES}: an unknown source is denied; nothing else is known here");
    }
    Ok(rules)
}

/// All packages that are built for any of the targets, in order.
fn packages(workspace: &Workspace, targets: &[String]) -> Result<BTreeMap<String, Package>> {
    let mut packages = BTreeMap::new();
    for target in targets {
        let graph = workspace.graph(target)?;
        let built = graph.built().context("cargo metadata gave no graph")?;
        let all = graph.packages.into_iter().filter(|package| built.contains(&package.id));
        packages.extend(all.map(|package| (format!("{} {}", package.name, package.version), package)));
    }
    Ok(packages)
}

fn check(rules: &Rules, package: &Package) -> Vec<String> {
    let Package { name, version, .. } = package;
    let mut complaints = Vec::new();
    if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == *name) {
        complaints.push(format!(
            "{name} {version} is banned: {}. `cargo tree -i {name}` shows who brings it",
            ban.reason
        ));
    }
    complaints.extend(check_licence(&rules.licenses, package));
    if let Some(source) = &package.source
        && !is_known_source(&rules.sources, source)
    {
        complaints.push(format!("{name} {version} comes from {source}, which is not a known source"));
    }
    complaints
}

fn check_licence(rules: &Licences, package: &Package) -> Option<String> {
    let Package { name, version, .. } = package;
    let Some(text) = &package.license else {
        let file = package.license_file.as_deref().unwrap_or("none");
        return Some(format!("{name} {version} names no licence (licence file: {file})"));
    };
    let exceptions = rules.exceptions.iter().filter(|exception| exception.name == *name);
    let allowed: Vec<&str> =
        exceptions.flat_map(|exception| &exception.allow).chain(&rules.allow).map(String::as_str).collect();
    match Expression::parse(text) {
        Ok(expression) if expression.holds(&|licence| allowed.contains(&licence)) => None,
        Ok(_) => Some(format!("{name} {version} is licensed `{text}`, which {RULES} does not allow")),
        Err(error) => Some(format!("{name} {version}: cannot read the licence `{text}`: {error}")),
    }
}

fn is_known_source(rules: &Sources, source: &str) -> bool {
    match source.split_once('+') {
        Some(("registry" | "sparse", url)) => rules.allow_registry.iter().any(|known| known == url),
        Some(("git", url)) => rules.allow_git.iter().any(|known| url.split(['?', '#']).next() == Some(known)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, licence: &str, source: &str) -> Package {
        serde_json::from_value(serde_json::json!({
            "id": name, "name": name, "version": "1.0.0", "license": licence, "license_file": null,
            "source": source, "manifest_path": "/x/Cargo.toml", "dependencies": [],
        }))
        .unwrap()
    }

    #[test]
    fn the_rules_of_the_house_are_enforced() {
        let rules = parse(&Workspace::open().unwrap().read(RULES).unwrap()).unwrap();
        let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
        assert!(check(&rules, &package("serde", "MIT OR Apache-2.0", crates_io)).is_empty());
        for (name, licence, source) in [
            ("ring", "MIT", crates_io),
            ("a", "GPL-3.0-only", crates_io),
            ("a", "MIT AND", crates_io),
            ("a", "MIT", "git+https://github.com/a/b?rev=c#d"),
            ("a", "MIT", "registry+https://elsewhere"),
        ] {
            assert_eq!(check(&rules, &package(name, licence, source)).len(), 1, "{name} {licence} {source}");
        }
    }

    #[test]
    fn an_exception_holds_for_its_crate_alone() {
        let mut rules = parse(&Workspace::open().unwrap().read(RULES).unwrap()).unwrap();
        rules.licenses.exceptions.push(Exception { name: "a".to_owned(), allow: vec!["MPL-2.0".to_owned()] });
        assert!(check_licence(&rules.licenses, &package("a", "MPL-2.0", "")).is_none());
        assert!(check_licence(&rules.licenses, &package("b", "MPL-2.0", "")).is_some());
    }

    #[test]
    fn a_key_that_is_not_understood_is_refused() {
        let text = Workspace::open().unwrap().read(RULES).unwrap();
        assert!(parse(&text.replace("multiple-versions", "skip-tree")).is_err());
        assert!(parse(&text.replace("unknown-git = \"deny\"", "unknown-git = \"warn\"")).is_err());
    }
}
