//! The entries of a layer, laid out one after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::digest::Digest;
use crate::disk;
use crate::error::{ImageError, shown};
use crate::unpack::archive::{Entry, Kind};
use crate::unpack::meter::told;
use crate::unpack::{Limits, Ownership, Unpacked};

/// How an image's ids end: as many as a user namespace maps.
const IDS: u64 = 65_536;
/// How many bytes the paths of all folders may take in memory, where they wait for their times and modes.
const FOLDERS_MAX: usize = 64 << 20;
/// What a layer calls things that are gone.
const WHITEOUT: &[u8] = b".wh.";
/// What hides all that lower layers have in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What else a layer may name so is AUFS' own.
const AUFS: &[u8] = b".wh..wh.";

pub(super) struct Laying<'a> {
    root: BorrowedFd<'a>,
    ownership: Ownership,
    limits: &'a Limits,
    /// The attribute that makes a folder hide what is below it.
    opaque: &'static str,
    /// Folders with what they get at the end: what is laid into one changes its time, and a folder that its owner may not write to takes nothing.
    folders: BTreeMap<Vec<u8>, (Mode, Timespec)>,
    folders_bytes: usize,
    /// The folder of the last entry: entries of one folder come after one another.
    last: Option<(Vec<u8>, OwnedFd)>,
    entries: u64,
    bytes: u64,
    looked: u64,
    devices: u64,
    /// What a piece of a file passes through.
    buffer: Vec<u8>,
}

