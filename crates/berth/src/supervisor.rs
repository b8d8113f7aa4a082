//! The supervisor: takes the home, binds every listener, starts control and edge, and stays to restart them.
//!
//! It has no async runtime and does nothing that a role could do: what it does not do cannot kill it, and while it lives
//! listeners, accept queues and orphaned shims have an owner.

mod detach;
mod handover;
mod kept;
mod launch;
pub(crate) mod lock;
mod orphans;
mod port_holder;
mod requests;
mod role;
mod service_manager;
mod sockets;
mod stand_in;
mod stop;
mod upgrade;
mod voice;
mod watch;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cli::{Code, Environment, Problem};
use berth_clock::SystemClock;
use berth_edge::handover::Listeners;
use berth_process::{Group, Launch, Program, Stdio};
use berth_server::config::{BuildBounds, PushBounds};
use berth_spec::HttpsAddress;

use crate::args::{SupervisorArgs, UpArgs};
use crate::home::{self, Home, HomeError};
use crate::logs::{self, RoleLog};
use crate::run_dir::{self, RunDirError};
use crate::signals::Signals;
use crate::{exe, inherit, report};

use kept::Kept;
use launch::{Kind, RoleKind, Site};
use lock::{HomeLock, LockError};
use orphans::Orphan;
use sockets::{Api, Edge, SocketError, Sockets};
pub(crate) use upgrade::stand_guard;
use upgrade::{Fallback, Place};
use voice::{Outcome, Voice};
use watch::{Turn, Watch, WatchError};

/// Where the machine keeps which block of user ids is whose.
pub(crate) const RANGES: &str = "/var/lib/berth-ranges";
const EDGE_PORT: u16 = 8_080;
const API_PORT: u16 = 7_070;
/// How long an orphaned control may take to see that its supervisor is gone.
const CONTROL_PATIENCE: Duration = Duration::from_secs(2);

/// Why the platform did not come up, or did not stay up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Sockets(#[from] SocketError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("the home {} cannot be found", path.display())]
    NoSuchPlace { path: PathBuf, source: io::Error },
    #[error("neither --home nor HOME says where the platform is to live")]
    NoDefault,
    #[error("{variable} is to be {wants}")]
    Variable { variable: &'static str, wants: &'static str, page: &'static str },
    #[error("there is no Docker to run instances in: {0}")]
    Docker(String),
    #[error("the supervisor cannot {attempt}")]
    System { attempt: &'static str, source: io::Error },
    #[error("process {pid}, a {what} of a supervisor that is gone, does not end although it was killed")]
    Immortal { pid: u32, what: String },
    #[error("the supervisor in the background ended without a word; its log is {}", log.display())]
    Silent { log: PathBuf },
    #[error(transparent)]
    Launch(#[from] berth_process::LaunchError),
    /// What the supervisor in the background told of its own failure.
    #[error("{}", .0.detail)]
    Told(Box<Problem>),
}

impl UpError {
    /// The error as every verb tells one: with a code, and what to do next.
    pub(crate) fn problem(&self) -> Problem {
        let (code, next) = match self {
            Self::Told(problem) => return (**problem).clone(),
            _ if is_of_full_disk(self) => (Code::DiskFull, "free space, then start it again".to_owned()),
            Self::Lock(LockError::Held { .. }) => {
                (Code::HomeInUse, "`berth status` shows it, `berth down` ends it".to_owned())
            }
            Self::Sockets(SocketError::Taken { option, suggestion, .. }) => {
                let next =
                    format!("choose another address with --{option}, for example --{option} {suggestion}");
                (Code::PortTaken, next)
            }
            Self::Variable { page, .. } => {
                (Code::UsageInvalid, format!("set it to one or leave it unset; {page} has its meaning"))
            }
            Self::Docker(_) => (
                Code::DockerUnavailable,
                "start it, say where it listens by DOCKER_HOST=unix:///path, or leave out --backend"
                    .to_owned(),
            ),
            Self::Sockets(SocketError::Exposed { .. }) | Self::NoDefault => {
                (Code::UsageInvalid, "`berth up --help` shows what it takes".to_owned())
            }
            Self::Home(HomeError::NoBlock { .. }) => {
                (Code::UserIdsExhausted, "remove claims whose homes are gone, then start it again".to_owned())
            }
            Self::Home(_) | Self::RunDir(_) | Self::Lock(_) | Self::NoSuchPlace { .. } => (
                Code::HomeUnusable,
                "see what is wrong with `berth doctor`, or give another --home".to_owned(),
            ),
            _ => (Code::Internal, "see logs/platform/supervisor.log in the home".to_owned()),
        };
        Problem::new(code, report::chain(self)).next(next)
    }

    fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { attempt, source }
    }
}

/// Whether somewhere below it lies a write that found no space.
fn is_of_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(full))
}

