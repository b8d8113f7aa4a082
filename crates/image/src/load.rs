//! An image from an archive, as `docker save` writes it, into the store: unpacked and checked like one that is pulled.
//!
//! The archive comes from a daemon of this machine, and what is in it was made by whoever wrote the Dockerfile. So it is believed as much as a
//! registry: names lead nowhere but to entries of the archive, and every layer must be the one that the configuration says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use crate::config;
use crate::digest::Digest;
use crate::disk;
use crate::error::{ImageError, failed};
use crate::manifest::{CONFIG_MAX, LAYERS_MAX, MANIFEST_MAX};
use crate::pull::Pulled;
use crate::store::Store;
use crate::unpack::Ownership;

/// The most entries of an archive: a few for each layer.
const ENTRIES_MAX: usize = 8 * LAYERS_MAX;

/// What an archive says that it holds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

/// Where something lies in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Bytes { at: u64, size: u64 },
    Link(String),
}

impl Store {
    /// Takes over the one image of an archive. To drop it ends nothing; what it made by then is swept if nobody keeps it.
    ///
    /// # Errors
    /// [`ImageError`]; then what stands stands, whole, and the rest is swept some time.
    pub async fn load(&self, archive: File, ownership: Ownership) -> Result<Pulled, ImageError> {
        let turn = self.turn("an archive".to_owned()).await;
        let store = self.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            store.loaded(archive, ownership)
        });
        loading.await.map_err(|error| ImageError::invalid(format!("it could not be loaded: {error}")))?
    }

    fn loaded(&self, mut archive: File, ownership: Ownership) -> Result<Pulled, ImageError> {
        let damaged = |error: io::Error| ImageError::invalid(format!("its archive cannot be read: {error}"));
        let places = places(&archive).map_err(damaged)?;
        let small = |archive: &mut File, name: &str, most: u64| {
            let (at, size) = find(&places, name).filter(|(_, size)| *size <= most)?;
            let mut bytes = Vec::new();
            archive.seek(SeekFrom::Start(at)).ok()?;
            archive.take(size).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let absent = |what: &str| ImageError::invalid(format!("its archive has no {what}"));
        let listed =
            small(&mut archive, "manifest.json", MANIFEST_MAX).ok_or_else(|| absent("manifest.json"))?;
        let listed: Vec<Listed> = serde_json::from_slice(&listed)
            .map_err(|error| ImageError::invalid(format!("its manifest.json cannot be read: {error}")))?;
        let [listed] = <[Listed; 1]>::try_from(listed).map_err(|_many| absent("single image"))?;
        let config =
            small(&mut archive, &listed.config, CONFIG_MAX).ok_or_else(|| absent("configuration"))?;
        let diff_ids = config::Document::read(&config)?.diff_ids;
        if diff_ids.len() != listed.layers.len() || diff_ids.len() > LAYERS_MAX {
            return Err(ImageError::invalid(
                "its configuration and its manifest.json have other numbers of layers",
            ));
        }
        let mut pins = vec![self.pin(diff_ids.iter().copied().chain([Digest::of(&config)]))];
        let mut layers = Vec::new();
        for (diff_id, name) in diff_ids.iter().zip(&listed.layers) {
            let (at, size) = find(&places, name).ok_or_else(|| absent("layer of that name"))?;
            if self.layer(diff_id, ownership)?.is_none() {
                let part = self.part(&mut archive, at, size)?;
                self.put_layer((part, None), diff_id, ownership, false, &AtomicBool::new(false))?;
            }
            layers.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id.to_string(), "size": size,
            }));
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config).to_string(),
                "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        pins.push(self.pin([Digest::of(&manifest)]));
        self.put_document(&config)?;
        let digest = self.put_document(&manifest)?;
        let image = self.image(&digest, ownership)?;
        let image = image.ok_or_else(|| ImageError::invalid("it changed while it was loaded"))?;
        Ok(Pulled::new(digest, image, pins))
    }

    /// A part of the archive as a file of its own, which has no name.
    fn part(&self, archive: &mut File, at: u64, size: u64) -> Result<File, ImageError> {
        use rustix::fs::{Mode, OFlags};
        let folder = self.downloads();
        let mut copy = || -> io::Result<File> {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let mut part = File::from(rustix::fs::open(&folder, flags, Mode::RUSR | Mode::WUSR)?);
            disk::leaves(&part, self.limits().reserve, size)?;
            archive.seek(SeekFrom::Start(at))?;
            if io::copy(&mut archive.take(size), &mut part)? != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            part.rewind()?;
            Ok(part)
        };
        copy().map_err(failed(&folder, "written"))
    }
}

