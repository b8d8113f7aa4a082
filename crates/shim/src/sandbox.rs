//! What stands around an app: the part of the start configuration that a sandboxed instance has more than a plain one.
//!
//! It is a list of things to be done, in order, without any choice left to the shim: what an app may see is decided, and tested, by
//! whoever writes it. Paths in it are absolute; those on the app's side are resolved within its new root, wherever its links point.

use crate::tlv::{self, Fields, Malformed, put, put_u64};

/// What stands around an app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// The namespaces and the root of the app's own; `None` where the system refuses them and the rest has to do.
    pub view: Option<View>,
    /// Whether the shim first goes into a user namespace, in which an ordinary user may make the others. Its user is the same there,
    /// and nobody else is.
    pub as_ordinary_user: bool,
    /// The users of the app's user namespace, when a privileged shim makes one for it: its user alone, or the many of an image.
    pub users: Option<IdRange>,
    /// The capabilities that a root within the app's user namespace keeps, as a mask of their numbers; nought for none.
    pub capabilities: u64,
    /// The seccomp filter: a classic BPF program, eight bytes an instruction as the kernel has them; empty for none.
    pub filter: Vec<u8>,
    /// The rules of Landlock; `None` for none.
    pub landlock: Option<Landlock>,
    /// More control groups that the app enters: files to which it writes `0`.
    pub doors: Vec<String>,
    /// Where the kernel counts its kills for want of memory in the app's group: a file with a line `oom_kill N`.
    pub oom_counter: Option<String>,
}

/// The namespaces of an app (mount, pid, ipc, uts, cgroup) and what is in its root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// An empty folder, over which the new root is mounted in the app's namespace alone.
    pub place: String,
    /// The name of the app's host.
    pub hostname: String,
    /// The folders that make up the root, the topmost first, under an overlay whose writes go to memory; none for an empty root.
    pub layers: Vec<String>,
    /// How much may be written to the root.
    pub room: Room,
    /// Whether nothing may be written to the root once it stands.
    pub read_only: bool,
    /// What is put into the root, in order.
    pub entries: Vec<Entry>,
}

/// How much a file system in memory takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
}

/// Something in an app's root. Folders on the way to it are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Directory {
        /// Where.
        path: String,
    },
    /// A file, which nobody but its maker may write.
    File {
        /// Where.
        path: String,
        /// What it says.
        text: String,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: String,
        /// Where it leads.
        to: String,
    },
    /// A file or folder of the machine, with what is mounted below it.
    Bind {
        /// Where it is on the machine.
        source: String,
        /// Where the app has it.
        path: String,
        /// How it is had.
        how: BindMode,
    },
    /// An empty file system in memory, to which the app may write.
    Memory {
        /// Where.
        path: String,
        /// How much it takes.
        room: Room,
        /// Whether programs in it may be run.
        exec: bool,
    },
    /// The processes of the app's pid namespace, and the kernel's settings, unwritable.
    Processes {
        /// Where.
        path: String,
    },
    /// Terminals of the app's own.
    Terminals {
        /// Where.
        path: String,
    },
    /// Hides what is there, if anything is: nothing can be read in its place.
    Mask {
        /// Where.
        path: String,
    },
    /// Makes what is there, if anything is, unwritable.
    Freeze {
        /// Where.
        path: String,
    },
}

/// How an app has something of the machine. Set-user-id bits count nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BindMode {
    /// Whether it may be written to.
    pub writable: bool,
    /// Whether devices in it work: for one device file alone.
    pub devices: bool,
    /// Whether it may be missing.
    pub optional: bool,
}

/// A range of user and group ids: those from `inner` on in the namespace are those from `outer` on outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first one within.
    pub inner: u32,
    /// The first one outside.
    pub outer: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// The id outside of one within; the first one for those that are not in the range.
    #[must_use]
    pub fn outside(self, id: u32) -> u32 {
        let at = id.checked_sub(self.inner).filter(|at| *at < self.count);
        at.map_or(self.outer, |at| self.outer + at)
    }
}

/// Rules of Landlock, as far as the kernel knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Landlock {
    /// What may be read and run, and nothing more.
    pub readable: Vec<String>,
    /// What may be written, too.
    pub writable: Vec<String>,
    /// The only TCP port to which the app may bind; `None` leaves ports alone.
    pub port: Option<u16>,
    /// Whether what is written is moved between folders, as compilers and package managers do. The first version of Landlock forbids that
    /// whatever the rules say, so that a kernel which has no other goes without those about files.
    pub moves: bool,
}

const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const LINK: u8 = 3;
const BIND: u8 = 4;
const MEMORY: u8 = 5;
const PROCESSES: u8 = 6;
const TERMINALS: u8 = 7;
const MASK: u8 = 8;
const FREEZE: u8 = 9;

