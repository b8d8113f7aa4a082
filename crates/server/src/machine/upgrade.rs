//! A newer program in place of this one: copied into the home, asked whether it runs here at all, and then the supervisor's to become.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::PoisonError;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use berth_process::{Launch, Program, Signal, Stdio};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Machine, in_full};
use crate::config::SupervisorRequest;
use crate::formats::Formats;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const ANSWER_MAX: u64 = 64 << 10;
/// The largest program.
const PROGRAM_MAX: u64 = 1 << 30;

/// A program that may take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// What it is called in the home.
    pub name: String,
    /// The version that it says it is.
    pub version: String,
    /// Whether it is the program that runs.
    pub runs: bool,
    /// Whether it takes listeners over that are left open for it, as every program does that can be asked for formats.
    pub listeners: bool,
}

/// Why a program cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It cannot be read or copied.
    #[error("{} cannot be copied into the home", path.display())]
    Copy {
        /// Where it lies.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not run here, or is another program.
    #[error("{} does not say its version as Berth does: {why}", path.display())]
    NotBerth {
        /// Where it lies.
        path: PathBuf,
        /// What it did instead.
        why: String,
    },
    /// It does not know the format of the journal.
    #[error(
        "berth {version} reads journals of {reads}, and this platform's has format {format} since an upgrade was committed"
    )]
    TooOld {
        /// Its version.
        version: String,
        /// What it reads.
        reads: Formats,
        /// What there is.
        format: u32,
    },
    /// It does not know the format of the journal any more.
    #[error("berth {version} reads journals of {reads}, and this platform's still has format {format}")]
    TooNew {
        /// Its version.
        version: String,
        /// What it reads.
        reads: Formats,
        /// What there is.
        format: u32,
    },
}

impl Machine {
    /// Copies the program at `path` into the home and asks it for its version, and whether it reads a journal of this format. Blocks.
    ///
    /// # Errors
    /// Why it cannot take over; nothing has changed then.
    pub fn stage(&self, path: &Path, format: u32) -> Result<Successor, Unfit> {
        let failed = |source| Unfit::Copy { path: path.to_owned(), source };
        let folder = self.places.exe.parent().unwrap_or(Path::new("/"));
        let coming = folder.join(".coming");
        let hash = copy(path, &coming).map_err(failed)?;
        let name = format!("berth-{}", hash.get(..12).unwrap_or(&hash));
        let Asked { version, listeners } = match asked(&coming, path, format) {
            Ok(asked) => asked,
            Err(unfit) => {
                fs::remove_file(&coming).map_err(failed)?;
                return Err(unfit);
            }
        };
        fs::rename(&coming, folder.join(&name)).map_err(failed)?;
        let runs = copy(Path::new("/proc/self/exe"), Path::new("/dev/null")).is_ok_and(|own| own == hash);
        Ok(Successor { name, version, runs, listeners })
    }

    /// Has the supervisor become the program that was staged, and with it everything that it starts.
    pub fn ask_upgrade(&self, successor: &Successor) {
        let (program, listeners) = (successor.name.clone(), successor.listeners);
        self.ask(SupervisorRequest::Upgrade { program, listeners });
    }

    /// Whether the supervisor would become the program before this one again if the platform did not come up: until it has, and says so by
    /// ending its side of the stream, on which it says nothing else.
    #[must_use]
    pub fn may_fall_back(&self) -> bool {
        let mut supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(supervisor.read(&mut [0]), Ok(0))
    }
}

/// Copies a program, for everybody to execute; gives the SHA-256 of it, in hex.
fn copy(from: &Path, to: &Path) -> io::Result<String> {
    let source = File::open(from)?;
    if !source.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut source = source.take(PROGRAM_MAX);
    let mut target = File::create(to)?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut buffer)?;
        let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else { break };
        hash.update(piece);
        io::Write::write_all(&mut target, piece)?;
    }
    if target.metadata()?.is_file() {
        target.set_permissions(Permissions::from_mode(0o755))?;
        target.sync_all()?;
    }
    Ok(hex::encode(hash.finish().as_ref()))
}

/// What a program said of itself.
struct Asked {
    version: String,
    listeners: bool,
}

/// What the program that was copied to `copy` from `path` says of itself, if it can take over.
fn asked(copy: &Path, path: &Path, format: u32) -> Result<Asked, Unfit> {
    #[derive(Deserialize)]
    struct Said {
        version: String,
    }
    let not_berth = |why| Unfit::NotBerth { path: path.to_owned(), why };
    let version = match ask(copy, &["version", "--json"]).map_err(not_berth)? {
        Ok(Said { version }) => version,
        Err(status) => return Err(not_berth(format!("it ended with {status}"))),
    };
    let said = ask(copy, &["__formats"]).map_err(not_berth)?;
    let listeners = said.is_ok();
    let reads = said.unwrap_or(Formats::UNASKED);
    if reads.has(format) {
        return Ok(Asked { version, listeners });
    }
    Err(if reads.newest < format {
        Unfit::TooOld { version, reads, format }
    } else {
        Unfit::TooNew { version, reads, format }
    })
}

/// What the program at `path` says when it is asked by `words`, or how it ended when it did not know what to say.
fn ask<T: DeserializeOwned>(path: &Path, words: &[&str]) -> Result<Result<T, ExitStatus>, String> {
    let launch = Launch::new(Program::Tool(path.to_owned())).args(words).dir("/");
    let mut child = launch.stdout(Stdio::Piped).start().map_err(|error| in_full(&error))?;
    let ended = child.wait_for(PATIENCE).map_err(|error| error.to_string())?;
    let Some(status) = ended else {
        let killed = child.signal(Signal::KILL).and_then(|()| child.wait());
        killed.map_err(|error| error.to_string())?;
        return Err(format!("it did not end within {} s", PATIENCE.as_secs()));
    };
    if !status.success() {
        return Ok(Err(status));
    }
    let mut said = Vec::new();
    let out = child.stdout.take().ok_or("its output is gone")?;
    out.take(ANSWER_MAX).read_to_end(&mut said).map_err(|error| error.to_string())?;
    serde_json::from_slice(&said).map(Ok).map_err(|error| error.to_string())
}
