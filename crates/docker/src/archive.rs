//! Images as the daemon loads them: layers as tar files, and what they make up.
//!
//! Layers come from folders in the form of the kernel's overlay, where a device of the numbers 0:0 hides a file and an attribute says that a
//! folder hides all of those below it; in a tar file names say so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{EngineError, during};

/// The attributes that make a folder opaque, to root and to ordinary users.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// What a layer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// Folders and symbolic links, by where they are; what a link leads to.
    Made(BTreeMap<String, Option<String>>),
    /// An unpacked layer.
    Folder {
        /// Where it lies.
        path: PathBuf,
        /// The user outside who is the layer's user nought.
        uid_base: u32,
    },
}

/// An image that is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its name and tag.
    pub name: String,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Archive {
    /// An image of these layers, the lowest first. Its name says `what` it is, and is the same for the same layers.
    #[must_use]
    pub fn new(what: &str, layers: Vec<Layer>, labels: BTreeMap<String, String>) -> Self {
        let mut hash = hex::encode(Sha256::digest(format!("{layers:?}")));
        hash.truncate(16);
        Self { name: format!("berth/{what}:{hash}"), layers, labels }
    }

    /// Writes it into a file without a name in the folder `scratch`, and gives that from its beginning.
    ///
    /// # Errors
    /// When a layer cannot be read or the file not be written.
    pub fn write(&self, scratch: &Path) -> Result<File, EngineError> {
        self.written(scratch).map_err(during("writing an image for the daemon"))
    }

    fn written(&self, scratch: &Path) -> io::Result<File> {
        let mut archive = tar::Builder::new(nameless(scratch)?);
        let (mut hashes, mut names) = (Vec::new(), Vec::new());
        for (layer, number) in self.layers.iter().zip(0..) {
            let mut hashing = Hashing { to: nameless(scratch)?, hash: Sha256::new() };
            layer.write(&mut hashing)?;
            hashes.push(format!("sha256:{}", hex::encode(hashing.hash.finalize())));
            let (mut file, name) = (hashing.to, format!("{number}/layer.tar"));
            file.rewind()?;
            let mut header = header(tar::EntryType::Regular, 0o644);
            header.set_size(file.metadata()?.len());
            archive.append_data(&mut header, &name, file)?;
            names.push(name);
        }
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": hashes },
            "history": hashes.iter().map(|_| serde_json::json!({ "created_by": "berth" })).collect::<Vec<_>>(),
        });
        let manifest =
            serde_json::json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": names }]);
        for (name, text) in [("config.json", config), ("manifest.json", manifest)] {
            let text = text.to_string();
            let mut header = header(tar::EntryType::Regular, 0o644);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes())?;
        }
        let mut file = archive.into_inner()?;
        file.rewind()?;
        Ok(file)
    }
}

/// As the daemon calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

struct Hashing {
    to: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

pub(crate) fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

impl Layer {
    fn write(&self, to: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(to);
        match self {
            Self::Made(entries) => {
                for (path, link) in entries {
                    let path = path.trim_start_matches('/');
                    match link {
                        Some(to) => {
                            tar.append_link(&mut header(tar::EntryType::Symlink, 0o777), path, to)?;
                        }
                        None => {
                            tar.append_data(
                                &mut header(tar::EntryType::Directory, 0o755),
                                path,
                                io::empty(),
                            )?;
                        }
                    }
                }
            }
            Self::Folder { path, uid_base } => {
                let mut walk = Walk { tar: &mut tar, top: path, uid_base: *uid_base, links: BTreeMap::new() };
                walk.folder(path)?;
            }
        }
        tar.finish()
    }
}

struct Walk<'a, W: Write> {
    tar: &'a mut tar::Builder<W>,
    top: &'a Path,
    uid_base: u32,
    /// Files of several names by their number, and their first name.
    links: BTreeMap<u64, PathBuf>,
}

