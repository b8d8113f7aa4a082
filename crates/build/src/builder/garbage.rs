//! Collecting what builds keep: on control's clock, and when the disk runs short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use berth_spec::{AppId, Timestamp};
use serde::{Deserialize, Serialize};

use super::make::noted;
use super::{Builder, Inside, blocking};
use crate::collect::{Collected, Thing, choose};
use crate::error::{BuildError, failed};
use crate::layer;
use crate::layout::{GONE, KEPT, LAYERS, Layout, entries, write_synced};
use crate::log::Log;
use crate::remove::remove_all;
use crate::weigh::{free, weigh};

/// A mirror that was used so recently may be of a build that has not begun.
const MIRROR_GRACE: Duration = Duration::from_secs(3_600);

/// What is known of an app's caches, beside them: to weigh them takes a walk, which is done when a build has ended.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CacheNote {
    bytes: BTreeMap<String, u64>,
}

impl Builder {
    /// Removes caches, layers and mirrors that are beyond what is to be kept, and more until `needed` bytes are freed. What an artifact that
    /// stands needs and what a build uses stays.
    ///
    /// # Errors
    /// [`BuildError`] when something cannot be removed.
    pub async fn collect(&self, needed: u64) -> Result<Collected, BuildError> {
        let inside = Arc::clone(&self.inside);
        blocking(move || inside.collect(needed)).await
    }
}

impl Inside {
    /// Makes room on a disk that runs short, before a build.
    ///
    /// # Errors
    /// [`BuildError::DiskFull`] when less is left even so than builds may take.
    pub(super) fn make_room(&self, log: &Log) -> Result<(), BuildError> {
        self.layout.make(&self.layout.builds, &self.layout.builds)?;
        let left = || free(&self.layout.builds).unwrap_or(u64::MAX);
        if left() < self.config.low_water {
            let collected = self.collect(self.config.low_water - left())?;
            log.say(format!("the disk runs short: {collected}"));
        }
        if left() < self.config.reserve {
            Err(BuildError::DiskFull(self.layout.builds.clone()))
        } else {
            Ok(())
        }
    }

    pub(super) fn collect(&self, needed: u64) -> Result<Collected, BuildError> {
        let things = self.things();
        let now = self.clock.now();
        let mut collected = Collected::default();
        for index in choose(&things, self.config.keeping, now, needed) {
            let Some(thing) = things.get(index) else {
                continue;
            };
            let name = thing.path.file_name().unwrap_or_default().to_string_lossy();
            let leaving = thing.path.with_file_name(format!("{GONE}{name}"));
            if self.part_with(thing, &leaving)? {
                remove_all(&leaving).map_err(failed(&leaving, "removed"))?;
                collected.things += 1;
                collected.bytes += thing.bytes;
            }
        }
        Ok(collected)
    }

    /// Moves a thing out of the way, unless a build of its app runs, which it may serve.
    fn part_with(&self, thing: &Thing, leaving: &Path) -> Result<bool, BuildError> {
        remove_all(leaving).map_err(failed(leaving, "removed"))?;
        let works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = match &thing.app {
            Some(app) => works.contains_key(app),
            None => !works.is_empty(),
        };
        if busy {
            return Ok(false);
        }
        match fs::rename(&thing.path, leaving) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            moved => moved.map(|()| true).map_err(failed(&thing.path, "removed")),
        }
    }

    /// All that is kept and that no artifact needs.
    fn things(&self) -> Vec<Thing> {
        let mut things = Vec::new();
        let mut needed = BTreeSet::new();
        for folder in Layout::apps_below(&self.layout.artifacts) {
            let notes =
                entries(&folder).into_iter().filter(|path| path.extension().is_some_and(|it| it == "json"));
            let mut layers = BTreeSet::new();
            for note in notes.map(|path| noted(&path)) {
                layers.extend(note.layers);
                needed.extend(note.mirrors);
            }
            let app = app_of(&folder);
            let unneeded = entries(&folder.join(LAYERS)).into_iter().filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                !name.starts_with('.') && !layers.contains(&*name)
            });
            things.extend(unneeded.map(|path| Thing {
                app: app.clone(),
                bytes: layer::noted_bytes(&path),
                used: used(&path),
                path,
            }));
        }
        for folder in Layout::apps_below(&self.layout.caches()) {
            let (app, note) = (app_of(&folder), cache_note(&folder));
            let named = |path: PathBuf| {
                let name = path.strip_prefix(&folder).ok()?.to_string_lossy().into_owned();
                let hidden = path.file_name()?.to_string_lossy().starts_with('.');
                let bytes = note.bytes.get(&name).copied().unwrap_or_default();
                (!hidden).then(|| Thing { app: app.clone(), bytes, used: used(&path), path })
            };
            let all = [entries(&folder), entries(&folder.join(KEPT))].concat();
            things.extend(all.into_iter().filter_map(named));
        }
        let recent = self.clock.now().0.saturating_sub(MIRROR_GRACE.as_secs() * 1_000);
        things.extend(entries(&self.layout.toolchains()).into_iter().filter_map(|path| {
            let name = path.file_name()?.to_string_lossy();
            let (used, unneeded) = (used(&path), !needed.contains(&*name) && !name.starts_with('.'));
            // Links to what is there anyway: to part with one frees nothing, so only time ends it.
            (unneeded && used.0 < recent).then(|| Thing { app: None, bytes: 0, used, path: path.clone() })
        }));
        things
    }

    /// Weighs the caches of an app whose build has ended.
    pub(super) fn weigh_caches(&self, app: &AppId) -> Result<(), BuildError> {
        let folder = self.layout.cache(app);
        let all = [entries(&folder), entries(&folder.join(KEPT))].concat();
        let mut note = CacheNote::default();
        for path in all {
            let name = path.strip_prefix(&folder).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_dir() && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
            {
                note.bytes.insert(name, weigh(&path, u64::MAX));
            }
        }
        if note.bytes.is_empty() { Ok(()) } else { write_synced(&folder.join(NOTE), &note) }
    }
}

/// The name of the note beside an app's caches.
const NOTE: &str = ".note.json";

fn cache_note(folder: &Path) -> CacheNote {
    let read = fs::read(folder.join(NOTE)).ok().and_then(|json| serde_json::from_slice(&json).ok());
    read.unwrap_or_default()
}

/// The app whose folder this is.
fn app_of(folder: &Path) -> Option<AppId> {
    let mut names: Vec<_> = folder.iter().rev().take(3).map(|name| name.to_string_lossy()).collect();
    names.reverse();
    names.join("/").parse().ok()
}

/// When a thing was last used: the time of its directory, which [`touch`] sets.
fn used(path: &Path) -> Timestamp {
    let seconds = fs::symlink_metadata(path).map_or(0, |found| found.mtime());
    Timestamp(u64::try_from(seconds).unwrap_or_default() * 1_000)
}

/// Notes that a thing is used now. One that is gone is used by nobody.
pub(super) fn touch(path: &Path, now: Timestamp) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(now.0);
    if let Err(error) = crate::remove::open_dir(path).and_then(|dir| fs::File::from(dir).set_modified(time)) {
        tracing::debug!(path = %path.display(), %error, "the use of what builds keep was not noted");
    }
}
