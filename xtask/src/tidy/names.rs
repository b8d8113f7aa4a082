//! No crate, module, file or folder has a name that hides what is inside.

use std::path::Path;

use super::Finding;

const HIDING: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "misc", "shared", "core", "base", "imp"];

/// The folders of crates, and Rust files.
pub(super) fn check(files: &[impl AsRef<Path>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let is_manifest = path.file_name().is_some_and(|name| name == "Cargo.toml");
        if !is_rust && !is_manifest {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") {
            findings.push(Finding::new(
                path,
                0,
                "a module's file carries its name: `x.rs` beside `x/`, not `x/mod.rs`",
            ));
        }
        let parts = path.with_extension("");
        let hiding = parts.iter().filter(|part| hides(&part.to_string_lossy()));
        findings.extend(hiding.map(|part| Finding::new(path, 0, why(&part.to_string_lossy()))));
    }
    findings
}

/// The modules that a file declares.
pub(super) fn check_modules<'a>(path: &Path, code: impl Iterator<Item = &'a str>) -> Vec<Finding> {
    let module_of = |line: &'a str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "mod");
        words.nth(1).map(|name| name.trim_end_matches([';', '{']))
    };
    let modules = code.enumerate().filter_map(|(at, line)| Some((at, module_of(line)?)));
    let hiding = modules.filter(|(_, name)| hides(name));
    hiding.map(|(at, name)| Finding::new(path, at + 1, why(name))).collect()
}

fn hides(name: &str) -> bool {
    let name = name.strip_prefix("berth-").unwrap_or(name);
    HIDING.contains(&name)
}

fn why(name: &str) -> String {
    format!("`{name}` says nothing of what is inside: name it after the thing it holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hide_are_found_in_files_folders_and_modules() {
        let files = [
            "crates/a/src/utils.rs",
            "crates/core/Cargo.toml",
            "crates/a/src/x/mod.rs",
            "crates/a/src/helpers/x.rs",
        ];
        assert_eq!(check(&files).len(), files.len());
        assert!(
            check(&["crates/a/src/commons.rs", "docs/common/x.md", "crates/a/src/database.rs"]).is_empty()
        );
        let code = ["mod database;", "pub(crate) mod util;", "mod imp {", "// x"];
        assert_eq!(check_modules(Path::new("a.rs"), code.into_iter()).len(), 2);
    }
}
