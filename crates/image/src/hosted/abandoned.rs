//! Uploads that were given up. Clients say so of none: they begin another one, and would lock themselves out of a repository.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{HostedError, Repository, Result, UPLOADS, date, failed};

/// For how long nothing came of an upload that makes room for another. Between two requests of a push there are moments, and who sends in
/// one holds it.
const ABANDONED: Duration = Duration::from_secs(5 * 60);

impl Repository {
    /// Removes the upload that was abandoned the longest ago. Says whether there was one.
    pub(super) fn part_with_abandoned(&self) -> Result<bool> {
        let folder = self.path.join(UPLOADS);
        // By the clock that files are dated by, which is not set back and forth between two of them.
        date(&folder)?;
        let now = modified(&folder)?;
        let mut all = Vec::new();
        for id in self.names(UPLOADS)? {
            // One that is gone meanwhile is somebody's blob.
            all.extend(modified(&folder.join(&id)).ok().map(|last| (last, id)));
        }
        all.sort();
        for (_, id) in all {
            if self.part_with(&id, ABANDONED, now)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes an upload that nobody holds and of which nothing came for longer than `idle`. Gives its length if it did.
    pub(super) fn part_with(&self, id: &str, idle: Duration, now: SystemTime) -> Result<Option<u64>> {
        // Before it is held, too: whoever sends to it next would find it held.
        if !is_older(&self.path.join(UPLOADS).join(id), idle, now) {
            return Ok(None);
        }
        let upload = match self.upload(id) {
            Err(HostedError::Busy | HostedError::NoUpload) => return Ok(None),
            upload => upload?,
        };
        if !is_older(&upload.path, idle, now) {
            return Ok(None);
        }
        let length = upload.length;
        upload.cancel()?;
        Ok(Some(length))
    }
}

/// Whether a file was changed last longer ago than `age`. One that is gone was not.
pub(super) fn is_older(path: &Path, age: Duration, now: SystemTime) -> bool {
    modified(path).is_ok_and(|changed| now.duration_since(changed).is_ok_and(|since| since > age))
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).map_err(failed(path, "looked at"))
}
