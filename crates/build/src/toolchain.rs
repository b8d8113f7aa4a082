//! Finding the Rust toolchain, and making it readable for a build user.
//!
//! cargo is never asked which toolchain it is: to run it in a tenant's directory as ourselves is what must not be. rustup's
//! folders say it all. A toolchain below a home that nobody else may enter (`/root/.rustup`) is mirrored by hard links,
//! which costs no space and gives no right to anything but the toolchain; see docs/decisions/0005-builds.md.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{BuildError, failed};
use crate::layout::{Layout, entries};
use crate::mirror;
use crate::tools::{FOLDERS, MANAGERS};

const INSTALL: &str =
    "install Rust from https://rustup.rs, or `apt-get install cargo`, and start Berth again";

/// What of a toolchain a build needs: not its documentation.
pub(crate) const PARTS: [&str; 3] = ["bin", "lib", "libexec"];

/// Where toolchains are looked for.
#[derive(Debug, Clone, Default)]
pub struct ToolchainPlaces {
    /// Folders of programs, as `PATH` has them.
    pub path: OsString,
    /// rustup's folder: `RUSTUP_HOME`, or `.rustup` in the home directory.
    pub rustup_home: Option<PathBuf>,
    /// The toolchain to use when a project names none: `RUSTUP_TOOLCHAIN`.
    pub default: Option<String>,
    /// Folders of programs that are looked at after those of `path`.
    pub folders: Vec<PathBuf>,
    /// The folders of version managers, by the names that the table of tools has for them, and `home`.
    pub managers: BTreeMap<&'static str, PathBuf>,
}

impl ToolchainPlaces {
    /// Those of our own environment.
    #[must_use]
    pub fn from_env() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let cargo_bin = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(home.as_ref()?.join(".cargo")))
            .map(|cargo_home| cargo_home.join("bin"));
        // A service's PATH rarely has the folder that rustup put cargo into, so it is looked at last.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let folders = std::env::split_paths(&path).chain(cargo_bin);
        let managers = MANAGERS.iter().filter_map(|(name, variable, below)| {
            let set = std::env::var_os(variable).filter(|_| !variable.is_empty()).map(PathBuf::from);
            let folder = set.or_else(|| Some(home.as_ref()?.join(below)))?;
            Some((*name, folder))
        });
        Self {
            folders: FOLDERS.map(PathBuf::from).to_vec(),
            managers: managers.collect(),
            path: std::env::join_paths(folders).unwrap_or_else(|_not_joinable| path.clone()),
            rustup_home: std::env::var_os("RUSTUP_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(home?.join(".rustup"))),
            default: std::env::var("RUSTUP_TOOLCHAIN").ok().filter(|name| !name.is_empty()),
        }
    }
}

/// A toolchain on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The folder whose `bin` has cargo and rustc.
    pub(crate) root: PathBuf,
    /// Its name and a hash of what is in it: the same as long as the toolchain is the same.
    pub(crate) version: String,
}

#[derive(Deserialize)]
struct ToolchainFile {
    toolchain: Channel,
}

#[derive(Deserialize)]
struct Channel {
    channel: Option<String>,
}

#[derive(Deserialize)]
struct Settings {
    default_toolchain: Option<String>,
}

fn missing(what: impl Into<String>, install: impl Into<String>) -> BuildError {
    BuildError::ToolchainMissing { missing: what.into(), install: install.into() }
}

/// The channel that a project's `rust-toolchain.toml` or `rust-toolchain` asks for.
pub(crate) fn wanted_channel(file: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(file).ok()?;
    let named = match toml::from_str::<ToolchainFile>(text) {
        Ok(read) => read.toolchain.channel,
        // The older form is the bare name of a channel.
        Err(_) => text.lines().next().map(|line| line.trim().to_owned()),
    };
    // It becomes a file name.
    named.filter(|name| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && name != ".."
    })
}

/// The toolchain that builds a project which asks for `channel`, if it asks.
pub(crate) fn find(places: &ToolchainPlaces, channel: Option<&str>) -> Result<Toolchain, BuildError> {
    let cargo = std::env::split_paths(&places.path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("cargo"))
        .find(|path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0))
        .ok_or_else(|| missing("cargo is not installed: no folder of PATH has it", INSTALL))?;
    let real = fs::canonicalize(&cargo).map_err(failed(&cargo, "read"))?;
    let is_rustup = real.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rustup"));
    let root = if is_rustup {
        rustup_toolchain(places, channel)?
    } else {
        real.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned()
    };
    for program in ["cargo", "rustc"] {
        if !fs::metadata(root.join("bin").join(program)).is_ok_and(|found| found.is_file()) {
            return Err(missing(
                format!("the Rust toolchain at {} has no {program}", root.display()),
                INSTALL,
            ));
        }
    }
    let version = version(&root)?;
    Ok(Toolchain { root, version })
}

fn rustup_toolchain(places: &ToolchainPlaces, channel: Option<&str>) -> Result<PathBuf, BuildError> {
    let home =
        places.rustup_home.as_deref().ok_or_else(|| missing("rustup has no home directory", INSTALL))?;
    let settings = fs::read_to_string(home.join("settings.toml")).unwrap_or_default();
    let settings: Option<Settings> = toml::from_str(&settings).ok();
    let wanted = channel
        .map(str::to_owned)
        .or_else(|| places.default.clone())
        .or_else(|| settings?.default_toolchain)
        .ok_or_else(|| missing("rustup has no default toolchain", "run `rustup default stable`"))?;
    let prefix = format!("{wanted}-");
    let found = entries(&home.join("toolchains")).into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == wanted.as_str()
            || name.strip_prefix(&prefix).is_some_and(|host| host.starts_with(std::env::consts::ARCH))
    });
    let found = found.ok_or_else(|| {
        missing(
            format!("the Rust toolchain `{wanted}` is not installed"),
            format!("run `rustup toolchain install {wanted}`"),
        )
    })?;
    fs::canonicalize(&found).map_err(failed(&found, "read"))
}

