//! `domains`.

use berth_spec::HostName;
use clap::{Args, Subcommand};

use super::OfApp;

/// `berth domains`
#[derive(Debug, Clone, Args)]
pub struct DomainsArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<DomainsAction>,
    /// Whose domains, when they are listed.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with the domains.
#[derive(Debug, Clone, Subcommand)]
pub enum DomainsAction {
    /// Let hosts lead to the app; takes effect at once, without a release
    Add {
        /// `shop.example.com`, or `*.example.com` for every name with one label more that no app has by itself
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<HostName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// Let hosts lead to the app no longer
    Remove {
        /// The hosts
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<HostName>,
        /// Whose.
        #[command(flatten)]
        of: OfApp,
    },
    /// List the hosts
    List(OfApp),
}
