//! `stack`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `berth stack`
#[derive(Debug, Clone, Args)]
pub struct StackArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: StackAction,
}

/// What to do with a stack.
#[derive(Debug, Clone, Subcommand)]
pub enum StackAction {
    /// Deploy each service as an app, after those that it depends on
    Up {
        /// Which.
        #[command(flatten)]
        of: OfStack,
        /// Show what would be done and what is not taken over, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Make apps of these names that are there already, and are not of the stack, its services
        #[arg(long)]
        adopt: bool,
    },
    /// List the apps of a stack
    Ps(OfStack),
    /// Stop and remove the apps of a stack, the last ones first
    Down {
        /// Which.
        #[command(flatten)]
        of: OfStack,
        /// Remove their volumes too; they stay otherwise
        #[arg(long)]
        volumes: bool,
        /// And the apps of the stack that the file no longer has
        #[arg(long)]
        remove_orphans: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Which stack.
#[derive(Debug, Clone, Args)]
pub struct OfStack {
    /// Its name, which is looked for as compose.NAME.yaml, NAME.yaml or NAME/compose.yaml [default: compose.yaml]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// A compose file; each is a stack of its own
    #[arg(long, short, value_name = "FILE")]
    pub file: Vec<PathBuf>,
}
