//! Where images lie: manifests and configurations as they were sent, layers unpacked, each once however many images have it.
//!
//! ```text
//! blobs/HEX                 a manifest, index or configuration, by its digest
//! layers/HEX-MAP/tree       a layer by the digest of its uncompressed archive and by whom it belongs to: `own`, or the first host id
//! layers/HEX-MAP/layer.json what is known of it
//! downloads/HEX             a compressed layer, as far as it came
//! ```
//!
//! Everything is made under a name that begins with a dot, synced, and moved into place: what has a name is whole. What is removed gets
//! such a name first. So a crash at any moment leaves things that nobody names, and [`Store::open`] and [`Store::sweep`] remove them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as Turn;

use crate::beneath;
use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use crate::error::{ImageError, failed};
use crate::manifest::Document;
use crate::unpack::{Limits, Ownership, unpack};

const BLOBS: &str = "blobs";
const LAYERS: &str = "layers";
const DOWNLOADS: &str = "downloads";

/// Images on this machine. Clones are one store; a folder has no other beside it.
#[derive(Debug, Clone)]
pub struct Store {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    root: PathBuf,
    limits: Limits,
    fresh: AtomicU64,
    /// What pulls under way need, and how many of them: no sweep takes it.
    pinned: Mutex<BTreeMap<String, usize>>,
    /// Who makes what. As many as there are pulls: callers bound those.
    turns: Mutex<BTreeMap<String, Arc<Turn<()>>>>,
}

/// An image that stands, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// How it is run.
    pub config: ImageConfig,
    /// Its layers, the topmost first, as the overlay wants them.
    pub layers: Vec<PathBuf>,
    /// The bytes of all their files. Other images may share some of them.
    pub bytes: u64,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many layers.
    pub layers: u64,
    /// The bytes of their files.
    pub bytes: u64,
}

/// What is noted of a layer beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    entries: u64,
    bytes: u64,
    devices: u64,
    /// Whether it came from a registry that gives it to everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    for_all: bool,
}

/// A layer that stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// The bytes of its files.
    pub(crate) bytes: u64,
    /// Whether everybody may have it.
    pub(crate) for_all: bool,
}

/// What some images are made of, as `folder/hex`.
#[derive(Debug, Default)]
pub(crate) struct Parts(BTreeSet<String>);

impl Parts {
    pub(crate) fn has_document(&self, digest: &Digest) -> bool {
        self.0.contains(&format!("{BLOBS}/{}", digest.hex()))
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.0.contains(&format!("{LAYERS}/{}", diff_id.hex()))
    }
}

/// Keeps what it names from sweeps for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    inside: Arc<Inside>,
    names: BTreeSet<String>,
}

/// The right to make something, while it is held by nobody else.
pub(crate) struct HeldTurn {
    inside: Arc<Inside>,
    name: String,
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Store {
    /// Opens the store in `root`, which is made where it is missing, and removes what a crash left half done.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, ImageError> {
        for folder in [PathBuf::new(), BLOBS.into(), LAYERS.into(), DOWNLOADS.into()] {
            let path = root.join(folder);
            // Nobody but us passes: an overlay is mounted by its paths once, and then needs them no more.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed(&path, "made"))?;
        }
        let inside = Inside {
            root: root.to_owned(),
            limits,
            fresh: AtomicU64::new(0),
            pinned: Mutex::default(),
            turns: Mutex::default(),
        };
        let store = Self { inside: Arc::new(inside) };
        for folder in [BLOBS, LAYERS, DOWNLOADS] {
            for name in store.names(folder)? {
                if name.starts_with('.') {
                    store.remove(folder, &name)?;
                }
            }
        }
        Ok(store)
    }

