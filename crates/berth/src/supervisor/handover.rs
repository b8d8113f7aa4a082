//! Taking the listeners from an edge that has outlived its supervisor.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_edge::handover::{HandoverError, Listeners, receive};

/// An edge that does not answer for this long is wedged.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there are no listeners.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("nobody answers at handover.sock")]
    Nobody(#[source] io::Error),
    #[error(transparent)]
    Refused(#[from] HandoverError),
}

/// Asks the edge behind `handover.sock` for its listeners.
///
/// # Errors
/// When nobody answers in time, or with something else: the edge is gone, hangs, or is of another version.
pub(crate) fn ask(run_dir: &Path) -> Result<Listeners<TcpListener>, AskError> {
    let stream = UnixStream::connect(run_dir.join("handover.sock")).map_err(AskError::Nobody)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(AskError::Nobody)?;
    Ok(receive(&stream)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nobody_there_and_nobody_who_speaks_are_errors() {
        let run = tempfile::tempdir().unwrap();
        assert!(matches!(ask(run.path()), Err(AskError::Nobody(_))));
        let door = UnixListener::bind(run.path().join("handover.sock")).unwrap();
        let edge = std::thread::spawn(move || drop(door.accept().unwrap()));
        assert!(matches!(ask(run.path()), Err(AskError::Refused(_))));
        edge.join().unwrap();
        assert!(matches!(ask(run.path()), Err(AskError::Nobody(_))), "a name without a listener");
    }
}
