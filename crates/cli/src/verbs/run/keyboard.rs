//! Standard input while a command is connected to it: every key as it comes, without holding up anything else.

use std::io::{self, Read as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// How much is read at once.
const PIECE: usize = 32 << 10;

/// The terminal without any treatment of what is typed, until it is dropped.
#[derive(Debug)]
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no treatment.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before).unwrap_or_default();
    }
}

/// What is typed.
#[derive(Debug)]
pub(super) struct Keyboard {
    pieces: mpsc::Receiver<Vec<u8>>,
    /// What was read and did not fit into the credit.
    rest: Vec<u8>,
    ended: bool,
}

impl Keyboard {
    /// Reads on a thread of its own, which nobody waits for: a read of a terminal ends when somebody types, and the process ends before.
    pub(super) fn listen() -> io::Result<Self> {
        // One piece waits while another is read: more would only be read ahead of the command.
        let (send, pieces) = mpsc::channel(1);
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE];
                match input.read(&mut piece) {
                    Ok(0) => return,
                    Ok(read) => {
                        piece.truncate(read);
                        if send.blocking_send(piece).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self { pieces, rest: Vec::new(), ended: false })
    }

    /// What is typed next, at most `most` bytes; `None` once at the end. After that it waits for ever. May be given up.
    pub(super) async fn next(&mut self, most: usize) -> Option<Vec<u8>> {
        if self.ended {
            std::future::pending::<()>().await;
        }
        if self.rest.is_empty() {
            match self.pieces.recv().await {
                Some(piece) => self.rest = piece,
                None => {
                    self.ended = true;
                    return None;
                }
            }
        }
        let after = self.rest.split_off(most.min(PIECE).min(self.rest.len()));
        Some(std::mem::replace(&mut self.rest, after))
    }
}
