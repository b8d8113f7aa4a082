//! A source tree as data: what is where, checked so that it cannot name anything outside itself.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::chunk::{CHUNK_MAX, ChunkId};

/// The most entries of a tree.
pub const ENTRIES_MAX: usize = 50_000;
/// The most bytes of all its files together.
pub const SIZE_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// The longest path or link target, in bytes.
pub const PATH_MAX: usize = 1024;
/// The longest name of a file or directory, in bytes; what Linux takes.
const NAME_MAX: usize = 255;
/// The longest JSON of a tree that is read: more than [`ENTRIES_MAX`] entries of usual paths and all chunks of
/// [`SIZE_MAX`] bytes take.
pub const JSON_MAX: usize = 32 * 1024 * 1024;

/// A source tree: entries in the order of the bytes of their paths, none twice. Directories are implied by what is in
/// them; an empty one does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Tree {
    entries: Vec<Entry>,
}

/// A file or link of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Relative, of UTF-8 segments parted by `/`, without `.`, `..`, backslash and control characters.
    pub path: String,
    /// What it is.
    pub node: Node,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Node {
    /// A file.
    File {
        /// Whether it may be executed.
        exec: bool,
        /// Its length in bytes.
        size: u64,
        /// Its content, in order.
        chunks: Vec<ChunkRef>,
    },
    /// A symbolic link.
    Link {
        /// Relative; `..` only at its start, and never more than leads to the root of the tree.
        target: String,
    },
}

/// A chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRef {
    /// Its id.
    pub hash: ChunkId,
    /// Its length in bytes.
    pub len: u32,
}

/// Why something is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTree {
    /// Too many entries.
    #[error("the tree has more than {ENTRIES_MAX} files; leave some out by a .berthignore")]
    TooMany,
    /// Too many bytes.
    #[error("the files are larger than 2 GiB together at {path:?}; leave some out by a .berthignore")]
    TooLarge {
        /// The file with which the limit was crossed.
        path: String,
    },
    /// A path that is none.
    #[error("the path {path:?} {problem}")]
    Path {
        /// The path, cut to 200 characters.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A link that may lead outside.
    #[error("the link {path:?} to {target:?} {problem}")]
    Link {
        /// Where the link is.
        path: String,
        /// Where it leads, cut to 200 characters.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file whose chunks do not add up.
    #[error("the chunks of {path:?} do not add up to its size")]
    Chunks {
        /// The file.
        path: String,
    },
    /// It is not the JSON of a tree.
    #[error("not the JSON of a tree: {0}")]
    Json(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    entries: Vec<Entry>,
}

impl TryFrom<Unchecked> for Tree {
    type Error = InvalidTree;
    fn try_from(unchecked: Unchecked) -> Result<Self, InvalidTree> {
        check(&unchecked.entries)?;
        Ok(Self { entries: unchecked.entries })
    }
}

impl Tree {
    /// A tree of these entries, which are sorted here.
    ///
    /// # Errors
    /// [`InvalidTree`] for the first entry that is wrong.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, InvalidTree> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        check(&entries)?;
        Ok(Self { entries })
    }

    /// The tree that `json` describes.
    ///
    /// # Errors
    /// [`InvalidTree`]; one whose entries are not sorted is refused, too.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidTree> {
        if json.len() > JSON_MAX {
            return Err(InvalidTree::Json(format!("longer than {JSON_MAX} bytes")));
        }
        // Checked outside of serde, which would turn the error into text.
        let unchecked: Unchecked =
            serde_json::from_slice(json).map_err(|error| InvalidTree::Json(error.to_string()))?;
        unchecked.try_into()
    }

    /// The one JSON of this tree: no white space, keys in the order of the types here.
    #[must_use]
    pub fn canonical_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists always have a JSON")
    }

    /// The id: the hash of the canonical JSON.
    #[must_use]
    pub fn id(&self) -> TreeId {
        TreeId(Sha256::digest(self.canonical_json()).into())
    }

    /// The entries, in the order of the bytes of their paths.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The node at `path`.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<&Node> {
        let at = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        Some(&self.entries[at].node)
    }

    /// The ids of all chunks, each once.
    #[must_use]
    pub fn chunks(&self) -> BTreeSet<ChunkId> {
        self.entries
            .iter()
            .flat_map(|entry| match &entry.node {
                Node::File { chunks, .. } => chunks.as_slice(),
                Node::Link { .. } => &[],
            })
            .map(|chunk| chunk.hash)
            .collect()
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|entry| entry.node.size()).sum()
    }
}

