//! Where the platform's own roles log: files that stay bounded, whoever writes to them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log longer than this is moved to `<name>.1`; with that one file kept, a role's logs take twice this at most, and what
/// it writes between two looks of the supervisor.
const LIMIT: u64 = 8 << 20;

/// The log of one role. The role writes through a duplicate of the descriptor; edge could not open the path itself.
#[derive(Debug)]
pub(crate) struct RoleLog {
    path: PathBuf,
    file: File,
}

impl RoleLog {
    /// Opens `directory/<role>.log` to append to.
    pub(crate) fn open(directory: &Path, role: &str) -> io::Result<Self> {
        let path = directory.join(format!("{role}.log"));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    /// The descriptor to write to.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Keeps the log bounded. It is copied and cut, not renamed: the role has it open and would write on into the renamed
    /// file. Since everyone appends, the next line lands at the new start; a line written in between is lost.
    pub(crate) fn bound(&self) -> io::Result<()> {
        if self.file.metadata()?.len() <= LIMIT {
            return Ok(());
        }
        fs::copy(&self.path, self.path.with_extension("log.1"))?;
        self.file.set_len(0)
    }

    /// The last `lines` lines, for a message that says why a role will not start.
    pub(crate) fn tail(&self, lines: usize) -> io::Result<String> {
        const ENOUGH: u64 = 16 << 10;
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        let mut text = Vec::new();
        file.take(ENOUGH).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        Ok(all[all.len().saturating_sub(lines)..].join("\n"))
    }
}

/// Sends this process's own log to `writer`; the first one counts. `BERTH_LOG` says what is logged, in the words of tracing's filter.
pub(crate) fn log_to<W>(writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    // An error says that there is one already.
    drop(log.try_init());
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_grew_too_long_is_cut_while_its_writer_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let log = RoleLog::open(temp.path(), "edge").unwrap();
        let mut writer = log.writer().unwrap();
        writer.write_all(b"first\n").unwrap();
        log.bound().unwrap();
        assert_eq!(log.tail(5).unwrap(), "first");
        writer.write_all(&vec![b'x'; usize::try_from(LIMIT).unwrap()]).unwrap();
        log.bound().unwrap();
        writer.write_all(b"\nsecond\nthird\n").unwrap();
        assert_eq!(fs::read_to_string(temp.path().join("edge.log")).unwrap(), "\nsecond\nthird\n");
        assert_eq!(log.tail(1).unwrap(), "third");
        assert!(fs::read_to_string(temp.path().join("edge.log.1")).unwrap().starts_with("first\nxxx"));
    }
}