/// What tells one toolchain from another and from itself after an update: rustup replaces files, it never
/// changes them.
fn version(root: &Path) -> Result<String, BuildError> {
    let mut hash = Sha256::new();
    for program in ["bin/cargo", "bin/rustc"] {
        let path = root.join(program);
        let found = fs::metadata(&path).map_err(failed(&path, "read"))?;
        hash.update(format!("{program} {} {} {}\n", found.len(), found.mtime(), found.mtime_nsec()));
    }
    for library in entries(&root.join("lib")) {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("librustc_driver") {
            hash.update(name.as_bytes());
        }
    }
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    let digits: String = hex::encode(hash.finalize()).chars().take(16).collect();
    Ok(format!("{name}-{digits}"))
}

impl Toolchain {
    /// The toolchain where a build user can read it: itself, or a mirror of it. `as_other` says that builds run
    /// as another user than ours.
    pub(crate) fn reachable(self, layout: &Layout, as_other: bool) -> Result<Self, BuildError> {
        if !as_other || mirror::everybody_runs(&self.root.join("bin/rustc")) {
            return Ok(self);
        }
        let parts = PARTS.map(str::to_owned).to_vec();
        let root = mirror::provide(layout, &self.version, &mirror::Source::Parts(self.root.clone(), parts))?;
        Ok(Self { root, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn fake(dir: &Path, name: &str) -> PathBuf {
        let root = dir.join("rustup/toolchains").join(name);
        for file in ["bin/cargo", "bin/rustc", "lib/librustc_driver-1.so", "lib/rustlib/x"] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, file).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    fn places(dir: &Path) -> ToolchainPlaces {
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("rustup"), "").unwrap();
        fs::set_permissions(bin.join("rustup"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("rustup", bin.join("cargo")).unwrap();
        let rustup_home = Some(dir.join("rustup"));
        ToolchainPlaces { path: bin.into(), rustup_home, ..ToolchainPlaces::default() }
    }

    #[test]
    fn rustup_is_read_without_running_it() {
        let dir = tempfile::tempdir().unwrap();
        let arch = std::env::consts::ARCH;
        let stable = fake(dir.path(), &format!("stable-{arch}-unknown-linux-gnu"));
        let old = fake(dir.path(), &format!("1.80.0-{arch}-unknown-linux-gnu"));
        let mut places = places(dir.path());
        assert_eq!(find(&places, None).unwrap_err().code(), "toolchain_missing");
        fs::write(
            dir.path().join("rustup/settings.toml"),
            format!("default_toolchain = \"stable-{arch}-unknown-linux-gnu\""),
        )
        .unwrap();
        assert_eq!(find(&places, None).unwrap().root, fs::canonicalize(&stable).unwrap());
        assert_eq!(find(&places, Some("1.80.0")).unwrap().root, fs::canonicalize(&old).unwrap());
        let error = find(&places, Some("1.79.0")).unwrap_err().to_string();
        assert_eq!(
            error,
            "the Rust toolchain `1.79.0` is not installed; run `rustup toolchain install 1.79.0`"
        );
        places.path = "/nowhere".into();
        assert_eq!(find(&places, None).unwrap_err().code(), "toolchain_missing");
    }

    #[test]
    fn a_project_names_its_channel() {
        let table: [(&[u8], Option<&str>); 6] = [
            (b"[toolchain]\nchannel = \"1.80.0\"\n", Some("1.80.0")),
            (b"nightly-2026-01-01\n", Some("nightly-2026-01-01")),
            (b"[toolchain]\npath = \"/evil\"\n", None),
            (b"../../etc\n", None),
            (b"..", None),
            (b"\xff", None),
        ];
        for (file, expected) in table {
            assert_eq!(wanted_channel(file).as_deref(), expected, "{file:?}");
        }
    }

    #[test]
    fn a_toolchain_behind_a_closed_door_is_mirrored() {
        let dir = tempfile::tempdir().unwrap();
        let root = fake(dir.path(), "stable");
        let layout =
            Layout { artifacts: dir.path().join("a"), builds: dir.path().join("builds"), passage: None };
        let toolchain = Toolchain { version: version(&root).unwrap(), root: root.clone() };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mirrored = toolchain.clone().reachable(&layout, true).unwrap();
        assert_eq!(mirrored.root, layout.toolchains().join(&toolchain.version));
        assert_eq!(fs::read_to_string(mirrored.root.join("lib/rustlib/x")).unwrap(), "lib/rustlib/x");
        assert_eq!(
            fs::metadata(mirrored.root.join("bin/rustc")).unwrap().ino(),
            fs::metadata(root.join("bin/rustc")).unwrap().ino()
        );
        assert_eq!(version(&mirrored.root).unwrap().rsplit('-').next(), toolchain.version.rsplit('-').next());
        assert_eq!(toolchain.clone().reachable(&layout, true).unwrap(), mirrored);
        assert_eq!(toolchain.clone().reachable(&layout, false).unwrap(), toolchain);
    }
}
