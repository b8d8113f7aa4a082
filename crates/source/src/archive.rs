//! A tar stream, as `git archive` writes it, into a tree and its chunks.
//!
//! Whoever wrote the stream is not trusted: every length is bounded before it is believed, nothing is laid out on the way, and what
//! comes out is a [`Tree`], checked as one that was uploaded. Known are the forms that git writes: POSIX ustar with extended
//! headers (`pax`, IEEE Std 1003.1-2001) for what does not fit; anything else is refused.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::chunk::{self, CHUNK_MIN, ChunkId};
use crate::store::{ChunkStore, StoreError};
use crate::tree::{ChunkRef, ENTRIES_MAX, Entry, InvalidTree, Node, SIZE_MAX, Tree, TreeId};
use crate::walk::LeftOut;

/// The unit of a tar stream, in bytes.
const BLOCK: usize = 512;
/// The longest extended header, in bytes: two paths of the longest that a tree takes, and some.
const EXTENDED_MAX: u64 = 16 * 1024;
/// The longest file whose text is handed out beside the tree, in bytes.
const TEXT_MAX: u64 = 1 << 20;
/// What a file that Git LFS keeps elsewhere begins with; see <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// Such a pointer is shorter, in bytes.
const LFS_MAX: u64 = 1024;

/// What a stream held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The id of the tree, which is in the store.
    pub tree: TreeId,
    /// How many files and links it has.
    pub entries: usize,
    /// The bytes of all files together.
    pub bytes: u64,
    /// The texts of those files at the top that were asked for and are there.
    pub texts: BTreeMap<String, Vec<u8>>,
    /// Files of which only a Git LFS pointer is there, the first few.
    pub pointers: Vec<String>,
}

