//! What can go wrong with an instance.

use std::io;

use berth_docker::EngineError;
use berth_process::{KillError, LaunchError};
use berth_spec::command::CommandError;
use berth_spec::{InstanceId, Isolation};

/// Why the runtime could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such instance.
    #[error("there is no instance {0}")]
    NotFound(InstanceId),
    /// The id is in use by an instance that was started with another token.
    #[error("instance {0} exists already, started by another attempt")]
    Occupied(InstanceId),
    /// The instance still runs.
    #[error("instance {0} still runs; stop it first")]
    StillRuns(InstanceId),
    /// The instance does not run, so that nothing runs in it.
    #[error("instance {0} does not run just now")]
    NotRunning(InstanceId),
    /// The instance's shim is of a version that runs nothing beside the app.
    #[error(
        "instance {0} was started by a version of Berth that runs nothing in it; the next deployment has it started by this one"
    )]
    Older(InstanceId),
    /// The command's words and variables together are longer than what a shim takes.
    #[error("the command and its variables are longer than 64 KiB")]
    TooLong,
    /// The specification cannot be carried out.
    #[error("the instance cannot be started: {0}")]
    Invalid(&'static str),
    /// Nothing that can be started is left of the command once its variables are expanded.
    #[error("the command cannot be started")]
    Command(#[from] CommandError),
    /// Every port of the range is in use or excluded.
    #[error("no port between 20000 and 29999 is free")]
    NoPort,
    /// The port that was asked for is in use.
    #[error("port {0} is in use by another program")]
    PortTaken(u16),
    /// There is no such isolation on this machine, or none at all and nobody has said that none will do.
    #[error("{}", no_isolation(*wanted, *best, missing))]
    Isolation {
        /// What was asked for; `None` for any.
        wanted: Option<Isolation>,
        /// What there is.
        best: Isolation,
        /// What is missing, a sentence each.
        missing: Vec<String>,
    },
    /// The shim did not come up.
    #[error("the shim of instance {id} did not come up: {what}")]
    Shim {
        /// The instance.
        id: InstanceId,
        /// What was seen.
        what: &'static str,
    },
    /// The shim could not be started.
    #[error("the shim could not be started")]
    Launch(#[from] LaunchError),
    /// Processes of the instance could not be ended.
    #[error("instance {id} could not be ended")]
    Kill {
        /// The instance.
        id: InstanceId,
        /// What is left.
        #[source]
        source: KillError,
    },
    /// Processes of the instance were not ended in time; the runtime keeps trying.
    #[error("instance {0} did not end in time")]
    Timeout(InstanceId),
    /// Docker did not do what it was asked for.
    #[error("Docker did not do its part")]
    Engine(#[from] EngineError),
    /// The system refused.
    #[error("{what} failed")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn no_isolation(wanted: Option<Isolation>, best: Isolation, missing: &[String]) -> String {
    let what = match wanted {
        Some(level) => format!("this machine has no isolation of the level {level}; its best is {best}"),
        None => "this machine has nothing to keep apps apart, and no leave was given to run them without"
            .to_owned(),
    };
    [what].into_iter().chain(missing.iter().cloned()).collect::<Vec<_>>().join("; ")
}

/// Names what was being done when the system refused.
pub(crate) fn during(what: &'static str) -> impl Fn(io::Error) -> RuntimeError {
    move |source| RuntimeError::System { what, source }
}
