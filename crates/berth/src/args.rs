//! The hidden verbs with which the binary starts itself; what people type is read by the command line client.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use berth_spec::{Backend, HttpsAddress, Isolation, Proxies};
use clap::{Args, Parser, Subcommand};

/// A role, as a supervisor, a shim or `up --detach` asks for it.
#[derive(Debug, Parser)]
#[command(name = "berth", disable_help_subcommand = true)]
pub(crate) struct RoleLine {
    #[command(subcommand)]
    pub(crate) role: Role,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    #[command(name = "__supervisor")]
    Supervisor(SupervisorArgs),
    #[command(name = "__guard")]
    Guard(GuardArgs),
    #[command(name = "__control")]
    Control(ControlArgs),
    #[command(name = "__edge")]
    Edge(EdgeArgs),
    #[command(name = "__static")]
    Static(StaticArgs),
    /// Prints which formats of the journal this program reads: another program asks before this one takes over.
    #[command(name = "__formats")]
    Formats,
}

/// What `berth up` was asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    #[arg(long)]
    pub(crate) home: Option<PathBuf>,
    #[arg(long)]
    pub(crate) edge: Option<SocketAddr>,
    #[arg(long)]
    pub(crate) https: Option<HttpsAddress>,
    #[arg(long)]
    pub(crate) api: Option<SocketAddr>,
    #[arg(long)]
    pub(crate) proxy_protocol: Option<Proxies>,
    /// The level at which instances are isolated
    #[arg(long)]
    pub(crate) isolation: Option<Isolation>,
    /// What instances run in
    #[arg(long)]
    pub(crate) backend: Option<Backend>,
    /// Print one JSON object instead of sentences.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A supervisor in the background.
#[derive(Debug, Args)]
pub(crate) struct SupervisorArgs {
    #[command(flatten)]
    pub(crate) up: UpArgs,
    /// The pipe to the one who waits for it to be up.
    #[arg(long)]
    pub(crate) starter: RawFd,
    /// It was the guard of an upgrade, and gives way to whoever starts the platform.
    #[arg(long)]
    pub(crate) stand_in: bool,
}

/// A guard of an upgrade.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    #[command(flatten)]
    pub(crate) up: UpArgs,
    /// The supervisor, whose child the guard is.
    #[arg(long)]
    pub(crate) supervisor: i32,
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
    pub(crate) https_addr: Option<SocketAddr>,
    #[arg(long)]
    pub(crate) api_addr: SocketAddr,
    #[arg(long)]
    pub(crate) isolation: Option<Isolation>,
    #[arg(long)]
    pub(crate) backend: Option<Backend>,
}

/// The descriptors and paths of edge.
#[derive(Debug, Args)]
pub(crate) struct EdgeArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[arg(long)]
    pub(crate) listener: Vec<RawFd>,
    #[arg(long)]
    pub(crate) secure: Vec<RawFd>,
    /// Proxies that say who their clients are
    #[arg(long)]
    pub(crate) proxies: Option<Proxies>,
    #[arg(long)]
    pub(crate) handover: RawFd,
    #[arg(long)]
    pub(crate) routing: RawFd,
    #[arg(long)]
    pub(crate) dial: PathBuf,
    /// Held for as long as we live
    #[arg(long)]
    pub(crate) claim: RawFd,
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
    /// Answer with index.html where there is no page.
    #[arg(long)]
    pub(crate) single_page: bool,
}
