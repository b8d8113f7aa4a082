//! A snapshot as a tar, for a backup: written without following what a stranger put there, and laid out without trusting who wrote it.
//!
//! A file's owner is saved by a number that means the same on another machine, where a platform has other user ids ([`Numbers`]). Saved are
//! files with several names as one, links, pipes, modes, times to the second and the attributes of users; holes come back as holes.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use berth_spec::{AppId, SnapshotName, VolumeName};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use tar::{Builder, Entry, EntryType, Header};

use crate::copy::{attributes, set_attributes};
use crate::error::{VolumeError, failed};
use crate::store::Store;
use crate::walk::{DEPTH_MAX, Found, open_dir, open_dir_at, too_deep, walk};

/// What attributes of users are called in a tar: as libarchive has them, in base64. The older form has the bare bytes, which a reader that goes by lines
/// takes for the end of one.
const ATTRIBUTE: &str = "LIBARCHIVE.xattr.";
/// What is looked at for being nothing but zeros, which is left out of a file as a hole.
const PIECE: usize = 64 << 10;

/// The users that files of an app's volumes belong to, and their numbers in an archive: nought for the app's own, then those of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// The app's own user and group.
    pub own: u32,
    /// The users and groups of images.
    pub images: Range<u32>,
}

impl Numbers {
    /// The number of user `id`; that of the app's own for any who has no business there.
    fn saved(&self, id: u32) -> u64 {
        if self.images.contains(&id) { u64::from(id - self.images.start) + 1 } else { 0 }
    }

    /// The user of a number.
    fn restored(&self, number: u64) -> u32 {
        let image = number.checked_sub(1).and_then(|offset| u32::try_from(offset).ok());
        let image = image.and_then(|offset| self.images.start.checked_add(offset));
        image.filter(|id| self.images.contains(id)).unwrap_or(self.own)
    }
}

impl Store {
    /// Writes a snapshot as a tar. `numbers` is `None` where all files are of one user. Blocks.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn pack(
        &self,
        (app, volume, snapshot): (&AppId, &VolumeName, &SnapshotName),
        numbers: Option<&Numbers>,
        out: impl Write,
    ) -> Result<(), VolumeError> {
        let path = self.snapshots_of(app, volume).join(snapshot.as_str());
        pack(&path, numbers, true, out).map_err(failed("saved", &path))
    }

    /// How many bytes [`Store::pack`] writes. Blocks.
    ///
    /// # Errors
    /// When it cannot be gone through.
    pub fn packed_size(
        &self,
        (app, volume, snapshot): (&AppId, &VolumeName, &SnapshotName),
        numbers: Option<&Numbers>,
    ) -> Result<u64, VolumeError> {
        let path = self.snapshots_of(app, volume).join(snapshot.as_str());
        let mut counter = Counter(0);
        pack(&path, numbers, false, &mut counter).map_err(failed("measured", &path))?;
        Ok(counter.0)
    }
}

/// Counts what is written to it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the tree at `path`; without `contents` zeros take the place of what is in the files.
fn pack(path: &Path, numbers: Option<&Numbers>, contents: bool, out: impl Write) -> io::Result<()> {
    let top = open_dir(path)?;
    let mut builder = Builder::new(out);
    let stat = rustix::fs::fstat(&top)?;
    add_attributes(&mut builder, &top)?;
    builder.append_data(&mut head(&stat, numbers, EntryType::Directory), ".", io::empty())?;
    let mut several: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    walk(top.as_fd(), |found| {
        let (path, stat) = (Path::new(OsStr::from_bytes(found.path)), &found.stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let dir = open_entry(found, OFlags::DIRECTORY)?;
                add_attributes(&mut builder, &dir)?;
                builder.append_data(&mut head(stat, numbers, EntryType::Directory), path, io::empty())
            }
            FileType::RegularFile => {
                let id = (stat.st_dev, stat.st_ino);
                if let Some(first) = several.get(&id) {
                    let first = Path::new(OsStr::from_bytes(first));
                    return builder.append_link(&mut head(stat, numbers, EntryType::Link), path, first);
                }
                if stat.st_nlink > 1 {
                    several.insert(id, found.path.to_vec());
                }
                let file = open_entry(found, OFlags::empty())?;
                add_attributes(&mut builder, &file)?;
                let mut head = head(stat, numbers, EntryType::Regular);
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                head.set_size(size);
                if contents {
                    builder.append_data(&mut head, path, File::from(file).take(size))
                } else {
                    builder.append_data(&mut head, path, io::repeat(0).take(size))
                }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(found.dir, found.name, Vec::new())?;
                let mut head = head(stat, numbers, EntryType::Symlink);
                // As it is written, if it fits the head; else without its superfluous parts, which lead nowhere.
                match head.set_link_name_literal(target.as_bytes()) {
                    Ok(()) => builder.append_data(&mut head, path, io::empty()),
                    Err(_too_long) => {
                        builder.append_link(&mut head, path, OsStr::from_bytes(target.as_bytes()))
                    }
                }
            }
            FileType::Fifo => {
                builder.append_data(&mut head(stat, numbers, EntryType::Fifo), path, io::empty())
            }
            // Sockets, where nobody listens; there are no devices.
            _ => Ok(()),
        }
    })?;
    builder.into_inner()?.flush()
}

