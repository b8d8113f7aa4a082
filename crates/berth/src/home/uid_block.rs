//! Claiming a block of user ids on the machine, so that two platforms never give two apps the same user.
//!
//! A claim is a file in a directory of the machine: its name is the first id, its content the path of the home. It is
//! taken over once that home is gone and nothing runs as one of its users any more.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_server::config::UidPlan;
use rustix::fs::FlockOperation;

use super::{HomeError, write_atomically};

/// Above the ranges that systemd-nspawn, DynamicUser and subuid(5) take theirs from; not a multiple of 65,536 from nought
/// that containers start at.
const FIRST: u32 = 2_000_000_000;
/// Ids from here on are negative where a program reads them as signed.
const END: u32 = 1 << 31;

/// The block of the home at `path`: the one that it has already, or the first that is free.
pub(crate) fn claim(ranges: &Path, path: &Path) -> Result<u32, HomeError> {
    claim_unless(ranges, path, in_use)
}

fn claim_unless(
    ranges: &Path,
    path: &Path,
    in_use: impl Fn(u32) -> Result<bool, HomeError>,
) -> Result<u32, HomeError> {
    let _lock = lock(ranges)?;
    let claims = claims(ranges)?;
    if let Some(base) = claims.iter().find(|(_, holder)| *holder == path).map(|(base, _)| *base) {
        return Ok(base);
    }
    for base in (FIRST..=END - UidPlan::BLOCK).step_by(UidPlan::BLOCK as usize) {
        let free = match claims.get(&base) {
            None => true,
            Some(holder) => !lives(holder)? && !in_use(base)?,
        };
        if free {
            write_claim(ranges, path, base)?;
            return Ok(base);
        }
    }
    Err(HomeError::NoBlock { ranges: ranges.to_owned() })
}

/// Makes sure that block `base`, which the home at `path` was given once, is still its own. A home that was moved takes
/// its claim with it.
pub(super) fn confirm(ranges: &Path, path: &Path, base: u32) -> Result<(), HomeError> {
    let _lock = lock(ranges)?;
    match claims(ranges)?.remove(&base) {
        Some(holder) if holder == path => Ok(()),
        Some(holder) if lives(&holder)? => Err(HomeError::BlockTaken { base, holder, path: path.to_owned() }),
        _ => write_claim(ranges, path, base),
    }
}

fn write_claim(ranges: &Path, path: &Path, base: u32) -> Result<(), HomeError> {
    write_atomically(ranges, &base.to_string(), path.as_os_str().as_bytes(), 0o644)
}

fn lock(ranges: &Path) -> Result<File, HomeError> {
    fs::create_dir_all(ranges).map_err(|error| HomeError::io("create", ranges, error))?;
    let path = ranges.join(".lock");
    let take = || -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // Held for a few file operations: waiting is right.
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    take().map_err(|error| HomeError::io("lock", &path, error))
}

/// Every claim on the machine: the first id, and the home.
fn claims(ranges: &Path) -> Result<BTreeMap<u32, PathBuf>, HomeError> {
    let list = || -> io::Result<BTreeMap<u32, PathBuf>> {
        let mut claims = BTreeMap::new();
        for entry in fs::read_dir(ranges)? {
            let entry = entry?;
            if let Some(base) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                claims.insert(base, PathBuf::from(OsString::from_vec(fs::read(entry.path())?)));
            }
        }
        Ok(claims)
    };
    list().map_err(|error| HomeError::io("read the claims in", ranges, error))
}

fn lives(home: &Path) -> Result<bool, HomeError> {
    home.try_exists().map_err(|error| HomeError::io("examine", home, error))
}

/// Whether any process runs as a user of the block.
fn in_use(base: u32) -> Result<bool, HomeError> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(|error| HomeError::io("list", proc, error))?;
    // A process that ends while it is looked at is no user of the block any more.
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .any(|metadata| (base..base + UidPlan::BLOCK).contains(&metadata.uid())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_get_blocks_of_their_own_and_keep_them() {
        let temp = tempfile::tempdir().unwrap();
        let ranges = temp.path().join("ranges");
        let homes: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| temp.path().join(name)).collect();
        for home in &homes {
            fs::create_dir(home).unwrap();
        }
        let first: Vec<u32> = homes.iter().map(|home| claim(&ranges, home).unwrap()).collect();
        assert_eq!(first, [FIRST, FIRST + UidPlan::BLOCK, FIRST + 2 * UidPlan::BLOCK]);
        let again: Vec<u32> = homes.iter().map(|home| claim(&ranges, home).unwrap()).collect();
        assert_eq!(again, first);
    }

    #[test]
    fn the_block_of_a_home_that_is_gone_is_given_again() {
        let temp = tempfile::tempdir().unwrap();
        let ranges = temp.path().join("ranges");
        let base = claim(&ranges, &temp.path().join("gone")).unwrap();
        let [careful, here] = ["careful", "here"].map(|name| temp.path().join(name));
        fs::create_dir(&careful).unwrap();
        fs::create_dir(&here).unwrap();
        // Its home is gone, but something still runs as one of its users.
        assert_ne!(claim_unless(&ranges, &careful, |_| Ok(true)).unwrap(), base);
        assert_eq!(claim_unless(&ranges, &here, |_| Ok(false)).unwrap(), base);
    }

    #[test]
    fn a_home_that_moved_keeps_its_block_and_a_copy_of_it_does_not() {
        let temp = tempfile::tempdir().unwrap();
        let ranges = temp.path().join("ranges");
        let (old, new) = (temp.path().join("old"), temp.path().join("new"));
        fs::create_dir(&old).unwrap();
        let base = claim(&ranges, &old).unwrap();
        fs::create_dir(&new).unwrap();
        assert!(matches!(confirm(&ranges, &new, base), Err(HomeError::BlockTaken { .. })));
        fs::remove_dir(&old).unwrap();
        confirm(&ranges, &new, base).unwrap();
        assert_eq!(claim(&ranges, &new).unwrap(), base);
    }
}