/// Why a stream did not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is not a tar stream of the known form.
    #[error("the archive is damaged: {0}")]
    Archive(&'static str),
    /// It could not be read.
    #[error("the archive could not be read")]
    Read(#[from] io::Error),
    /// A name that is not UTF-8.
    #[error("the name {0:?} is not UTF-8")]
    NotUtf8(String),
    /// A path that git itself would take for a repository.
    #[error("the path {0:?} leads into a repository")]
    Repository(String),
    /// A file at the top that has to be read whole is too long for that.
    #[error("{0:?} is longer than {TEXT_MAX} bytes")]
    LongText(String),
    /// The tree that it holds is none.
    #[error("the source is refused")]
    Tree(#[from] InvalidTree),
    /// The store did not take it.
    #[error("the source could not be kept")]
    Store(#[from] StoreError),
}

/// Reads a tar stream to its end and keeps what it holds in `store`. What a `.berthignore` in it names is left out. `texts` are files
/// at the top whose text is wanted, too.
///
/// # Errors
/// [`UnpackError`]; chunks may be in the store then, but no tree that names them.
pub fn unpack(stream: impl Read, store: &ChunkStore, texts: &[&str]) -> Result<Unpacked, UnpackError> {
    let mut unpacking = Unpacking {
        stream,
        store,
        wanted: texts,
        entries: Vec::new(),
        texts: BTreeMap::new(),
        ignores: BTreeMap::new(),
        pointers: Vec::new(),
        size: 0,
    };
    unpacking.all()?;
    let Unpacking { mut entries, texts, ignores, mut pointers, .. } = unpacking;
    let left_out = LeftOut::new(&ignores);
    entries.retain(|entry| !left_out.names(&entry.path));
    pointers.retain(|path| !left_out.names(path));
    pointers.truncate(10);
    let tree = Tree::new(entries)?;
    let id = store.put_tree(&tree)?;
    Ok(Unpacked { tree: id, entries: tree.entries().len(), bytes: tree.size(), texts, pointers })
}

struct Unpacking<'a, R> {
    stream: R,
    store: &'a ChunkStore,
    wanted: &'a [&'a str],
    entries: Vec<Entry>,
    texts: BTreeMap<String, Vec<u8>>,
    /// The text of each `.berthignore`, by its folder.
    ignores: BTreeMap<String, Vec<u8>>,
    pointers: Vec<String>,
    size: u64,
}

/// What an extended header says of the entry after it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Unpacking<'_, R> {
    fn all(&mut self) -> Result<(), UnpackError> {
        let mut extended = Extended::default();
        while let Some(header) = self.header()? {
            let said = header.number(124..136)?;
            match header.kind() {
                // Of the archive as a whole: git gives the commit there.
                b'g' => drop(self.extended(said)?),
                b'x' => extended = read_extended(&self.extended(said)?)?,
                kind => {
                    let Extended { path, link, size } = std::mem::take(&mut extended);
                    let path = text(path.unwrap_or_else(|| header.path()))?;
                    let link = link.unwrap_or_else(|| header.text(157..257).to_vec());
                    self.entry(kind, &header, path, link, size.unwrap_or(said))?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        kind: u8,
        header: &Header,
        path: String,
        link: Vec<u8>,
        size: u64,
    ) -> Result<(), UnpackError> {
        let node = match kind {
            // A folder, which is implied by what is in it, or the place of a submodule.
            b'5' => return Ok(()),
            b'2' => Node::Link { target: text(link)? },
            b'0' | 0 => {
                let exec = header.number(100..108)? & 0o100 != 0;
                self.file(&path, exec, size)?
            }
            _ => return Err(UnpackError::Archive("it holds something that is no file, folder or link")),
        };
        // Git refuses such trees where it is told to check objects; a second look costs nothing.
        if path.split('/').any(|segment| segment.eq_ignore_ascii_case(".git")) {
            return Err(UnpackError::Repository(path));
        }
        if self.entries.len() == ENTRIES_MAX {
            return Err(InvalidTree::TooMany.into());
        }
        self.entries.push(Entry { path, node });
        Ok(())
    }

    fn file(&mut self, path: &str, exec: bool, size: u64) -> Result<Node, UnpackError> {
        self.size = self.size.saturating_add(size);
        if self.size > SIZE_MAX {
            return Err(InvalidTree::TooLarge { path: path.to_owned() }.into());
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_ignore = name == ".berthignore";
        let is_text = folder.is_empty() && self.wanted.contains(&name);
        if (is_ignore || is_text) && size > TEXT_MAX {
            return Err(UnpackError::LongText(path.to_owned()));
        }
        let kept = is_ignore || is_text || size < LFS_MAX;
        let (store, mut chunks, mut whole) = (self.store, Vec::new(), Vec::new());
        let mut take = |bytes: &[u8]| -> Result<(), UnpackError> {
            let hash = ChunkId::of(bytes);
            store.put(&hash, bytes)?;
            let len = u32::try_from(bytes.len()).expect("a chunk is at most 256 KiB long");
            chunks.push(ChunkRef { hash, len });
            if kept {
                whole.extend_from_slice(bytes);
            }
            Ok(())
        };
        let mut content = (&mut self.stream).take(size);
        if size <= CHUNK_MIN as u64 {
            // One chunk; the cutter's buffer of a megabyte would be made for every small file.
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                take(&bytes)?;
            }
        } else {
            chunk::split(&mut content, take)?;
        }
        if content.limit() > 0 {
            return Err(UnpackError::Archive("it ends in the middle of a file"));
        }
        self.padding(size)?;
        if whole.starts_with(LFS_POINTER) {
            self.pointers.push(path.to_owned());
        }
        if is_ignore {
            self.ignores.insert(folder.to_owned(), whole);
        } else if is_text {
            self.texts.insert(path.to_owned(), whole);
        }
        Ok(Node::File { exec, size, chunks })
    }

    /// The next header; none at the end, which is a block of nothing or no block at all.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        match filled {
            BLOCK if block.iter().all(|byte| *byte == 0) => Ok(None),
            BLOCK => Header(block).checked().map(Some),
            // Whoever writes it was ended before it was done.
            _ => Err(UnpackError::Archive("it ends without its last block")),
        }
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > EXTENDED_MAX {
            return Err(UnpackError::Archive("an extended header is too long"));
        }
        let mut bytes = Vec::new();
        (&mut self.stream).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(UnpackError::Archive("it ends in the middle of a header"));
        }
        self.padding(size)?;
        Ok(bytes)
    }

    /// Content is filled up to whole blocks.
    fn padding(&mut self, size: u64) -> Result<(), UnpackError> {
        let rest = size.next_multiple_of(BLOCK as u64) - size;
        let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())?;
        if skipped == rest { Ok(()) } else { Err(UnpackError::Archive("it ends in the middle of a block")) }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, UnpackError> {
    String::from_utf8(bytes).map_err(|error| {
        UnpackError::NotUtf8(String::from_utf8_lossy(error.as_bytes()).chars().take(200).collect())
    })
}

/// The records of an extended header: `LENGTH KEY=VALUE\n`, the length in decimal and of the whole record.
fn read_extended(mut bytes: &[u8]) -> Result<Extended, UnpackError> {
    let damaged = || UnpackError::Archive("an extended header is no list of records");
    let mut extended = Extended::default();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let length = length.filter(|length| *length > space + 1).ok_or_else(damaged)?;
        let record =
            bytes.get(space + 1..length).and_then(|it| it.strip_suffix(b"\n")).ok_or_else(damaged)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                extended.size = Some(size.ok_or_else(damaged)?);
            }
            _ => {}
        }
        bytes = &bytes[length..];
    }
    Ok(extended)
}

