//! The name of an image: `registry/repository:tag@digest`, as Docker and all who came after it read it.
//!
//! The grammar is that of <https://github.com/distribution/reference>. What is left out is Docker's: the registry `docker.io`, the folder `library/`
//! for a repository of one segment there, and the tag `latest`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, shown};

/// The registry of a reference that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// Names an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, with its port where one is given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within it: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; none where only a digest is given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, where it is given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository and tag, held to one manifest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// What the registry is asked for: the digest, else the tag.
    #[must_use]
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ImageError;
    fn from_str(text: &str) -> Result<Self, ImageError> {
        parse(text).map_err(|why| ImageError::Reference { given: shown(text.as_bytes()), why })
    }
}

impl TryFrom<String> for Reference {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.contains("://") {
        return Err("it is written without https://");
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => {
            let digest = digest.parse().map_err(|_invalid: crate::digest::InvalidDigest| {
                "after the @ there must be sha256: and 64 hex digits"
            })?;
            (name, Some(digest))
        }
        None => (text, None),
    };
    // A colon before the last slash is that of a port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag is up to 128 letters, digits, _ . and -");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        _ if name.contains('/') => (DEFAULT_REGISTRY, name.to_owned()),
        _ => (DEFAULT_REGISTRY, format!("library/{name}")),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if !is_registry(registry) {
        return Err("the registry must be a host, with a port if need be");
    }
    if repository.len() > NAME_MAX || !is_repository(&repository) {
        return Err(
            "a repository is lower-case letters and digits, with . _ __ or - between them, in segments split by /",
        );
    }
    let tag = tag.or((digest.is_none()).then_some(DEFAULT_TAG)).map(str::to_owned);
    Ok(Reference { registry: registry.to_ascii_lowercase(), repository, tag, digest })
}

/// Whether `tag` can be a tag.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= TAG_MAX
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Whether `name` can be a repository.
#[must_use]
pub fn is_repository(name: &str) -> bool {
    name.split('/').all(is_segment)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_segment(segment: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let mut rest = segment.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| alphanumeric(**byte)).count();
        let (_, after) = rest.split_at(word);
        if word == 0 {
            return false;
        }
        let between = after.iter().take_while(|byte| !alphanumeric(**byte)).count();
        let (separator, next) = after.split_at(between);
        match separator {
            [] => return next.is_empty(),
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        rest = next;
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !registry.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_fits =
        port.is_none_or(|port| port.bytes().all(|it| it.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
        }),
    };
    host_fits && port_fits && registry.len() <= NAME_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_out_is_dockers() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (given, meant) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/me/app", "docker.io/me/app:latest"),
            ("index.docker.io/me/app:a", "docker.io/me/app:a"),
            ("ghcr.io/me/app:v1", "ghcr.io/me/app:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("Registry.Example.COM/a", "registry.example.com/a:latest"),
            (&format!("a@sha256:{hex}"), &format!("docker.io/library/a@sha256:{hex}")),
            (&format!("a:b@sha256:{hex}"), &format!("docker.io/library/a:b@sha256:{hex}")),
            ("me/a__b-c---d.e", "docker.io/me/a__b-c---d.e:latest"),
        ] {
            let parsed: Reference = given.parse().unwrap();
            assert_eq!(parsed.to_string(), meant);
            assert_eq!(meant.parse::<Reference>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_names_no_image_says_why() {
        for bad in [
            "",
            "A",
            "a:",
            "a:-x",
            "a b",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a@sha256:1",
            "https://a/b",
            "localhost:x/a",
            "localhost:99999/a",
            "a..b",
            "a___b",
            "-a",
            "a.",
            "x.y/",
            "[::g]:1/a",
            "a:b:c",
            "a\n",
            "a.b-/c",
            "../../etc",
        ] {
            let error = bad.parse::<Reference>().unwrap_err();
            assert_eq!(error.code(), "image_reference_invalid", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_written_so_that_it_parses_again(text in "[a-z0-9._:/@-]{0,40}|\\PC{0,40}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed.clone());
                prop_assert!(!parsed.repository().contains(".."));
            }
        }
    }
}