fn open_entry(found: &Found<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(found.dir, found.name, flags, Mode::empty())?)
}

fn head(stat: &Stat, numbers: Option<&Numbers>, kind: EntryType) -> Header {
    let number = |id| numbers.map_or(0, |numbers| numbers.saved(id));
    let mut head = Header::new_gnu();
    head.set_entry_type(kind);
    head.set_mode(stat.st_mode & 0o7777);
    head.set_uid(number(stat.st_uid));
    head.set_gid(number(stat.st_gid));
    // The time before 1970 is not a tar's.
    head.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    head.set_size(0);
    head
}

fn add_attributes(builder: &mut Builder<impl Write>, file: &OwnedFd) -> io::Result<()> {
    let named = attributes(file)?.into_iter().filter_map(|(name, value)| {
        let name = String::from_utf8(name).ok().filter(|name| name.bytes().all(is_plain))?;
        Some((format!("{ATTRIBUTE}{name}"), BASE64_STANDARD_NO_PAD.encode(value)))
    });
    let named: Vec<(String, String)> = named.collect();
    if named.is_empty() {
        return Ok(());
    }
    builder.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}

/// What stands for itself in the name of an attribute; names with anything else are none that programs use, and are left out.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'=' | b'%')
}

/// Lays a tar that [`Store::pack`] wrote out in the directory `dir`, which is empty and nobody else's yet. What is in the tar is not trusted: nothing
/// comes to lie outside of `dir`, whatever it says. `numbers` is `None` where all files become ours. Blocks.
///
/// # Errors
/// When it is no such tar, or the system refuses. What was laid out by then is good for nothing.
pub fn unpack(dir: &Path, numbers: Option<&Numbers>, input: impl Read) -> Result<(), VolumeError> {
    lay_out(dir, numbers, input).map_err(failed("laid out", dir))
}

fn lay_out(dir: &Path, numbers: Option<&Numbers>, input: impl Read) -> io::Result<()> {
    let top = open_dir(dir)?;
    let mut archive = tar::Archive::new(input);
    // Directories get their modes and times once all is in them. By their paths: a descriptor for each would be too many.
    let mut folders: Vec<(Vec<u8>, Like)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        let like = Like::of(entry.header(), numbers)?;
        let Some((parent, name)) = place(top.as_fd(), &path)? else {
            set_attributes(&top, &saved_attributes(&mut entry)?)?;
            folders.push((path, like));
            continue;
        };
        lay_entry(&mut entry, (&top, &parent, &name), &like)?;
        if entry.header().entry_type() == EntryType::Directory {
            folders.push((path, like));
        }
    }
    for (path, like) in folders.iter().rev() {
        match place(top.as_fd(), path)? {
            None => like.dress(&top)?,
            Some((parent, name)) => like.dress(&open_dir_at(&parent, &*name)?)?,
        }
    }
    Ok(rustix::fs::syncfs(&top)?)
}

