//! `up`, `upgrade`, `completions` and `man`.

use std::net::SocketAddr;
use std::path::PathBuf;

use berth_spec::{Backend, HttpsAddress, Isolation, Proxies};
use clap::{Args, Subcommand};

/// `berth up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where apps answer [default: as last time, at first 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub edge: Option<SocketAddr>,
    /// Where apps answer by HTTPS, or off [default: as last time, at first the port that is to --edge as 443 is to 80: 8443]
    #[arg(long, value_name = "ADDRESS")]
    pub https: Option<HttpsAddress>,
    /// Where the API answers, on loopback [default: as last time, at first 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    pub api: Option<SocketAddr>,
    /// The networks of proxies in front, or off. A connection from there has to begin with its client's address, by the PROXY protocol, version 1 or 2;
    /// from elsewhere none may [default: as last time, at first off]
    #[arg(long, value_name = "NETWORKS")]
    pub proxy_protocol: Option<Proxies>,
    /// Isolate instances at this level: plain, confined, namespaces, full [default: the best that the machine has; plain is never
    /// chosen unasked]
    #[arg(long, value_name = "LEVEL")]
    pub isolation: Option<Isolation>,
    /// Run instances in this: native, docker [default: native, which needs nothing else]. Docker is found by DOCKER_HOST or at
    /// its usual socket
    #[arg(long, value_name = "BACKEND", conflicts_with = "isolation")]
    pub backend: Option<Backend>,
    /// Return once the platform is up, and leave it running
    #[arg(long)]
    pub detach: bool,
    /// Deploy this directory once the platform is up
    #[arg(long, value_name = "PATH")]
    pub deploy: Option<PathBuf>,
}

/// `berth upgrade`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct UpgradeArgs {
    /// What to do; nothing, and no program, shows how far the last upgrade has come.
    #[command(subcommand)]
    pub action: Option<UpgradeAction>,
    /// The program, a `berth` of another version
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// What to do about an upgrade.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum UpgradeAction {
    /// Stay with this version: what is new in it can be written, and versions that do not read that cannot take over any more
    Commit,
}

/// `berth completions`
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// bash, zsh, fish or elvish
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish"], hide_possible_values = true)]
    pub shell: String,
}

/// `berth man`
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The directory to write them to; it is made when it is not there
    pub directory: PathBuf,
}
