//! How a shim is asked to run one more command in its instance, as `docker exec` does it.
//!
//! Whoever asks connects to the shim's socket, sends one [`Exec`] with three descriptors attached to its first bytes (input, output, errors), and
//! hears [`crate::wire::FromShim::Executed`] when the command has ended and nothing is left of what it started. Whoever hangs up
//! before has the command and all that it started killed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::dial;
use crate::tlv::{self, Fields, Malformed, put};
use crate::wire::{FRAME_MAX, frame};

/// The number of this kind of frame.
const KIND: u8 = 21;

/// A command to be run within an instance: with the app's environment, directory, user, limits and confinement, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables that win over the app's, as `NAME=value`.
    pub env: Vec<String>,
    /// Whether the three descriptors are a terminal, which becomes the one that controls the command.
    pub terminal: bool,
}

impl Exec {
    /// The request as a frame; `None` when it is longer than any frame may be.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut body = vec![KIND];
        self.argv.iter().for_each(|arg| put(&mut body, 1, arg.as_bytes()));
        self.env.iter().for_each(|entry| put(&mut body, 2, entry.as_bytes()));
        put(&mut body, 3, &[u8::from(self.terminal)]);
        (body.len() <= FRAME_MAX).then(|| frame(&body))
    }

    /// Reads the body of a frame; `None` for one of another kind.
    ///
    /// # Errors
    /// `Malformed` says what is wrong with the bytes. A field that is not known is an error: a command must not run otherwise than it was
    /// meant to.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((&KIND, fields)) = body.split_first() else { return Ok(None) };
        let mut exec = Self::default();
        for field in Fields::of(fields) {
            match field? {
                (1, field) => exec.argv.push(tlv::path(field)?),
                (2, field) => exec.env.push(tlv::path(field)?),
                (3, field) => exec.terminal = field == [1],
                _ => return Err(Malformed("a field of the request is not known")),
            }
        }
        if exec.argv.first().is_none_or(String::is_empty) {
            return Err(Malformed("there is no command"));
        }
        Ok(Some(exec))
    }
}

/// Begins to send a request, with the descriptors attached, and gives how many of its bytes were taken.
///
/// # Errors
/// What the system says; [`io::ErrorKind::WouldBlock`] when `to` takes nothing just now.
pub fn send(to: impl AsFd, request: &[u8], streams: [BorrowedFd<'_>; 3]) -> io::Result<usize> {
    dial::send(to, &streams, &[request])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::take_frame;

    proptest! {
        #[test]
        fn a_request_comes_back(argv in prop::collection::vec("[^\0]{1,20}", 1..5), env in prop::collection::vec("[^\0]*", 0..5), terminal: bool) {
            let exec = Exec { argv, env, terminal };
            let body = take_frame(&mut exec.encode().unwrap()).unwrap().unwrap();
            prop_assert_eq!(Exec::decode(&body).unwrap(), Some(exec));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(Exec::decode(&[&[KIND], &bytes[..]].concat()));
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert_eq!(Exec::decode(&[KIND + 1]), Ok(None));
        assert!(Exec::decode(&[KIND]).is_err());
        let long = Exec { argv: vec!["x".repeat(FRAME_MAX)], ..Exec::default() };
        assert_eq!(long.encode(), None);
    }
}