/// `berth up`: runs the platform until it is stopped. `deploy` is deployed once it is up.
///
/// # Errors
/// [`UpError`].
pub(crate) fn up(args: &UpArgs, deploy: Option<&Path>) -> Result<(), UpError> {
    supervise(args, &home_path(args.home.as_deref())?, deploy, Start::default())
}

/// `berth up --detach`: runs the platform in the background, and returns once it is up or has failed to be.
///
/// # Errors
/// [`UpError`]: its own, or what the one in the background told.
pub(crate) fn up_detached(args: &UpArgs) -> Result<(), UpError> {
    detach::start(args, &home_path(args.home.as_deref())?)
}

/// The supervisor that `up --detach` starts: tells its starter how it went.
///
/// # Errors
/// [`UpError`], which the starter was told too.
pub(crate) fn in_background(args: &SupervisorArgs) -> Result<(), UpError> {
    let pipe = inherit::take(args.starter).map(File::from).map_err(UpError::system("reach its starter"))?;
    let for_failure = pipe.try_clone().map_err(UpError::system("copy a pipe"))?;
    let start = Start { starter: Some(pipe), stands_in: args.stand_in, kept: None };
    let result = home_path(args.up.home.as_deref()).and_then(|home| supervise(&args.up, &home, None, start));
    if let Err(error) = &result {
        tracing::error!(error = report::chain(error), "ending");
        voice::tell(for_failure, &Outcome::Failed(Box::new(error.problem())));
    }
    result
}

/// Refuses what the variables say that set the platform's bounds, before anything is there that they would be the bounds of.
fn check_variables() -> Result<(), UpError> {
    let look_up = |name: &str| std::env::var(name).ok();
    let refused = |variable, wants, page| UpError::Variable { variable, wants, page };
    PushBounds::read(look_up).map_err(|name| refused(name, "a whole number above nought", "docs/git.md"))?;
    BuildBounds::read(look_up).map_err(|(name, wants)| refused(name, wants, "docs/environment.md"))?;
    Ok(())
}

/// How this supervisor was started.
#[derive(Default)]
struct Start {
    /// Who waits for the platform to be up, where it is in the background.
    starter: Option<File>,
    /// Whether it stands in for one that died during an upgrade, until somebody starts the platform.
    stands_in: bool,
    /// The listeners that the program before this one left open.
    kept: Option<Kept>,
}

/// Supervises; where an upgrade began this program and it does not come up, the one before it does again.
fn supervise(args: &UpArgs, path: &Path, deploy: Option<&Path>, start: Start) -> Result<(), UpError> {
    let place = match (&start.starter, start.stands_in) {
        (None, _) => Place::Foreground,
        (Some(_), false) => Place::Background,
        (Some(_), true) => Place::StandIn,
    };
    let start = Start { kept: Kept::from_environment(), ..start };
    let mut fallback = Fallback::from_environment(start.kept.as_ref());
    let result = supervise_until_down(args, path, deploy, (start, place), &mut fallback);
    if let (Err(error), Some(fallback)) = (&result, &fallback) {
        // It may have come to its end before it had a log, and the one who ordered the upgrade is told to look there.
        let log = RoleLog::open(&home::logs_of(path), "supervisor").and_then(|log| log.writer());
        log.map_or_else(drop, logs::log_to);
        tracing::error!(error = report::chain(error), "an upgrade did not come up");
        let source = fallback.become_it(args, path, place);
        return Err(UpError::System { attempt: "become the program before this one again", source });
    }
    result
}

