//! Repositories that we are the registry of: blobs as they were pushed, manifests, tags and uploads under way.
//!
//! ```text
//! TENANT/PROJECT/APP/blobs/HEX        a blob, by its digest
//! TENANT/PROJECT/APP/manifests/HEX    a manifest or index: its media type on a line, then its bytes
//! TENANT/PROJECT/APP/tags/TAG         the digest that a tag means
//! TENANT/PROJECT/APP/uploads/ID       what came of a blob so far
//! ```
//!
//! Every repository has its own blobs: one that could be had because another tenant has it too would tell that it does. A blob that is
//! mounted from a repository of the same owner is a hard link. What has a digest for a name was verified, synced and moved into place, so a
//! crash leaves whole things, and uploads and names with a dot before them, which a [`Hosted::sweep`] removes. The rules are those of the
//! OCI distribution specification 1.1.

mod abandoned;
mod manifest;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use sha2::{Digest as _, Sha256};

pub use self::manifest::{Held, Named};
pub use self::sweep::{Failed, Kept, Removed};
use crate::digest::Digest;

const BLOBS: &str = "blobs";
const MANIFESTS: &str = "manifests";
const TAGS: &str = "tags";
const UPLOADS: &str = "uploads";
/// The folders of a repository.
const FOLDERS: [&str; 4] = [BLOBS, MANIFESTS, TAGS, UPLOADS];
/// How much of a file is read at a time.
const PIECE: usize = 256 * 1024;

/// The bounds that repositories are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The longest blob, in bytes.
    pub blob: u64,
    /// The most bytes of a repository, uploads under way included.
    pub repository: u64,
    /// The most uploads of a repository at once.
    pub uploads: usize,
    /// The most tags of a repository.
    pub tags: usize,
    /// So many bytes of the disk are left to others.
    pub reserve: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { blob: 10 << 30, repository: 50 << 30, uploads: 64, tags: 10_000, reserve: 1 << 30 }
    }
}

/// Why a repository does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum HostedError {
    /// There is no such upload, or not any more.
    #[error("there is no such upload")]
    NoUpload,
    /// What is sent does not begin where the last piece ended.
    #[error("the upload has {has} bytes, and what is sent begins elsewhere")]
    OutOfOrder {
        /// So many bytes are there.
        has: u64,
    },
    /// Somebody else sends to the same upload.
    #[error("another request sends to this upload")]
    Busy,
    /// The bytes have another digest than the one they are to be known by.
    #[error("what was sent has the digest {found}, not {wanted}")]
    OtherDigest {
        /// What it was to have.
        wanted: Digest,
        /// What it has.
        found: Digest,
    },
    /// It is no manifest.
    #[error("the manifest is refused: {0}")]
    Manifest(String),
    /// A manifest names what is not there.
    #[error("the manifest names {0}, which was not pushed")]
    Missing(Digest),
    /// More than a repository may have.
    #[error("{0}")]
    TooMuch(String),
    /// The disk, or the quota on it, is full.
    #[error("the disk is full; nothing was left half done")]
    DiskFull,
    /// It could not be read or written.
    #[error("{path:?} could not be {verb}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, HostedError>;

fn failed(path: &Path, verb: &'static str) -> impl Fn(io::Error) -> HostedError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HostedError::DiskFull,
        _ => HostedError::Io { path: path.clone(), verb, source },
    }
}

/// All repositories. Clones are one.
#[derive(Debug, Clone)]
pub struct Hosted {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    root: PathBuf,
    bounds: Bounds,
    /// The bytes of each repository that was asked for since we started.
    used: Mutex<BTreeMap<String, u64>>,
    /// How many names were made for what is written or on its way out.
    fresh: AtomicU64,
}

/// One repository.
#[derive(Debug, Clone)]
pub struct Repository {
    hosted: Hosted,
    name: String,
    path: PathBuf,
}

impl Hosted {
    /// The repositories below `root`, which is made with the first of them.
    #[must_use]
    pub fn new(root: PathBuf, bounds: Bounds) -> Self {
        Self { inside: Arc::new(Inside { root, bounds, used: Mutex::default(), fresh: AtomicU64::new(0) }) }
    }

    /// The repository of this name, which must be a path of plain names. It need not exist.
    #[must_use]
    pub fn repository(&self, name: &str) -> Repository {
        debug_assert!(name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{name}");
        Repository { hosted: self.clone(), name: name.to_owned(), path: self.inside.root.join(name) }
    }

    /// A name that is none of a tag or digest, and that we gave to nothing else.
    fn fresh(&self, what: &str) -> String {
        format!(".{what}-{}", self.inside.fresh.fetch_add(1, Ordering::Relaxed))
    }

    /// A file that is nobody else's: a control before us may have left some of these names, and one that hands over to us use them yet.
    fn fresh_file(&self, folder: &Path) -> Result<(PathBuf, File)> {
        loop {
            let path = folder.join(self.fresh("new"));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return Ok((path.clone(), file.map_err(failed(&path, "made"))?)),
            }
        }
    }
}

