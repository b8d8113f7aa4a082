//! `launch`.

use std::path::PathBuf;

use berth_spec::AppName;
use clap::Args;

use super::Waiting;

/// `berth launch`
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// The directory with the source
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Take over fly.toml, app.json, deploy.yml, compose.yaml, Procfile or .env; `-` reads variables
    #[arg(long, value_name = "FILE|KIND")]
    pub from: Vec<String>,
    /// The app's name [default: that of the file taken over or of berth.toml, else the directory's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<AppName>,
    /// Show what was seen and what would be written, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask, not even before berth.toml is replaced
    #[arg(long, short)]
    pub yes: bool,
    /// Write berth.toml and make the app, and leave the deployment for later
    #[arg(long)]
    pub no_deploy: bool,
    /// Whether to follow it.
    #[command(flatten)]
    pub waiting: Waiting,
}
