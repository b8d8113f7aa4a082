//! An app's repository, what of it is deployed, and a repository elsewhere that is deployed from.

use berth_spec::{BranchName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::settings::SecretValue;

/// How an app is deployed by git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Git {
    /// The address of the app's repository on the platform.
    #[schema(example = "http://127.0.0.1:7070/git/shop.git")]
    pub remote: String,
    /// The branches whose pushes are deployed.
    #[schema(value_type = Vec<String>)]
    pub branches: Vec<BranchName>,
    /// The repository elsewhere whose pushes are deployed, if there is one.
    pub connection: Option<GitConnection>,
}

/// A repository elsewhere, at GitHub, GitLab, Gitea or the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitConnection {
    /// Where it is cloned from.
    pub url: String,
    /// The path that its webhook calls, below whatever address the platform's API is reached at from there.
    #[schema(example = "/hooks/shop/0f9a1c2e3b4d5f60")]
    pub hook: String,
    /// Whether a token for cloning is kept with it.
    pub has_token: bool,
}

/// Says which branch is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitBranch {
    /// The branch; none for `main` and `master`.
    #[schema(value_type = Option<String>)]
    pub branch: Option<BranchName>,
}

/// Connects a repository elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectGit {
    /// Where it is cloned from: `https://...`, without a user or a password in it.
    pub url: String,
    /// The branch that is deployed, when it is not `main` or `master`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub branch: Option<BranchName>,
    /// What lets one clone it, `TOKEN` or `USER:TOKEN`, when it is not public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub token: Option<SecretValue>,
    /// Whether the address may be `http://...`: whoever is on the way can then read and change the source.
    #[serde(default)]
    pub allow_http: bool,
}

/// A repository elsewhere that was just connected.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GitConnected {
    /// What was connected.
    pub connection: GitConnection,
    /// The webhook's secret. It is shown this once.
    #[schema(example = "whsec_...")]
    pub secret: String,
}

/// Lets git in for a short time, for one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitPass {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
    /// When it stops to be one.
    #[schema(value_type = u64)]
    pub expires_at: Timestamp,
}
