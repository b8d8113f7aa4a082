//! The home: the one directory in which a platform keeps everything, how it is made and why it may be refused.
//!
//! It is made step by step, each step harmless when it is done twice; `platform.json` is written last and makes the home
//! complete. A start that was killed between any two steps is finished by the next one.

mod create;
mod durable;
pub(crate) mod uid_block;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_server::config::{KeyEncryptionKey, UidPlan};
use berth_spec::{HttpsAddress, Proxies};
use serde::{Deserialize, Serialize};

pub(crate) use create::{create, is_empty_but, prepare_directory, sync};
pub(crate) use durable::write_atomically;

/// The format that this version writes. A greater one is refused.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const PLATFORM_FILE: &str = "platform.json";
/// Where a backup is laid out; while it is there nothing starts.
pub(crate) const RESTORING: &str = ".restoring";

/// A home that was checked.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    pub(crate) platform: Platform,
}

/// What `platform.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// The format of the whole home.
    pub(crate) format: u32,
    /// 16 hex digits that tell this platform from others on the machine.
    pub(crate) platform: String,
    /// The first id of the claimed block, when the platform runs as root.
    pub(crate) uid_base: Option<u32>,
    /// Where edge listened last; the default of the next start.
    pub(crate) edge: Option<SocketAddr>,
    /// Where the API listened last; the default of the next start.
    pub(crate) api: Option<SocketAddr>,
    /// Where edge served HTTPS last; the default of the next start at the same address for HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) https: Option<HttpsAddress>,
    /// Proxies that are believed when they say who their clients are, as was said last. The version before believes none, and forgets them.
    #[serde(default, skip_serializing_if = "Proxies::is_empty")]
    pub(crate) proxies: Proxies,
}

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("cannot {attempt} {}", path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no platform at {}: `berth up` makes one", path.display())]
    Absent { path: PathBuf },
    #[error("{} is not empty and holds no platform: give an empty or a new directory with --home", path.display())]
    Foreign { path: PathBuf },
    #[error("a restore into {} was cut off: run `berth restore` again, which begins anew", path.display())]
    HalfRestored { path: PathBuf },
    #[error("{} belongs to user {owner}, not to user {wanted}: start Berth as its owner, or give another --home", path.display())]
    Owner { path: PathBuf, owner: u32, wanted: u32 },
    #[error("{} has mode {mode:04o}, which lets others in: `chmod {wanted:04o} {}`, and replace its secrets if others may have read them", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32, wanted: u32 },
    #[error("{} is a link; the home must be a directory of its own", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} may not be entered by other users, so the users that apps run as cannot reach their files: `chmod o+x {}`, or give another --home", path.display(), path.display())]
    Unreachable { path: PathBuf },
    #[error(
        "the home has format {found}, this version reads up to {FORMAT}: use the version that wrote it, or a newer one"
    )]
    Newer { found: u32 },
    #[error("{} is not readable as this platform's description", path.display())]
    Description { path: PathBuf, source: serde_json::Error },
    #[error("the key in {} {problem}: without the right key no secret can be read; restore it from your backup", path.display())]
    Key { path: PathBuf, problem: &'static str },
    #[error("user ids {base} to {} are claimed for {}, not for {}", base + UidPlan::BLOCK - 1, holder.display(), path.display())]
    BlockTaken { base: u32, holder: PathBuf, path: PathBuf },
    #[error("no block of user ids is free: remove the files in {} whose homes are gone", ranges.display())]
    NoBlock { ranges: PathBuf },
    #[cfg(test)]
    #[error("stopped by a test")]
    Halted,
}

impl HomeError {
    fn io(attempt: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { attempt, path: path.to_owned(), source }
    }
}

/// Where the roles of the platform at `home` log.
pub(crate) fn logs_of(home: &Path) -> PathBuf {
    home.join("logs/platform")
}

