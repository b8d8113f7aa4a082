//! What a one-off command reads and writes when somebody is connected to it: three pipes, or a terminal.
//!
//! The bytes go straight between the command and whoever holds the other ends; the shim lets go of its copies. So a reader that is slow
//! holds the command back as any pipe does, and nothing in between has to buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_process::User;
use berth_shim::config::Streams;
use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;

/// How somebody wants to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// By three pipes, so that output and errors stay apart and every byte arrives as it was written.
    Pipes,
    /// By a terminal of this size.
    Terminal(Size),
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its lines.
    pub rows: u16,
    /// Its columns.
    pub columns: u16,
}

/// Our ends. None of them blocks.
#[derive(Debug)]
pub enum Attached {
    /// Of three pipes.
    Pipes {
        /// What is written here the command reads.
        input: OwnedFd,
        /// What the command writes to its output.
        output: OwnedFd,
        /// What the command writes to its errors.
        errors: OwnedFd,
    },
    /// Of a terminal.
    Terminal(OwnedFd),
}

/// Our ends, to be waited for.
#[derive(Debug)]
pub struct Ends {
    /// What is written here the command reads. Dropped, a pipe has ended.
    pub input: End,
    /// What the command writes.
    pub output: End,
    /// What it writes to its errors, where that is kept apart.
    pub errors: Option<End>,
    /// Whether it is a terminal.
    pub terminal: bool,
}

/// One end.
#[derive(Debug, Clone)]
pub struct End(Arc<AsyncFd<OwnedFd>>);

impl Attached {
    /// The ends, to be waited for. Called within a tokio runtime.
    ///
    /// # Errors
    /// When the system cannot watch one.
    pub fn into_ends(self) -> io::Result<Ends> {
        let end = End::watched;
        match self {
            Self::Pipes { input, output, errors } => {
                let errors = Some(end(errors)?);
                Ok(Ends { input: end(input)?, output: end(output)?, errors, terminal: false })
            }
            Self::Terminal(terminal) => {
                let terminal = end(terminal)?;
                Ok(Ends { input: terminal.clone(), output: terminal, errors: None, terminal: true })
            }
        }
    }
}

impl End {
    #[expect(
        unsafe_code,
        reason = "tokio asks to be promised that the descriptor stays open while it is watched"
    )]
    fn watched(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open until it is dropped, and what watches it owns it.
        let watched = unsafe { AsyncFd::register(fd) };
        Ok(Self(Arc::new(watched?)))
    }

    /// Reads what is there, once something is; nought at the end. May be given up at any await.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // So a terminal says that nobody has its other side open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes all of `bytes`, as they are taken.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                Ok(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Tells a terminal, and with it the command, its new size.
    ///
    /// # Errors
    /// What the system says; a pipe has no size.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        resize(self.0.get_ref(), size)
    }
}

fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The command's ends.
#[derive(Debug)]
pub(crate) struct AppEnds {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
    terminal: bool,
}

impl AppEnds {
    /// Input, output and errors, to be handed over.
    pub(crate) fn borrowed(&self) -> [BorrowedFd<'_>; 3] {
        [&self.input, &self.output, &self.errors].map(AsFd::as_fd)
    }

    /// The numbers that they have in the shim, to which `add` hands them.
    pub(crate) fn numbered(&self, mut add: impl FnMut(&OwnedFd) -> io::Result<i32>) -> io::Result<Streams> {
        Ok(Streams {
            input: add(&self.input)?,
            output: add(&self.output)?,
            errors: add(&self.errors)?,
            terminal: self.terminal,
        })
    }
}

/// Makes both sides. The command's belongs to its user, who may open `/dev/stdout` or its terminal anew.
pub(crate) fn make(how: Attach, user: Option<&User>) -> io::Result<(Attached, AppEnds)> {
    let owned = |fd: &OwnedFd, group: bool| match user {
        Some(user) => {
            let gid = group.then(|| Gid::from_raw(user.gid));
            rustix::fs::fchown(fd, Some(Uid::from_raw(user.uid)), gid)
        }
        None => Ok(()),
    };
    match how {
        Attach::Pipes => {
            let [(app_input, input), (output, app_output), (errors, app_errors)] =
                [pipe()?, pipe()?, pipe()?];
            for fd in [&app_input, &app_output, &app_errors] {
                owned(fd, true)?;
            }
            for fd in [&input, &output, &errors] {
                rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
            }
            let ends = AppEnds { input: app_input, output: app_output, errors: app_errors, terminal: false };
            Ok((Attached::Pipes { input, output, errors }, ends))
        }
        Attach::Terminal(size) => {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let ours = rustix::pty::openpt(flags)?;
            rustix::pty::unlockpt(&ours)?;
            // By the descriptor and not by the name: which file system lies at /dev/pts is not ours to know.
            let app = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
            // The group stays that of terminals, so that nobody but the user can write to it.
            owned(&app, false)?;
            resize(&ours, size)?;
            rustix::fs::fcntl_setfl(&ours, rustix::fs::fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
            let again = |fd: &OwnedFd| fd.try_clone();
            let ends = AppEnds { input: again(&app)?, output: again(&app)?, errors: app, terminal: true };
            Ok((Attached::Terminal(ours), ends))
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}
