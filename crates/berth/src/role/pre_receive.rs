//! Git's hook `pre-receive`: asks control whether a push may be taken, and shows whoever pushes what control has to say.
//!
//! It runs as the user that git runs as, which parsed what a stranger sent, and knows nothing: it hands on what git told it and prints
//! what it is answered. When control goes away before its last word the push is refused, and git leaves every branch where it was.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use berth_server::git::{FRAME_END, FRAME_TEXT, HOOK_SOCKET};

use super::take;

/// The longest text of one frame, in bytes; control sends lines.
const FRAME_MAX: u32 = 64 << 10;

/// Asks, and ends as control says.
pub(crate) fn run() -> ExitCode {
    let refused = match ask() {
        Ok(taken) if taken => return ExitCode::SUCCESS,
        Ok(_) => return ExitCode::FAILURE,
        Err(error) => error,
    };
    let text = format!("the platform went away during the push ({refused}); push again when it is up");
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::FAILURE
}

fn ask() -> io::Result<bool> {
    let number = std::env::var(HOOK_SOCKET).ok().and_then(|text| text.parse::<RawFd>().ok());
    let number = number.ok_or_else(|| io::Error::other("it was not started by a platform"))?;
    let mut control: UnixStream = take(number).map_err(io::Error::other)?;
    let quarantine = std::env::var("GIT_QUARANTINE_PATH").unwrap_or_default();
    control.write_all(format!("{quarantine}\n").as_bytes())?;
    // Control stops reading where there is far too much; its answer says so.
    drop(io::copy(&mut io::stdin(), &mut control));
    control.shutdown(Shutdown::Write)?;
    answer(control, io::stdout())
}

/// Prints what comes, to the last word.
fn answer(mut control: impl Read, mut shown: impl Write) -> io::Result<bool> {
    loop {
        let mut head = [0; 5];
        control.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        if length > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        (&mut control).take(u64::from(length)).read_to_end(&mut bytes)?;
        match kind {
            FRAME_TEXT => {
                shown.write_all(&bytes)?;
                shown.flush()?;
            }
            FRAME_END => return Ok(bytes == [0]),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&[kind], length.to_be_bytes().as_slice(), bytes].concat()
    }

    #[test]
    fn only_a_last_word_takes_a_push() {
        let answered = |frames: &[Vec<u8>]| {
            let mut shown = Vec::new();
            let taken = answer(frames.concat().as_slice(), &mut shown).ok();
            (taken, String::from_utf8(shown).unwrap())
        };
        let text = frame(FRAME_TEXT, b"built\n");
        assert_eq!(answered(&[text.clone(), frame(FRAME_END, &[0])]), (Some(true), "built\n".to_owned()));
        assert_eq!(answered(&[frame(FRAME_END, &[1])]).0, Some(false));
        assert_eq!(answered(&[frame(FRAME_END, &[])]).0, Some(false));
        for cut in
            [vec![], vec![text.clone()], vec![frame(FRAME_END, &[0])[..4].to_vec()], vec![frame(b'?', &[0])]]
        {
            assert_eq!(answered(&cut).0, None);
        }
        assert_eq!(answered(&[frame(FRAME_TEXT, &vec![0; 70_000])]).0, None);
    }
}