fn supervise_until_down(
    args: &UpArgs,
    path: &Path,
    deploy: Option<&Path>,
    (start, place): (Start, Place),
    fallback: &mut Option<Fallback>,
) -> Result<(), UpError> {
    // Before anything that may take long: a signal from here on waits for the loop.
    check_variables()?;
    let backend = args.backend.unwrap_or_default();
    berth_server::machine::check_backend(backend).map_err(UpError::Docker)?;
    let signals = Signals::watch().map_err(UpError::system("watch for signals"))?;
    // Shims outlive the control that starts them and come to us, who reap them.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| UpError::System { attempt: "become a subreaper", source: error.into() })?;
    let clock = SystemClock::new();
    home::prepare_directory(path)?;
    let mut lock = stand_in::take_home(path, start.stands_in)?;
    let home = home::create(path, Path::new(RANGES), &clock, &mut || Ok(()))?;
    let log = RoleLog::open(&home.logs(), "supervisor").map_err(UpError::system("open its log"))?;
    log.bound().map_err(UpError::system("bound its log"))?;
    logs::log_to(log.writer().map_err(UpError::system("open its log"))?);
    // One that a stand-in was upgraded to has a fallback.
    if place == Place::StandIn && fallback.is_none() {
        tracing::warn!("the program that was to take over ended without a word; the one before it stands in");
    }
    let platform = home.platform.platform.clone();
    let users = role_users(&home);
    let run_dir = Environment::of_process().run_directory(&platform);
    run_dir::prepare(&run_dir, users[0])?;
    let result =
        open_site(args, home, (&run_dir, start.kept), &users, &mut lock).and_then(|(site, orphans)| {
            let mut watch = Watch::new(site, orphans, signals, &clock, Voice::new(log, start.starter));
            watch_until_down(args, deploy, (&mut watch, place), fallback)
        });
    // After a failed start an orphaned edge may serve on, and the next start needs its handover.sock.
    let serves_on = Orphan::find_all(&platform, &users)
        .map_err(UpError::system("look for roles of an earlier supervisor"))?
        .iter()
        .any(|orphan| orphan.kind == RoleKind::Edge);
    if !serves_on {
        run_dir::remove(&run_dir);
    }
    drop(lock);
    result
}

/// The users that roles of this home run as, our own first.
fn role_users(home: &Home) -> Vec<u32> {
    let own = rustix::process::geteuid().as_raw();
    [own].into_iter().chain(home.uid_plan().map(|plan| plan.edge())).collect()
}

/// Everything up to the point where roles can be started.
fn open_site(
    args: &UpArgs,
    mut home: Home,
    (run_dir, mut kept): (&Path, Option<Kept>),
    users: &[u32],
    lock: &mut HomeLock,
) -> Result<(Site, Vec<Orphan>), UpError> {
    let orphans = Orphan::find_all(&home.platform.platform, users)
        .map_err(UpError::system("look for roles of an earlier supervisor"))?;
    let (orphans, mut inherited) = settle_orphans(orphans, run_dir)?;
    if inherited.plain.is_empty()
        && let Some(kept) = &mut kept
    {
        inherited = std::mem::take(&mut kept.edge);
    }
    let edge = args.edge.or(home.platform.edge).unwrap_or((Ipv4Addr::LOCALHOST, EDGE_PORT).into());
    let api = args.api.or(home.platform.api).unwrap_or((Ipv4Addr::LOCALHOST, API_PORT).into());
    let edge_user = home.uid_plan().map(|plan| plan.edge());
    let edge = at_edge(args, &home, edge);
    let sockets = Sockets::bind(edge, Api { at: api, kept }, inherited, run_dir, edge_user)?;
    // What could not be had this time is wanted the next time.
    let https = sockets.https_addr.map_or(edge.https, HttpsAddress::At);
    home.remember(sockets.edge_addr, https, sockets.api_addr, args.proxy_protocol.as_ref())?;
    lock.announce(sockets.edge_addr, sockets.api_addr).map_err(UpError::system("write its lock"))?;
    let exe = exe::publish(&home)?;
    let kind = Kind { isolation: args.isolation, backend: args.backend.unwrap_or_default() };
    let site =
        Site::new(home, run_dir.to_owned(), sockets, exe, kind).map_err(UpError::system("open the logs"))?;
    Ok((site, orphans))
}

/// Where apps are served, HTTPS with HTTP at `http`.
fn at_edge(args: &UpArgs, home: &Home, http: SocketAddr) -> Edge {
    // Where HTTPS was beside another address it says nothing of this one.
    let last = home.platform.https.filter(|_| home.platform.edge == Some(http));
    let https = args.https.or(last).unwrap_or_else(|| HttpsAddress::beside(http));
    Edge { http, https, insists: args.https.is_some() }
}

