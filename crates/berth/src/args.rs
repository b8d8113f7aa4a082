//! What the binary is asked to do: the hidden verbs of the roles and `up`; every other verb is the command line client's.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What this binary does itself.
#[derive(Debug, Parser)]
#[command(name = "berth", disable_help_subcommand = true)]
pub(crate) struct Invocation {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start the platform, and stay until it is stopped
    Up(UpArgs),
    #[command(name = "__control", hide = true)]
    Control(ControlArgs),
    #[command(name = "__edge", hide = true)]
    Edge(EdgeArgs),
    #[command(name = "__static", hide = true)]
    Static(StaticArgs),
}

/// `berth up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The data directory
    #[arg(long, env = "BERTH_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Where apps are reached [default: the last one, at first 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) edge: Option<SocketAddr>,
    /// Where the API is reached, on loopback [default: the last one, at first 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api: Option<SocketAddr>,
    /// Return once the platform is up, and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Deploy this directory once the platform is up
    #[arg(long, value_name = "PATH")]
    pub(crate) deploy: Option<PathBuf>,
    /// Print one JSON object instead of sentences
    #[arg(long)]
    pub(crate) json: bool,
    /// The pipe to the one who waits for a detached start
    #[arg(long, hide = true, value_name = "FD")]
    pub(crate) starter: Option<RawFd>,
}

/// What every role is given.
#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// First, so that a later supervisor finds the role by its arguments
    #[arg(long)]
    pub(crate) platform: String,
    #[arg(long)]
    pub(crate) ready: RawFd,
    #[arg(long)]
    pub(crate) leash: RawFd,
}

/// The descriptors and paths of control.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[arg(long)]
    pub(crate) home: PathBuf,
    #[arg(long)]
    pub(crate) run: PathBuf,
    #[arg(long)]
    pub(crate) exe: PathBuf,
    #[arg(long)]
    pub(crate) api_tcp: RawFd,
    #[arg(long)]
    pub(crate) api_unix: RawFd,
    #[arg(long)]
    pub(crate) edge_unix: RawFd,
    #[arg(long)]
    pub(crate) supervisor: RawFd,
    #[arg(long)]
    pub(crate) edge_addr: SocketAddr,
    #[arg(long)]
    pub(crate) api_addr: SocketAddr,
}

/// The descriptors and paths of edge.
#[derive(Debug, Args)]
pub(crate) struct EdgeArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[arg(long)]
    pub(crate) listener: Vec<RawFd>,
    #[arg(long)]
    pub(crate) handover: RawFd,
    #[arg(long)]
    pub(crate) routing: RawFd,
    #[arg(long)]
    pub(crate) owner: u32,
    #[arg(long)]
    pub(crate) control: PathBuf,
}

/// What the static role serves.
#[derive(Debug, Args)]
pub(crate) struct StaticArgs {
    pub(crate) directory: PathBuf,
    #[arg(long, env = "PORT")]
    pub(crate) port: u16,
}

/// Whether the binary itself answers to `verb`.
pub(crate) fn is_ours(verb: &str) -> bool {
    matches!(verb, "up" | "__control" | "__edge" | "__static")
}
