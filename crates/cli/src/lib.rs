//! Verbs and printing.
//!
//! [`parse`] reads the command line. The binary keeps `up` and its hidden roles for itself and gives every other verb to
//! [`run`], which speaks to the platform over the typed client and writes to a [`Screen`]. How each verb is called is in
//! [`args`], how it is done in `verbs`, how failures are told in [`failure`], which platform is meant in [`context`].
#![warn(missing_docs)]

pub mod args;
mod completion;
pub mod context;
pub mod failure;
pub mod figures;
pub mod screen;
pub mod status;
pub mod table;
mod verbs;

use std::ffi::OsString;
use std::sync::Arc;

use berth_clock::Clock;

pub use args::{CommandLine, Globals, RestoreArgs, UpArgs, Verb};
pub use berth_contract::{Code, ExitStatus, Problem};
pub use context::Environment;
pub use screen::Screen;
pub use status::Status;

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// A role of the platform, `berth __control ...`: the arguments are the binary's own affair.
    Role,
    /// Start a platform.
    Up(Box<UpArgs>, Box<Globals>),
    /// Make a platform's home of a backup.
    Restore(Box<RestoreArgs>, Box<Globals>),
    /// A verb for [`run`].
    Verb(Box<CommandLine>),
    /// Nothing more: help or the version was printed, or what is wrong with the command line.
    Done(ExitStatus),
}

/// Reads the command line, the program's name first. Help, version and usage errors are printed here.
#[must_use]
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|verb| verb.as_encoded_bytes().starts_with(b"__")) {
        return Parsed::Role;
    }
    if let Some(answer) = completion::answer(&arguments) {
        let written = answer.and_then(|found| std::io::Write::write_all(&mut std::io::stdout(), &found));
        return Parsed::Done(if written.is_ok() { ExitStatus::Ok } else { ExitStatus::Failed });
    }
    match args::read(arguments) {
        Ok(CommandLine { globals, verb: Verb::Up(up) }) => Parsed::Up(Box::new(up), Box::new(globals)),
        Ok(CommandLine { globals, verb: Verb::Restore(restore) }) => {
            Parsed::Restore(Box::new(restore), Box::new(globals))
        }
        Ok(other) => Parsed::Verb(Box::new(other)),
        Err(problem) => {
            // Nobody may be there to read it.
            drop(match args::meant(&problem) {
                Some((verb, instead)) => tell_meant(&verb, instead),
                None => problem.print(),
            });
            Parsed::Done(if problem.use_stderr() { ExitStatus::Usage } else { ExitStatus::Ok })
        }
    }
}

/// What other platforms call otherwise.
fn tell_meant(verb: &str, instead: &str) -> std::io::Result<()> {
    let mut screen = Screen::standard(args::ColorChoice::Auto, std::env::var_os("NO_COLOR").is_some());
    screen.marked_aside(
        "error:",
        screen::Style::Bad,
        &format!("there is no verb `{}`", screen::harmless(verb)),
    )?;
    screen.aside(&format!("  next: {instead}"))
}

/// Does what the command line says and tells the outcome on `screen`.
#[must_use]
pub fn run(
    line: CommandLine,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    screen: &mut Screen,
) -> Status {
    let json = line.globals.json;
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failure::Failure::Output)
        .and_then(|runtime| runtime.block_on(verbs::perform(line, environment, clock, screen)));
    match outcome {
        Ok(status) => status,
        Err(failure) => failure::tell(&failure, json, screen).into(),
    }
}
