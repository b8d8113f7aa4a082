//! The id of an artifact: the hash of everything it is made from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use berth_source::{Recipe, TreeId};
use berth_spec::AppId;
use berth_spec::manifest::{Build, Builder};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Counts up when a builder makes something else of the same inputs, so that what an earlier version of Berth built is
/// not taken for it.
const BUILDERS_VERSION: u32 = 2;
const DIGITS: usize = 40;

/// The id of an artifact, unique within its app: `a` and 40 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactId(String);

/// A text that is not the id of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of an artifact: a and 40 lower-case hex digits")]
pub struct InvalidArtifactId(String);

/// What programs run on: an artifact built on one platform may not run on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// The processor: `x86_64`.
    pub arch: String,
    /// The system and its release, which has the C library: `debian 12`.
    pub system: String,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn current() -> Self {
        // A system without the file (a bare container) is its own kind; a C library there changes with the image.
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or("unknown").trim_matches('"').to_owned()
        };
        let system = format!("{} {}", field("ID"), field("VERSION_ID"));
        Self { arch: std::env::consts::ARCH.to_owned(), system }
    }
}

/// All that an artifact is made from. What only decides how it is started is not part of it.
#[derive(Debug, Serialize)]
pub(crate) struct Inputs<'a> {
    /// Artifacts are per app: they are sealed to its group, and no app learns what another one builds.
    pub(crate) app: &'a AppId,
    pub(crate) tree: TreeId,
    pub(crate) builder: Builder,
    pub(crate) build: &'a Build,
    pub(crate) platform: &'a Platform,
    /// The version of the toolchain, for builders that use one.
    pub(crate) toolchain: Option<&'a str>,
    /// The recipe that is followed, which a later version of Berth may write otherwise for the same tree.
    pub(crate) recipe: &'a Recipe,
    /// What its commands see of the app's configuration.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// The tools that it is followed with.
    pub(crate) tools: &'a [&'a str],
}

impl Inputs<'_> {
    pub(crate) fn id(&self) -> ArtifactId {
        let json = serde_json::to_vec(&(BUILDERS_VERSION, self)).expect("plain data has a JSON");
        let hash = hex::encode(Sha256::digest(json));
        ArtifactId(format!("a{}", hash.chars().take(DIGITS).collect::<String>()))
    }
}

impl ArtifactId {
    /// That of an image in an app: the app's own, so that no app learns what another one runs.
    #[must_use]
    pub fn of_image(app: &AppId, manifest: &str) -> Self {
        let hash = hex::encode(Sha256::digest(format!("image\n{app}\n{manifest}")));
        Self(format!("a{}", hash.chars().take(DIGITS).collect::<String>()))
    }

    /// The id as text, fit for a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ArtifactId {
    type Err = InvalidArtifactId;
    fn from_str(text: &str) -> Result<Self, InvalidArtifactId> {
        let digits = text.strip_prefix('a').unwrap_or_default();
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() == DIGITS && digits.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidArtifactId(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ArtifactId {
    type Error = InvalidArtifactId;
    fn try_from(text: String) -> Result<Self, InvalidArtifactId> {
        text.parse()
    }
}

impl From<ArtifactId> for String {
    fn from(id: ArtifactId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_source::Tree;

    #[test]
    fn every_input_counts_and_the_same_ones_give_the_same_id() {
        let (app, other): (AppId, AppId) =
            ("default/default/shop".parse().unwrap(), "default/default/shoe".parse().unwrap());
        let platform = Platform { arch: "x86_64".into(), system: "debian 12".into() };
        let arm = Platform { arch: "aarch64".into(), ..platform.clone() };
        let (plain, command) =
            (Build::default(), Build { output: Some(berth_spec::RelativeDir::here()), ..Build::default() });
        let recipe = Recipe::default();
        let (none, some) = (BTreeMap::new(), [("API".to_owned(), "x".to_owned())].into());
        let path = Recipe { path: vec![berth_spec::RelativeDir::here()], ..Recipe::default() };
        let inputs = || Inputs {
            app: &app,
            tree: Tree::default().id(),
            builder: Builder::Copy,
            build: &plain,
            platform: &platform,
            toolchain: None,
            recipe: &recipe,
            env: &none,
            tools: &[],
        };
        let all = [
            inputs().id(),
            Inputs { app: &other, ..inputs() }.id(),
            Inputs { builder: Builder::Cargo, ..inputs() }.id(),
            Inputs { build: &command, ..inputs() }.id(),
            Inputs { platform: &arm, ..inputs() }.id(),
            Inputs { toolchain: Some("1.95.0"), ..inputs() }.id(),
            Inputs { recipe: &path, ..inputs() }.id(),
            Inputs { env: &some, ..inputs() }.id(),
            Inputs { tools: &["Node 20.20.2 at /usr/bin"], ..inputs() }.id(),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        assert_eq!(inputs().id(), all[0]);
        assert_eq!(all[0].to_string().parse::<ArtifactId>().unwrap(), all[0]);
        for bad in ["", "a", "..", &format!("b{}", "0".repeat(40)), &format!("a{}", "G".repeat(40))] {
            assert!(bad.parse::<ArtifactId>().is_err(), "{bad}");
        }
    }
}
