//! The one binary: configuration, wiring, signals, supervisor and the roles.

mod args;
mod exe;
mod home;
mod inherit;
mod logs;
mod report;
mod role;
mod run_dir;
mod signals;
mod supervisor;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Invocation, Verb};

fn main() -> ExitCode {
    let verb = std::env::args().nth(1).unwrap_or_default();
    if args::is_ours(&verb) { run(&Invocation::parse().verb) } else { ExitCode::from(2) }
}

fn run(verb: &Verb) -> ExitCode {
    match (verb, role::run(verb)) {
        (Verb::Up(args), _) => match supervisor::up(args) {
            Ok(code) => code,
            Err(error) => fail(&error, error.status()),
        },
        (_, Some(Err(error))) => fail(&error, 1),
        (_, Some(Ok(code))) => code,
        (_, None) => ExitCode::from(2),
    }
}

fn fail(error: &dyn Error, status: u8) -> ExitCode {
    // Nobody may be there to read it.
    drop(writeln!(io::stderr(), "berth: {}", report::chain(error)));
    ExitCode::from(status)
}
