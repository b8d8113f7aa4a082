//! A directory whose files may be served, and nothing outside of it: every path is resolved by the kernel beneath it.

use std::future::{Ready, ready};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs;

/// The one name with a dot that the web has a use for (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// An open directory.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: Arc<OwnedFd>,
}

impl Tree {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Opens a file or directory below the root. Names that start with a dot, links that lead out, and what is neither file
    /// nor directory are not there.
    pub(super) fn open_beneath(&self, path: &Path) -> io::Result<(std::fs::File, Description)> {
        let hidden = |component: Component<'_>| {
            let Component::Normal(name) = component else { return false };
            name.as_encoded_bytes().starts_with(b".") && name != WELL_KNOWN
        };
        if path.components().any(hidden) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(&*self.root, path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            other => other?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let seconds = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
        let nanoseconds = Duration::from_nanos(stat.st_ctime_nsec);
        let description = Description {
            is_directory: kind == FileType::Directory,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            changed: UNIX_EPOCH + seconds + nanoseconds,
        };
        Ok((file.into(), description))
    }
}

/// What is known of an open file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Description {
    is_directory: bool,
    length: u64,
    changed: SystemTime,
}

impl fs::Metadata for Description {
    fn is_dir(&self) -> bool {
        self.is_directory
    }

    /// The time at which the kernel saw the inode change last, not the file's own time. An entity tag is made of this and the
    /// length; a build may give every file one fixed time, and then a page whose text changed but not its length would be
    /// answered with "not modified".
    fn modified(&self) -> io::Result<SystemTime> {
        Ok(self.changed)
    }

    fn len(&self) -> u64 {
        self.length
    }
}

/// A file being sent.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: tokio::fs::File,
    description: Description,
}

impl AsyncRead for OpenFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(context, buffer)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(context)
    }
}

impl fs::File for OpenFile {
    type Metadata = Description;
    type MetadataFuture<'a> = Ready<io::Result<Description>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.description))
    }
}

impl fs::Backend for Tree {
    type File = OpenFile;
    type Metadata = Description;
    type OpenFuture = Ready<io::Result<OpenFile>>;
    type MetadataFuture = Ready<io::Result<Description>>;

    /// Opening is done at once: the files of an artifact are on a local disk, and a thread to wait for it costs more.
    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        ready(
            self.open_beneath(&path)
                .map(|(file, description)| OpenFile { file: tokio::fs::File::from_std(file), description }),
        )
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        ready(self.open_beneath(&path).map(|(_, description)| description))
    }
}
