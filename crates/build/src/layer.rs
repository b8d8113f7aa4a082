//! Layers: folders that a step makes from some files and the tools alone, sealed once and shared by hard links.
//!
//! A layer lies below its app's artifacts, sealed as they are: as root its files belong to a uid that nothing runs as. The next build whose
//! step has the same key gets the folders made of links to those files, in directories of its own; its artifact keeps the links, so
//! that a release costs what is new in it. Text that names the tree it was made in is kept with a mark in that place, and
//! written anew for each tree. See docs/decisions/0008-layers-caches-and-tools.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use berth_source::lay::Owner;
use berth_source::recipe::{Layer, Recipe};
use berth_source::{Entry, Tree};
use berth_spec::{AppId, RelativeDir};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::artifact::Platform;
use crate::error::{BuildError, failed};
use crate::layout::Layout;
use crate::log::Log;
use crate::relocate::{relocate, relocate_at};
use crate::remove::{open_dir, remove_all};
use crate::seal::{SealedOwner, seal};
use crate::within::{Spot, make_dir};

/// Counts up when a layer of the same inputs is kept in another way.
const VERSION: u32 = 1;
/// Stands in a layer's texts for the tree that it is linked into.
const MARK: &str = "/@berth-tree@";

/// All that a layer is made from.
#[derive(Serialize)]
pub(crate) struct LayerInputs<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) tools: &'a [&'a str],
    /// Its environment and folders count for every step.
    pub(crate) recipe: &'a Recipe,
    /// Which step it is of, and so which came before it.
    pub(crate) step: usize,
    /// What the build sees of the app's configuration.
    pub(crate) env: &'a BTreeMap<String, String>,
}

impl LayerInputs<'_> {
    /// The layer's name: a hash of all that it is made from.
    pub(crate) fn key(&self, layer: &Layer, tree: &Tree) -> String {
        let decides = |path: &str| {
            let under =
                |input: &String| path.strip_prefix(input.as_str()).is_some_and(|rest| rest.starts_with('/'));
            layer.inputs.contains(path) || layer.inputs.iter().any(under)
        };
        let files: Vec<&Entry> = tree.entries().iter().filter(|entry| decides(&entry.path)).collect();
        let Recipe { env, path, steps, .. } = self.recipe;
        let before = steps.get(..=self.step).unwrap_or(steps);
        let inputs = (VERSION, self.platform, self.tools, env, path, before, self.env, files);
        let json = serde_json::to_vec(&inputs).expect("plain data has a JSON");
        hex::encode(Sha256::digest(json)).chars().take(40).collect()
    }
}

/// What a build shares with others: the files that were linked into its tree.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Their numbers on the disk, by which sealing knows them.
    pub(crate) inodes: BTreeSet<u64>,
    /// The layers.
    pub(crate) layers: BTreeSet<String>,
}

/// The layers of one app.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// Where they lie.
    folder: PathBuf,
    layout: Layout,
    sealed: Option<SealedOwner>,
    builder: Option<Owner>,
}

/// How the files of a layer get into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hand {
    /// As links to the layer's own, which nobody can write to.
    Linked,
    /// As copies, for a step that wants to write to them.
    Copied,
}

/// What is written down of a layer beside its folders.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    bytes: u64,
    folders: Vec<Folder>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Folder {
    /// Where it lies in the tree.
    dir: RelativeDir,
    /// Its files and links that name the tree.
    relocated: Vec<PathBuf>,
}

impl Layers {
    pub(crate) fn new(
        layout: &Layout,
        app: &AppId,
        sealed: Option<SealedOwner>,
        builder: Option<Owner>,
    ) -> Self {
        Self { folder: layout.layers(app), layout: layout.clone(), sealed, builder }
    }

    /// Where the layer `key` lies, or would.
    pub(crate) fn place(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }

