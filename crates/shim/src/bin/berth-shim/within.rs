//! One command for whoever waits for it, a step of a build: no log, no restarts, no socket.
//!
//! What it reads and writes is the caller's, and so is its end: this process ends as the command did, once nothing of what the command
//! started is left. It dies with its caller, and its init with it, so that nothing outlives whoever wanted the command.

use std::io::{self, Write as _};
use std::process::ExitCode;

use berth_shim::config::{Network, StartConfig};
use berth_shim::wire::{Failure, Step};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use crate::app::{App, Begun, Streams};
use crate::keeper::Keeper;
use crate::network;
use crate::sandbox::{self, Init};
use crate::sweep::sweep;
use crate::system::{self, Reaped};
use crate::way_out::Laid;

/// Exit statuses of a command that was not run, as shells have them.
const NOT_THERE: u8 = 127;
const NOT_RUN: u8 = 126;
/// What is added to the number of a signal that we cannot end by ourselves.
const SIGNALLED: i32 = 128;

/// Runs the command of `config` to its end, and ends as it did.
pub(crate) fn run(config: &StartConfig) -> ExitCode {
    match complete(config) {
        Ok(Ok(ended)) => end_as(&ended),
        Ok(Err(failure)) => {
            say(&format!("the command was not started: {failure}"));
            ExitCode::from(match failure {
                Failure { step: Step::Exec, errno: libc::ENOENT } => NOT_THERE,
                Failure { step: Step::Exec, .. } => NOT_RUN,
                _ => crate::BROKEN,
            })
        }
        Err(error) => {
            say(&format!("what stands around the command could not be put up: {error}"));
            ExitCode::from(crate::BROKEN)
        }
    }
}

/// Says something where the command would have: there is nowhere else.
fn say(what: &str) {
    system::unheeded(writeln!(io::stderr(), "berth: {what}"));
}

fn complete(config: &StartConfig) -> io::Result<Result<Reaped, Failure>> {
    let caller = rustix::process::getppid();
    rustix::thread::set_name(c"berth-shim")?;
    let keeper = config.way_out.as_ref().map(|way| Keeper::start(&way.program)).transpose()?;
    if config.sandbox.as_ref().is_some_and(|sandbox| sandbox.as_ordinary_user) {
        sandbox::enter_user_namespace()?;
    }
    // Whatever a change of rights has made of what the caller had set.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != caller {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let begun = Begun::new(config, Some(Streams::own()?), false);
    let network = if config.network == Network::Own { Some(network::enter(config.namespace)?) } else { None };
    if let (Some(way), Some(keeper)) = (&config.way_out, &keeper) {
        // In time or not: a command that starts without it finds it later.
        let _is_up = Laid::make(way)?.lead_out(keeper)?;
    }
    let app = match begun.and_then(|begun| begun.go(config, network.as_ref())) {
        Ok((app, _no_pipes)) => app,
        Err(failure) => return Ok(Err(failure)),
    };
    let ended = wait(&app)?;
    // Nobody who was started by it goes on after it: killing init is killing all, and without one all descend from us.
    while sweep(None, None) > 0 {
        system::wait();
    }
    Ok(app.failure().map_or(Ok(ended), Err))
}

/// Waits until the command has ended, whatever it left behind.
fn wait(app: &App) -> io::Result<Reaped> {
    loop {
        if let Some(init) = app.init() {
            let says_no_more = wait_for_word(init)?;
            if let Some(ended) = app.told() {
                return Ok(ended);
            }
            if !says_no_more {
                continue;
            }
        }
        // The command itself, or an init that has let go of its end and is about to go.
        let reaped = system::wait().ok_or(rustix::io::Errno::CHILD)?;
        if let Some(ended) = app.ended_with(&reaped) {
            return Ok(ended);
        }
    }
}

/// Waits until init has said something; whether it will say no more.
fn wait_for_word(init: &Init) -> io::Result<bool> {
    let mut polled = [PollFd::new(init, PollFlags::IN)];
    match rustix::event::poll(&mut polled, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().any(|polled| polled.revents().contains(PollFlags::HUP)))
}

/// Ends with the command's status, or by the signal that ended it.
fn end_as(ended: &Reaped) -> ExitCode {
    let Some(signal) = ended.signal else {
        let code = ended.code.and_then(|code| u8::try_from(code).ok());
        return ExitCode::from(code.unwrap_or(crate::BROKEN));
    };
    // The core, if one was wanted, was the command's.
    system::unheeded(system::limit(libc::RLIMIT_CORE, 0));
    system::reset_signals();
    if let Some(named) = Signal::from_named_raw(signal) {
        system::unheeded(rustix::process::kill_process(rustix::process::getpid(), named));
    }
    ExitCode::from(u8::try_from(SIGNALLED.saturating_add(signal)).unwrap_or(crate::BROKEN))
}
