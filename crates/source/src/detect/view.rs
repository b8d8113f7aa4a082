//! What rules look at: the tree, its texts, and what a language's own files say.

use std::collections::{BTreeMap, BTreeSet};

use berth_spec::{AppName, Manifest};

use super::{Files, NothingFits};
use crate::tree::{Node, Tree};

/// The tree of an app and what is known of it beside.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) manifest: &'a Manifest,
    pub(super) app: &'a AppName,
}

impl<'a> View<'a> {
    pub(super) fn tree(&self) -> &'a Tree {
        self.files.tree()
    }

    /// The paths of all files, in order. A link is none: what it leads to may not be in the tree.
    pub(super) fn paths(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let is_file = |node: &Node| matches!(node, Node::File { .. });
        self.tree()
            .entries()
            .iter()
            .filter(move |entry| is_file(&entry.node))
            .map(|entry| entry.path.as_str())
    }

    /// Whether there is a file at `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        matches!(self.tree().node(path), Some(Node::File { .. }))
    }

    /// The first file that `pattern` means, see [`means`].
    pub(super) fn find(&self, pattern: &str) -> Option<&'a str> {
        if !pattern.contains('*') && !pattern.ends_with('/') {
            let at = self.tree().entries().binary_search_by(|entry| entry.path.as_str().cmp(pattern)).ok()?;
            let entry = self.tree().entries().get(at)?;
            return self.has(pattern).then_some(entry.path.as_str());
        }
        self.paths().find(|path| means(pattern, path))
    }

    /// The text of the file at `path`, as far as it is read; nothing when there is none.
    pub(super) fn text(&self, path: &str) -> Result<Option<String>, NothingFits> {
        if !self.has(path) {
            return Ok(None);
        }
        self.bytes(path).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The beginning of the file at `path`.
    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, NothingFits> {
        self.files.head(path).map_err(|source| NothingFits::Read { path: path.to_owned(), source })
    }
}

/// Whether `pattern` means `path`: `*` stands for any characters of one name, a `/` at the end for all below a folder.
pub(super) fn means(pattern: &str, path: &str) -> bool {
    if let Some(folder) = pattern.strip_suffix('/') {
        return path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    }
    let (mut names, mut patterns) = (path.split('/'), pattern.split('/'));
    loop {
        match (names.next(), patterns.next()) {
            (None, None) => return true,
            (Some(name), Some(pattern)) if means_name(pattern, name) => {}
            _ => return false,
        }
    }
}

fn means_name(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == name;
    };
    name.strip_prefix(before).is_some_and(|rest| {
        rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| {
            let rest = rest.get(at..).unwrap_or_default();
            if after.contains('*') { means_name(after, rest) } else { rest == after }
        })
    })
}

/// The path of `name` in `folder`; the empty folder is the root.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// What the files of a language say of an app.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The folder of the app; empty for the root.
    pub(super) dir: String,
    /// What it depends on, by name, with the versions that are asked for.
    pub(super) dependencies: BTreeMap<String, String>,
    /// The package manager that is asked for by name.
    pub(super) pin: Option<(String, String)>,
    /// The scripts that the app's own manifest names.
    pub(super) scripts: BTreeMap<String, String>,
    /// What is known beside, by the name that rules have for it.
    pub(super) values: BTreeMap<&'static str, Value>,
    /// Requirements to install by name, where no file lists them for the tool that installs.
    pub(super) requirements: Vec<String>,
    /// Whether the source is itself a package that is to be installed.
    pub(super) is_package: bool,
    /// The files that say what to install.
    pub(super) inputs: BTreeSet<String>,
    /// Folders that installing makes beside those that the rule names.
    pub(super) makes: BTreeSet<String>,
    /// Why what is installed depends on more than `inputs`, as a sentence.
    pub(super) unlayered: Option<String>,
    /// The files to which the language's version is pinned, as `(where, version)`; the first one counts.
    pub(super) versions: Vec<(String, String)>,
}

/// Something that is known.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// It.
    pub(super) text: String,
    /// Where it was seen, as `why` gives it.
    pub(super) seen: String,
}

impl Facts {
    /// Notes that `name` is `text`, as was seen in `seen`.
    pub(super) fn know(&mut self, name: &'static str, text: impl Into<String>, seen: impl Into<String>) {
        self.values.insert(name, Value { text: text.into(), seen: seen.into() });
    }

    /// The path of a file of the app.
    pub(super) fn at(&self, name: &str) -> String {
        join(&self.dir, name)
    }
}

#[cfg(test)]
mod tests {
    use super::means;

    #[test]
    fn a_pattern_means_names_and_folders() {
        for (pattern, path) in [
            ("a", "a"),
            ("*.csproj", "x.csproj"),
            ("next.config.*", "next.config.mjs"),
            ("cmd/*/main.go", "cmd/x/main.go"),
            ("patches/", "patches/a/b"),
            ("*requirements*.txt", "dev-requirements-1.txt"),
            ("*requirements*.txt", "requirements.txt"),
        ] {
            assert!(means(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("a", "b"),
            ("*.csproj", "a/x.csproj"),
            ("cmd/*/main.go", "cmd/main.go"),
            ("patches/", "patches"),
            ("patches/", "patches-old/a"),
            ("*a*.txt", "b.txt"),
        ] {
            assert!(!means(pattern, path), "{pattern} {path}");
        }
    }
}
