//! The hosts that lead to an app.

use berth_spec::HostName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The hosts that lead to an app, in the order of the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainList {
    /// The hosts.
    pub domains: Vec<Domain>,
}

/// A host that leads to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// The host in lower case, ASCII; `*.example.com` for every name with one label in place of the asterisk.
    #[schema(value_type = String, example = "shop.example.com")]
    pub host: HostName,
    /// Why it leads there.
    pub source: DomainSource,
}

/// Why a host leads to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DomainSource {
    /// Every app has this one.
    Default,
    /// The manifest of the release that serves names it.
    Manifest,
    /// It was added by itself.
    Added,
}

impl DomainSource {
    /// The source as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Manifest => "manifest",
            Self::Added => "added",
        }
    }
}

/// Changes which hosts lead to an app; makes no release. One in both is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DomainsPatch {
    /// Hosts to add, in any spelling; one that leads there already is not an error.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub add: Vec<HostName>,
    /// Hosts to remove.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub remove: Vec<HostName>,
}

/// The hosts after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainsChanged {
    /// All of them.
    pub domains: Vec<Domain>,
    /// Whether edge goes by them already; else it does so in a moment.
    pub applied: bool,
}