impl Node {
    /// The bytes it takes; none for a link.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Link { .. } => 0,
        }
    }
}

fn check(entries: &[Entry]) -> Result<(), InvalidTree> {
    if entries.len() > ENTRIES_MAX {
        return Err(InvalidTree::TooMany);
    }
    let mut size = 0_u64;
    let mut before: Option<&Entry> = None;
    // The files and links seen so far of which a later entry could pretend that they are directories. Only those
    // that are a prefix of the last path can be followed by something below them, but for names like `a-b`
    // between `a` and `a/b`: so all of them are kept.
    let mut leaves = BTreeSet::new();
    for entry in entries {
        let path = entry.path.as_str();
        check_path(path).map_err(|problem| bad_path(path, problem))?;
        if before.is_some_and(|before| before.path.as_str() >= path) {
            return Err(bad_path(path, "is given twice or out of order"));
        }
        if path.match_indices('/').any(|(at, _)| path.get(..at).is_some_and(|parent| leaves.contains(parent)))
        {
            return Err(bad_path(path, "is below something that is not a directory"));
        }
        leaves.insert(path);
        match &entry.node {
            Node::File { size: length, chunks, .. } => {
                check_chunks(*length, chunks).ok_or_else(|| InvalidTree::Chunks { path: path.to_owned() })?;
                size = size.saturating_add(*length);
            }
            Node::Link { target } => check_target(path, target).map_err(|problem| InvalidTree::Link {
                path: path.to_owned(),
                target: target.chars().take(200).collect(),
                problem,
            })?,
        }
        if size > SIZE_MAX {
            return Err(InvalidTree::TooLarge { path: path.to_owned() });
        }
        before = Some(entry);
    }
    Ok(())
}

fn bad_path(path: &str, problem: &'static str) -> InvalidTree {
    InvalidTree::Path { path: path.chars().take(200).collect(), problem }
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > PATH_MAX {
        return Err("is longer than 1,024 bytes");
    }
    if text.chars().any(|c| c == '\\' || c.is_control()) {
        return Err("holds a backslash or a control character");
    }
    if text.starts_with('/') {
        return Err("is absolute");
    }
    Ok(())
}

pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    check_text(path)?;
    for segment in path.split('/') {
        match segment {
            "" => return Err("has an empty segment"),
            "." | ".." => return Err("has a segment `.` or `..`"),
            _ if segment.len() > NAME_MAX => return Err("has a name longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a link at `path` stays inside the tree, whatever other links its way leads through.
///
/// The directory that holds the link is a real one, for nothing lies below a link. So `..` at the start goes up in
/// the tree and may be counted; after another segment, which may itself be a link to a place less deep, it may not.
pub(crate) fn check_target(path: &str, target: &str) -> Result<(), &'static str> {
    check_text(target)?;
    let depth = path.matches('/').count();
    let segments = || target.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
    let up = segments().take_while(|segment| *segment == "..").count();
    if up > depth {
        return Err("leaves the tree");
    }
    if segments().skip(up).any(|segment| segment == "..") {
        return Err("has a `..` after another segment");
    }
    Ok(())
}

fn check_chunks(size: u64, chunks: &[ChunkRef]) -> Option<()> {
    let fits =
        |chunk: &ChunkRef| chunk.len > 0 && usize::try_from(chunk.len).is_ok_and(|len| len <= CHUNK_MAX);
    let sum = chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
    (chunks.iter().all(fits) && sum == size).then_some(())
}

/// The id of a tree: `t` and the SHA-256 of its canonical JSON in 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreeId([u8; 32]);

/// A text that is not the id of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a tree: t and 64 lower-case hex digits")]
pub struct InvalidTreeId(String);

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", hex::encode(self.0))
    }
}

