//! `config` and `secrets`: the same actions, once.

use berth_spec::EnvName;
use clap::{Args, Subcommand};

use super::{OfApp, Waiting};

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
    List(ListArgs),
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
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}