/// Lays out what `entry` says as `name` in `parent`.
fn lay_entry(
    entry: &mut Entry<'_, impl Read>,
    (top, parent, name): (&OwnedFd, &OwnedFd, &CString),
    like: &Like,
) -> io::Result<()> {
    let leads_to = |entry: &Entry<'_, _>| {
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        target.ok_or_else(|| wrong("a link leads nowhere"))
    };
    match entry.header().entry_type() {
        EntryType::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
            set_attributes(&open_dir_at(parent, &**name)?, &saved_attributes(entry)?)
        }
        EntryType::Regular => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            let attributes = saved_attributes(entry)?;
            fill(&file, entry)?;
            let file = OwnedFd::from(file);
            set_attributes(&file, &attributes)?;
            like.dress(&file)
        }
        EntryType::Link => {
            let first = place(top.as_fd(), &leads_to(entry)?)?;
            let (first_parent, first) = first.ok_or_else(|| wrong("a link leads nowhere"))?;
            Ok(rustix::fs::linkat(&first_parent, &first, parent, name, AtFlags::empty())?)
        }
        EntryType::Symlink => {
            rustix::fs::symlinkat(leads_to(entry)?.as_slice(), parent, name)?;
            like.give(parent, name)
        }
        EntryType::Fifo => {
            rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            like.give(parent, name)
        }
        _ => Err(wrong("it holds what no volume holds")),
    }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The directory below `top` that `path` is in, and its name there; `None` for the top itself.
fn place(top: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<(OwnedFd, CString)>> {
    let mut steps = Vec::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => steps.push(name),
            Component::CurDir => {}
            _ => return Err(wrong("a path in it leads out")),
        }
    }
    let Some(name) = steps.pop() else { return Ok(None) };
    if steps.len() >= DEPTH_MAX {
        return Err(too_deep());
    }
    let name = CString::new(name.as_bytes())?;
    if steps.is_empty() {
        return Ok(Some((top.try_clone_to_owned()?, name)));
    }
    let above: std::path::PathBuf = steps.iter().collect();
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Some((rustix::fs::openat2(top, &above, flags, Mode::empty(), how)?, name)))
}

/// Writes what `content` has into an empty file, and leaves out what is nothing but zeros.
fn fill(file: &File, content: &mut impl Read) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    let mut at = 0;
    loop {
        piece.clear();
        let length = content.by_ref().take(PIECE as u64).read_to_end(&mut piece)? as u64;
        if length == 0 {
            return file.set_len(at);
        }
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece, at)?;
        }
        at += length;
    }
}

/// The attributes that a tar has for an entry.
fn saved_attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE)) {
            let value = BASE64_STANDARD_NO_PAD.decode(extension.value_bytes());
            let value = value.map_err(|_no_base64| wrong("an attribute in it cannot be read"))?;
            found.push((name.as_bytes().to_vec(), value));
        }
    }
    Ok(found)
}

/// What an entry says of its file.
struct Like {
    owner: Option<(Uid, Gid)>,
    mode: Mode,
    modified: u64,
}

impl Like {
    fn of(head: &Header, numbers: Option<&Numbers>) -> io::Result<Self> {
        let owner = match numbers {
            None => None,
            Some(numbers) => Some((
                Uid::from_raw(numbers.restored(head.uid()?)),
                Gid::from_raw(numbers.restored(head.gid()?)),
            )),
        };
        Ok(Self { owner, mode: Mode::from_raw_mode(head.mode()? & 0o7777), modified: head.mtime()? })
    }