    /// Puts the folders of the layer `key` into the tree at `src`, if there is such a layer. Nothing of a tenant runs meanwhile.
    pub(crate) fn take(
        &self,
        key: &str,
        src: &Path,
        hand: Hand,
        shared: &mut Shared,
    ) -> Result<bool, BuildError> {
        let dir = self.folder.join(key);
        let noted = match fs::read(dir.join("note.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            read => read.map_err(failed(&dir, "read"))?,
        };
        let Ok(note) = serde_json::from_slice::<Note>(&noted) else {
            return Ok(false);
        };
        for (index, folder) in note.folders.iter().enumerate() {
            let at = src.join(folder.dir.as_str());
            let mut put = || -> io::Result<()> {
                let spot = Spot::make(src, &folder.dir, self.builder)?;
                remove_all(&spot.path())?;
                let to = make_dir(&spot.above, spot.name.as_str(), self.builder)?;
                let from = open_dir(&dir.join(index.to_string()))?;
                let mut laying = Laying { builder: self.builder, hand, inodes: &mut shared.inodes };
                laying.dir(from.as_fd(), to.as_fd())?;
                for path in &folder.relocated {
                    relocate_at(to.as_fd(), path, Path::new(MARK), src)?;
                }
                Ok(())
            };
            put().map_err(failed(&at, "filled from a layer"))?;
        }
        shared.layers.insert(key.to_owned());
        Ok(true)
    }

    /// Makes the layer `key` of what its step left in the tree at `src`, where the folders are gone afterwards: [`Self::take`] puts them
    /// back.
    pub(crate) fn make(
        &self,
        key: &str,
        layer: &Layer,
        relocated: &BTreeSet<RelativeDir>,
        src: &Path,
        shared: &Shared,
        log: &Log,
    ) -> Result<(), BuildError> {
        self.layout.make(&self.layout.artifacts, &self.folder)?;
        let fresh = self.folder.join(format!("{}{key}", crate::layout::NEW));
        remove_all(&fresh).map_err(failed(&fresh, "removed"))?;
        self.layout.make(&self.folder, &fresh)?;
        let mut note = Note { format: 1, bytes: 0, folders: Vec::new() };
        for dir in &layer.makes {
            let to = fresh.join(note.folders.len().to_string());
            // One that was not made, or is a link, is no part of the layer.
            let Ok(spot) = Spot::find(src, dir).and_then(|spot| spot.open().map(|_there| spot)) else {
                continue;
            };
            spot.move_to(&to).map_err(failed(&src.join(dir.as_str()), "moved"))?;
            let names_tree = relocated.iter().any(|it| is_within(it, dir) || is_within(dir, it));
            let relocated = if names_tree {
                let open = open_dir(&to).map_err(failed(&to, "read"))?;
                relocate(open.as_fd(), src, Path::new(MARK)).map_err(failed(&to, "relocated"))?
            } else {
                Vec::new()
            };
            note.bytes += seal(&to, self.sealed, &shared.inodes, log)?.own();
            note.folders.push(Folder { dir: dir.clone(), relocated });
        }
        crate::layout::write_synced(&fresh.join("note.json"), &note)?;
        let target = self.folder.join(key);
        match fs::rename(&fresh, &target) {
            Ok(()) => {}
            // Another build of the app made the same layer meanwhile.
            Err(_) if target.try_exists().unwrap_or(false) => {
                return remove_all(&fresh).map_err(failed(&fresh, "removed"));
            }
            Err(error) => return Err(failed(&target, "put into place")(error)),
        }
        File::open(&self.folder).and_then(|dir| dir.sync_all()).map_err(failed(&self.folder, "synced"))
    }
}

/// The bytes of the layer in `dir`; none when there is no note.
pub(crate) fn noted_bytes(dir: &Path) -> u64 {
    let read = fs::read(dir.join("note.json")).ok();
    read.and_then(|json| serde_json::from_slice::<Note>(&json).ok()).map_or(0, |note| note.bytes)
}

/// Whether `dir` is `other` or lies in it.
fn is_within(dir: &RelativeDir, other: &RelativeDir) -> bool {
    Path::new(dir.as_str()).starts_with(other.as_str()) || other.as_str() == "."
}

/// Makes a tree of links to another one, or of copies.
struct Laying<'a> {
    builder: Option<Owner>,
    hand: Hand,
    inodes: &'a mut BTreeSet<u64>,
}

impl Laying<'_> {
    /// A layer is sealed, so no deeper than what may be sealed, and what is in it changes no more.
    fn dir(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => FileType::from_raw_mode(
                    rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
                ),
                known => known,
            };
            match kind {
                FileType::Directory => {
                    let below = crate::remove::open_dir_at(from, name)?;
                    let made = make_dir(to, name, self.builder)?;
                    self.dir(below.as_fd(), made.as_fd())?;
                }
                FileType::RegularFile if self.hand == Hand::Copied => self.copy(from, to, name)?,
                _ => match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
                    Ok(()) if kind == FileType::RegularFile => drop(self.inodes.insert(entry.ino())),
                    Ok(()) => {}
                    // A file has only so many names.
                    Err(Errno::MLINK) if kind == FileType::RegularFile => self.copy(from, to, name)?,
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn copy(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
        let exec = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o100 != 0;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if exec { 0o755 } else { 0o644 });
        let copy = rustix::fs::openat(to, name, flags, mode)?;
        if let Some(Owner { uid, gid }) = self.builder {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            rustix::fs::fchown(&copy, Some(uid), Some(gid))?;
        }
        io::copy(&mut file, &mut File::from(copy)).map(drop)
    }
}
