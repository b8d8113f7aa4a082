//! Every member inherits the house's lints and licence, and stands on the map; every ban gives its reason.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Finding;
use crate::rust_source::has_word;
use crate::workspace::Workspace;

const MAP: &str = "ARCHITECTURE.md";

pub(super) fn check(workspace: &Workspace, files: &[PathBuf]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (folder, package) in workspace.members()?.by_folder() {
        let manifest = package.manifest_path.strip_prefix(workspace.root()).unwrap_or(&package.manifest_path);
        let text = workspace.read(manifest)?;
        let parsed = toml::from_str(&text).with_context(|| format!("cannot read {}", manifest.display()))?;
        findings.extend(check_member(manifest, &parsed, &folder));
        if package.license.as_deref() != Some("MIT") {
            findings.push(Finding::new(manifest, 0, "the licence is MIT: `license.workspace = true`"));
        }
        let named = workspace.read(MAP).is_ok_and(|map| is_on_map(&map, &folder));
        if !named {
            findings.push(Finding::new(MAP, 0, format!("`{folder}` is missing: a paragraph per crate")));
        }
    }
    let is_clippy = |path: &&PathBuf| path.ends_with("clippy.toml") || path.ends_with(".clippy.toml");
    let members_own = files.iter().filter(is_clippy).filter(|path| path.parent() != Some(Path::new("")));
    // It replaces the root's file instead of adding to it, and the bans are gone without a word (rust-clippy#7353).
    findings.extend(
        members_own.map(|path| Finding::new(path, 0, "a member's clippy.toml replaces the root's bans")),
    );
    if !files.iter().any(|path| path == Path::new("LICENSE")) {
        findings.push(Finding::new("LICENSE", 0, "the licence's text is missing"));
    }
    for (file, key) in [("clippy.toml", "disallowed-methods"), ("deny.toml", "bans")] {
        let parsed: Table =
            toml::from_str(&workspace.read(file)?).with_context(|| format!("cannot read {file}"))?;
        findings.extend(bans_without_reason(file, parsed.get(key)));
    }
    Ok(findings)
}

fn check_member(manifest: &Path, parsed: &Table, folder: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let inherits = |table: &str| {
        parsed.get(table).and_then(|table| table.get("workspace")) == Some(&Value::Boolean(true))
    };
    if !inherits("lints") {
        findings.push(Finding::new(
            manifest,
            0,
            "`[lints] workspace = true` is missing: a lint holds everywhere",
        ));
    }
    let name = parsed.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
    let expected =
        if ["berth", "xtask"].contains(&folder) { folder.to_owned() } else { format!("berth-{folder}") };
    if name != Some(&expected) {
        findings.push(Finding::new(manifest, 0, format!("the crate in `{folder}` is named `{expected}`")));
    }
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let dependencies = parsed.get(table).and_then(Value::as_table).into_iter().flatten();
        let own = dependencies.filter(|(_, value)| value.get("workspace") != Some(&Value::Boolean(true)));
        findings.extend(own.map(|(name, _)| {
            Finding::new(
                manifest,
                0,
                format!("`{name}`: versions stand in the root's [workspace.dependencies] alone"),
            )
        }));
    }
    findings
}

/// The map names a crate as `` `name` ``, `berth-name` or `crates/name`, or opens a line of its table with the name.
fn is_on_map(map: &str, folder: &str) -> bool {
    let marked = [format!("`{folder}`"), format!("crates/{folder}"), format!("berth-{folder}")];
    map.lines().any(|line| {
        marked.iter().any(|name| has_word(line, name)) || line.split_whitespace().next() == Some(folder)
    })
}

fn bans_without_reason(file: &str, table: Option<&Value>) -> Vec<Finding> {
    let list = table.map(|table| table.get("deny").unwrap_or(table)).and_then(Value::as_array);
    let silent = list.into_iter().flatten().filter(|ban| ban.get("reason").and_then(Value::as_str).is_none());
    silent.map(|ban| Finding::new(file, 0, format!("a ban without a reason: {ban}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str) -> usize {
        check_member(Path::new("crates/spec/Cargo.toml"), &toml::from_str(text).unwrap(), "spec").len()
    }

    #[test]
    fn a_member_inherits_everything() {
        let good = "[package]\nname = \"berth-spec\"\n[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n";
        assert_eq!(member(good), 0);
        assert_eq!(member(&good.replace("serde.workspace = true", "serde = \"1\"")), 1);
        assert_eq!(member(&good.replace("workspace = true\n[", "rust = {}\n[")), 1);
        assert_eq!(member(&good.replace("berth-spec", "spec")), 1);
    }

    #[test]
    fn the_map_names_a_crate_not_just_the_word() {
        assert!(is_on_map("the crate `build` seals", "build"));
        assert!(is_on_map("see crates/build.", "build"));
        assert!(is_on_map("  build    source tree -> artifact", "build"));
        assert!(!is_on_map("we build it; crates/builder", "build"));
    }

    #[test]
    fn a_ban_gives_its_reason() {
        let clippy: Table =
            toml::from_str("methods = [{ path = \"a\", reason = \"b\" }, { path = \"c\" }, \"d\"]").unwrap();
        assert_eq!(bans_without_reason("clippy.toml", clippy.get("methods")).len(), 2);
        let deny: Table = toml::from_str("[bans]\ndeny = [{ crate = \"a\", reason = \"b\" }]").unwrap();
        assert!(bans_without_reason("deny.toml", deny.get("bans")).is_empty());
    }
}
