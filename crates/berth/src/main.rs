//! The one binary: configuration, wiring, signals, supervisor and the roles.

mod args;
mod exe;
mod home;
mod inherit;
mod logs;
mod report;
mod restore;
mod role;
mod run_dir;
mod signals;
mod supervisor;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use berth_cli::args::{DeployArgs, OfApp, Waiting};
use berth_cli::failure::Failure;
use berth_cli::{CommandLine, Environment, Globals, Parsed, Screen, Verb};
use berth_clock::{Clock, SystemClock};
use clap::Parser;
use mimalloc::MiMalloc;

use args::{RoleLine, UpArgs};
use supervisor::UpError;

/// Edge allocates a few kilobytes at a time for each request of HTTP/2, which glibc does not do from a thread's own store (decision 0047).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // The mask of the one who started us outlives exec, and a role, or the deploy of `up --deploy`, is started by a
    // supervisor that has blocked what it watches for.
    if let Err(error) = signals::unblock_all() {
        return fail(&error, 1);
    }
    if role::is_hook(std::env::args_os().next().as_deref()) {
        return role::run_hook();
    }
    match berth_cli::parse(std::env::args_os()) {
        Parsed::Role => match role::run(&RoleLine::parse().role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Parsed::Up(up, globals) => match bring_up(&up, &globals) {
            Ok(code) => code,
            Err(error) => not_up(&error, &globals),
        },
        Parsed::Restore(args, globals) => restore::run(&args, &globals),
        Parsed::Verb(line) => perform(*line),
        Parsed::Done(status) => status.into(),
    }
}

fn bring_up(up: &berth_cli::UpArgs, globals: &Globals) -> Result<ExitCode, UpError> {
    let environment = Environment::of_process();
    let home = globals.home.clone().or_else(|| environment.variable("BERTH_HOME").map(PathBuf::from));
    let args = UpArgs {
        home,
        edge: up.edge,
        https: up.https,
        api: up.api,
        proxy_protocol: up.proxy_protocol.clone(),
        isolation: up.isolation,
        backend: up.backend,
        json: globals.json,
    };
    if !up.detach {
        supervisor::up(&args, up.deploy.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    supervisor::up_detached(&args)?;
    match &up.deploy {
        Some(path) => Ok(perform(deployment(globals, args.home, path.clone()))),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// `berth deploy PATH`, as if it had been typed.
fn deployment(globals: &Globals, home: Option<PathBuf>, path: PathBuf) -> CommandLine {
    let deploy = DeployArgs {
        path,
        of: OfApp { app: None },
        image: None,
        strategy: None,
        dry_run: false,
        message: None,
        commit: None,
        waiting: Waiting { detach: false },
    };
    CommandLine { globals: Globals { home, ..globals.clone() }, verb: Verb::Deploy(deploy) }
}

fn perform(line: CommandLine) -> ExitCode {
    let environment = Environment::of_process();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut screen = Screen::standard(line.globals.color, environment.variable("NO_COLOR").is_some());
    berth_cli::run(line, &environment, &clock, &mut screen).into()
}

/// Tells why the platform is not up, as every verb tells its failures.
fn not_up(error: &UpError, globals: &Globals) -> ExitCode {
    let no_color = Environment::of_process().variable("NO_COLOR").is_some();
    let mut screen = Screen::standard(globals.color, no_color);
    let failure = Failure::Local(Box::new(error.problem()));
    berth_cli::failure::tell(&failure, globals.json, &mut screen).into()
}

fn fail(error: &dyn Error, status: u8) -> ExitCode {
    // Nobody may be there to read it.
    drop(writeln!(io::stderr(), "berth: {}", report::chain(error)));
    ExitCode::from(status)
}
