//! Making a home, or finishing and checking the one that is there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use berth_certificate::{AUTHORITY, LocalAuthority};
use berth_clock::{Clock, random_bytes};
use berth_server::config::UidPlan;

use super::durable::sync_directory;
use super::uid_block;
use super::{
    FORMAT, Home, HomeError, PLATFORM_FILE, Platform, RESTORING, check_directory, check_mode, read_key,
    read_platform, write_atomically, write_platform,
};

/// Names that a first start makes before the home is complete: a directory with these alone is finished, one with others
/// is somebody's and left alone.
const OURS: [&str; 14] = [
    "lock",
    "keys",
    "journal",
    "routing",
    "chunks",
    "artifacts",
    "volumes",
    "builds",
    "instances",
    "git",
    "logs",
    "bin",
    PLATFORM_FILE,
    ".platform.json.new",
];

/// Directories of the owner alone.
const PRIVATE: [&str; 5] = ["keys", "journal", "chunks", "logs", "logs/platform"];
/// Directories that apps and builds pass through on the way to their own files.
const PASSAGES: [&str; 4] = ["artifacts", "instances", "builds", "volumes"];

/// Called between any two steps; a test halts there as a kill would.
pub(crate) type Halt<'a> = &'a mut dyn FnMut() -> Result<(), HomeError>;

/// Makes the directory itself, or checks the one that is there, so that the lock in it can be taken.
///
/// Parents are made as needed. Nothing inside is read or written yet.
pub(crate) fn prepare_directory(path: &Path) -> Result<(), HomeError> {
    let uid = rustix::process::geteuid().as_raw();
    match check_directory(path, uid) {
        Err(HomeError::Absent { .. }) => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| HomeError::io("create", parent, error))?;
            }
            make_directory(path, 0o700)?;
        }
        other => other?,
    }
    if uid == 0 {
        check_reachable(path)?;
    }
    let complete = read_platform(path)?.is_some();
    if !complete {
        check_is_ours(path)?;
        // An empty directory that the user made with his usual mode is welcome.
        set_mode(path, 0o700)?;
    }
    check_mode(path, 0o710)
}

/// Makes the home at `path` complete, or checks that it is. The caller holds the lock.
///
/// `ranges` is where blocks of user ids are claimed.
pub(crate) fn create(
    path: &Path,
    ranges: &Path,
    clock: &dyn Clock,
    halt: Halt<'_>,
) -> Result<Home, HomeError> {
    prepare_directory(path)?;
    halt()?;
    let known = read_platform(path)?;
    for name in PRIVATE.into_iter().chain(PASSAGES).chain(["routing", "git", "bin"]) {
        make_directory(&path.join(name), 0o700)?;
        halt()?;
    }
    if known.is_none() {
        make_key(path, clock)?;
        halt()?;
    }
    // A complete home whose key is gone or spoilt is refused: a new key could read none of the old secrets.
    read_key(path)?;
    let root = rustix::process::geteuid().is_root();
    let uid_base = match &known {
        Some(platform) => platform.uid_base,
        None if root => Some(uid_block::claim(ranges, path)?),
        None => None,
    };
    halt()?;
    if let (Some(base), true) = (uid_base, known.is_some()) {
        uid_block::confirm(ranges, path, base)?;
        halt()?;
    }
    set_modes(path, uid_base.map(UidPlan::new))?;
    halt()?;
    make_authority(path, root, clock)?;
    halt()?;
    let platform = match known {
        Some(platform) => platform,
        None => {
            let platform = Platform {
                format: FORMAT,
                platform: hex::encode(random_bytes::<8>(clock)),
                uid_base,
                edge: None,
                api: None,
                https: None,
                proxies: berth_spec::Proxies::default(),
            };
            write_platform(path, &platform)?;
            halt()?;
            platform
        }
    };
    Ok(Home { path: path.to_owned(), platform })
}

