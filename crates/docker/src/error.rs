//! What can go wrong with a daemon.

use std::io;
use std::path::PathBuf;

/// Why a daemon did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody is there to be asked.
    #[error("no Docker answers at {}", list(.0))]
    Absent(Vec<PathBuf>),
    /// It says no.
    #[error("{what}: the daemon says: {message}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It could not be understood, or the connection broke.
    #[error("{what} failed")]
    Broken {
        /// What it was asked for.
        what: &'static str,
        /// What was seen.
        #[source]
        source: Box<bollard::errors::Error>,
    },
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

impl EngineError {
    /// Whether what was asked about is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether nobody was there to be asked.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }

    /// Whether what was asked for is so already, or cannot be as things are.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 304 | 409, .. })
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(" or ")
}

/// Names what the daemon was asked for when it did not do it.
pub(crate) fn asking(what: &'static str) -> impl Fn(bollard::errors::Error) -> EngineError {
    move |error| match error {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            EngineError::Refused { what, status: status_code, message }
        }
        bollard::errors::Error::DockerStreamError { error } => {
            EngineError::Refused { what, status: 500, message: error }
        }
        source => EngineError::Broken { what, source: Box::new(source) },
    }
}

/// Names what was being done when the system refused.
pub(crate) fn during(what: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |source| EngineError::System { what, source }
}