impl<W: Write> Walk<'_, W> {
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        let mut names: Vec<OsString> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        names.iter().try_for_each(|name| self.entry(&folder.join(name), name))
    }

    fn entry(&mut self, path: &Path, name: &OsStr) -> io::Result<()> {
        let stat = path.symlink_metadata()?;
        let within = path.strip_prefix(self.top).map_err(io::Error::other)?.to_owned();
        let kind = stat.file_type();
        if kind.is_char_device() && stat.rdev() == 0 {
            let mut hides = OsString::from(".wh.");
            hides.push(name);
            return self.empty(&within.with_file_name(hides));
        }
        let mut header = header(tar::EntryType::Regular, stat.mode() & 0o7777);
        header.set_uid(stat.uid().saturating_sub(self.uid_base).into());
        header.set_gid(stat.gid().saturating_sub(self.uid_base).into());
        header.set_mtime(u64::try_from(stat.mtime()).unwrap_or(0));
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            self.tar.append_data(&mut header, &within, io::empty())?;
            if is_opaque(path) {
                self.empty(&within.join(".wh..wh..opq"))?;
            }
            return self.folder(path);
        }
        if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            return self.tar.append_link(&mut header, &within, fs::read_link(path)?);
        }
        if !kind.is_file() {
            // Devices are given by the daemon, and sockets and pipes are made by who listens there.
            return Ok(());
        }
        if stat.nlink() > 1
            && let Some(first) = self.links.get(&stat.ino())
        {
            header.set_entry_type(tar::EntryType::Link);
            return self.tar.append_link(&mut header, &within, first);
        }
        self.links.insert(stat.ino(), within.clone());
        header.set_size(stat.len());
        self.tar.append_data(&mut header, &within, File::open(path)?)
    }

    fn empty(&mut self, within: &Path) -> io::Result<()> {
        self.tar.append_data(&mut header(tar::EntryType::Regular, 0o644), within, io::empty())
    }
}

fn is_opaque(path: &Path) -> bool {
    OPAQUE.iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(path, *name, &mut value[..])
            .is_ok_and(|length| value.get(..length) == Some(b"y"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn entries(file: impl io::Read) -> BTreeMap<String, (tar::EntryType, String)> {
        let mut archive = tar::Archive::new(file);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            found.insert(path, (entry.header().entry_type(), String::from_utf8_lossy(&text).into_owned()));
        }
        found
    }

    #[test]
    fn a_folder_becomes_a_layer_whose_hash_is_the_configs() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        let long = "x".repeat(150);
        fs::create_dir_all(layer.join("a").join(&long)).unwrap();
        fs::write(layer.join("a").join(&long).join("file"), "text").unwrap();
        fs::hard_link(layer.join("a").join(&long).join("file"), layer.join("second")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", layer.join("link")).unwrap();
        let uid_base = fs::metadata(&layer).unwrap().uid();
        let made =
            Layer::Made([("/usr".to_owned(), None), ("/bin".to_owned(), Some("usr/bin".to_owned()))].into());
        let layers = vec![made, Layer::Folder { path: layer, uid_base }];
        let archive = Archive { name: "a:b".to_owned(), layers, labels: BTreeMap::new() };
        let found = entries(archive.write(dir.path()).unwrap());
        let config: serde_json::Value = serde_json::from_str(&found["config.json"].1).unwrap();
        let mut file = archive.write(dir.path()).unwrap();
        let mut whole = tar::Archive::new(&mut file);
        let mut layer = whole.entries().unwrap().nth(1).unwrap().unwrap();
        let mut bytes = Vec::new();
        layer.read_to_end(&mut bytes).unwrap();
        let hash = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        assert_eq!(config["rootfs"]["diff_ids"][1], hash);
        let inner = entries(&bytes[..]);
        assert_eq!(inner["second"].0, tar::EntryType::Link);
        assert_eq!(inner["link"].0, tar::EntryType::Symlink);
        assert_eq!(inner[&format!("a/{long}/file")].1, "text");
    }

    #[test]
    fn what_hides_is_told_by_names() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("opaque")).unwrap();
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
        rustix::fs::mknodat(rustix::fs::CWD, layer.join("gone"), kind, mode, 0).unwrap();
        rustix::fs::setxattr(layer.join("opaque"), OPAQUE[0], b"y", rustix::fs::XattrFlags::empty()).unwrap();
        let mut bytes = Vec::new();
        Layer::Folder { path: layer, uid_base: 0 }.write(&mut bytes).unwrap();
        let names: Vec<String> = entries(&bytes[..]).into_keys().collect();
        assert_eq!(names, [".wh.gone", "opaque", "opaque/.wh..wh..opq"]);
    }
}