fn watch_until_down(
    args: &UpArgs,
    deploy: Option<&Path>,
    (watch, place): (&mut Watch<'_>, Place),
    fallback: &mut Option<Fallback>,
) -> Result<(), UpError> {
    loop {
        match watch.turn()? {
            Turn::Quiet => {}
            Turn::Up => {
                if let Some(fallback) = fallback.take() {
                    fallback.let_go();
                }
                watch.settle();
                upgrade::sweep(&watch.site().home.path);
                note_down(watch.site());
                let detached = watch.voice().is_detached();
                let message = greeting(args, watch.site(), detached);
                watch.voice().came_up(&message);
                service_manager::ready();
                if let Some(path) = deploy {
                    start_deploy(args, &watch.site().home.path, path)?;
                }
            }
            Turn::Upgrade(successor) => {
                let error = upgrade::begin(args, watch.site(), &successor, place);
                let program = successor.program;
                tracing::error!(error = report::chain(&error), program, "the program was not replaced");
            }
            Turn::Down => {
                watch.voice().say("stopped");
                return Ok(());
            }
        }
    }
}

/// Lets other terminals find the platform without being told its home.
fn note_down(site: &Site) {
    let api = format!("http://{}", site.sockets.api_addr);
    let noted = berth_cli::context::remember(
        &site.home.path,
        &site.home.platform.platform,
        &site.run_dir.join("api.sock"),
        &api,
        &Environment::of_process(),
    );
    if let Err(error) = noted {
        tracing::warn!(error = report::chain(&error), "other terminals will need --home");
    }
}

/// Deploys as the person at the terminal would, in a process of its own: the client needs an async runtime, which the
/// supervisor has no other use for. It is in our process group, so that Ctrl-C ends it too, and reaped as any child.
fn start_deploy(args: &UpArgs, home: &Path, path: &Path) -> Result<(), UpError> {
    let launch = Launch::new(Program::Own)
        .arg0("berth")
        .arg("--home")
        .arg(home)
        .args(args.json.then_some("--json"))
        .arg("deploy")
        .arg(path)
        .envs(std::env::vars_os())
        .group(Group::Inherited)
        .stdout(Stdio::Inherited)
        .stderr(Stdio::Inherited);
    let deploy = launch.start()?;
    tracing::info!(pid = deploy.pid(), path = %path.display(), "deploying");
    Ok(())
}

/// What is printed once the platform serves.
fn greeting(args: &UpArgs, site: &Site, detached: bool) -> String {
    let (edge, api) = (site.sockets.edge_addr, site.sockets.api_addr);
    let home = site.home.path.display();
    if args.json {
        return serde_json::json!({
            "home": home.to_string(),
            "run": site.run_dir.display().to_string(),
            "platform": site.home.platform.platform,
            "edge": edge.to_string(),
            "https": site.sockets.https_addr.map(|address| address.to_string()),
            "api": api.to_string(),
            "pid": std::process::id(),
        })
        .to_string();
    }
    let end = if detached { "`berth down` stops it and its apps" } else { "Ctrl-C stops it and its apps" };
    let https = site.sockets.https_addr.map_or_else(String::new, |https| {
        format!("\n        https://APP.localhost:{} (at {https})", https.port())
    });
    format!(
        "Berth is up; {end}.\n  apps  http://APP.localhost:{} (at {edge}){https}\n  API   http://{api}\n  home  {home}",
        edge.port()
    )
}

/// Waits for orphaned controls to be gone, and gets an orphaned edge's listeners. Gives the edges that go on serving until
/// ours does.
fn settle_orphans(
    orphans: Vec<Orphan>,
    run_dir: &Path,
) -> Result<(Vec<Orphan>, Listeners<TcpListener>), UpError> {
    let (controls, edges): (Vec<Orphan>, Vec<Orphan>) =
        orphans.into_iter().partition(|orphan| orphan.kind == RoleKind::Control);
    for control in controls {
        tracing::info!(pid = control.pid, "waiting for an orphaned control to end");
        if !control.wait(CONTROL_PATIENCE) {
            control.kill()?;
        }
    }
    if edges.is_empty() {
        return Ok((edges, Listeners::default()));
    }
    match handover::ask(run_dir) {
        Ok(listeners) => {
            tracing::info!(
                listeners = listeners.plain.len() + listeners.secure.len(),
                "an orphaned edge handed its listeners over"
            );
            Ok((edges, listeners))
        }
        // It holds listeners that the kernel deals connections to, and does not serve: better to refuse for a moment.
        Err(error) => {
            tracing::warn!(error = report::chain(&error), "an orphaned edge does not answer: killing it");
            edges.iter().try_for_each(Orphan::kill)?;
            Ok((Vec::new(), Listeners::default()))
        }
    }
}

/// The home, absolute and without links above it, so that every role and every claim calls it the same.
pub(crate) fn home_path(home: Option<&Path>) -> Result<PathBuf, UpError> {
    let path = match home {
        Some(path) => path.to_owned(),
        None => Environment::of_process().default_home().ok_or(UpError::NoDefault)?,
    };
    let fail = |source| UpError::NoSuchPlace { path: path.clone(), source };
    let absolute = std::path::absolute(&path).map_err(fail)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(fail(io::ErrorKind::InvalidInput.into()));
    };
    fs::create_dir_all(parent).map_err(fail)?;
    Ok(fs::canonicalize(parent).map_err(fail)?.join(name))
}