impl Repository {
    /// Whether anything was ever pushed to it.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.join(MANIFESTS).is_dir()
    }

    /// A blob with its length.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<(File, u64)>> {
        let path = self.path.join(BLOBS).join(digest.hex());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed(&path, "opened"))?,
        };
        let length = file.metadata().map_err(failed(&path, "looked at"))?.len();
        Ok(Some((file, length)))
    }

    /// Has a blob of another repository be one of this, too. Says whether there was one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mount(&self, from: &Self, digest: &Digest) -> Result<bool> {
        let (source, target) =
            (from.path.join(BLOBS).join(digest.hex()), self.path.join(BLOBS).join(digest.hex()));
        let Ok(found) = fs::metadata(&source) else { return Ok(false) };
        let _held = self.hold(FlockOperation::LockShared)?;
        if is_there(&target)? {
            return date(&target).map(|()| true);
        }
        self.take(found.len())?;
        if let Err(error) = fs::hard_link(&source, &target) {
            self.give_back(found.len());
            return match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(true),
                // It was swept there since we looked.
                io::ErrorKind::NotFound => Ok(false),
                _ => Err(failed(&target, "linked")(error)),
            };
        }
        // It is as old as the other repository's, and would be swept before what is to name it comes.
        date(&target)?;
        sync(&self.path.join(BLOBS))?;
        Ok(true)
    }

    /// Begins an upload; `id` is one that nobody guesses. Where there are as many as there may be, those that were abandoned make room.
    ///
    /// # Errors
    /// When there are too many, or it cannot be made.
    pub fn begin(&self, id: &str) -> Result<()> {
        self.make()?;
        let most = self.hosted.inside.bounds.uploads;
        while self.names(UPLOADS)?.len() >= most {
            if !self.part_with_abandoned()? {
                return Err(HostedError::TooMuch(format!("there are {most} uploads under way already")));
            }
        }
        let path = self.path.join(UPLOADS).join(id);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map(drop).map_err(failed(&path, "made"))
    }

    /// An upload under way, for nobody else as long as it is held.
    ///
    /// # Errors
    /// When there is none, or somebody has it.
    pub fn upload(&self, id: &str) -> Result<Upload> {
        let (path, file) = self.opened(id)?;
        self.held(path, file)
    }

    /// The file of an upload, which somebody else may have.
    fn opened(&self, id: &str) -> Result<(PathBuf, File)> {
        if !is_upload(id) {
            return Err(HostedError::NoUpload);
        }
        let path = self.path.join(UPLOADS).join(id);
        match OpenOptions::new().read(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HostedError::NoUpload),
            file => Ok((path.clone(), file.map_err(failed(&path, "opened"))?)),
        }
    }

    /// Keeps others from it.
    fn held(&self, path: PathBuf, file: File) -> Result<Upload> {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_locked| HostedError::Busy)?;
        // Whoever had it until now may have made a blob of this very file, and to a blob nothing is added.
        if !is_at(&file, &path)? {
            return Err(HostedError::NoUpload);
        }
        let length = file.metadata().map_err(failed(&path, "looked at"))?.len();
        Ok(Upload { repository: self.clone(), path, file, length, at_once: false })
    }

    /// Whether a blob is there, and stays as if it were pushed now.
    fn has_still(&self, path: &Path) -> Result<bool> {
        let _held = self.hold(FlockOperation::LockShared)?;
        let is_there = is_there(path)?;
        if is_there {
            date(path)?;
        }
        Ok(is_there)
    }

    /// Holds the repository while the file that is given lives: shared by who relies on what is there, alone by who removes. It is the
    /// kernel's lock, since two controls may be at work while one takes over from the other.
    fn hold(&self, how: FlockOperation) -> Result<File> {
        let path = self.path.join(MANIFESTS);
        loop {
            self.make()?;
            let folder = File::open(&path).map_err(failed(&path, "opened"))?;
            let held = rustix::io::retry_on_intr(|| rustix::fs::flock(&folder, how));
            held.map_err(|error| failed(&path, "locked")(error.into()))?;
            // Whoever held it until now may have removed all of it.
            if is_at(&folder, &path)? {
                return Ok(folder);
            }
        }
    }

    /// Makes its folders.
    fn make(&self) -> Result<()> {
        for folder in FOLDERS {
            let path = self.path.join(folder);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed(&path, "made"))?;
        }
        Ok(())
    }

    /// Counts bytes that are about to be written, if there is room for them. Uploads that were abandoned make some.
    fn take(&self, bytes: u64) -> Result<()> {
        let Inside { bounds, root, .. } = &*self.hosted.inside;
        let disk = rustix::fs::statvfs(root).map_err(|error| failed(root, "looked at")(error.into()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < bounds.reserve.saturating_add(bytes) {
            return Err(HostedError::DiskFull);
        }
        while !self.count(bytes)? {
            if !self.part_with_abandoned()? {
                let most = bounds.repository >> 20;
                return Err(HostedError::TooMuch(format!("a repository has {most} MiB at most")));
            }
        }
        Ok(())
    }

    /// Counts bytes unless they are too many.
    fn count(&self, bytes: u64) -> Result<bool> {
        let Inside { bounds, used, .. } = &*self.hosted.inside;
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match used.get_mut(&self.name) {
            Some(count) => count,
            None => {
                let found = self.size()?;
                used.entry(self.name.clone()).or_insert(found)
            }
        };
        let fits = count.saturating_add(bytes) <= bounds.repository;
        if fits {
            *count += bytes;
        }
        Ok(fits)
    }

    fn give_back(&self, bytes: u64) {
        let mut used = self.hosted.inside.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(&self.name) {
            *count = count.saturating_sub(bytes);
        }
    }

    /// Writes a file whole or not at all. Two who write it at once write one each, and the later one stays.
    fn write_whole(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let folder = self.path.join(folder);
        let (fresh, mut file) = self.hosted.fresh_file(&folder)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&fresh, folder.join(name))) {
            // One that cannot be removed either is swept.
            drop(fs::remove_file(&fresh));
            return Err(failed(&fresh, "written")(error));
        }
        sync(&folder)
    }

    /// The bytes of all its files.
    fn size(&self) -> Result<u64> {
        let mut size = 0_u64;
        for folder in [BLOBS, MANIFESTS, UPLOADS] {
            let path = self.path.join(folder);
            for entry in fs::read_dir(&path).map_err(failed(&path, "listed"))? {
                // What is renamed away while we count is counted by who renamed it.
                let length = entry.and_then(|entry| entry.metadata()).map_or(0, |found| found.len());
                size = size.saturating_add(length);
            }
        }
        Ok(size)
    }
}

