//! Where the supervisor speaks: to the person at the terminal, to the one who started it detached, and to its log.

use std::fs::File;
use std::io::{self, Write};

use berth_cli::Problem;
use serde::{Deserialize, Serialize};

use crate::logs::RoleLog;

/// The supervisor's voice.
#[derive(Debug)]
pub(crate) struct Voice {
    log: RoleLog,
    /// Where a detached supervisor says how its start went; `None` in the foreground and once it was said.
    starter: Option<File>,
    detached: bool,
}

/// How a detached start went, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The platform is up; what is printed.
    Up(String),
    /// It is not.
    Failed(Box<Problem>),
}

impl Voice {
    /// A voice that logs to `log`; `starter` is the pipe to whoever waits for a detached start.
    pub(crate) fn new(log: RoleLog, starter: Option<File>) -> Self {
        Self { log, detached: starter.is_some(), starter }
    }

    /// The supervisor's own log.
    pub(crate) fn log(&self) -> &RoleLog {
        &self.log
    }

    /// Whether nobody is at a terminal.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached
    }

    /// Says a line. A terminal that is gone is no reason to stop.
    pub(crate) fn say(&mut self, line: &str) {
        tracing::info!("{line}");
        if !self.detached {
            drop(writeln!(io::stdout(), "{line}"));
        }
    }

    /// The platform is up: says so to whoever waits, once.
    pub(crate) fn came_up(&mut self, message: &str) {
        match self.starter.take() {
            Some(pipe) => tell(pipe, &Outcome::Up(message.to_owned())),
            None if !self.detached => self.say(message),
            None => {}
        }
    }
}

/// Tells the one who waits for a detached start how it went. He may be gone.
pub(crate) fn tell(mut pipe: File, outcome: &Outcome) {
    let mut text = serde_json::to_vec(outcome).expect("an outcome has only plain fields");
    text.push(b'\n');
    drop(pipe.write_all(&text));
}
