//! Decide, append, publish; reconcilers; REST: what the role `control` runs.
//!
//! The [`desk`] decides every command in order and answers it once it is durable. The [`edge_link`] makes routing snapshots durable
//! and hears what edge says. The [`reconcile`] loops look at each app, have the pure planner plan, and perform its actions through the
//! [`machine`]: runtime, builds, release commands. The [`api`] is what people and programs see, and [`git`] what they push to. Control may be killed between any two
//! steps of any of these: apps and edge go on without it, and the next control adopts them.

pub mod api;
pub mod backup;
mod certificates;
pub mod config;
pub mod desk;
pub mod edge_link;
pub mod events;
pub mod formats;
pub mod git;
mod housekeeping;
pub mod machine;
pub mod reconcile;
mod registry;
pub mod replay;
pub mod restore;
pub mod secrets;
mod shutdown;
#[cfg(test)]
mod stage;
mod tasks;
mod wake;

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_control::command::Command;
use berth_control::event::Grant;
use berth_control::route::{DEFAULT_NAME, snapshot};
use berth_journal::{Journal, OpenError, Options, ReplayError};
use berth_routing::Names;
use berth_spec::{ProjectId, ProjectName, TenantName};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::config::ControlConfig;
use crate::desk::{Asker, Desk, SubmitError};
use crate::edge_link::{CertificateShelf, EdgeClaims, EdgeLink};
use crate::machine::Machine;
use crate::reconcile::Reconciler;
use crate::replay::{Replayed, Unfoldable};
use crate::secrets::Vault;

