//! What the documents promise is in the code, and the other way round: error codes, decisions, invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Finding;
use crate::workspace::Workspace;

/// Written by a golden test of the crate contract, a line for each that begins with it.
const CODES: &str = "contracts/error-codes.txt";
const CODE_PAGES: &str = "docs/errors";
const DECISIONS: &str = "docs/decisions";
const INVARIANTS: &str = "docs/invariants.md";

pub(super) fn check(workspace: &Workspace, files: &[PathBuf]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    match workspace.read(CODES) {
        Ok(codes) => findings.extend(check_codes(&codes, files)),
        Err(_) => findings.push(Finding::new(CODES, 0, "missing: `cargo xtask goldens --update` writes it")),
    }
    let index = workspace.read(Path::new(DECISIONS).join("README.md")).unwrap_or_default();
    findings.extend(check_decisions(&index, files));
    let Ok(page) = workspace.read(INVARIANTS) else {
        findings.push(Finding::new(INVARIANTS, 0, "missing: every invariant has an id and a sentence there"));
        return Ok(findings);
    };
    let ids = invariant_ids(&page);
    if ids.is_empty() {
        findings.push(Finding::new(INVARIANTS, 0, "its table has no row that begins with an id like INV-01"));
    }
    for folder in ["crates/control", "crates/sim"] {
        let mut code = String::new();
        for path in files.iter().filter(|path| path.starts_with(folder)) {
            code.push_str(&workspace.read(path).unwrap_or_default());
        }
        findings.extend(check_invariants(&ids, folder, &code));
    }
    Ok(findings)
}

fn check_codes(codes: &str, files: &[PathBuf]) -> Vec<Finding> {
    let lines = codes.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let codes: BTreeMap<&str, usize> =
        lines.filter_map(|(at, line)| Some((line.split_whitespace().next()?, at + 1))).collect();
    let is_page =
        |path: &&PathBuf| path.parent() == Some(Path::new(CODE_PAGES)) && !path.ends_with("README.md");
    let pages: BTreeMap<String, &PathBuf> = files
        .iter()
        .filter(is_page)
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect();
    let unexplained = codes.iter().filter(|(code, _)| !pages.contains_key(**code));
    let mut findings: Vec<Finding> = unexplained
        .map(|(code, line)| {
            Finding::new(CODES, *line, format!("`{code}` has no page {CODE_PAGES}/{code}.md"))
        })
        .collect();
    let unknown = pages.iter().filter(|(code, _)| !codes.contains_key(code.as_str()));
    findings.extend(
        unknown.map(|(code, path)| Finding::new(path, 0, format!("there is no error code `{code}`"))),
    );
    findings
}

/// A record that the index does not link is never found; one number is one decision.
fn check_decisions(index: &str, files: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers = BTreeSet::new();
    for path in files
        .iter()
        .filter(|path| path.parent() == Some(Path::new(DECISIONS)) && !path.ends_with("README.md"))
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !index.contains(&format!("({name})")) {
            findings.push(Finding::new(path, 0, format!("{DECISIONS}/README.md does not list it")));
        }
        let number = name.split('-').next().unwrap_or_default().to_owned();
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) || !numbers.insert(number) {
            findings.push(Finding::new(
                path,
                0,
                "a decision's file begins with four digits of its own and a dash",
            ));
        }
    }
    findings
}

/// The ids in the first column of the page's tables, with their line.
fn invariant_ids(page: &str) -> BTreeMap<&str, usize> {
    let rows = page.lines().enumerate().filter_map(|(at, line)| {
        let cell = line.trim().strip_prefix('|')?.split('|').next()?;
        let id = cell.trim().trim_matches(['`', '*']);
        ids_in(id).contains(id).then_some((id, at + 1))
    });
    rows.collect()
}

/// Everything that looks like `INV-07`.
fn ids_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    let is_id = |word: &&str| {
        let parts = word.split_once('-');
        parts.is_some_and(|(prefix, number)| {
            let letters = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_uppercase());
            letters && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    words.filter(is_id).collect()
}

fn check_invariants(ids: &BTreeMap<&str, usize>, folder: &str, code: &str) -> Vec<Finding> {
    let used = ids_in(code);
    let unused = ids.iter().filter(|(id, _)| !used.contains(**id));
    let mut findings: Vec<Finding> = unused
        .map(|(id, line)| Finding::new(INVARIANTS, *line, format!("{id} is not checked in {folder}")))
        .collect();
    let prefixes: BTreeSet<&str> = ids.keys().filter_map(|id| id.split('-').next()).collect();
    let is_ours = |id: &&&str| id.split('-').next().is_some_and(|prefix| prefixes.contains(prefix));
    let unknown = used.iter().filter(is_ours).filter(|id| !ids.contains_key(**id));
    findings.extend(unknown.map(|id| Finding::new(INVARIANTS, 0, format!("{id} of {folder} is missing"))));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_pages_match() {
        let files = ["docs/errors/a-b.md", "docs/errors/old.md", "docs/errors/README.md"].map(PathBuf::from);
        let found: Vec<String> = check_codes("# code, status\na-b 404\nnew 500 1 Title\n", &files)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "contracts/error-codes.txt:3: `new` has no page docs/errors/new.md",
                "docs/errors/old.md:1: there is no error code `old`"
            ]
        );
    }

    #[test]
    fn decisions_are_listed_and_numbered() {
        let files =
            ["0001-a.md", "0001-b.md", "two-c.md", "README.md"].map(|name| Path::new(DECISIONS).join(name));
        assert!(check_decisions("[x](0001-a.md)", &files[..1]).is_empty());
        assert_eq!(check_decisions("[x](0001-a.md) [y](0001-b.md) [z](two-c.md)", &files).len(), 2);
        assert_eq!(check_decisions("", &files[..1]).len(), 1);
    }

    #[test]
    fn invariants_are_read_from_tables_and_looked_for_in_code() {
        let ids =
            invariant_ids("INV-99 in prose\n| id | what |\n|---|---|\n| INV-01 | a |\n| `INV-02` | b |\n");
        assert_eq!(ids.keys().copied().collect::<Vec<_>>(), ["INV-01", "INV-02"]);
        assert!(check_invariants(&ids, "x", "\"INV-01\" INV-02 SHA-256").is_empty());
        assert_eq!(check_invariants(&ids, "x", "INV-01 INV-03").len(), 2);
    }
}
