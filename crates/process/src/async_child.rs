//! Children for tokio: awaited by their pidfd, their pipes read without blocking.
#![expect(unsafe_code, reason = "tokio takes descriptors to be watched in an unsafe function alone")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::child::Child;

/// Completes when `fd`, a pidfd or a [`Child`], tells that its process has ended.
///
/// # Errors
/// When there are too many open files, or `fd` cannot be polled.
pub async fn exited(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` keeps its descriptor open and the same for as long as it lives.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
    fd.readable().await.map(drop)
}

/// The pipes to and from a child.
#[derive(Debug)]
pub struct AsyncPipes {
    /// To its input, when that is piped.
    pub stdin: Option<pipe::Sender>,
    /// From its output, when that is piped.
    pub stdout: Option<pipe::Receiver>,
    /// From its errors, when those are piped.
    pub stderr: Option<pipe::Receiver>,
}

impl Child {
    /// Waits until the child ends, and reaps it. May be given up at any await and begun again.
    ///
    /// # Errors
    /// When somebody else reaped it.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            exited(&*self).await?;
        }
    }

    /// Takes the child's pipes for use by tokio.
    ///
    /// # Errors
    /// When a pipe cannot be made non-blocking.
    pub fn take_pipes(&mut self) -> io::Result<AsyncPipes> {
        Ok(AsyncPipes {
            stdin: self.stdin.take().map(OwnedFd::from).map(pipe::Sender::from_owned_fd).transpose()?,
            stdout: self.stdout.take().map(OwnedFd::from).map(pipe::Receiver::from_owned_fd).transpose()?,
            stderr: self.stderr.take().map(OwnedFd::from).map(pipe::Receiver::from_owned_fd).transpose()?,
        })
    }
}
