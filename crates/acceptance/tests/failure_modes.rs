//! docs/failure-modes.md names tests: each of them exists.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MODES: usize = 14;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all functions below `folder`.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split_once("()"));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_way_to_break_has_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/failure-modes.md")).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.strip_prefix("| ").is_some_and(|row| row.starts_with(char::is_numeric)))
        .collect();
    assert_eq!(rows.len(), MODES);
    let mut known = BTreeSet::new();
    functions(&root().join("crates"), &mut known);
    for (number, row) in (1..).zip(rows) {
        assert!(row.starts_with(&format!("| {number}. ")), "{row}");
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            assert!(known.contains(name), "{number}: there is no test {name}");
        }
    }
}