    /// Owner, mode and time, in an order in which none takes another away.
    fn dress(&self, file: &OwnedFd) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, self.mode)?;
        let modified = Timespec { tv_sec: i64::try_from(self.modified).unwrap_or_default(), tv_nsec: 0 };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: modified,
        };
        Ok(rustix::fs::futimens(file, &times)?)
    }

    /// The owner alone, of what is not opened.
    fn give(&self, parent: &OwnedFd, name: &CString) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn packed(from: &Path, numbers: Option<&Numbers>) -> Vec<u8> {
        let (mut bytes, mut counter) = (Vec::new(), Counter(0));
        pack(from, numbers, true, &mut bytes).unwrap();
        pack(from, numbers, false, &mut counter).unwrap();
        assert_eq!(counter.0, bytes.len() as u64, "the size that was foretold");
        bytes
    }

    #[test]
    fn a_tree_comes_back_with_its_links_modes_times_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let long = "a name of forty characters, more or less ".repeat(4);
        fs::create_dir_all(from.join("a/b").join(&long)).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b").join(&long).join(&long), "deep").unwrap();
        fs::write(from.join("a/file"), "some words").unwrap();
        fs::hard_link(from.join("a/file"), from.join("a/b/again")).unwrap();
        fs::write(from.join(OsStr::from_bytes(b"\xff not UTF-8")), "x").unwrap();
        fs::set_permissions(from.join("a/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o550)).unwrap();
        symlink("../.././/secret", from.join("out")).unwrap();
        symlink("/".repeat(150) + "etc", from.join("far")).unwrap();
        File::create(from.join("sparse")).unwrap().set_len(8 << 20).unwrap();
        drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
        let marked = OwnedFd::from(File::open(from.join("a/file")).unwrap());
        let attributes_there = vec![(b"user.berth".to_vec(), b"two\nlines = \xff".to_vec())];
        // Not every file system has them.
        let has_attributes = set_attributes(&marked, &attributes_there).is_ok();
        File::open(from.join("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        lay_out(&to, None, &packed(&from, None)[..]).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b").join(&long).join(&long)).unwrap(), "deep");
        let laid = OwnedFd::from(File::open(to.join("a/file")).unwrap());
        assert_eq!(attributes(&laid).unwrap(), if has_attributes { attributes_there } else { Vec::new() });
        let ino = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
        assert_eq!(ino("a/file"), ino("a/b/again"));
        for path in ["a", "a/b", "a/file"] {
            let stat = |top: &Path| {
                let found = fs::symlink_metadata(top.join(path)).unwrap();
                (found.mode(), found.mtime())
            };
            assert_eq!(stat(&from), stat(&to), "{path}");
        }
        assert_eq!(fs::read_link(to.join("out")).unwrap(), Path::new("../.././/secret"));
        assert_eq!(fs::read_link(to.join("far")).unwrap(), Path::new("/etc"));
        assert!(to.join(OsStr::from_bytes(b"\xff not UTF-8")).try_exists().unwrap());
        assert!(!to.join("socket").try_exists().unwrap());
        let sparse = fs::metadata(to.join("sparse")).unwrap();
        assert!(sparse.len() == 8 << 20 && sparse.blocks() < 100, "{}", sparse.blocks());
        // The one that nobody may write to is in the way of nobody.
        fs::set_permissions(to.join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn owners_are_those_of_the_platform_that_restores() {
        let (here, there) =
            (Numbers { own: 5_016, images: 70_536..136_072 }, Numbers { own: 216, images: 65_736..131_272 });
        for (id, restored) in [(5_016, 216), (70_536, 65_736), (70_635, 65_835), (0, 216), (5_018, 216)] {
            assert_eq!(there.restored(here.saved(id)), restored, "{id}");
        }
        assert_eq!(there.restored(u64::MAX), 216);
        assert_eq!(there.restored(65_537), 216);
    }

    #[test]
    fn what_would_lie_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let entry = |builder: &mut Builder<Vec<u8>>, kind, path: &str, target: &str| {
            let mut head = Header::new_gnu();
            head.set_entry_type(kind);
            head.set_mode(0o755);
            head.set_size(0);
            head.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            head.set_link_name_literal(target).unwrap();
            head.set_cksum();
            builder.append(&head, io::empty()).unwrap();
        };
        let attacks: [&[(EntryType, &str, &str)]; 7] = [
            &[(EntryType::Regular, "../outside/file", "")],
            &[(EntryType::Regular, "/etc/berth-was-here", "")],
            &[(EntryType::Symlink, "link", "../outside"), (EntryType::Regular, "link/file", "")],
            &[(EntryType::Symlink, "link", "../outside"), (EntryType::Directory, "link", "")],
            &[(EntryType::Symlink, "link", "../outside/file"), (EntryType::Regular, "link", "")],
            &[(EntryType::Link, "passwd", "../../../../etc/passwd")],
            &[(EntryType::Block, "disk", "")],
        ];
        for (number, attack) in attacks.iter().enumerate() {
            let mut builder = Builder::new(Vec::new());
            for (kind, path, target) in *attack {
                entry(&mut builder, *kind, path, target);
            }
            let inside = dir.path().join(number.to_string());
            fs::create_dir(&inside).unwrap();
            lay_out(&inside, None, &builder.into_inner().unwrap()[..]).unwrap_err();
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{attack:?}");
        }
    }
}