/// Why control could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal cannot be opened.
    #[error("the journal cannot be opened")]
    Open(#[source] Box<OpenError>),
    /// The journal cannot be replayed.
    #[error("the journal cannot be replayed")]
    Replay(#[source] Box<ReplayError<Unfoldable>>),
    /// The runtime cannot take up its work.
    #[error("the runtime cannot take up its work: {0}")]
    Machine(String),
    /// A first entry could not be written.
    #[error("the platform's first entries could not be written")]
    First(#[source] SubmitError),
    /// The system refused something.
    #[error("{what} failed")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs control until the platform goes down or the leash is cut.
///
/// # Errors
/// See [`RunError`]. The supervisor starts control again.
pub fn run(config: ControlConfig) -> Result<(), RunError> {
    // One thread is enough for what control does; the disk has threads of its own. What keeps one of those for long is limited where it
    // begins: builds, uploads, logs. The rest is for what must not wait behind them: the routing, and the starts of instances.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(system("starting the async runtime"))?;
    let ended = runtime.block_on(control(config));
    // What still runs on other threads holds nothing that matters once the journal is closed or the leash is cut.
    runtime.shutdown_background();
    ended
}

fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn tcp(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn control(config: ControlConfig) -> Result<(), RunError> {
    let clock = Arc::clone(&config.clock);
    let key = replay::snapshot_key().map_err(system("reading the executable"))?;
    let journal = Journal::open(&config.home.join("journal"), Options::default());
    let journal = Arc::new(journal.map_err(|error| RunError::Open(Box::new(error)))?);
    let replayed = replay::replay(&journal, &*clock, key);
    let Replayed { state, format } = replayed.map_err(|error| RunError::Replay(Box::new(error)))?;
    let (desk, desk_task) = desk::open(Arc::clone(&journal), Arc::clone(&clock), state).await;
    formats::go_on(&journal, &desk, format);
    let mut tasks = JoinSet::new();
    tasks.spawn(desk_task.run());
    first_entries(&config, &desk).await?;

    let vault = Arc::new(Vault::new(config.key_encryption_key.clone()));
    let edge = Arc::new(open_edge_link(&config, &vault)?);
    let machine = Machine::open(&config, &desk).await.map_err(RunError::Machine)?;
    let machine = Arc::new(machine);
    machine.clear_orphaned_commands().await;
    // Before any instance is started that would look for them.
    machine.tell_names(desk.read(|state| Names::of(&snapshot(state)))).await;
    let (down, going_down) = watch::channel(false);
    let api = Arc::new(Api {
        desk: desk.clone(),
        journal: Arc::clone(&journal),
        edge: Arc::clone(&edge),
        machine: Arc::clone(&machine),
        vault: Arc::clone(&vault),
        clock: Arc::clone(&clock),
        identity: identity(&config),
        down: down.clone(),
    });

    let edge_socket = unix(config.edge_unix).map_err(system("listening on edge.sock"))?;
    let api_socket = unix(config.api_unix).map_err(system("listening on api.sock"))?;
    let api_tcp = tcp(config.api_tcp).map_err(system("listening for the API"))?;
    let edge_uid = config.uid_plan.map_or(config.owner_uid, config::UidPlan::edge);
    tasks.spawn(Arc::clone(&edge).serve(edge_socket, vec![0, config.owner_uid, edge_uid], desk.clone()));
    tasks.spawn(publish(Arc::clone(&edge), Arc::clone(&machine), desk.clone()));
    tasks.spawn(Arc::clone(&machine).watch());
    let home = config.home.clone();
    tasks.spawn(certificates::keep(desk.clone(), Arc::clone(&edge), vault, Arc::clone(&clock), home));
    let reconciler =
        Reconciler::new(desk.clone(), Arc::clone(&edge), Arc::clone(&machine), Arc::clone(&clock));
    let reconciling = tasks.spawn(Arc::new(reconciler).run());
    tasks.spawn(housekeeping::run(
        Arc::clone(&journal),
        desk.clone(),
        Arc::clone(&machine),
        Arc::clone(&clock),
    ));
    let router = api::router(Arc::clone(&api));
    tasks.spawn(api::serve_at(api_socket, router.clone(), going_down.clone()));
    tasks.spawn(api::serve_at(api_tcp, router, going_down));
    say_ready(config.ready);

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(system("listening for SIGTERM"))?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(system("listening for SIGINT"))?;
    tokio::select! {
        () = cut(config.leash) => return Ok(()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = tasks.join_next() => {
            // None of them ends by itself: one that did has panicked.
            tracing::error!(?ended, "a task of control has ended");
            std::process::abort();
        }
    }
    down.send_replace(true);
    reconciling.abort();
    shutdown::stop_everything(&desk, &machine).await;
    replay::keep_snapshot(&journal, key, &desk.read(Clone::clone));
    Ok(())
}

/// The link to edge, with the certificates that it shows.
fn open_edge_link(config: &ControlConfig, vault: &Arc<Vault>) -> Result<EdgeLink, RunError> {
    let group = config.uid_plan.map(config::UidPlan::edge);
    let claims = EdgeClaims::below(&config.run_dir);
    let routing = config.home.join("routing");
    let shelf = CertificateShelf::open(&routing, group, Arc::clone(vault));
    let shelf = shelf.map_err(system("making routing/certificates"))?;
    EdgeLink::open(&routing, group, claims, shelf, Arc::clone(&config.clock))
        .map_err(system("reading the routing snapshot"))
}

fn identity(config: &ControlConfig) -> api::Identity {
    api::Identity {
        platform: config.platform.clone(),
        home: config.home.clone(),
        socket: config.run_dir.join("api.sock"),
        edge: config.edge_addr,
        https: config.https_addr,
        api: config.api_addr,
        supervisor_pid: std::os::unix::process::parent_id().into(),
        as_root: config.uid_plan.is_some(),
        owner_uid: config.owner_uid,
        started_at: config.clock.now(),
        started: config.clock.monotonic(),
    }
}

/// The default tenant and project, and a first token whose text lies in the home for its owner alone. Each is there or not, so that being killed in
/// between does no harm.
async fn first_entries(config: &ControlConfig, desk: &Desk) -> Result<(), RunError> {
    let project = ProjectId {
        tenant: TenantName::new(DEFAULT_NAME).expect("it is a name"),
        project: ProjectName::new(DEFAULT_NAME).expect("it is a name"),
    };
    let asker = Asker::platform("first-start");
    let ensure = Command::EnsureProject { project };
    desk.submit(ensure, asker.clone(), None, None).await.map_err(RunError::First)?;
    if desk.read(|state| !state.platform.tokens.is_empty()) {
        return Ok(());
    }
    let (token, sha256) = api::new_token(&*config.clock);
    write_private(&config.home.join("keys/owner-token"), token.as_bytes())
        .map_err(system("writing keys/owner-token"))?;
    let issue = Command::IssueToken { token: "owner".to_owned(), sha256, grants: vec![Grant::Platform] };
    desk.submit(issue, asker, None, None).await.map(|_| ()).map_err(RunError::First)
}

fn write_private(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let staged = path.with_extension("next");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::File::open(dir)?.sync_all()
}

/// How long to wait before a routing snapshot that could not be written is tried again.
const PUBLISH_AGAIN: Duration = Duration::from_secs(1);

/// Makes the routing of what is durable known, whenever something became durable. Snapshots coalesce: what happens while one is written
/// is in the next.
async fn publish(edge: Arc<EdgeLink>, machine: Arc<Machine>, desk: Desk) {
    let mut durable = desk.durable();
    loop {
        durable.borrow_and_update();
        let (link, at) = (Arc::clone(&edge), desk.clone());
        match tokio::task::spawn_blocking(move || link.publish(&at)).await {
            Ok(Ok(true)) => {
                machine.tell_names(edge.names()).await;
                edge.wake_waiting(&desk);
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                events::snapshot_not_written(&error);
                tokio::time::sleep(PUBLISH_AGAIN).await;
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "publishing the routing has panicked");
                std::process::abort();
            }
        }
        if durable.changed().await.is_err() {
            return;
        }
    }
}

fn say_ready(ready: OwnedFd) {
    // The supervisor may be gone: the leash tells then.
    drop(std::fs::File::from(ready).write_all(b"1"));
}

/// Waits until the leash is cut. Nothing is ever written to it.
async fn cut(leash: OwnedFd) {
    let read = async {
        use tokio::io::AsyncReadExt as _;
        tokio::net::unix::pipe::Receiver::from_owned_fd(leash)?.read_u8().await
    };
    match read.await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        other => {
            events::could_not("watch the supervisor", &format!("{other:?}"));
            std::future::pending::<()>().await;
        }
    }
}