/// A blob that is being sent.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    path: PathBuf,
    file: File,
    length: u64,
    at_once: bool,
}

impl Upload {
    /// The same, thrown away when it is dropped unfinished: nobody was told where to go on with it.
    #[must_use]
    pub fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// How many bytes came so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether what is sent now begins where the last piece ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn begins_at(&self, offset: u64) -> Result<()> {
        if offset == self.length { Ok(()) } else { Err(HostedError::OutOfOrder { has: self.length }) }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When there is no room for them; what came before stays.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let count = bytes.len() as u64;
        let most = self.repository.hosted.inside.bounds.blob;
        if self.length.saturating_add(count) > most {
            return Err(HostedError::TooMuch(format!("a blob has {} MiB at most", most >> 20)));
        }
        self.repository.take(count)?;
        if let Err(error) = self.file.write_all(bytes) {
            // What did get to the disk goes, so that the length is what we say it is.
            let cut = self.file.set_len(self.length);
            self.repository.give_back(count);
            return Err(failed(&self.path, "written")(cut.err().unwrap_or(error)));
        }
        self.length += count;
        Ok(())
    }

    /// Makes a blob of it, if it has this digest. One that has another is thrown away: no more bytes make it right.
    ///
    /// # Errors
    /// When the digest is another one, or it cannot be read or moved.
    pub fn finish(mut self, digest: &Digest) -> Result<()> {
        let found = self.digest()?;
        if found != *digest {
            self.cancel()?;
            return Err(HostedError::OtherDigest { wanted: *digest, found });
        }
        let folder = self.repository.path.join(BLOBS);
        let target = folder.join(digest.hex());
        if self.repository.has_still(&target)? {
            return self.cancel();
        }
        // Not as old as its last byte, which may have come long ago.
        date(&self.path)?;
        self.file.sync_all().map_err(failed(&self.path, "written"))?;
        fs::rename(&self.path, &target).map_err(failed(&self.path, "moved"))?;
        self.at_once = false;
        sync(&folder)
    }

    /// Throws it away.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn cancel(mut self) -> Result<()> {
        self.at_once = false;
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path).map_err(failed(&self.path, "removed"))?;
        self.repository.give_back(self.length);
        Ok(())
    }

    fn digest(&mut self) -> Result<Digest> {
        // Opened anew: our own descriptor appends, and its place is the end.
        let mut file = File::open(&self.path).map_err(failed(&self.path, "opened"))?;
        let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE]);
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(Digest::end(hash)),
                Ok(count) => hash.update(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&self.path, "read")(error)),
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.at_once {
            // One that cannot be removed is abandoned, as others are.
            drop(self.remove());
        }
    }
}

/// Whether a text can be the id of an upload: 32 hex digits, and so no path.
fn is_upload(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().map_err(failed(path, "looked at"))
}

/// Whether a path leads to a file that is open, and not to another one or nowhere.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let own = file.metadata().map_err(failed(path, "looked at"))?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, "looked at")(error)),
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
    }
}

/// Dates a file now.
fn date(path: &Path) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    let dated = rustix::fs::utimensat(CWD, path, &times, AtFlags::empty());
    dated.map_err(|error| failed(path, "written")(error.into()))
}

/// Has the names in a folder survive a loss of power.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(failed(folder, "written"))
}
