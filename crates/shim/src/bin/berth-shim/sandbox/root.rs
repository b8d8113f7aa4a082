//! The root of an app: built beside the machine's own, in a mount namespace that nobody else is in, and then gone into.
//!
//! Everything is put in place by descriptor: a mount is made detached, given its attributes, and only then moved onto a
//! folder that was opened within the new root (RESOLVE_IN_ROOT), so that no link in an image or a volume leads a mount or a
//! file elsewhere, as in CVE-2021-30465.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use berth_shim::sandbox::{BindMode, Entry, Room, View};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::kernel;

/// Attributes of every mount but those of devices.
const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Builds the root and goes into it. `owner` is who may write to what is the app's, `root_owner` whose the root of an image is.
pub(super) fn enter(view: &View, owner: (u32, u32), root_owner: (u32, u32)) -> io::Result<()> {
    // What is mounted from here on is nobody else's, and what others unmount does not stay busy here.
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let mut root = Root { top: lay(view, root_owner)?, last: None };
    view.entries.iter().try_for_each(|entry| root.put(entry, owner))?;
    if view.read_only {
        let attributes = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        kernel::set_mount_attributes(root.top.as_fd(), attributes, false)?;
    }
    rustix::process::fchdir(&root.top)?;
    // The old root ends up beneath the new one, and is let go of with all it has.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Mounts the root itself: an empty one in memory, or an overlay of an image's layers.
fn lay(view: &View, (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
    let memory = memory(view.room, "0755", None, QUIET)?;
    onto(memory.as_fd(), open(&view.place)?.as_fd())?;
    if view.layers.is_empty() {
        return open(&view.place);
    }
    let scratch = open(&view.place)?;
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(&scratch, name, Mode::from_raw_mode(0o755))?;
    }
    // What is the upper one is the root's owner: an image's root may write to its root.
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(&scratch, "upper", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // By their descriptors: however long their paths are, all options have to fit into a page.
    let layers: Vec<OwnedFd> = view.layers.iter().map(|layer| open(layer)).collect::<io::Result<_>>()?;
    let own = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower: Vec<String> = layers.iter().map(own).collect();
    let (lower, scratch) = (lower.join(":"), own(&scratch));
    let options = |extra: &str| {
        CString::new(format!("lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work{extra}"))
    };
    let place = CString::new(view.place.as_str())?;
    // In a user namespace the marks of deleted files are kept in attributes that everybody may set.
    kernel::mount_overlay(&place, &options("")?)
        .or_else(|_refused| kernel::mount_overlay(&place, &options(",userxattr")?))?;
    open(&view.place)
}

/// A root that is being built.
struct Root {
    top: OwnedFd,
    /// The folder that something was last put into, and its path: most of what follows goes there as well.
    last: Option<(String, OwnedFd)>,
}

impl Root {
    fn put(&mut self, entry: &Entry, owner: (u32, u32)) -> io::Result<()> {
        match entry {
            Entry::Directory { path } => folder(self.top.as_fd(), path).map(drop),
            Entry::File { path, text } => self.write(path, text),
            Entry::Link { path, to } => {
                let (parent, name) = self.beside(path)?;
                match rustix::fs::symlinkat(to.as_str(), parent, name) {
                    Err(Errno::EXIST) => Ok(()),
                    other => Ok(other?),
                }
            }
            Entry::Bind { source, path, how } => self.bind(source, path, *how),
            Entry::Memory { path, room, exec } => {
                let noexec = if *exec { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NOEXEC };
                self.mount(memory(*room, "1777", Some(owner), QUIET | noexec)?.as_fd(), path, true)
            }
            Entry::Processes { path } => {
                let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                self.mount(mounted("proc", &[], attributes)?.as_fd(), path, true)
            }
            Entry::Terminals { path } => {
                let options = [("ptmxmode", "0666"), ("mode", "0620")];
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                self.mount(mounted("devpts", &options, attributes)?.as_fd(), path, true)
            }
            Entry::Mask { path } => self.cover(path, mask),
            Entry::Freeze { path } => self.cover(path, freeze),
        }
    }

    /// Covers what is at `path`, if there is anything, by what `how` makes.
    fn cover(&mut self, path: &str, how: fn(BorrowedFd<'_>) -> io::Result<OwnedFd>) -> io::Result<()> {
        self.last = None;
        let Some(there) = existing(self.top.as_fd(), path)? else { return Ok(()) };
        onto(how(there.as_fd())?.as_fd(), there.as_fd())
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        let (parent, name) = self.beside(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = match rustix::fs::openat(parent, name, flags | OFlags::EXCL, mode) {
            Err(Errno::EXIST) => {
                remove_link(parent, name)?;
                rustix::fs::openat(parent, name, flags | OFlags::TRUNC, mode)?
            }
            other => other?,
        };
        io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
    }

    fn bind(&mut self, source: &str, path: &str, how: BindMode) -> io::Result<()> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = match rustix::mount::open_tree(CWD, source, flags) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) if how.optional => return Ok(()),
            other => other?,
        };
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        if !how.devices {
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
        }
        if !how.writable {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        kernel::set_mount_attributes(copy.as_fd(), u64::from(attributes.bits()), true)?;
        let is_folder = FileType::from_raw_mode(rustix::fs::fstat(&copy)?.st_mode).is_dir();
        self.mount(copy.as_fd(), path, is_folder)
    }

    /// Moves a mount to `path`, where a folder or a file is made for it if there is none.
    ///
    /// Where one was made its name stands for it: the kernel follows no link there, should somebody who shares a volume have put one in its
    /// place since. That spares two calls for each of dozens of mounts. What was there already is looked up within the root.
    fn mount(&mut self, mount: BorrowedFd<'_>, path: &str, is_folder: bool) -> io::Result<()> {
        let (parent, name) = self.beside(path)?;
        let mode = Mode::from_raw_mode(if is_folder { 0o755 } else { 0o644 });
        let made = if is_folder {
            rustix::fs::mkdirat(parent, name, mode)
        } else {
            rustix::fs::mknodat(parent, name, FileType::RegularFile, mode, 0)
        };
        match made {
            Ok(()) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                return Ok(rustix::mount::move_mount(mount, "", parent, name, flags)?);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // What is there may be a link to the folder that is held, or to one above it.
        self.last = None;
        let top = self.top.as_fd();
        let place = if is_folder { folder(top, path)? } else { file(top, path)? };
        onto(mount, place.as_fd())
    }

    /// The folder that `path` is in, made if need be, and its name there.
    fn beside<'a>(&mut self, path: &'a str) -> io::Result<(BorrowedFd<'_>, &'a str)> {
        let (parent, name) = split(path)?;
        let there = match self.last.take() {
            Some((held, there)) if held == parent => there,
            _ => folder(self.top.as_fd(), parent)?,
        };
        let (_, there) = &*self.last.insert((parent.to_owned(), there));
        Ok((there.as_fd(), name))
    }
}

/// The same again, which cannot be written to.
fn freeze(there: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let copy = rustix::mount::open_tree(there, "", flags | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
    kernel::set_mount_attributes(copy.as_fd(), u64::from(attributes.bits()), true)?;
    Ok(copy)
}

/// A folder or a file in which there is nothing.
fn mask(there: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if FileType::from_raw_mode(rustix::fs::fstat(there)?.st_mode).is_dir() {
        let nothing = Room { bytes: 4_096, inodes: 1 };
        let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        return memory(nothing, "0555", None, attributes);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = rustix::mount::open_tree(CWD, "/dev/null", flags)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    kernel::set_mount_attributes(null.as_fd(), u64::from(attributes.bits()), false)?;
    Ok(null)
}

/// A file system in memory, mounted nowhere yet.
fn memory(
    room: Room,
    mode: &str,
    owner: Option<(u32, u32)>,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let (size, inodes) = (room.bytes.to_string(), room.inodes.to_string());
    let mut options = vec![("size", size.as_str()), ("nr_inodes", inodes.as_str()), ("mode", mode)];
    let ids = owner.map(|(uid, gid)| (uid.to_string(), gid.to_string()));
    if let Some((uid, gid)) = &ids {
        options.extend([("uid", uid.as_str()), ("gid", gid.as_str())]);
    }
    mounted("tmpfs", &options, attributes)
}

/// A new file system, mounted nowhere yet.
fn mounted(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(fs.as_fd(), *name, *value)?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    Ok(rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn onto(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}

/// A folder of the machine.
fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What is at `path` within the root, wherever links on the way lead; `None` when nothing is.
fn existing(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match look(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn look(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        // Another process that renames folders makes the kernel give up on being sure, with EAGAIN.
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The folder at `path` within the root, made with those on the way to it if need be; the root itself where that is empty.
fn folder(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    if path.is_empty() {
        return Ok(look(root, "/", flags)?);
    }
    if let Ok(there) = look(root, path, flags) {
        return Ok(there);
    }
    let (parent, name) = split(path)?;
    match rustix::fs::mkdirat(folder(root, parent)?, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(look(root, path, flags)?)
}

/// The file at `path` within the root, made empty if need be.
fn file(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    if let Some(there) = existing(root, path)? {
        return Ok(there);
    }
    let (parent, name) = split(path)?;
    let parent = folder(root, parent)?;
    // One that leads nowhere.
    remove_link(parent.as_fd(), name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
    Ok(look(root, path, OFlags::PATH)?)
}

/// The path of the folder that `path` is in, and its name there.
fn split(path: &str) -> io::Result<(&str, &str)> {
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
    if matches!(name, "" | "." | "..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((parent, name))
}

/// A link of an image in place of a file of ours would have us write elsewhere.
fn remove_link(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_symlink() => {
            Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
