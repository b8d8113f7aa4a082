//! `registry`.

use clap::{Args, Subcommand};

use super::OfApp;

/// `berth registry`
#[derive(Debug, Clone, Args)]
pub struct RegistryArgs {
    /// What to do; nothing shows.
    #[command(subcommand)]
    pub action: Option<RegistryAction>,
    /// Whose images, when they are shown.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with an app's repository of images.
#[derive(Debug, Clone, Subcommand)]
pub enum RegistryAction {
    /// Print what `docker login` takes as the password for 15 minutes; makes the app if need be
    Password(OfApp),
}
