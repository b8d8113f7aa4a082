//! What nobody needs any more in repositories that we are the registry of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::abandoned::is_older;
use super::manifest::Needed;
use super::{BLOBS, FOLDERS, Hosted, HostedError, MANIFESTS, Repository, Result, TAGS, UPLOADS, failed};
use crate::digest::Digest;

/// How long what nothing names stays: a push sends blobs first and what names them last, and may take its time.
const GRACE: Duration = Duration::from_secs(24 * 3_600);

/// The repositories that stay, each with the manifests that are needed there whatever its tags say.
pub type Kept = BTreeMap<String, BTreeSet<Digest>>;

/// The repositories that could not be looked after, and why.
pub type Failed = Vec<(String, HostedError)>;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a sweep leaves of a repository, by the names of files.
struct Staying {
    /// The manifests that something names, and not their youth alone keeps.
    named: BTreeSet<Digest>,
    manifests: BTreeSet<String>,
    blobs: BTreeSet<String>,
}

impl Hosted {
    /// Looks after the repositories `names`, which were there before `kept` was made: one that came since is nobody's to remove. Removes
    /// those that are not kept; and in those that are, what neither a tag nor a kept manifest has needed for a day by `now`, and what was
    /// left of uploads for as long. What is pushed or mounted again meanwhile is new. One repository that cannot be read or written keeps no other
    /// from being looked after.
    pub fn sweep(&self, names: &[String], kept: &Kept, now: SystemTime) -> (Removed, Failed) {
        let (mut removed, mut failed) = (Removed::default(), Failed::new());
        for name in names {
            let repository = self.repository(name);
            let done = match kept.get(name) {
                Some(manifests) => repository.sweep(manifests, now, &mut removed),
                None => repository.remove(&mut removed),
            };
            failed.extend(done.err().map(|error| (name.clone(), error)));
        }
        (removed, failed)
    }

    /// The names of all repositories.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = vec![String::new()];
        for _level in ["tenant", "project", "app"] {
            let mut below = Vec::new();
            for name in names {
                let path = self.inside.root.join(&name);
                let entries = match fs::read_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    entries => entries.map_err(failed(&path, "listed"))?,
                };
                let mut folders: Vec<String> =
                    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
                folders.sort();
                let whole =
                    |folder: String| if name.is_empty() { folder } else { format!("{name}/{folder}") };
                below.extend(folders.into_iter().map(whole));
            }
            names = below;
        }
        Ok(names)
    }
}

impl Repository {
    fn sweep(&self, kept: &BTreeSet<Digest>, now: SystemTime, removed: &mut Removed) -> Result<()> {
        for id in self.names(UPLOADS)? {
            if let Some(bytes) = self.part_with(&id, GRACE, now)? {
                removed.files += 1;
                removed.bytes += bytes;
            }
        }
        let needed = self.needed(kept, now)?;
        // Once nothing names them they stay a day from now, and what they need with them. Blobs need no date for that; and one that is
        // mounted has the same date in every repository, also where nothing names it.
        for digest in &needed.named {
            self.note_named(digest, now)?;
        }
        // Mostly there is nothing, and nobody waits for us.
        if !self.unneeded(&needed, now)?.is_empty() {
            for path in self.set_aside(kept, now)? {
                remove(&path, removed)?;
            }
        }
        self.forget();
        Ok(())
    }

    /// What stays: what tags and kept manifests need; and what is needed by manifests that are young, since those of an index come before
    /// it, by their digests alone.
    fn needed(&self, kept: &BTreeSet<Digest>, now: SystemTime) -> Result<Staying> {
        let mut needed = Needed::default();
        let mut roots = self.roots()?;
        roots.extend(kept);
        self.reach(roots, &mut needed)?;
        let named = needed.manifests.clone();
        let all = self.names(MANIFESTS)?.into_iter();
        let all = all.filter_map(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let young = all.filter(|digest| !is_older(&self.path.join(MANIFESTS).join(digest.hex()), GRACE, now));
        self.reach(young.collect(), &mut needed)?;
        let names = |all: BTreeSet<Digest>| all.iter().map(Digest::hex).collect();
        Ok(Staying { named, manifests: names(needed.manifests), blobs: names(needed.blobs) })
    }

    /// The files that may go.
    fn unneeded(&self, staying: &Staying, now: SystemTime) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        // Manifests first: one whose blobs went before it would stand there broken.
        for folder in [MANIFESTS, BLOBS, TAGS] {
            for name in self.names(folder)? {
                let stays = match folder {
                    MANIFESTS => staying.manifests.contains(&name),
                    BLOBS => staying.blobs.contains(&name),
                    // But for one that was never written whole.
                    _ => !name.starts_with('.'),
                };
                let path = self.path.join(folder).join(name);
                if !stays && is_older(&path, GRACE, now) {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// Takes the names of what may go, and gives those that it has instead. No manifest is taken meanwhile: what it was found to have would
    /// be missing when it stands. To remove takes longer, and waits until the next is.
    fn set_aside(&self, kept: &BTreeSet<Digest>, now: SystemTime) -> Result<Vec<PathBuf>> {
        let _alone = self.hold(FlockOperation::LockExclusive)?;
        // Looked for anew: of what was found before, something may be needed since.
        let unneeded = self.unneeded(&self.needed(kept, now)?, now)?;
        let mut gone = Vec::new();
        for path in unneeded {
            let aside = path.with_file_name(self.hosted.fresh("gone"));
            match fs::rename(&path, &aside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved.map(|()| gone.push(aside)).map_err(failed(&path, "removed"))?,
            }
        }
        Ok(gone)
    }

    /// Dates a manifest that something names.
    fn note_named(&self, digest: &Digest, now: SystemTime) -> Result<()> {
        let path = self.path.join(MANIFESTS).join(digest.hex());
        match File::open(&path).and_then(|file| file.set_modified(now)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            dated => dated.map_err(failed(&path, "written")),
        }
    }

    /// Removes all of it.
    fn remove(&self, removed: &mut Removed) -> Result<()> {
        let _alone = self.hold(FlockOperation::LockExclusive)?;
        // Tags first, so that nobody finds half of what they mean.
        for folder in [TAGS].into_iter().chain(FOLDERS) {
            for name in self.names(folder)? {
                remove(&self.path.join(folder).join(name), removed)?;
            }
        }
        fs::remove_dir_all(&self.path).map_err(failed(&self.path, "removed"))?;
        self.forget();
        Ok(())
    }

    /// Has its bytes counted anew.
    fn forget(&self) {
        self.hosted.inside.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn remove(path: &Path, removed: &mut Removed) -> Result<()> {
    let length = fs::metadata(path).map_or(0, |found| found.len());
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path, "removed")(error)),
        Ok(()) => {
            removed.files += 1;
            removed.bytes += length;
            Ok(())
        }
    }
}
