//! `config` and `secrets`: the same actions, once.

use berth_spec::{EnvName, ReleaseNumber};
use clap::{Args, Subcommand};

use clap_complete::ArgValueCandidates;

use super::{OfApp, Waiting};
use crate::completion;

/// `berth config`
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
    /// Whose configuration, when it is listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Set variables; makes a release
    #[command(mut_arg("settings", |it| it.value_name("NAME=VALUE").help("`NAME=VALUE`; `NAME=-` reads the value from standard input")))]
    Set(SetArgs),
    /// Remove variables; makes a release
    #[command(mut_arg("names", |it| it.help("The variables")))]
    Unset(UnsetArgs),
    /// List the variables
    List(ListArgs),
    /// Print the value of one variable
    Get(GetArgs),
    /// Set what a file of variables says, as `.env`; makes a release
    Import(ImportArgs),
    /// Show what is different between two releases: configuration and versions of secrets
    Diff(DiffArgs),
}

/// `berth secrets`
#[derive(Debug, Clone, Args)]
pub struct SecretsArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<SecretsAction>,
    /// Whose secrets, when they are listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the secrets.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretsAction {
    /// Set secrets; makes a release
    Set(SetArgs),
    /// Remove secrets; makes a release
    Unset(UnsetArgs),
    /// List the names
    List(OfApp),
    /// Set what a file of variables says, as `.env`; makes a release
    Import(ImportArgs),
}

/// `set`
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// `NAME` or `NAME=-` reads the value from standard input; `NAME=VALUE` leaves it in the shell's history
    #[arg(required = true, value_name = "NAME")]
    pub settings: Vec<String>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `unset`
#[derive(Debug, Clone, Args)]
pub struct UnsetArgs {
    /// The secrets
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<EnvName>,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `list`
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Print lines that a shell and `berth config import` read back
    #[arg(long)]
    pub shell: bool,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

/// `get`
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// The variable
    pub name: EnvName,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}

/// `import`
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file; `-` is standard input
    pub file: String,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `diff`
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// Since which release [default: the one that was active before]
    #[arg(add = ArgValueCandidates::new(completion::releases))]
    pub since: Option<ReleaseNumber>,
    /// The release to look at [default: the active one]
    #[arg(add = ArgValueCandidates::new(completion::releases))]
    pub release: Option<ReleaseNumber>,
    /// Whose releases.
    #[command(flatten)]
    pub of: OfApp,
}