/// A block that describes what follows it.
struct Header([u8; BLOCK]);

impl Header {
    fn checked(self) -> Result<Self, UnpackError> {
        let sum: u64 = self
            .0
            .iter()
            .enumerate()
            // The sum is over a header whose sum is blank.
            .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
            .sum();
        if self.number(148..156)? == sum && self.0[257..262] == *b"ustar" {
            Ok(self)
        } else {
            Err(UnpackError::Archive("a header has the wrong sum"))
        }
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The bytes of a field, to the first that is nought.
    fn text(&self, range: std::ops::Range<usize>) -> &[u8] {
        let field = &self.0[range];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        &field[..end]
    }

    /// A number in octal digits.
    fn number(&self, range: std::ops::Range<usize>) -> Result<u64, UnpackError> {
        let damaged = || UnpackError::Archive("a header holds something that is no number");
        let digits = std::str::from_utf8(self.text(range)).map_err(|_not_text| damaged())?.trim_matches(' ');
        u64::from_str_radix(digits, 8).map_err(|_no_number| damaged())
    }

    fn path(&self) -> Vec<u8> {
        let (name, prefix) = (self.text(0..100), self.text(345..500));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store() -> (tempfile::TempDir, ChunkStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(dir.path(), &"default".parse().unwrap()).unwrap();
        (dir, store)
    }

    fn header(path: &[u8], kind: u8, mode: u32, link: &[u8], size: usize) -> Vec<u8> {
        let mut block = [0; BLOCK];
        block[..path.len()].copy_from_slice(path);
        block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block.to_vec()
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(BLOCK), 0);
        padded
    }

    fn file(path: &str, content: &[u8]) -> Vec<u8> {
        [header(path.as_bytes(), b'0', 0o664, b"", content.len()), padded(content)].concat()
    }

    fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut all = entries.concat();
        all.resize(all.len() + 2 * BLOCK, 0);
        all
    }

    fn unpacked(entries: &[Vec<u8>]) -> Result<Unpacked, UnpackError> {
        let (_dir, store) = store();
        unpack(archive(entries).as_slice(), &store, &["Procfile"])
    }