/// Where the entries of the archive lie. Links lead to others of its entries.
fn places(archive: &File) -> io::Result<BTreeMap<String, Place>> {
    let mut places = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries_with_seek()? {
        let entry = entry?;
        if places.len() >= ENTRIES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has too many entries"));
        }
        let name = entry.path()?.to_string_lossy().into_owned();
        let place = match entry.header().entry_type() {
            tar::EntryType::Regular => Place::Bytes { at: entry.raw_file_position(), size: entry.size() },
            tar::EntryType::Symlink => {
                let target = entry.link_name()?.unwrap_or_default().to_string_lossy().into_owned();
                Place::Link(beside(&name, &target))
            }
            tar::EntryType::Link => {
                Place::Link(entry.link_name()?.unwrap_or_default().to_string_lossy().into_owned())
            }
            _ => continue,
        };
        places.insert(name, place);
    }
    Ok(places)
}

/// Where a link at `name` leads, by name alone.
fn beside(name: &str, target: &str) -> String {
    let mut steps: Vec<&str> = name.split('/').collect();
    steps.pop();
    for step in target.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.join("/")
}

fn find(places: &BTreeMap<String, Place>, name: &str) -> Option<(u64, u64)> {
    match places.get(name)? {
        Place::Bytes { at, size } => Some((*at, *size)),
        // A link to a link is no form that anybody writes.
        Place::Link(target) => match places.get(target)? {
            Place::Bytes { at, size } => Some((*at, *size)),
            Place::Link(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Limits;

    fn archive(layer: &[u8], told: &Digest) -> File {
        let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/run"]}},"rootfs":{{"type":"layers","diff_ids":["{told}","{told}"]}}}}"#
        );
        let listed = r#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar"]}]"#;
        for (name, bytes) in
            [("c.json", config.as_bytes()), ("a/layer.tar", layer), ("manifest.json", listed.as_bytes())]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
        let mut file = tar.into_inner().unwrap();
        file.rewind().unwrap();
        file
    }

    fn layer() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o755);
        tar.append_data(&mut header, "run", &b"text"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    #[tokio::test]
    async fn an_archive_becomes_an_image_that_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Limits::default()).unwrap();
        let layer = layer();
        let digest = Digest::of(&layer);
        let first = store.load(archive(&layer, &digest), Ownership::Own).await.unwrap();
        assert_eq!(std::fs::read(first.image.layers[0].join("run")).unwrap(), b"text");
        assert_eq!((first.image.layers.len(), &first.image.config.cmd[..]), (2, &["/run".to_owned()][..]));
        let again = store.load(archive(&layer, &digest), Ownership::Own).await.unwrap();
        assert_eq!(first.digest, again.digest);
        assert_eq!(store.image(&first.digest, Ownership::Own).unwrap().unwrap(), first.image);
    }

    #[tokio::test]
    async fn what_is_not_what_it_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Limits::default()).unwrap();
        let other = Digest::of(b"another");
        assert!(store.load(archive(&layer(), &other), Ownership::Own).await.is_err());
        let mut none = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut none, &[0; 1_024]).unwrap();
        none.rewind().unwrap();
        assert!(store.load(none, Ownership::Own).await.is_err());
        assert_eq!(beside("a/b/layer.tar", "../../../../etc/passwd"), "etc/passwd");
    }
}
