//! What nobody needs any more in repositories that we are the registry of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

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

impl Hosted {
    /// Looks after the repositories `names`, which were there before `kept` was made: one that came since is nobody's to remove. Removes
    /// those that are not kept; and in those that are, what neither a tag nor a kept manifest needs and what was left of uploads,
    /// once it is a day old by `now`. What is pushed again meanwhile is new. One repository that cannot be read or written keeps no other
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
        let mut roots = self.roots()?;
        roots.extend(kept);
        let (manifests, blobs) = self.reachable(roots)?;
        let needed = |all: &BTreeSet<Digest>| all.iter().map(Digest::hex).collect::<BTreeSet<_>>();
        // Manifests first: one whose blobs went before it would stand there broken.
        for (folder, needed) in
            [(MANIFESTS, needed(&manifests)), (BLOBS, needed(&blobs)), (UPLOADS, BTreeSet::new())]
        {
            for name in self.names(folder)? {
                let path = self.path.join(folder).join(&name);
                if !needed.contains(&name) && is_old(&path, now) {
                    remove(&path, removed)?;
                }
            }
        }
        // Of tags those that were never written whole.
        for name in self.names(TAGS)?.into_iter().filter(|name| name.starts_with('.')) {
            let path = self.path.join(TAGS).join(name);
            if is_old(&path, now) {
                remove(&path, removed)?;
            }
        }
        self.forget();
        Ok(())
    }

    /// Removes all of it.
    fn remove(&self, removed: &mut Removed) -> Result<()> {
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

fn is_old(path: &Path, now: SystemTime) -> bool {
    let changed = fs::metadata(path).and_then(|found| found.modified());
    changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > GRACE))
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
