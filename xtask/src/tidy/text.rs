//! Rules for every text file: size, merge markers, blanks at a line's end, words that do not belong here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Finding;
use crate::workspace::Workspace;

const LARGEST_FILE: u64 = 1024 * 1024;

/// Words of the place where this was written, which mean nothing to a reader of the clone. Put together here so that this
/// file may hold them.
const WORKPLACE: &[&str] = &[
    concat!("helper", " session"),
    concat!("team", "/brief"),
    concat!("shared", "/anchors"),
    concat!("shared", "/design"),
];
const WORKPLACE_FOLDER: &str = concat!("/", "work");

pub(super) fn check_sizes(workspace: &Workspace, files: &[PathBuf]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in files {
        let file = workspace.root().join(path);
        let size = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        if size > LARGEST_FILE {
            let text =
                format!("{size} bytes: no file is over {LARGEST_FILE}, every clone carries it for ever");
            findings.push(Finding::new(path, 0, text));
        }
    }
    Ok(findings)
}

pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    // Recorded output is kept as it was, blanks and all.
    let is_recorded =
        path.starts_with("contracts") || path.extension().is_some_and(|extension| extension == "snap");
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut find = |text: &str| findings.push(Finding::new(path, at + 1, text));
        if line.ends_with([' ', '\t']) && !is_recorded {
            find("a blank at the end of the line");
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") || line == "=======" {
            find("a merge was left unfinished");
        }
        if WORKPLACE.iter().any(|word| line.contains(word)) || names_the_folder(line) {
            find("names the place where this was written; the repository speaks of itself alone");
        }
    }
    if !text.is_empty() && !text.ends_with('\n') && !is_recorded {
        findings.push(Finding::new(path, text.lines().count(), "the last line is not ended"));
    }
    findings
}

/// The folder as the start of an absolute path, not as a part of another name.
fn names_the_folder(line: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    line.match_indices(WORKPLACE_FOLDER).any(|(at, found)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + found.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(|c| part_of_name(c) || "/}~".contains(c)) && !after.is_some_and(part_of_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(Path::new(path), text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn blanks_markers_and_open_last_lines_are_found() {
        assert_eq!(lines("a.md", "a\nb \n\nc\t\n"), [2, 4]);
        assert_eq!(lines("a.md", "a\n<<<<<<< x\n=======\n>>>>>>> y\n"), [2, 3, 4]);
        assert_eq!(lines("a.md", "Heading\n========\nx"), [3]);
        assert!(lines("contracts/help.txt", "a \nb").is_empty());
    }

    #[test]
    fn the_workplace_is_not_named() {
        let folder = WORKPLACE_FOLDER;
        assert_eq!(
            lines("a.md", &format!("see {folder}/main and `{folder}`\nour {}\n", WORKPLACE[0])),
            [1, 2]
        );
        assert!(
            lines("a.md", &format!("{folder}space x{folder} $HOME{folder} a/b{folder}/c {folder}-dir\n"))
                .is_empty()
        );
    }
}
