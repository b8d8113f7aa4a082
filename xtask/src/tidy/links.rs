//! Every relative link in a Markdown file leads to something in the clone.

use std::path::Path;

use super::Finding;

pub(super) fn check(root: &Path, path: &Path, text: &str) -> Vec<Finding> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (line, target) in relative_links(text) {
        if target.starts_with('/') {
            let text =
                format!("`{target}`: a link is relative to its file, so that it works in every viewer");
            findings.push(Finding::new(path, line, text));
        } else if !root.join(folder).join(target).try_exists().unwrap_or(false) {
            findings.push(Finding::new(path, line, format!("`{target}`: the link leads nowhere")));
        }
    }
    findings
}

/// The links of a text outside code, with their line from 1 and without their fragment.
fn relative_links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_fence = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        // Every second piece between backticks is code.
        for piece in line.split('`').step_by(2) {
            let targets = piece.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
            let paths = targets.filter_map(|target| target.split('#').next());
            let local = paths
                .filter(|path| !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:"));
            links.extend(local.map(|path| (at + 1, path)));
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "[a](x.md#part) and ![b](img/y.png \"title\"), [c](https://z) [d](#here)\n`[e](no.md)`\n```\n[f](no.md)\n```\n[g](/z)\n";
        assert_eq!(relative_links(text), [(1, "x.md"), (1, "img/y.png"), (6, "/z")]);
    }

    #[test]
    fn a_link_leads_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        std::fs::write(dir.path().join("README.md"), "").unwrap();
        let check = |text| check(dir.path(), Path::new("docs/a.md"), text).len();
        assert_eq!(check("[a](../README.md) [b](.)"), 0);
        assert_eq!(check("[a](README.md)"), 1);
        assert_eq!(check("[a](/README.md)"), 1);
    }
}
