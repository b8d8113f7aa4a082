//! Why a call did not work out.

use std::time::Duration;

use crate::code::Code;
use crate::problem::Problem;

/// Why a call did not work out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing takes connections there.
    #[error("cannot connect to {endpoint}")]
    Unreachable {
        /// Where it was tried.
        endpoint: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, and the attempts to get it back were used up.
    #[error("lost the connection to {endpoint}")]
    Lost {
        /// Where it was.
        endpoint: String,
        /// What broke.
        #[source]
        source: hyper::Error,
    },
    /// The connection stayed up and nothing came in time.
    #[error("{endpoint} did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// Whom it was asked.
        endpoint: String,
        /// For how long.
        after: Duration,
    },
    /// The token would cross a network in the clear.
    #[error("{endpoint} is not on this machine, and a token is not sent without encryption")]
    Insecure {
        /// Where it would have gone.
        endpoint: String,
    },
    /// The platform refused.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// What answered does not speak this API.
    #[error("an answer with status {status} is not what the API gives: {detail}")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        detail: String,
    },
    /// A chunk could not be read again for sending.
    #[error("cannot read the source while sending it")]
    Source(#[source] std::io::Error),
}

impl ClientError {
    /// The error's code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } => Code::Unreachable,
            Self::Insecure { .. } => Code::Forbidden,
            Self::Problem(problem) => problem.code,
            Self::Answer { .. } => Code::Internal,
            Self::Source(_) => Code::SourceUnreadable,
        }
    }

    /// Whether the platform itself said no, or not yet: it is up and about to take calls.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } => true,
            Self::Problem(problem) => problem.status == 503,
            Self::Insecure { .. } | Self::Answer { .. } | Self::Source(_) => false,
        }
    }
}
