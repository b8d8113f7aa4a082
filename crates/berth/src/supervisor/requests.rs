//! Lines that control writes to its supervisor.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use berth_server::config::SupervisorRequest;

/// The supervisor's end. At most one unfinished line is held.
#[derive(Debug)]
pub(crate) struct Requests {
    stream: UnixStream,
    rest: Vec<u8>,
    closed: bool,
}

impl Requests {
    /// Reads from `stream`, which does not block.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, rest: Vec::new(), closed: false }
    }

    /// Ends what could be said to control, which is nothing but this: the platform is up, and this program stays.
    pub(crate) fn settle(&self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            tracing::warn!(%error, "control does not hear that the platform is up");
        }
    }

    /// The descriptor to poll, while there may come more.
    pub(crate) fn pollable(&self) -> Option<BorrowedFd<'_>> {
        (!self.closed).then(|| self.stream.as_fd())
    }

    /// The requests that have arrived whole. What is no request is logged and passed over.
    pub(crate) fn take(&mut self) -> Vec<SupervisorRequest> {
        let mut buffer = [0; 1_024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => self.rest.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                tracing::warn!(%error, "control's requests cannot be read");
                self.closed = true;
            }
        }
        let mut requests = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            match String::from_utf8_lossy(&line[..end]).parse() {
                Ok(request) => requests.push(request),
                Err(error) => tracing::warn!(%error, "passed over"),
            }
        }
        if self.rest.len() >= SupervisorRequest::LINE_MAX {
            tracing::warn!("a line of control's is too long: passed over");
            self.rest.clear();
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let (mut control, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut requests = Requests::new(ours);
        assert_eq!(requests.take(), []);
        control.write_all(b"restart-edge\nnonsense\nstopping 2 4").unwrap();
        assert_eq!(requests.take(), [SupervisorRequest::RestartEdge]);
        control.write_all(b"0000\ndown\n").unwrap();
        assert_eq!(
            requests.take(),
            [SupervisorRequest::Stopping { apps: 2, within_ms: 40_000 }, SupervisorRequest::Down]
        );
        control.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(requests.take(), []);
        control.write_all(b"\ndown\n").unwrap();
        assert_eq!(requests.take(), [SupervisorRequest::Down]);
        drop(control);
        requests.take();
        assert!(requests.pollable().is_none());
    }
}
