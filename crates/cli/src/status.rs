//! What the process ends with.

use std::process::ExitCode;

use berth_contract::ExitStatus;

/// What the process ends with: what a verb came to, or the exit status of the program that it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// One of ours.
    Own(ExitStatus),
    /// The program's, whatever that means to it; 128 and the signal's number when one ended it.
    Program(u8),
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        Self::Own(status)
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Own(status) => status.into(),
            Status::Program(number) => Self::from(number),
        }
    }
}
