//! Manifests and tags of a repository that we are the registry of.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use rustix::fs::FlockOperation;
use serde::Deserialize;

use super::{HostedError, MANIFESTS, Repository, Result, TAGS, failed, is_there};
use crate::digest::Digest;
use crate::manifest::MANIFEST_MAX;
use crate::reference::is_tag;

/// The longest media type, in bytes.
const MEDIA_TYPE_MAX: usize = 255;

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A tag.
    Tag(String),
    /// Its digest.
    Digest(Digest),
}

impl Named {
    /// Reads the last segment of a manifest's address; nothing when it is neither.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.contains(':') {
            return text.parse().ok().map(Self::Digest);
        }
        is_tag(text).then(|| Self::Tag(text.to_owned()))
    }
}

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its digest.
    pub digest: Digest,
    /// What it was called when it was pushed.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a manifest or index names. Unlike what we run, anything may be kept here: signatures, attestations, charts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    blobs: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: Digest,
    /// Where else it is: Windows' layers, which no registry keeps.
    #[serde(default)]
    urls: Vec<String>,
}

/// What somebody needs of a repository.
#[derive(Debug, Default)]
pub(super) struct Needed {
    pub(super) manifests: BTreeSet<Digest>,
    pub(super) blobs: BTreeSet<Digest>,
}

impl Names {
    fn read(bytes: &[u8]) -> Result<Self> {
        let read: Self =
            serde_json::from_slice(bytes).map_err(|error| HostedError::Manifest(error.to_string()))?;
        if read.schema_version != 2 {
            let version = read.schema_version;
            return Err(HostedError::Manifest(format!("it is of schema {version}, which was given up")));
        }
        Ok(read)
    }

    /// All that it needs, wherever it is: what may stay away and was pushed all the same is needed, too.
    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.blobs)
    }

    fn manifests(&self) -> impl Iterator<Item = Digest> {
        self.manifests.iter().map(|it| it.digest)
    }
}

impl Repository {
    /// Keeps a manifest, all of whose parts must be there, and has a tag mean it when that is how it is named.
    ///
    /// # Errors
    /// When it is none, names what is not there, has another digest than it is named by, or cannot be written.
    pub fn put_manifest(&self, named: &Named, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        if bytes.len() as u64 > MANIFEST_MAX {
            return Err(HostedError::TooMuch(format!("a manifest has {} MiB at most", MANIFEST_MAX >> 20)));
        }
        let found = Digest::of(bytes);
        if let Named::Digest(wanted) = named
            && *wanted != found
        {
            return Err(HostedError::OtherDigest { wanted: *wanted, found });
        }
        let names = Names::read(bytes)?;
        if names.media_type.as_deref().is_some_and(|own| own != media_type) {
            return Err(HostedError::Manifest(format!(
                "it is sent as {media_type} and calls itself otherwise"
            )));
        }
        let plain = media_type.bytes().all(|byte| byte.is_ascii_graphic());
        if media_type.is_empty() || media_type.len() > MEDIA_TYPE_MAX || !plain {
            return Err(HostedError::Manifest("its media type is none".to_owned()));
        }
        // What is found from here on stays found until the manifest stands, which is what keeps it.
        let _held = self.hold(FlockOperation::LockShared)?;
        for blob in names.blobs().filter(|it| it.urls.is_empty()) {
            if self.blob(&blob.digest)?.is_none() {
                return Err(HostedError::Missing(blob.digest));
            }
        }
        for digest in names.manifests() {
            if self.manifest(&Named::Digest(digest))?.is_none() {
                return Err(HostedError::Missing(digest));
            }
        }
        if let Named::Tag(tag) = named {
            let most = self.hosted.inside.bounds.tags;
            if !is_there(&self.path.join(TAGS).join(tag))? && self.tags()?.len() >= most {
                return Err(HostedError::TooMuch(format!("a repository has {most} tags at most")));
            }
        }
        let mut whole = format!("{media_type}\n").into_bytes();
        whole.extend_from_slice(bytes);
        self.take(whole.len() as u64)?;
        self.write_whole(MANIFESTS, &found.hex(), &whole)?;
        if let Named::Tag(tag) = named {
            self.write_whole(TAGS, tag, found.to_string().as_bytes())?;
        }
        Ok(found)
    }

    /// The manifest of this name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest(&self, named: &Named) -> Result<Option<Held>> {
        let digest = match named {
            Named::Digest(digest) => *digest,
            Named::Tag(tag) => match self.tagged(tag)? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let path = self.path.join(MANIFESTS).join(digest.hex());
        let whole = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed(&path, "read"))?,
        };
        let damaged = || failed(&path, "understood")(io::ErrorKind::InvalidData.into());
        let end = whole.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let media_type = String::from_utf8(whole[..end].to_vec()).map_err(|_not_text| damaged())?;
        Ok(Some(Held { digest, media_type, bytes: whole[end + 1..].to_vec() }))
    }

    /// Has a tag mean nothing any more. Says whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn untag(&self, tag: &str) -> Result<bool> {
        let path = self.path.join(TAGS).join(tag);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&path, "removed")(error)),
            Ok(()) => Ok(true),
        }
    }

    /// Its tags, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn tags(&self) -> Result<BTreeSet<String>> {
        let names = self.names(TAGS)?;
        Ok(names.into_iter().filter(|name| is_tag(name)).collect())
    }

    fn tagged(&self, tag: &str) -> Result<Option<Digest>> {
        let path = self.path.join(TAGS).join(tag);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, "read")(error)),
            Ok(text) => {
                let digest = text.trim().parse();
                digest
                    .map(Some)
                    .map_err(|_damaged| failed(&path, "understood")(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// Adds to what is needed all that the manifests named by `roots` need, and those themselves.
    pub(super) fn reach(&self, roots: BTreeSet<Digest>, needed: &mut Needed) -> Result<()> {
        let mut open: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = open.pop() {
            if needed.manifests.contains(&digest) {
                continue;
            }
            let Some(held) = self.manifest(&Named::Digest(digest))? else { continue };
            let names = Names::read(&held.bytes)?;
            needed.manifests.insert(digest);
            needed.blobs.extend(names.blobs().map(|it| it.digest));
            open.extend(names.manifests());
        }
        Ok(())
    }

    /// What its tags mean.
    pub(super) fn roots(&self) -> Result<BTreeSet<Digest>> {
        self.tags()?.iter().filter_map(|tag| self.tagged(tag).transpose()).collect()
    }

    /// The names in one of its folders.
    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.path.join(folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(&path, "listed"))?,
        };
        let names = entries.map(|entry| entry.map_err(failed(&path, "listed")));
        names.filter_map(|entry| entry.map(|it| it.file_name().into_string().ok()).transpose()).collect()
    }
}
