//! Configuration and secrets of an app.

use std::collections::BTreeMap;
use std::fmt;

use berth_spec::{EnvName, ReleaseNumber};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// An app's configuration: plain environment variables, each release with its own copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// The variables that were set, without those of the manifest.
    #[schema(value_type = BTreeMap<String, String>)]
    pub config: BTreeMap<EnvName, String>,
    /// The release that serves; none when nothing was ever deployed.
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
    /// The variables of which that release has another value, or none, or that it alone has: the release that brought the change is on its
    /// way, or did not take over. The next one has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub unreleased: Vec<EnvName>,
}

/// Changes the configuration. A name in both is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigPatch {
    /// Variables that get a value.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub set: BTreeMap<EnvName, String>,
    /// Variables that go; one that is not there is not an error.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub unset: Vec<EnvName>,
}

/// The configuration after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigChanged {
    /// All of it.
    #[schema(value_type = BTreeMap<String, String>)]
    pub config: BTreeMap<EnvName, String>,
    /// The release that the change made. None when nothing was ever deployed, or when nothing changed.
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
}

/// The names of an app's secrets, with the version that each has. Values never come out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretNames {
    /// Version by name; a version counts the values that the name has had, from 1.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub secrets: BTreeMap<EnvName, u64>,
    /// The release that has them; none when nothing was ever deployed.
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
}

/// Changes secrets. A name in both is an error.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretsPatch {
    /// Secrets that get a value.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub set: BTreeMap<EnvName, SecretValue>,
    /// Secrets that go; one that is not there is not an error.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub unset: Vec<EnvName>,
}

/// The secrets' names after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretsChanged {
    /// Version by name.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub secrets: BTreeMap<EnvName, u64>,
    /// The release that the change made. None when nothing was ever deployed, or when nothing changed.
    #[schema(value_type = Option<u64>)]
    pub release: Option<ReleaseNumber>,
}

/// The value of a secret on its way to the platform. It is wiped when dropped and never printed.
///
/// It can be serialised because the client has to send it; nothing that the platform answers holds one.
#[derive(Clone)]
pub struct SecretValue(SecretString);

impl SecretValue {
    /// Takes `text` over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The value itself, for the one place that seals it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Serialize for SecretValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let patch: SecretsPatch = serde_json::from_str(r#"{"set":{"TOKEN":"hunter2"}}"#).unwrap();
        assert!(!format!("{patch:?}").contains("hunter2"));
        assert_eq!(patch.set["TOKEN"].expose(), "hunter2");
    }

    #[test]
    fn requests_are_strict() {
        for bad in
            [r#"{"sett":{}}"#, r#"{"set":{"PORT":"1"}}"#, r#"{"set":{"A=B":"1"}}"#, r#"{"set":{"A":1}}"#]
        {
            assert!(serde_json::from_str::<ConfigPatch>(bad).is_err(), "{bad}");
        }
    }
}
