//! Manifests and indexes, OCI's and Docker's second schema, read without trusting them.

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{ImageError, shown};
use crate::platform::Platform;

/// The longest manifest or index, in bytes: what the distribution specification has registries take.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The longest configuration, in bytes. It has a line for each command that built the image.
pub const CONFIG_MAX: u64 = 8 << 20;
/// The most layers: what the kernel's overlay takes of them leaves room for the writable one. Docker's bound is the same.
pub const LAYERS_MAX: usize = 127;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a registry is told that we read.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Points to bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    #[serde(default)]
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// In an index: what the image is made for.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a registry gives for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, of which one is chosen.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads one. `content_type` is what the registry calls it, which must not be something else than what it calls itself: two
    /// readers who believe different ones would see different images under one digest.
    ///
    /// # Errors
    /// When it is none, is of an old schema, has too many layers, or is no image.
    pub fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ImageError> {
        let invalid = |why: String| ImageError::Invalid(why);
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("its manifest cannot be read: {error}")))?;
        if raw.schema_version != 2 {
            let version = raw.schema_version;
            return Err(invalid(format!(
                "its manifest is of schema {version}, which was given up; push it anew"
            )));
        }
        let content_type = content_type
            .map(|it| it.split(';').next().unwrap_or_default().trim())
            .filter(|it| it.starts_with("application/vnd."));
        let own = raw.media_type.as_deref().filter(|it| !it.is_empty());
        if let (Some(own), Some(told)) = (own, content_type)
            && own != told
        {
            return Err(invalid(format!(
                "its manifest is of type {:?} and was sent as {:?}",
                shown(own.as_bytes()),
                shown(told.as_bytes())
            )));
        }
        let kind = own.or(content_type);
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if kind.is_none_or(|it| matches!(it, OCI_INDEX | DOCKER_LIST)) => {
                Ok(Self::Index(manifests))
            }
            (None, Some(config), Some(layers))
                if kind.is_none_or(|it| matches!(it, OCI_MANIFEST | DOCKER_MANIFEST)) =>
            {
                Manifest { config, layers }.checked().map(Self::Manifest)
            }
            _ => Err(ImageError::invalid("its manifest is neither that of an image nor a list of images")),
        }
    }
}

impl Manifest {
    fn checked(self) -> Result<Self, ImageError> {
        if self.layers.len() > LAYERS_MAX {
            let layers = self.layers.len();
            return Err(ImageError::TooLarge(format!(
                "it has {layers} layers, and {LAYERS_MAX} are the most"
            )));
        }
        if self.config.size > CONFIG_MAX {
            return Err(ImageError::TooLarge(format!("its configuration is longer than {CONFIG_MAX} bytes")));
        }
        if !is_config(&self.config.media_type) {
            let kind = shown(self.config.media_type.as_bytes());
            return Err(ImageError::invalid(format!("it is not a container image but {kind:?}")));
        }
        if let Some(strange) = self.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            let kind = shown(strange.media_type.as_bytes());
            return Err(ImageError::invalid(format!("it has a layer of type {kind:?}, which is not known")));
        }
        Ok(self)
    }
}

fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

/// The compression is found by the first bytes, as Docker does: builders are known to name the wrong one.
fn is_layer(media_type: &str) -> bool {
    let oci =
        ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"];
    let docker = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let after = |prefixes: [&str; 2]| prefixes.into_iter().find_map(|prefix| media_type.strip_prefix(prefix));
    matches!(after(oci), Some("" | "+gzip" | "+zstd"))
        || matches!(after(docker), Some("" | ".gzip" | ".zstd"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(kind: &str, of: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#, Digest::of(of.as_bytes()), of.len())
    }

    fn manifest(layers: usize) -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json", "c");
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "l");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, vec![layer; layers].join(","))
    }

    #[test]
    fn images_and_lists_are_told_apart_and_nothing_is_both() {
        let image = manifest(2);
        assert!(
            matches!(Document::read(image.as_bytes(), Some(OCI_MANIFEST)), Ok(Document::Manifest(it)) if it.layers.len() == 2)
        );
        assert!(Document::read(image.as_bytes(), Some(OCI_INDEX)).is_err());
        let both = image.replacen('{', r#"{"manifests":[],"#, 1);
        assert!(Document::read(both.as_bytes(), None).is_err());
        let lies = image.replacen('{', &format!(r#"{{"mediaType":"{OCI_MANIFEST}","#), 1);
        assert!(Document::read(lies.as_bytes(), Some(DOCKER_MANIFEST)).is_err());
        let old = r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#;
        assert!(Document::read(old.as_bytes(), None).unwrap_err().to_string().contains("schema 1"));
    }

    #[test]
    fn a_bomb_of_layers_is_refused() {
        assert!(Document::read(manifest(LAYERS_MAX).as_bytes(), None).is_ok());
        assert_eq!(
            Document::read(manifest(LAYERS_MAX + 1).as_bytes(), None).unwrap_err().code(),
            "image_too_large"
        );
    }

    #[test]
    fn what_is_no_image_is_named() {
        let chart = manifest(1)
            .replace("application/vnd.oci.image.config.v1+json", "application/vnd.cncf.helm.config.v1+json");
        assert!(Document::read(chart.as_bytes(), None).unwrap_err().to_string().contains("helm"));
        let sealed = manifest(1).replace("tar+gzip", "tar+encrypted");
        assert!(Document::read(sealed.as_bytes(), None).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Document::read(&bytes, None).unwrap_err();
        }
    }
}
