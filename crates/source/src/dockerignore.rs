//! `.dockerignore`: what of a tree a Dockerfile is not built from.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The patterns of a `.dockerignore`.
#[derive(Debug, Clone)]
pub struct Dockerignore {
    patterns: Gitignore,
}

impl Dockerignore {
    /// Reads the file. Its patterns begin at the root of the tree, and the last one that fits counts; one that is none is passed over, as
    /// Docker does with what it cannot match.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut builder = GitignoreBuilder::new("");
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (not, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if !pattern.is_empty() {
                // What cannot be compiled matches nothing.
                drop(builder.add_line(None, &format!("{not}/{pattern}")));
            }
        }
        Self { patterns: builder.build().unwrap_or_else(|_invalid| Gitignore::empty()) }
    }

    /// Whether the file at `path` is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &str) -> bool {
        self.patterns.matched_path_or_any_parents(path, false).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_fits_counts_and_all_begin_at_the_root() {
        let ignore =
            Dockerignore::new("# no\n*.log\nnode_modules\n/docs/\n**/secret\n!docs/keep.md\n./dist\n[\n");
        for (path, out) in [
            ("a.log", true),
            ("logs/a.log", false),
            ("node_modules/x/y.js", true),
            ("web/node_modules/x", false),
            ("docs/a.md", true),
            ("docs/keep.md", false),
            ("deep/below/secret", true),
            ("dist/app", true),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.leaves_out(path), out, "{path}");
        }
        assert!(!Dockerignore::new("").leaves_out("anything"));
    }
}
