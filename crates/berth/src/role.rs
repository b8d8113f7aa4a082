//! The roles that the supervisor, or a shim, starts this binary as.

mod control;
mod edge;
mod pre_receive;
mod static_files;
mod tree;

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::path::Path;

use berth_server::formats::Formats;

use crate::args::{Role, RoleArgs};
use crate::home::HomeError;
use crate::supervisor::{self, UpError};
use crate::{inherit, logs, signals};

/// Why a role ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    #[error("descriptor {number} was not handed down")]
    Descriptor { number: RawFd, source: io::Error },
    #[error("the role cannot {attempt}")]
    System { attempt: &'static str, source: io::Error },
    #[error("the role was started for platform {started_for}, but the home is of {found}")]
    OtherHome { started_for: String, found: String },
    #[error("the variable {name} is to be {wanted}, and is not")]
    Variable { name: &'static str, wanted: &'static str },
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Control(#[from] berth_server::RunError),
    #[error(transparent)]
    Edge(#[from] berth_edge::EdgeError),
    #[error(transparent)]
    Supervisor(#[from] UpError),
}

impl RoleError {
    fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { attempt, source }
    }
}

pub(crate) use edge::{H2C_VARIABLE, HTTP1_VARIABLE};
pub(crate) use pre_receive::run as run_hook;

/// Whether git started this program, under the name of the hook that it is for it.
pub(crate) fn is_hook(program: Option<&OsStr>) -> bool {
    program.and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == berth_server::git::HOOK)
}

/// Runs `role` until it ends.
///
/// # Errors
/// [`RoleError`].
pub(crate) fn run(role: &Role) -> Result<(), RoleError> {
    // Started by way of /proc/self/exe it would be called `exe` by ps, top and whoever asks who has a port.
    let named = rustix::thread::set_name(match role {
        Role::Supervisor(_) => c"berth",
        Role::Guard(_) => c"berth-guard",
        Role::Control(_) => c"berth-control",
        Role::Edge(_) => c"berth-edge",
        Role::Static(_) => c"berth-static",
        Role::Formats => c"berth",
    });
    named.map_err(|error| RoleError::system("name itself")(error.into()))?;
    match role {
        Role::Supervisor(args) => supervisor::in_background(args)?,
        Role::Guard(args) => {
            return Err(RoleError::system("take the place of a supervisor")(supervisor::stand_guard(args)));
        }
        Role::Control(args) => enter().and_then(|()| control::run(args))?,
        Role::Edge(args) => enter().and_then(|()| edge::run(args))?,
        Role::Static(args) => static_files::run(args)?,
        Role::Formats => print_formats().map_err(RoleError::system("print"))?,
    }
    Ok(())
}

fn print_formats() -> io::Result<()> {
    let mut out = io::stdout();
    serde_json::to_writer(&mut out, &Formats::OWN)?;
    writeln!(out)
}

/// What control and edge do first: undo the supervisor's signal mask, and log to the file that is their standard error.
fn enter() -> Result<(), RoleError> {
    signals::unblock_all().map_err(RoleError::system("let signals through"))?;
    logs::log_to(io::stderr);
    Ok(())
}

/// Takes a descriptor and makes it what it is.
fn take<T: From<std::os::fd::OwnedFd>>(number: RawFd) -> Result<T, RoleError> {
    inherit::take(number).map(T::from).map_err(|source| RoleError::Descriptor { number, source })
}

/// The pipe to say that we are ready, and the leash.
struct Ties {
    ready: std::os::fd::OwnedFd,
    leash: std::os::fd::OwnedFd,
}

impl Ties {
    fn take(args: &RoleArgs) -> Result<Self, RoleError> {
        Ok(Self { ready: take(args.ready)?, leash: take(args.leash)? })
    }
}
