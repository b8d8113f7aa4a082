//! `git`.

use berth_spec::BranchName;
use clap::{Args, Subcommand};

use super::OfApp;

/// `berth git`
#[derive(Debug, Clone, Args)]
pub struct GitArgs {
    /// What to do; nothing shows.
    #[command(subcommand)]
    pub action: Option<GitAction>,
    /// Whose repository, when it is shown.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with an app's repository.
#[derive(Debug, Clone, Subcommand)]
pub enum GitAction {
    /// Let `git push berth main` deploy from this directory; makes the app if need be
    Remote {
        /// What the remote is called
        #[arg(long, default_value = "berth", value_name = "NAME")]
        name: BranchName,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// Set which branch is deployed
    Branch {
        /// The branch [default: main and master]
        branch: Option<BranchName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// Deploy the pushes to a repository elsewhere; prints the webhook to set up there, and its secret once
    Connect(ConnectArgs),
    /// Deploy the pushes to the repository elsewhere no longer
    Disconnect(OfApp),
    /// What git asks for a password (git-credential(1)); `berth git remote` sets it up
    #[command(hide = true)]
    Credential {
        /// `get`; others do nothing
        operation: String,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
}

/// `berth git connect`
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// Where it is cloned from: `https://...`
    pub url: String,
    /// The branch that is deployed [default: as before, at first main and master]
    #[arg(long, value_name = "NAME")]
    pub branch: Option<BranchName>,
    /// Read what lets one clone it, TOKEN or USER:TOKEN, from standard input
    #[arg(long)]
    pub token: bool,
    /// Take an http:// address: whoever is on the way can then read and change the source
    #[arg(long)]
    pub allow_http: bool,
    /// Whose.
    #[command(flatten)]
    pub of: OfApp,
}
