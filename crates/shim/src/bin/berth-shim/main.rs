//! The shim: parent of one instance's app, and all that stands between it and the machine while control is away.
//!
//! One thread, one loop over poll(2): signals, the app's output, the clients of the socket. It starts the app, pumps
//! its output into log segments, starts it again when it exits, and ends the whole tree when it is told to. Usage:
//! `berth-shim <instance> -`, its input being a socket over which it is handed its descriptors, the start configuration among them; in a
//! container `berth-shim <instance> <path>`, the path being that of such a socket; `berth-shim within <descriptor>`, the descriptor being
//! that of a configuration, for one command, whose streams and end are the caller's; `berth-shim probe`, or `berth-shim lead-out <descriptor>`, to try what there can be.
//! Other descriptors (the lease of the instance's port) are merely held open, for as long as it lives.
//!
//! It asks the kernel for the time itself, and is exempt from the ban on that: it must link nothing of Berth's.

mod app;
mod backoff;
mod beside;
mod check;
mod client;
mod dialer;
mod exec;
mod internal;
mod keeper;
mod log;
mod lookup;
mod memory;
mod network;
mod sandbox;
mod supervise;
mod sweep;
mod system;
mod tap;
mod way_out;
mod within;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use berth_shim::config::StartConfig;
use berth_shim::door;

/// Exit statuses, for whoever started the shim and never heard of it: there is nowhere to print to.
const BAD_CONFIG: u8 = 64;
const BROKEN: u8 = 71;

/// The word that has it try what a sandbox takes, and say what came of it. The id of an instance holds slashes.
const PROBE: &str = "probe";
/// The word that has it try the way out of a configuration, and say what is wrong with it.
const LEAD_OUT: &str = "lead-out";
/// The word that has it run one command.
const WITHIN: &str = "within";

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    if word == PROBE {
        return sandbox::probe().map_or(ExitCode::from(BROKEN), |()| ExitCode::SUCCESS);
    }
    let Some(config) = read_config() else {
        return ExitCode::from(BAD_CONFIG);
    };
    if word == LEAD_OUT {
        return tell(way_out::attempt(&config));
    }
    if word == WITHIN {
        return within::run(&config);
    }
    match supervise::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(BROKEN),
    }
}

/// Says to standard output what is wrong, if anything is.
fn tell(outcome: Result<(), String>) -> ExitCode {
    let Err(what) = outcome else { return ExitCode::SUCCESS };
    system::unheeded(std::io::stdout().write_all(what.as_bytes()));
    ExitCode::from(BROKEN)
}

fn read_config() -> Option<StartConfig> {
    let word = std::env::args().nth(2)?;
    let number = if word == door::AT_INPUT {
        system::take_at_input().ok()?
    } else if word.starts_with('/') {
        door::take(std::os::unix::net::UnixStream::connect(word).ok()?).ok()?
    } else {
        word.parse().ok()?
    };
    let mut bytes = Vec::new();
    // Opened anew, since whoever wrote it has left its place at the end.
    std::fs::File::open(format!("/proc/self/fd/{number}")).ok()?.read_to_end(&mut bytes).ok()?;
    // It is memory, and we may live for years.
    drop(system::inherited(number).ok()?);
    StartConfig::decode(&bytes).ok()
}