impl Sandbox {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(view) = &self.view {
            put(&mut out, 1, &view.encode());
        }
        put(&mut out, 2, &[u8::from(self.as_ordinary_user)]);
        if let Some(IdRange { inner, outer, count }) = self.users {
            put(&mut out, 3, &[inner, outer, count].map(u32::to_le_bytes).concat());
        }
        put_u64(&mut out, 4, self.capabilities);
        put(&mut out, 5, &self.filter);
        if let Some(landlock) = &self.landlock {
            put(&mut out, 6, &landlock.encode());
        }
        self.doors.iter().for_each(|door| put(&mut out, 7, door.as_bytes()));
        if let Some(counter) = &self.oom_counter {
            put(&mut out, 8, counter.as_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut sandbox = Self::default();
        for field in Fields::of(bytes) {
            let (tag, field) = field?;
            match tag {
                1 => sandbox.view = Some(View::decode(field)?),
                2 => sandbox.as_ordinary_user = field == [1],
                3 => sandbox.users = Some(id_range(field)?),
                4 => sandbox.capabilities = tlv::number(field)?,
                5 => sandbox.filter = field.to_vec(),
                6 => sandbox.landlock = Some(Landlock::decode(field)?),
                7 => sandbox.doors.push(tlv::path(field)?),
                8 => sandbox.oom_counter = Some(tlv::path(field)?),
                _ => return Err(Malformed("a field of the sandbox is not known")),
            }
        }
        if sandbox.filter.len() % 8 != 0 {
            return Err(Malformed("a filter is no whole number of instructions"));
        }
        Ok(sandbox)
    }
}

impl View {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, 1, self.place.as_bytes());
        put(&mut out, 2, self.hostname.as_bytes());
        self.layers.iter().for_each(|layer| put(&mut out, 3, layer.as_bytes()));
        put(&mut out, 4, &self.room.encode());
        put(&mut out, 5, &[u8::from(self.read_only)]);
        self.entries.iter().for_each(|entry| put(&mut out, 6, &entry.encode()));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut view = Self::default();
        for field in Fields::of(bytes) {
            let (tag, field) = field?;
            match tag {
                1 => view.place = tlv::path(field)?,
                2 => view.hostname = tlv::text(field)?,
                3 => view.layers.push(tlv::path(field)?),
                4 => view.room = Room::decode(field)?,
                5 => view.read_only = field == [1],
                6 => view.entries.push(Entry::decode(field)?),
                _ => return Err(Malformed("a field of the view is not known")),
            }
        }
        if view.place.is_empty() {
            return Err(Malformed("the root has no place"));
        }
        Ok(view)
    }
}

impl Room {
    fn encode(self) -> Vec<u8> {
        [self.bytes, self.inodes].map(u64::to_le_bytes).concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (first, second) = bytes.split_at_checked(8).ok_or(Malformed("a room is cut short"))?;
        Ok(Self { bytes: tlv::number(first)?, inodes: tlv::number(second)? })
    }
}

impl Entry {
    /// The kind, the place, and two more fields whose meaning is the kind's.
    fn encode(&self) -> Vec<u8> {
        let (kind, path, text, extra): (u8, &str, &str, Vec<u8>) = match self {
            Self::Directory { path } => (DIRECTORY, path, "", Vec::new()),
            Self::File { path, text } => (FILE, path, text, Vec::new()),
            Self::Link { path, to } => (LINK, path, to, Vec::new()),
            Self::Bind { source, path, how } => {
                let flags = [how.writable, how.devices, how.optional].map(u8::from);
                (BIND, path, source, flags.to_vec())
            }
            Self::Memory { path, room, exec } => {
                (MEMORY, path, "", [room.encode(), vec![u8::from(*exec)]].concat())
            }
            Self::Processes { path } => (PROCESSES, path, "", Vec::new()),
            Self::Terminals { path } => (TERMINALS, path, "", Vec::new()),
            Self::Mask { path } => (MASK, path, "", Vec::new()),
            Self::Freeze { path } => (FREEZE, path, "", Vec::new()),
        };
        let mut out = vec![kind];
        put(&mut out, 1, path.as_bytes());
        put(&mut out, 2, text.as_bytes());
        put(&mut out, 3, &extra);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (kind, fields) = bytes.split_first().ok_or(Malformed("an entry is empty"))?;
        let (mut path, mut text, mut extra) = (String::new(), String::new(), Vec::new());
        for field in Fields::of(fields) {
            let (tag, field) = field?;
            match tag {
                1 => path = tlv::path(field)?,
                2 => text = tlv::text(field)?,
                3 => extra = field.to_vec(),
                _ => return Err(Malformed("a field of an entry is not known")),
            }
        }
        if !path.starts_with('/') || text.contains('\0') && *kind != FILE {
            return Err(Malformed("an entry has no path"));
        }
        Ok(match *kind {
            DIRECTORY => Self::Directory { path },
            FILE => Self::File { path, text },
            LINK => Self::Link { path, to: text },
            BIND => {
                let [writable, devices, optional] = extra[..] else {
                    return Err(Malformed("a bind is not said how"));
                };
                let how =
                    BindMode { writable: writable == 1, devices: devices == 1, optional: optional == 1 };
                Self::Bind { source: text, path, how }
            }
            MEMORY => {
                let (room, exec) = extra.split_at_checked(16).ok_or(Malformed("a room is cut short"))?;
                Self::Memory { path, room: Room::decode(room)?, exec: exec == [1] }
            }
            PROCESSES => Self::Processes { path },
            TERMINALS => Self::Terminals { path },
            MASK => Self::Mask { path },
            FREEZE => Self::Freeze { path },
            _ => return Err(Malformed("an entry is not known")),
        })
    }
}