    /// The bounds that images are held to.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inside.limits
    }

    /// The image whose manifest has this digest, when all of it stands.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn image(&self, manifest: &Digest, ownership: Ownership) -> Result<Option<Image>, ImageError> {
        let Some(bytes) = self.document(manifest)? else { return Ok(None) };
        let Document::Manifest(read) = Document::read(&bytes, None)? else { return Ok(None) };
        let Some(bytes) = self.document(&read.config.digest)? else { return Ok(None) };
        let config::Document { config, diff_ids, .. } = config::Document::read(&bytes)?;
        let (mut layers, mut bytes) = (Vec::new(), 0_u64);
        for diff_id in diff_ids.iter().rev() {
            let Some(layer) = self.layer(diff_id, ownership)? else { return Ok(None) };
            bytes = bytes.saturating_add(layer.bytes);
            layers.push(self.layer_dir(diff_id, ownership).join("tree"));
        }
        Ok(Some(Image { manifest: *manifest, config, layers, bytes }))
    }

    /// Removes all that no image in `kept`, digests of manifests or indexes, needs and no pull under way does.
    ///
    /// # Errors
    /// When the store cannot be read or written, or a kept manifest is damaged: then nothing is removed, since nobody knows what it needs.
    pub fn sweep(&self, kept: &BTreeSet<Digest>) -> Result<Swept, ImageError> {
        let mut wanted = BTreeSet::new();
        for digest in kept {
            self.needs(digest, &mut wanted, 0)?;
        }
        let mut gone = Vec::new();
        {
            let pinned = self.pinned();
            for folder in [BLOBS, LAYERS, DOWNLOADS] {
                for name in self.names(folder)? {
                    let hex = name.split('-').next().unwrap_or_default();
                    let key = format!("{folder}/{hex}");
                    // What begins with a dot is somebody's work under way.
                    if name.starts_with('.') || wanted.contains(&key) || pinned.contains_key(&key) {
                        continue;
                    }
                    let moved = self.fresh("gone");
                    let (from, to) = (self.path(folder, &name), self.path(folder, &moved));
                    fs::rename(&from, to).map_err(failed(&from, "removed"))?;
                    gone.push((folder, moved));
                }
            }
        }
        let mut swept = Swept::default();
        for (folder, name) in gone {
            if folder == LAYERS {
                let bytes = note(&self.path(folder, &name)).map_or(0, |note| note.bytes);
                swept = Swept { layers: swept.layers + 1, bytes: swept.bytes.saturating_add(bytes) };
            }
            self.remove(folder, &name)?;
        }
        Ok(swept)
    }

    /// What these images, digests of manifests or indexes, are made of. One that is damaged is made of nothing: its parts are fetched again.
    pub(crate) fn parts_of(&self, images: &BTreeSet<Digest>) -> Parts {
        let mut parts = BTreeSet::new();
        for digest in images {
            let mut of = BTreeSet::new();
            if self.needs(digest, &mut of, 0).is_ok() {
                parts.append(&mut of);
            }
        }
        Parts(parts)
    }

    /// What an image needs, as `folder/hex`.
    fn needs(&self, digest: &Digest, wanted: &mut BTreeSet<String>, depth: u8) -> Result<(), ImageError> {
        let Some(bytes) = self.document(digest)? else { return Ok(()) };
        wanted.insert(format!("{BLOBS}/{}", digest.hex()));
        match Document::read(&bytes, None)? {
            Document::Index(manifests) if depth == 0 => {
                for manifest in manifests {
                    self.needs(&manifest.digest, wanted, 1)?;
                }
            }
            Document::Index(_) => {}
            Document::Manifest(manifest) => {
                wanted.insert(format!("{BLOBS}/{}", manifest.config.digest.hex()));
                let Some(bytes) = self.document(&manifest.config.digest)? else { return Ok(()) };
                let diff_ids = config::Document::read(&bytes)?.diff_ids;
                wanted.extend(diff_ids.iter().map(|diff_id| format!("{LAYERS}/{}", diff_id.hex())));
            }
        }
        Ok(())
    }

    /// A manifest, index or configuration.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.path(BLOBS, &digest.hex());
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Ok(_) => {
                let damaged = io::Error::new(
                    io::ErrorKind::InvalidData,
                    "its bytes are not those that it was named after",
                );
                Err(failed(&path, "read")(damaged))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, "read")(error)),
        }
    }

    /// Keeps a document, on disk for good.
    pub(crate) fn put_document(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        let (fresh, path) = (self.path(BLOBS, &self.fresh("new")), self.path(BLOBS, &digest.hex()));
        let write = || {
            let mut file = File::create_new(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(self.inside.root.join(BLOBS))?.sync_all()
        };
        write().map_err(failed(&path, "written"))?;
        Ok(digest)
    }

    /// A layer, when it stands.
    pub(crate) fn layer(
        &self,
        diff_id: &Digest,
        ownership: Ownership,
    ) -> Result<Option<Standing>, ImageError> {
        let dir = self.layer_dir(diff_id, ownership);
        match dir.try_exists().map_err(failed(&dir, "read"))? {
            true => {
                let Note { bytes, for_all, .. } = note(&dir).map_err(failed(&dir, "read"))?;
                Ok(Some(Standing { bytes, for_all }))
            }
            false => Ok(None),
        }
    }

    /// Unpacks the compressed layer `from` and keeps it, if it is the one that is meant; `for_all` says whether everybody may have it. Where it stands already
    /// this only finds out that it is that one. Blocks. What fails leaves nothing. The file `spent` is removed once nothing of it is needed any more.
    pub(crate) fn put_layer(
        &self,
        (from, spent): (File, Option<&Path>),
        diff_id: &Digest,
        ownership: Ownership,
        for_all: bool,
        cancelled: &AtomicBool,
    ) -> Result<(), ImageError> {
        let name = self.fresh("new");
        let done = self.make_layer(&name, (from, spent), diff_id, (ownership, for_all), cancelled);
        if !matches!(done, Ok(true)) {
            self.remove(LAYERS, &name)?;
        }
        done.map(drop)
    }

    /// Gives whether it has its place now, and had none before.
    fn make_layer(
        &self,
        name: &str,
        (from, spent): (File, Option<&Path>),
        diff_id: &Digest,
        (ownership, for_all): (Ownership, bool),
        cancelled: &AtomicBool,
    ) -> Result<bool, ImageError> {
        let (dir, place) = (self.path(LAYERS, name), self.layer_dir(diff_id, ownership));
        let tree = dir.join("tree");
        for path in [&dir, &tree] {
            fs::DirBuilder::new().mode(0o700).create(path).map_err(failed(path, "made"))?;
        }
        let root = beneath::open_root(&tree).map_err(failed(&tree, "opened"))?;
        let unpacked = unpack(from, root.as_fd(), ownership, &self.inside.limits, cancelled)?;
        if unpacked.diff_id != *diff_id {
            let (found, told) = (unpacked.diff_id, diff_id);
            return Err(ImageError::invalid(format!(
                "a layer's content is {found}, and its configuration says {told}"
            )));
        }
        // Before the disk is waited for: what of it was never written need not be.
        if let Some(spent) = spent {
            fs::remove_file(spent).map_err(failed(spent, "removed"))?;
        }
        let note =
            Note { entries: unpacked.entries, bytes: unpacked.bytes, devices: unpacked.devices, for_all };
        let note = serde_json::to_vec(&note).expect("plain data has a JSON");
        if place.try_exists().map_err(failed(&place, "read"))? {
            if for_all {
                let told = || {
                    fs::write(dir.join("layer.json"), &note)?;
                    fs::rename(dir.join("layer.json"), place.join("layer.json"))
                };
                told().map_err(failed(&place, "written"))?;
            }
            return Ok(false);
        }
        let write = || {
            fs::write(dir.join("layer.json"), &note)?;
            // One call for many files; the disk may hold others' writes back, which are synced with them.
            rustix::fs::syncfs(&root)?;
            fs::rename(&dir, &place)?;
            File::open(self.inside.root.join(LAYERS))?.sync_all()
        };
        write().map_err(failed(&place, "written"))?;
        Ok(true)
    }

    fn layer_dir(&self, diff_id: &Digest, ownership: Ownership) -> PathBuf {
        let map = match ownership {
            Ownership::Own => "own".to_owned(),
            Ownership::Mapped { base } => base.to_string(),
        };
        self.path(LAYERS, &format!("{}-{map}", diff_id.hex()))
    }

    /// Where the compressed layer with this digest is written to.
    pub(crate) fn download(&self, digest: &Digest) -> PathBuf {
        self.path(DOWNLOADS, &digest.hex())
    }

    /// The folder of what is on its way to being unpacked.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.inside.root.join(DOWNLOADS)
    }

    /// Keeps these from sweeps: documents and compressed layers by their digests, layers by their diff ids.
    pub(crate) fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pin {
        let names = digests
            .into_iter()
            .flat_map(|digest| [BLOBS, LAYERS, DOWNLOADS].map(|it| format!("{it}/{}", digest.hex())));
        let names: BTreeSet<String> = names.collect();
        let mut pinned = self.pinned();
        for name in &names {
            *pinned.entry(name.clone()).or_default() += 1;
        }
        drop(pinned);
        Pin { inside: Arc::clone(&self.inside), names }
    }

    /// Waits until nobody else makes what `name` names.
    pub(crate) async fn turn(&self, name: String) -> HeldTurn {
        let turn = {
            let mut turns = self.inside.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(name.clone()).or_default())
        };
        let mut held = HeldTurn { inside: Arc::clone(&self.inside), name, turn: None };
        held.turn = Some(turn.lock_owned().await);
        held
    }

    fn path(&self, folder: &str, name: &str) -> PathBuf {
        self.inside.root.join(folder).join(name)
    }

    fn fresh(&self, what: &str) -> String {
        format!(".{what}-{}", self.inside.fresh.fetch_add(1, Ordering::Relaxed))
    }

    fn pinned(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.inside.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, ImageError> {
        let path = self.inside.root.join(folder);
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        read().map_err(failed(&path, "read"))
    }

    fn remove(&self, folder: &str, name: &str) -> Result<(), ImageError> {
        let above = self.inside.root.join(folder);
        let remove = || beneath::remove(beneath::open_root(&above)?.as_fd(), name.as_bytes());
        remove().map_err(failed(&above.join(name), "removed"))
    }
}

fn note(dir: &Path) -> io::Result<Note> {
    Ok(serde_json::from_slice(&fs::read(dir.join("layer.json"))?)?)
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.inside.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            if let Some(count) = pinned.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    pinned.remove(name);
                }
            }
        }
    }
}

impl Drop for HeldTurn {
    fn drop(&mut self) {
        let mut turns = self.inside.turns.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.turn.take());
        // Nobody else waits for it or holds it.
        if turns.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.name);
        }
    }
}