impl fmt::Debug for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TreeId {
    type Err = InvalidTreeId;
    fn from_str(text: &str) -> Result<Self, InvalidTreeId> {
        let chunk = text.strip_prefix('t').and_then(|digits| digits.parse::<ChunkId>().ok());
        let mut bytes = [0; 32];
        match chunk.map(|_| hex::decode_to_slice(text.trim_start_matches('t'), &mut bytes)) {
            Some(Ok(())) => Ok(Self(bytes)),
            _ => Err(InvalidTreeId(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for TreeId {
    type Error = InvalidTreeId;
    fn try_from(text: String) -> Result<Self, InvalidTreeId> {
        text.parse()
    }
}

impl From<TreeId> for String {
    fn from(id: TreeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str) -> Entry {
        Entry { path: path.to_owned(), node: Node::File { exec: false, size: 0, chunks: vec![] } }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry { path: path.to_owned(), node: Node::Link { target: target.to_owned() } }
    }

    #[test]
    fn the_canonical_json_and_the_id_stay() {
        let chunk = ChunkRef { hash: ChunkId::of(b"hello"), len: 5 };
        let hello =
            Entry { path: "bin/hi".into(), node: Node::File { exec: true, size: 5, chunks: vec![chunk] } };
        let tree = Tree::new(vec![link("x", "bin/hi"), hello]).unwrap();
        let json = String::from_utf8(tree.canonical_json()).unwrap();
        assert_eq!(
            json,
            "{\"entries\":[{\"path\":\"bin/hi\",\"node\":{\"kind\":\"file\",\"exec\":true,\"size\":5,\"chunks\":[{\"hash\":\
             \"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\",\"len\":5}]}},\
             {\"path\":\"x\",\"node\":{\"kind\":\"link\",\"target\":\"bin/hi\"}}]}"
        );
        assert_eq!(
            tree.id().to_string(),
            "t782a2a0cba08102d74bfcd0cda4c40d7edc3f2872f0d6130f5ddc604b63eb477"
        );
        assert_eq!(Tree::from_json(json.as_bytes()).unwrap(), tree);
        assert_eq!(tree.id().to_string().parse::<TreeId>().unwrap(), tree.id());
        assert_eq!((tree.size(), tree.chunks().len()), (5, 1));
        assert!(matches!(tree.node("x"), Some(Node::Link { .. })));
        assert_eq!(tree.node("bin"), None);
    }

    #[test]
    fn hostile_trees_are_refused() {
        for path in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            "a\\b",
            "a\0b",
            "a\nb",
            &"a/".repeat(600),
            &"a".repeat(256),
        ] {
            assert!(Tree::new(vec![file(path)]).is_err(), "{path:?}");
        }
        for target in ["", "/etc", "..", "../../x", "a/../b", "a\0", &"a".repeat(1025)] {
            assert!(Tree::new(vec![link("x", target)]).is_err(), "{target:?}");
        }
        assert!(Tree::new(vec![link("d/x", "../y"), link("d/z", "./..")]).is_ok());
        assert!(Tree::new(vec![link("d/x", "../../y")]).is_err());
        for below in [
            vec![file("a"), file("a/b")],
            vec![link("a", "x"), file("a-b"), file("a/b/c")],
            vec![file("a"), file("a")],
        ] {
            assert!(Tree::new(below).is_err());
        }
        let wrong =
            Node::File { exec: false, size: 6, chunks: vec![ChunkRef { hash: ChunkId::of(b""), len: 5 }] };
        assert!(Tree::new(vec![Entry { path: "a".into(), node: wrong }]).is_err());
        let huge = vec![ChunkRef { hash: ChunkId::of(b""), len: 262_144 }; 8_193];
        let huge = Node::File { exec: false, size: 8_193 * 262_144, chunks: huge };
        assert!(matches!(
            Tree::new(vec![Entry { path: "a".into(), node: huge }]),
            Err(InvalidTree::TooLarge { .. })
        ));
        assert!(Tree::from_json(br#"{"entries":[{"path":"b","node":{"kind":"link","target":"x"}},{"path":"a","node":{"kind":"link","target":"x"}}]}"#).is_err());
        assert!(Tree::from_json(br#"{"entries":[],"more":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_json_is_a_tree_or_refused(path in "[a./\\\\\0-]{0,8}", target in "[a./]{0,8}") {
            let entries = vec![
                serde_json::json!({"path": path, "node": {"kind": "link", "target": target}}),
            ];
            let json = serde_json::json!({ "entries": entries }).to_string();
            if let Ok(tree) = Tree::from_json(json.as_bytes()) {
                prop_assert!(tree.entries().iter().all(|entry| entry.path.split('/').all(|name| name != "..")));
            }
        }
    }
}