impl Landlock {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.readable.iter().for_each(|path| put(&mut out, 1, path.as_bytes()));
        self.writable.iter().for_each(|path| put(&mut out, 2, path.as_bytes()));
        if let Some(port) = self.port {
            put_u64(&mut out, 3, port.into());
        }
        if self.moves {
            put(&mut out, 4, &[]);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut landlock = Self::default();
        for field in Fields::of(bytes) {
            let (tag, field) = field?;
            match tag {
                1 => landlock.readable.push(tlv::path(field)?),
                2 => landlock.writable.push(tlv::path(field)?),
                3 => {
                    let port = u16::try_from(tlv::number(field)?);
                    landlock.port = Some(port.map_err(|_ignored| Malformed("a port is none"))?);
                }
                4 => landlock.moves = true,
                _ => return Err(Malformed("a field of Landlock is not known")),
            }
        }
        Ok(landlock)
    }
}

fn id_range(bytes: &[u8]) -> Result<IdRange, Malformed> {
    let numbers = bytes.chunks(4).map(tlv::unsigned).collect::<Result<Vec<u32>, _>>()?;
    let [inner, outer, count] = numbers[..] else {
        return Err(Malformed("a range of ids is not three numbers"));
    };
    if inner.checked_add(count).is_none() || outer.checked_add(count).is_none() || count == 0 {
        return Err(Malformed("a range of ids has no end"));
    }
    Ok(IdRange { inner, outer, count })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Sandbox {
        let path = || "/x".to_owned();
        Sandbox {
            view: Some(View {
                place: "/place".to_owned(),
                hostname: "web".to_owned(),
                layers: vec!["/a".to_owned(), "/b".to_owned()],
                room: Room { bytes: 1, inodes: 2 },
                read_only: true,
                entries: vec![
                    Entry::Directory { path: path() },
                    Entry::File { path: path(), text: "a\nb".to_owned() },
                    Entry::Link { path: path(), to: "y".to_owned() },
                    Entry::Bind {
                        source: "/s".to_owned(),
                        path: path(),
                        how: BindMode { writable: true, devices: false, optional: true },
                    },
                    Entry::Memory { path: path(), room: Room { bytes: 3, inodes: 4 }, exec: true },
                    Entry::Processes { path: path() },
                    Entry::Terminals { path: path() },
                    Entry::Mask { path: path() },
                    Entry::Freeze { path: path() },
                ],
            }),
            as_ordinary_user: true,
            users: Some(IdRange { inner: 0, outer: 100_000, count: 65_536 }),
            capabilities: 0x1_0000_0001,
            filter: vec![7; 16],
            landlock: Some(Landlock {
                readable: vec![path()],
                writable: vec![path()],
                port: Some(80),
                moves: true,
            }),
            doors: vec!["/d".to_owned(), "/e".to_owned()],
            oom_counter: Some("/o".to_owned()),
        }
    }

    #[test]
    fn it_comes_back_from_its_bytes() {
        for sandbox in [example(), Sandbox::default()] {
            assert_eq!(Sandbox::decode(&sandbox.encode()).unwrap(), sandbox);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bad = |change: fn(&mut Sandbox)| {
            let mut sandbox = example();
            change(&mut sandbox);
            Sandbox::decode(&sandbox.encode()).is_err()
        };
        assert!(bad(|it| it.filter = vec![1; 7]));
        assert!(bad(|it| it.users = Some(IdRange { inner: 0, outer: u32::MAX, count: 2 })));
        assert!(bad(|it| it.doors = vec!["a\0b".to_owned()]));
        assert!(bad(|it| it.view.as_mut().unwrap().place.clear()));
        assert!(bad(|it| it.view.as_mut().unwrap().entries = vec![Entry::Mask { path: "x".to_owned() }]));
        let mut longer = example().encode();
        put(&mut longer, 99, b"");
        assert!(Sandbox::decode(&longer).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(Sandbox::decode(&bytes));
            drop(View::decode(&bytes));
            drop(Entry::decode(&bytes));
        }
    }
}