impl Home {
    /// Opens a complete home: checks owner, mode, format and key, and changes nothing.
    pub(crate) fn open(path: &Path) -> Result<Self, HomeError> {
        let uid = rustix::process::geteuid().as_raw();
        check_directory(path, uid)?;
        let platform = read_platform(path)?.ok_or_else(|| HomeError::Absent { path: path.to_owned() })?;
        check_mode(path, if platform.uid_base.is_some() { 0o710 } else { 0o700 })?;
        let home = Self { path: path.to_owned(), platform };
        home.key()?;
        Ok(home)
    }

    /// The key-encryption key, checked: right length, readable by the owner alone, not a constant.
    pub(crate) fn key(&self) -> Result<KeyEncryptionKey, HomeError> {
        read_key(&self.path)
    }

    /// Who is who on the machine, when the platform runs as root.
    pub(crate) fn uid_plan(&self) -> Option<UidPlan> {
        self.platform.uid_base.map(UidPlan::new)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        logs_of(&self.path)
    }

    pub(crate) fn routing(&self) -> PathBuf {
        self.path.join("routing")
    }

    /// Keeps the addresses, and the proxies if they are said, as the next start's defaults.
    pub(crate) fn remember(
        &mut self,
        edge: SocketAddr,
        https: HttpsAddress,
        api: SocketAddr,
        proxies: Option<&Proxies>,
    ) -> Result<(), HomeError> {
        let proxies = proxies.unwrap_or(&self.platform.proxies).clone();
        let platform = Platform {
            edge: Some(edge),
            api: Some(api),
            https: Some(https),
            proxies,
            ..self.platform.clone()
        };
        if platform != self.platform {
            write_platform(&self.path, &platform)?;
            self.platform = platform;
        }
        Ok(())
    }
}

fn read_platform(home: &Path) -> Result<Option<Platform>, HomeError> {
    #[derive(Deserialize)]
    struct FormatAlone {
        format: u32,
    }
    let path = home.join(PLATFORM_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HomeError::io("read", &path, error)),
    };
    let unreadable = |source| HomeError::Description { path: path.clone(), source };
    // The format is read by itself first: a newer one may have other fields.
    let FormatAlone { format } = serde_json::from_slice(&text).map_err(unreadable)?;
    if format > FORMAT {
        return Err(HomeError::Newer { found: format });
    }
    serde_json::from_slice(&text).map(Some).map_err(unreadable)
}

pub(crate) fn write_platform(home: &Path, platform: &Platform) -> Result<(), HomeError> {
    let mut text = serde_json::to_vec_pretty(platform).expect("a platform has only plain fields");
    text.push(b'\n');
    write_atomically(home, PLATFORM_FILE, &text, 0o600)
}

fn read_key(home: &Path) -> Result<KeyEncryptionKey, HomeError> {
    let path = home.join("keys/kek");
    let refuse = |problem| HomeError::Key { path: path.clone(), problem };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refuse("is missing")),
        Err(error) => return Err(HomeError::io("read", &path, error)),
    };
    let metadata = fs::symlink_metadata(&path).map_err(|error| HomeError::io("examine", &path, error))?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse("is not a file of the home's owner"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(HomeError::Mode { path, mode: metadata.mode() & 0o7777, wanted: 0o600 });
    }
    let Ok(bytes) = <[u8; 32]>::try_from(text.as_slice()) else {
        return Err(refuse(if text.is_empty() { "is empty" } else { "is not 32 bytes long" }));
    };
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(refuse("is a constant, not a random key"));
    }
    Ok(KeyEncryptionKey::new(bytes))
}

pub(crate) fn check_directory(path: &Path, uid: u32) -> Result<(), HomeError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(HomeError::Absent { path: path.to_owned() });
        }
        Err(error) => return Err(HomeError::io("examine", path, error)),
    };
    if !metadata.is_dir() {
        return Err(HomeError::NotADirectory { path: path.to_owned() });
    }
    if metadata.uid() != uid {
        return Err(HomeError::Owner { path: path.to_owned(), owner: metadata.uid(), wanted: uid });
    }
    Ok(())
}

fn check_mode(path: &Path, wanted: u32) -> Result<(), HomeError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| HomeError::io("examine", path, error))?;
    let mode = metadata.mode() & 0o7777;
    if mode & !wanted & 0o077 != 0 {
        return Err(HomeError::Mode { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