/// What the system said of an entry.
fn failed(path: &[u8], error: impl Into<io::Error>) -> ImageError {
    let error = error.into();
    match Errno::from_io_error(&error) {
        // A link, or a file, stands where a folder should.
        Some(Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => {
            refused(path, "leads through something that is not a folder")
        }
        Some(Errno::NAMETOOLONG) => refused(path, "has a name that is too long"),
        _ => crate::error::failed(std::path::Path::new(&shown(path)), "laid out")(error),
    }
}

fn refused(path: &[u8], why: &str) -> ImageError {
    ImageError::invalid(format!("{:?} of a layer {why}", shown(path)))
}

impl<'a> Laying<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        ownership: Ownership,
        limits: &'a Limits,
    ) -> Result<Self, ImageError> {
        let trusted = rustix::process::geteuid().is_root();
        let laying = Self {
            root,
            ownership,
            limits,
            opaque: if trusted { "trusted.overlay.opaque" } else { "user.overlay.opaque" },
            folders: BTreeMap::new(),
            folders_bytes: 0,
            last: None,
            entries: 0,
            bytes: 0,
            looked: 0,
            devices: 0,
            buffer: vec![0; 64 << 10],
        };
        let (uid, gid) = laying.owner(b"/", 0, 0)?;
        rustix::fs::fchown(root, uid, gid).map_err(|error| failed(b"/", error))?;
        rustix::fs::fchmod(root, Mode::from_raw_mode(0o755)).map_err(|error| failed(b"/", error))?;
        Ok(laying)
    }

    /// Lays out one entry; a file's content is read from `content`.
    pub(super) fn entry(&mut self, entry: Entry, content: &mut impl Read) -> Result<(), ImageError> {
        let path = self.normal(&entry.path)?;
        let owner = self.owner(&path, entry.uid, entry.gid)?;
        self.entries += 1;
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (&[][..], path.as_slice()),
        };
        if name.is_empty() {
            return match entry.kind {
                Kind::Directory => {
                    rustix::fs::fchown(self.root, owner.0, owner.1).map_err(|error| failed(b"/", error))?;
                    self.later(path, &entry)
                }
                _ => Err(refused(b"/", "is not a folder")),
            };
        }
        let above = self.folder(parent)?;
        let done = if name.starts_with(WHITEOUT) {
            self.gone(&above, name, &path)
        } else {
            self.lay(&above, name, &path, entry, owner, content)
        };
        self.last = Some((parent.to_vec(), above));
        done
    }

    /// A path without its empty segments and dots: `/a//./b` is `a/b`.
    fn normal(&self, path: &[u8]) -> Result<Vec<u8>, ImageError> {
        if path.len() > self.limits.path {
            return Err(refused(path, "has a path that is too long"));
        }
        let (mut normal, mut depth) = (Vec::with_capacity(path.len()), 0);
        for segment in path.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => continue,
                b".." => return Err(refused(path, "leads out of its folder")),
                _ if segment.contains(&0) => return Err(refused(path, "has a NUL in its name")),
                _ => {}
            }
            depth += 1;
            if !normal.is_empty() {
                normal.push(b'/');
            }
            normal.extend_from_slice(segment);
        }
        if depth > self.limits.depth {
            return Err(refused(path, "lies too deep"));
        }
        Ok(normal)
    }

    /// Whom it is given to; nobody where it stays ours.
    fn owner(&self, path: &[u8], uid: u64, gid: u64) -> Result<(Option<Uid>, Option<Gid>), ImageError> {
        let Ownership::Mapped { base } = self.ownership else { return Ok((None, None)) };
        let mapped =
            |id: u64| u32::try_from(id).ok().filter(|_| id < IDS).and_then(|id| base.checked_add(id));
        match (mapped(uid), mapped(gid)) {
            (Some(uid), Some(gid)) => Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))),
            _ => Err(refused(path, "belongs to an id above 65535")),
        }
    }

    /// Opens the folder at `path`, and makes what is missing of it.
    fn folder(&mut self, path: &[u8]) -> Result<OwnedFd, ImageError> {
        match self.last.take() {
            Some((last, open)) if last == path => return Ok(open),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match beneath::open(self.root, path, flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            done => return done.map_err(|error| failed(path, error)),
        }
        let mut at = beneath::open(self.root, b"", flags).map_err(|error| failed(path, error))?;
        let root = self.owner(path, 0, 0)?;
        for segment in path.split(|byte| *byte == b'/') {
            at = match beneath::open(&at, segment, flags) {
                Ok(below) => below,
                Err(Errno::NOENT) => {
                    self.make_folder(&at, segment, root, false).map_err(|error| failed(path, error))?
                }
                Err(Errno::NOTDIR) if self.is_gone(&at, segment) => {
                    rustix::fs::unlinkat(&at, segment, AtFlags::empty())
                        .map_err(|error| failed(path, error))?;
                    self.make_folder(&at, segment, root, true).map_err(|error| failed(path, error))?
                }
                Err(error) => return Err(failed(path, error)),
            };
        }
        Ok(at)
    }

    fn is_gone(&self, at: &OwnedFd, name: &[u8]) -> bool {
        matches!(beneath::look(at, name), Ok(Some(stat)) if beneath::is_whiteout(&stat))
    }

    fn make_folder(
        &self,
        above: &OwnedFd,
        name: &[u8],
        owner: (Option<Uid>, Option<Gid>),
        hides: bool,
    ) -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(above, name, Mode::RWXU)?;
        let folder = beneath::open(above, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fchown(&folder, owner.0, owner.1)?;
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755))?;
        if hides {
            self.hide(folder.as_fd())?;
        }
        Ok(folder)
    }

    /// Has `folder` hide what lower layers have in it.
    fn hide(&self, folder: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::fs::fsetxattr(folder, self.opaque, b"y", XattrFlags::empty())
    }

    /// A whiteout. It is about lower layers alone: what this layer itself has there stays, whichever comes first.
    fn gone(&mut self, above: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), ImageError> {
        let failed = |error: Errno| failed(path, error);
        if name == OPAQUE {
            return self.hide(above.as_fd()).map_err(failed);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let name = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if matches!(name, b"" | b"." | b"..") {
            return Err(refused(path, "hides nothing that can be"));
        }
        match beneath::look(above, name).map_err(failed)? {
            None => {
                rustix::fs::mknodat(above, name, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(failed)?;
                let (uid, gid) = self.owner(path, 0, 0)?;
                rustix::fs::chownat(above, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
            }
            Some(stat) if beneath::kind(&stat) == FileType::Directory => {
                let folder =
                    beneath::open(above, name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
                self.hide(folder.as_fd()).map_err(failed)
            }
            Some(_) => Ok(()),
        }
    }

    fn lay(
        &mut self,
        above: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: Entry,
        owner: (Option<Uid>, Option<Gid>),
        content: &mut impl Read,
    ) -> Result<(), ImageError> {
        let before = beneath::look(above, name).map_err(|error| failed(path, error))?;
        let was = before.as_ref().map(beneath::kind);
        let is_folder = entry.kind == Kind::Directory;
        if matches!(entry.kind, Kind::Device) {
            self.devices += 1;
            return Ok(());
        }
        if let Kind::Hardlink(to) = &entry.kind {
            return self.hardlink(above, name, path, to);
        }
        if was.is_some() && !(is_folder && was == Some(FileType::Directory)) {
            beneath::remove(above.as_fd(), name).map_err(|error| failed(path, error))?;
        }
        let done = match &entry.kind {
            Kind::Directory => {
                let folder = match was {
                    Some(FileType::Directory) => {
                        beneath::open(above, name, OFlags::RDONLY | OFlags::DIRECTORY)
                    }
                    // It takes the place of something that hid what lower layers have here.
                    was => self.make_folder(above, name, owner, was.is_some()),
                };
                let folder = folder.map_err(|error| failed(path, error))?;
                rustix::fs::fchown(&folder, owner.0, owner.1).map_err(|error| failed(path, error))?;
                attributes(&folder, &entry, path)?;
                return self.later(path.to_vec(), &entry);
            }
            Kind::File { length, pieces } => {
                return self.file(above, name, path, (*length, pieces), &entry, owner, content);
            }
            Kind::Symlink(to) => rustix::fs::symlinkat(to.as_slice(), above, name),
            Kind::Fifo => rustix::fs::mknodat(above, name, FileType::Fifo, Mode::RUSR, 0),
            Kind::Device | Kind::Hardlink(_) => Ok(()),
        };
        let set = || -> Result<(), Errno> {
            done?;
            rustix::fs::chownat(above, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            if entry.kind == Kind::Fifo {
                rustix::fs::chmodat(above, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
            rustix::fs::utimensat(above, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        };
        set().map_err(|error| failed(path, error))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one entry, taken apart once")]
    fn file(
        &mut self,
        above: &OwnedFd,
        name: &[u8],
        path: &[u8],
        (length, pieces): (u64, &[(u64, u64)]),
        entry: &Entry,
        owner: (Option<Uid>, Option<Gid>),
        content: &mut impl Read,
    ) -> Result<(), ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(above, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed(path, error))?;
        let file = File::from(file);
        for (offset, size) in pieces {
            self.count(*size, path)?;
            let mut at = *offset;
            let end = offset.saturating_add(*size);
            while at < end {
                let most = self.buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let read = content
                    .read(self.buffer.get_mut(..most).unwrap_or_default())
                    .map_err(|error| told(error, "breaks off in a file"))?;
                file.write_all_at(self.buffer.get(..read).unwrap_or_default(), at)
                    .map_err(|error| failed(path, error))?;
                at += read as u64;
            }
        }
        let set = || -> io::Result<()> {
            if *pieces != [(0, length)] {
                file.set_len(length)?;
            }
            rustix::fs::fchown(&file, owner.0, owner.1)?;
            // After the owner: a change of owner takes the bits for set-uid away.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
            Ok(rustix::fs::futimens(&file, &times(entry.mtime))?)
        };
        attributes(&file, entry, path)?;
        set().map_err(|error| failed(path, error))
    }

    /// Counts bytes that are about to be written.
    fn count(&mut self, size: u64, path: &[u8]) -> Result<(), ImageError> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            let most = self.limits.bytes;
            return Err(ImageError::TooLarge(format!("the files of a layer are more than {most} bytes")));
        }
        if self.bytes >= self.looked {
            self.looked = self.bytes + disk::LOOK;
            disk::leaves(self.root, self.limits.reserve, size).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }

    fn hardlink(&mut self, above: &OwnedFd, name: &[u8], path: &[u8], to: &[u8]) -> Result<(), ImageError> {
        let to = self.normal(to)?;
        let (parent, target) = match to.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (to.get(..at).unwrap_or_default(), to.get(at + 1..).unwrap_or_default()),
            None => (&[][..], to.as_slice()),
        };
        if to == path {
            return Err(refused(path, "is a link to itself"));
        }
        let missing = || refused(path, "is a link to something that its layer does not have");
        let parent = match beneath::open(self.root, parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => return Err(missing()),
            done => done.map_err(|error| failed(path, error))?,
        };
        let found =
            beneath::look(&parent, target).map_err(|error| failed(path, error))?.ok_or_else(missing)?;
        if beneath::kind(&found) == FileType::Directory || beneath::is_whiteout(&found) {
            return Err(missing());
        }
        beneath::remove(above.as_fd(), name).map_err(|error| failed(path, error))?;
        rustix::fs::linkat(&parent, target, above, name, AtFlags::empty())
            .map_err(|error| failed(path, error))
    }

    /// Keeps a folder's mode and time for the end.
    fn later(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), ImageError> {
        let length = path.len() + 64;
        if self.folders.insert(path, (Mode::from_raw_mode(entry.mode), time(entry.mtime))).is_none() {
            self.folders_bytes += length;
        }
        if self.folders_bytes > FOLDERS_MAX {
            return Err(ImageError::TooLarge(
                "the names of a layer's folders are too long together".to_owned(),
            ));
        }
        Ok(())
    }

    /// Gives the folders their modes and times, the innermost first.
    pub(super) fn finish(self, diff_id: Digest) -> Result<Unpacked, ImageError> {
        for (path, (mode, time)) in self.folders.iter().rev() {
            let folder = match beneath::open(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(folder) => folder,
                // Something else took its place later.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(failed(path, error)),
            };
            let times = Timestamps { last_access: *time, last_modification: *time };
            rustix::fs::futimens(&folder, &times).map_err(|error| failed(path, error))?;
            rustix::fs::fchmod(&folder, *mode).map_err(|error| failed(path, error))?;
        }
        let Self { entries, bytes, devices, .. } = self;
        Ok(Unpacked { diff_id, entries, bytes, devices })
    }
}

/// Gives it those of its attributes that are its own business: none that gives rights (`security.capability`), none that the kernel or
/// the overlay reads (`trusted.`, `user.overlay.`).
fn attributes(file: impl AsFd, entry: &Entry, path: &[u8]) -> Result<(), ImageError> {
    for (name, value) in &entry.xattrs {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") || name.contains(&0) {
            continue;
        }
        match rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            // A file system that keeps none, or not so many: the file is whole without.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::RANGE | Errno::NOSPC | Errno::TOOBIG) => {}
            Err(error) => return Err(failed(path, error)),
        }
    }
    Ok(())
}

fn time(seconds: i64) -> Timespec {
    // What a file system of 32-bit times takes, too.
    Timespec { tv_sec: seconds.clamp(0, i64::from(u32::MAX)), tv_nsec: 0 }
}

fn times(seconds: i64) -> Timestamps {
    Timestamps { last_access: time(seconds), last_modification: time(seconds) }
}
