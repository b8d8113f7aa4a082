//! Rules for one Rust file: its head, its length, what may not be written in it.

use std::path::Path;

use super::{Finding, names};
use crate::rust_source::RustSource;

const LINES_WARNED: usize = 600;
const LINES_REFUSED: usize = 1_000;

/// What may stand nowhere in Rust code, and why.
const BANNED: &[(&str, &str)] = &[
    (
        "#[allow(",
        "a suppression is `#[expect(lint, reason = \"...\")]`, which complains when it is no longer needed",
    ),
    (
        "#![allow(",
        "a suppression is `#![expect(lint, reason = \"...\")]`, which complains when it is no longer needed",
    ),
    ("#[ignore", "a test that does not run is no test: mend it or delete it"),
    ("todo!", "nothing half-done goes in"),
    ("unimplemented!", "nothing half-done goes in"),
];

pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let source = RustSource::new(text);
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(path, 1, "the first line is a `//!` that says what the file is for"));
    }
    findings.extend(check_length(path, &source));
    findings.extend(names::check_modules(path, source.code.iter().map(String::as_str)));
    for (at, line) in source.code.iter().enumerate() {
        let banned = BANNED.iter().filter(|(word, _)| line.contains(word));
        findings.extend(banned.map(|(word, why)| Finding::new(path, at + 1, format!("`{word}`: {why}"))));
    }
    let first_test_line = if is_test_file(path) { 0 } else { source.production_lines() };
    for at in first_test_line..source.code.len() {
        if sleeps(&source.code[at]) && !says_what_it_waits_for(&source, at) {
            let why =
                "a test waits for a state, not for a moment: poll, and say for what in a `// wait:` comment";
            findings.push(Finding::new(path, at + 1, why));
        }
    }
    findings
}

fn check_length(path: &Path, source: &RustSource<'_>) -> Option<Finding> {
    let lines = source.production_lines();
    if is_test_file(path) || lines <= LINES_WARNED {
        return None;
    }
    let text =
        format!("{lines} lines without its tests; split it above {LINES_WARNED}, and before {LINES_REFUSED}");
    let only_a_warning = lines <= LINES_REFUSED;
    Some(Finding { only_a_warning, ..Finding::new(path, 0, text) })
}

/// Whether all of the file is test code.
fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let in_tests = path.iter().any(|part| part == "tests" || part == "acceptance");
    in_tests || stem == "tests" || stem.ends_with("_tests")
}

/// A call of a function named `sleep` or `sleep_until`. A method is another matter: a manual clock may have one.
fn sleeps(code: &str) -> bool {
    ["sleep(", "sleep_until(", "sleep_ms("].iter().any(|call| {
        code.match_indices(call).any(|(at, _)| {
            let before = code.get(..at).unwrap_or_default();
            let called =
                before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '.');
            called && !before.trim_end().ends_with("fn")
        })
    })
}

/// The marker stands on the line itself or in the comment just above it.
fn says_what_it_waits_for(source: &RustSource<'_>, at: usize) -> bool {
    let above = source.lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
    std::iter::once(&source.lines[at]).chain(above).any(|line| line.contains("// wait:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &str, text: &str) -> Vec<String> {
        check(Path::new(path), text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(texts("a.rs", "fn a() {}\n").len(), 1);
        assert!(texts("a.rs", "//! What for.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn banned_words_count_in_code_alone() {
        let code = "//! X.\n#[allow(dead_code)]\nfn a() { todo!() }\n";
        assert_eq!(texts("a.rs", code).len(), 2);
        assert!(
            texts("a.rs", "//! X.\n// #[allow(dead_code)] todo!()\nconst A: &str = \"todo!\";\n").is_empty()
        );
        assert_eq!(texts("a.rs", "//! X.\n#[test]\n#[ignore = \"slow\"]\nfn a() {}\n").len(), 1);
    }

    #[test]
    fn only_the_production_part_counts_for_the_length() {
        let lines = |n: usize| format!("//! X.\n{}", "const A: u8 = 1;\n".repeat(n));
        assert!(texts("a.rs", &lines(599)).is_empty());
        assert!(check(Path::new("a.rs"), &lines(600))[0].only_a_warning);
        assert!(!check(Path::new("a.rs"), &lines(1_000))[0].only_a_warning);
        assert!(
            texts("a.rs", &format!("//! X.\n#[cfg(test)]\nmod tests {{\n{}}}\n", lines(1_000))).is_empty()
        );
        assert!(texts("crates/a/tests/b.rs", &lines(1_000)).is_empty());
    }

    #[test]
    fn a_test_that_sleeps_says_for_what() {
        let bad = "//! X.\n#[cfg(test)]\nmod tests {\n    thread::sleep(x);\n}\n";
        assert_eq!(texts("a.rs", bad).len(), 1);
        let good = bad.replace(
            "thread::sleep(x);",
            "// wait: for the port, looked at again each time\n    thread::sleep(x);",
        );
        assert!(texts("a.rs", &good).is_empty());
        assert!(texts("a.rs", "//! X.\nfn a() { thread::sleep(x); }\n").is_empty());
        assert_eq!(
            texts("crates/acceptance/src/a.rs", "//! X.\nfn a() { tokio::time::sleep(x).await; }\n").len(),
            1
        );
        assert!(
            texts("crates/x/tests/a.rs", "//! X.\nfn sleep(x: u8) { clock.sleep(x); asleep(x); }\n")
                .is_empty()
        );
    }
}