fn make_key(home: &Path, clock: &dyn Clock) -> Result<(), HomeError> {
    // One that is there was written whole by a start that got this far.
    let path = home.join("keys/kek");
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_atomically(&home.join("keys"), "kek", &random_bytes::<32>(clock), 0o600)
        }
        Err(error) => Err(HomeError::io("examine", &path, error)),
    }
}

/// Makes the machine's own authority for certificates, unless it is there: before the first edge, which issues by it. In its directory it belongs
/// to edge's group by itself.
fn make_authority(home: &Path, root: bool, clock: &dyn Clock) -> Result<(), HomeError> {
    let routing = home.join("routing");
    let path = routing.join(AUTHORITY);
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let now = i64::try_from(clock.now().0 / 1_000).unwrap_or(i64::MAX);
            let pem = LocalAuthority::make(now)
                .map_err(|error| HomeError::io("make an authority at", &path, io::Error::other(error)))?;
            write_atomically(&routing, AUTHORITY, pem.as_bytes(), if root { 0o640 } else { 0o600 })
        }
        Err(error) => Err(HomeError::io("examine", &path, error)),
    }
}

/// Lets in whom the plan lets in, and nobody else. The home itself comes last: until then nobody reaches what is below.
fn set_modes(home: &Path, plan: Option<UidPlan>) -> Result<(), HomeError> {
    for name in PRIVATE {
        set_mode(&home.join(name), 0o700)?;
    }
    set_mode(&home.join("bin"), 0o755)?;
    let Some(plan) = plan else {
        for name in PASSAGES.into_iter().chain(["routing", "git", "."]) {
            set_mode(&home.join(name), 0o700)?;
        }
        return Ok(());
    };
    let open_to_group = |name: &str, group: u32, mode: u32| {
        let path = home.join(name);
        chown(&path, None, Some(group)).map_err(|error| HomeError::io("give to its group", &path, error))?;
        set_mode(&path, mode)
    };
    for name in PASSAGES {
        open_to_group(name, plan.platform_gid(), 0o710)?;
    }
    open_to_group("git", plan.git_gid(), 0o710)?;
    // Set-group-id: the snapshots that control writes there belong to edge's group by themselves.
    open_to_group("routing", plan.edge(), 0o2750)?;
    open_to_group(".", plan.platform_gid(), 0o710)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), HomeError> {
    let make = || -> io::Result<()> {
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        sync_directory(path.parent().unwrap_or(Path::new("/")))
    };
    make().map_err(|error| HomeError::io("create", path, error))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), HomeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| HomeError::io("set the mode of", path, error))
}

fn check_is_ours(path: &Path) -> Result<(), HomeError> {
    let restoring = path.join(RESTORING);
    if restoring.try_exists().map_err(|error| HomeError::io("examine", &restoring, error))? {
        return Err(HomeError::HalfRestored { path: path.to_owned() });
    }
    let entries = fs::read_dir(path).map_err(|error| HomeError::io("list", path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| HomeError::io("list", path, error))?;
        if !OURS.iter().any(|name| entry.file_name() == *name) {
            return Err(HomeError::Foreign { path: path.to_owned() });
        }
    }
    Ok(())
}

/// Whether the directory holds nothing beside these names.
pub(crate) fn is_empty_but(path: &Path, names: &[&str]) -> Result<bool, HomeError> {
    let entries = fs::read_dir(path).map_err(|error| HomeError::io("list", path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| HomeError::io("list", path, error))?;
        if !names.iter().any(|name| entry.file_name() == *name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the names in a directory durable.
pub(crate) fn sync(directory: &Path) -> Result<(), HomeError> {
    sync_directory(directory).map_err(|error| HomeError::io("sync", directory, error))
}

/// Apps run as users of their own and must be able to walk down to the home.
fn check_reachable(home: &Path) -> Result<(), HomeError> {
    for ancestor in home.ancestors().skip(1) {
        let metadata = fs::metadata(ancestor).map_err(|error| HomeError::io("examine", ancestor, error))?;
        if metadata.permissions().mode() & 0o001 == 0 {
            return Err(HomeError::Unreachable { path: ancestor.to_owned() });
        }
    }
    Ok(())
}
