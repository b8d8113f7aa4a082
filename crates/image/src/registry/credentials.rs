//! Who we say that we are, for each registry: read from Docker's `config.json`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::error::ImageError;
use crate::reference::DEFAULT_REGISTRY;

/// Credentials by registry.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    by_registry: BTreeMap<String, Credential>,
}

#[derive(Clone)]
pub(crate) enum Credential {
    /// A name and a password or token.
    Basic { user: String, password: SecretString },
    /// A token that a token service changes for one that opens something.
    Identity(SecretString),
    /// They are in a program of this name, which we do not ask.
    Helper(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Identity(_) => "Identity",
            Self::Helper(_) => "Helper",
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl Credentials {
    /// Says who we are to one registry.
    pub fn set(&mut self, registry: &str, user: &str, password: SecretString) {
        let credential = Credential::Basic { user: user.to_owned(), password };
        self.by_registry.insert(host(registry), credential);
    }

    /// Reads the text of a `config.json`, as `docker login`, `podman login` and `skopeo login` write it.
    ///
    /// # Errors
    /// When it is none: `registry_denied`, without a word of what is in it.
    pub fn from_docker_config(text: &str) -> Result<Self, ImageError> {
        let unreadable = |why: String| ImageError::Denied { registry: "config.json".to_owned(), why };
        let file: File = serde_json::from_str(text).map_err(|error| {
            unreadable(format!("line {}, column {} cannot be read", error.line(), error.column()))
        })?;
        let mut read = Self::default();
        for (registry, helper) in file.cred_helpers {
            read.by_registry.insert(host(&registry), Credential::Helper(helper));
        }
        for (registry, auth) in file.auths {
            let credential = if !auth.identitytoken.is_empty() {
                Credential::Identity(auth.identitytoken.into())
            } else if !auth.auth.is_empty() {
                let pair =
                    BASE64_STANDARD.decode(auth.auth.trim()).ok().and_then(|it| String::from_utf8(it).ok());
                let pair = pair.as_deref().and_then(|it| it.split_once(':'));
                let (user, password) =
                    pair.ok_or_else(|| unreadable(format!("`auth` of {registry} is no name and password")))?;
                Credential::Basic { user: user.to_owned(), password: password.trim_end_matches('\0').into() }
            } else if !auth.username.is_empty() {
                Credential::Basic { user: auth.username, password: auth.password.into() }
            } else {
                continue;
            };
            read.by_registry.insert(host(&registry), credential);
        }
        Ok(read)
    }

    /// Adds a name and a password or token for a registry.
    pub fn add(&mut self, registry: &str, user: &str, password: SecretString) {
        self.by_registry.insert(host(registry), Credential::Basic { user: user.to_owned(), password });
    }

    pub(crate) fn of(&self, registry: &str) -> Option<&Credential> {
        self.by_registry.get(registry)
    }
}

impl Credential {
    /// The value of an `Authorization` header that says it.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Basic { user, password } => Some(format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()))
            )),
            Self::Identity(_) | Self::Helper(_) => None,
        }
    }
}

/// The registry that a key of the file names: Docker Hub is there as `https://index.docker.io/v1/`.
fn host(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = key.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_file_is_read() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc6eA=="},"ghcr.io":{"username":"a","password":"b"},
            "x.azurecr.io":{"identitytoken":"t"},"empty.io":{}},"credHelpers":{"gcr.io":"gcloud"},"credsStore":"desktop"}"#;
        let read = Credentials::from_docker_config(text).unwrap();
        let basic = read.of("docker.io").unwrap().basic().unwrap();
        assert_eq!(basic, format!("Basic {}", BASE64_STANDARD.encode("me:pw:x")));
        assert!(matches!(read.of("x.azurecr.io"), Some(Credential::Identity(_))));
        assert!(matches!(read.of("gcr.io"), Some(Credential::Helper(it)) if it == "gcloud"));
        assert!(read.of("ghcr.io").is_some() && read.of("empty.io").is_none());
        assert!(!format!("{read:?}").contains("pw"));
    }

    #[test]
    fn a_bad_file_gives_nothing_of_itself_away() {
        for bad in ["", "{", r#"{"auths":{"a":{"auth":"secret!"}}}"#, r#"{"auths":{"a":"secret!"}}"#] {
            let error = Credentials::from_docker_config(bad).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
