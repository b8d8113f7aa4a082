//! `deploy`, `releases` and `rollback`.

use std::path::PathBuf;

use berth_spec::ReleaseNumber;
use clap::{Args, Subcommand, ValueEnum};

use clap_complete::ArgValueCandidates;

use super::{DiffArgs, OfApp, Waiting};
use crate::completion;

/// `berth deploy`
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    /// The directory with the source
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The app to deploy.
    #[command(flatten)]
    pub of: OfApp,
    /// Run this image in place of what the source would be built to; of the directory berth.toml alone counts then
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,
    /// How traffic moves: bluegreen, canary, rolling or recreate [default: as berth.toml says]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub strategy: Option<StrategyChoice>,
    /// Show what was detected and what would change, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What is in the release, for people
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
    /// The source's commit [default: that of the git repository in the directory]
    #[arg(long, value_name = "ID")]
    pub commit: Option<String>,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// How traffic moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyChoice {
    /// Start all new instances, then move at once
    Bluegreen,
    /// Start all new instances, then move in steps as long as they do no worse
    Canary,
    /// Replace one instance after the other
    Rolling,
    /// Stop the old before the new start
    Recreate,
}

/// `berth releases`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReleasesArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<ReleasesAction>,
    /// The release to show, `v42` or `42`
    #[arg(add = ArgValueCandidates::new(completion::releases))]
    pub release: Option<ReleaseNumber>,
    /// How many to list
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    pub count: usize,
    /// Whose releases.
    #[command(flatten)]
    pub of: OfApp,
}

/// What to do with releases.
#[derive(Debug, Clone, Subcommand)]
pub enum ReleasesAction {
    /// Show what is different between two releases: source, processes, manifest, configuration, versions of secrets
    Diff(DiffArgs),
}

/// `berth rollback`
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The release to go back to [default: the one that was active before]
    #[arg(add = ArgValueCandidates::new(completion::releases))]
    pub release: Option<ReleaseNumber>,
    /// Keep today's configuration and secrets, and start new instances
    #[arg(long)]
    pub keep_config: bool,
    /// Whose release.
    #[command(flatten)]
    pub of: OfApp,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}