    #[test]
    fn an_archive_becomes_a_tree() {
        let (_dir, store) = store();
        let long = format!("{}/x", "d".repeat(150));
        let record = format!(" path={long}\n");
        let length = record.len() + 3;
        let record = format!("{length}{record}");
        let large = vec![7; 300_000];
        let entries = [
            [header(b"pax_global_header", b'g', 0, b"", 10), padded(b"10 a=bcde\n")].concat(),
            file("Procfile", b"web: ./run\n"),
            header(b"bin/", b'5', 0o775, b"", 0),
            [header(b"bin/run", b'0', 0o775, b"", 0)].concat(),
            header(b"latest", b'2', 0o777, b"bin/run", 0),
            [header(b"x", b'x', 0, b"", record.len()), padded(record.as_bytes())].concat(),
            file("short", b"long after all"),
            file("large", &large),
            file("model.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
        ];
        let found = unpack(archive(&entries).as_slice(), &store, &["Procfile", "berth.toml"]).unwrap();
        let tree = store.get_tree(&found.tree).unwrap();
        let paths: Vec<&str> = tree.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["Procfile", "bin/run", long.as_str(), "large", "latest", "model.bin"]);
        assert!(matches!(tree.node("bin/run"), Some(Node::File { exec: true, size: 0, .. })));
        assert_eq!(tree.node("latest"), Some(&Node::Link { target: "bin/run".into() }));
        let Some(Node::File { chunks, exec: false, .. }) = tree.node("large") else { panic!("no file") };
        let content: Vec<u8> = chunks.iter().flat_map(|it| store.get(&it.hash).unwrap()).collect();
        assert_eq!(content, large);
        assert_eq!(found.texts, [("Procfile".to_owned(), b"web: ./run\n".to_vec())].into());
        assert_eq!((found.entries, found.pointers), (6, vec!["model.bin".to_owned()]));
    }

    #[test]
    fn what_a_berthignore_names_is_left_out() {
        let (_dir, store) = store();
        let entries = [
            file(".berthignore", b"docs\n*.log\n!keep.log\n"),
            file("-first.log", b"x"),
            file("docs/a/b", b"x"),
            file("keep.log", b"x"),
            file("sub/.berthignore", b"/own\n"),
            file("sub/own", b"x"),
            file("own", b"x"),
        ];
        let found = unpack(archive(&entries).as_slice(), &store, &[]).unwrap();
        let tree = store.get_tree(&found.tree).unwrap();
        let paths: Vec<&str> = tree.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, [".berthignore", "keep.log", "own", "sub/.berthignore"]);
    }

    #[test]
    fn hostile_archives_are_refused() {
        let link = |path: &str, target: &str| header(path.as_bytes(), b'2', 0o777, target.as_bytes(), 0);
        for entry in [
            file("../x", b"x"),
            file("/etc/passwd", b"x"),
            file("a/../../x", b"x"),
            file("a\nb", b"x"),
            file(".git/config", b"x"),
            file("sub/.GIT/hooks/post-checkout", b"x"),
            link("out", "/etc/passwd"),
            link("out", "../x"),
            header(b"dev", b'3', 0o666, b"", 0),
            header(b"hard", b'1', 0o666, b"/etc/passwd", 0),
            header(b"\xff", b'0', 0o666, b"", 0),
            header(b"huge", b'0', 0o666, b"", usize::try_from(SIZE_MAX).unwrap() + 1),
            header(b"x", b'x', 0, b"", 1 << 20),
            [header(b"x", b'x', 0, b"", 5), padded(b"9 a=b")].concat(),
        ] {
            assert!(
                unpacked(std::slice::from_ref(&entry)).is_err(),
                "{:?}",
                String::from_utf8_lossy(&entry[..20])
            );
        }
        let twice = [file("a", b"1"), file("a", b"2")];
        assert!(unpacked(&twice).is_err());
        let below = [link("a", "b"), file("a/x", b"2")];
        assert!(unpacked(&below).is_err());
        let long = file("Procfile", &vec![b'x'; 2 << 20]);
        assert!(matches!(unpacked(&[long]), Err(UnpackError::LongText(_))));
    }

    #[test]
    fn an_archive_that_was_cut_is_no_tree() {
        let (_dir, store) = store();
        let whole = archive(&[file("a", b"some text"), file("b", b"more")]);
        let last = whole.len() - 2 * BLOCK;
        for end in 0..last {
            assert!(unpack(&whole[..end], &store, &[]).is_err(), "cut at {end}");
        }
        assert!(unpack(whole.as_slice(), &store, &[]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_archive_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048), at in 0..512_usize, byte: u8) {
            let (_dir, store) = store();
            drop(unpack(bytes.as_slice(), &store, &[]));
            let mut changed = archive(&[file("a/b", b"some text")]);
            changed[at] = byte;
            if let Ok(found) = unpack(changed.as_slice(), &store, &[]) {
                prop_assert!(found.entries <= 1);
            }
        }
    }
}
