//! The sandbox of one instance, from what it is to be and what the machine can do.

use std::fs;
use std::path::{Path, PathBuf};

use berth_process::{Cgroup, Controller, Disk, DiskSpeed, Enclosed, Quota, User};
use berth_shim::config::Network;
use berth_shim::sandbox::{IdRange, Landlock, Room, Sandbox, View};
use berth_spec::Isolation;

use super::abilities::Abilities;
use super::seccomp;
use super::view::{self, AppIds, CommandScene, Scene};
use crate::egress::resolv_conf;
use crate::error::RuntimeError;
use crate::instance::{InstanceSpec, Mount, Root};

/// How many processes and threads an instance may have when nobody says: far more than any app has, far fewer than a machine bears.
const PROCESSES: u64 = 4_096;
/// How much an instance may write to `/tmp`, or to the root of an image, when nobody says. It is memory.
const TMP: u64 = 512 << 20;
/// Of how many bytes of room there is one file: small ones must not take more of the kernel's memory than large ones.
const BYTES_PER_INODE: u64 = 8 << 10;
/// The root of what has the machine's programs: folders, links and a few short files.
const FRAME: Room = Room { bytes: 1 << 20, inodes: 2_048 };
/// The name of the host that a build is on.
const BUILD_HOST: &str = "build";
/// How many users an image has.
const IMAGE_USERS: u32 = 65_536;

/// The capabilities that the root of an image keeps within its own user namespace, as numbers of linux/capability.h: enough to prepare
/// its files and to become another of its users. All of them are about its own users' things alone.
const IMAGE_CAPABILITIES: [u32; 8] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    10, // NET_BIND_SERVICE
];

/// How instances are kept apart on this machine.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) level: Isolation,
    pub(crate) abilities: Abilities,
    filter: Vec<u8>,
    /// The disk whose speed is limited, where that can be.
    disk: Option<Disk>,
}

/// The paths and groups of one instance.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// An empty folder, for the root to be mounted over.
    pub(crate) root: PathBuf,
    /// A folder on the disk that the app may write to, where it has no root of its own.
    pub(crate) tmp: PathBuf,
    /// Its control group.
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// The file that is its `/etc/hosts`, where others change that.
    pub(crate) hosts: Option<PathBuf>,
}

impl Policy {
    /// The policy at `level`, which must be one that there is.
    pub(crate) fn new(level: Isolation, abilities: Abilities) -> Self {
        Self { level, abilities, filter: seccomp::filter(), disk: None }
    }

    /// With limits for how fast that disk is read and written.
    pub(crate) fn on(self, disk: Option<Disk>) -> Self {
        Self { disk, ..self }
    }

    /// Whether apps have roots of their own.
    pub(crate) fn has_view(&self) -> bool {
        self.level >= Isolation::Namespaces
    }

    /// Whether an instance can have a network of its own: as an ordinary user that takes a user namespace.
    pub(crate) fn own_network(&self) -> bool {
        self.abilities.own_network() && (self.abilities.root || self.has_view())
    }

    /// Whether instances reach other apps by name: what names lead to stands in a file of a root of their own.
    pub(crate) fn names(&self) -> bool {
        self.own_network() && self.has_view() && self.abilities.internal()
    }

    /// Whether shims make user namespaces for themselves.
    pub(crate) fn as_ordinary_user(&self) -> bool {
        self.has_view() && !self.abilities.root
    }

    /// The limits of an instance.
    pub(crate) fn quota(&self, spec: &InstanceSpec) -> Quota {
        let resources = &spec.resources;
        Quota {
            memory: resources.memory,
            cpu_millis: resources.cpu_millis,
            processes: Some(resources.processes.unwrap_or(PROCESSES)),
            disk: self
                .disk
                .filter(|_| resources.disk_read.or(resources.disk_write).is_some())
                .map(|disk| DiskSpeed { disk, read: resources.disk_read, write: resources.disk_write }),
        }
    }

    /// What stands around the app of `spec`; `None` for nothing.
    ///
    /// # Errors
    /// When it cannot be had at this level.
    pub(crate) fn sandbox(
        &self,
        spec: &InstanceSpec,
        places: &Places<'_>,
    ) -> Result<Option<Sandbox>, RuntimeError> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let counts = self.abilities.controllers.contains(&Controller::Memory);
        let sandbox = Sandbox {
            doors: places.cgroup.into_iter().flat_map(Cgroup::more_doors).map(text).collect(),
            oom_counter: places.cgroup.filter(|_| counts).map(|group| text(group.oom_counter())),
            ..Sandbox::default()
        };
        if !self.has_view() && spec.root != Root::Host {
            return Err(RuntimeError::Invalid("an image takes namespaces, which this machine does not have"));
        }
        Ok(match self.level {
            Isolation::Plain if sandbox == Sandbox::default() => None,
            Isolation::Plain => Some(sandbox),
            Isolation::Confined => {
                let (readable, writable) = view::confined(&spec.dir, &places.tmp, &spec.mounts);
                let landlock = Some(Landlock { readable, writable, ..Landlock::default() });
                Some(Sandbox { landlock, filter: self.filter.clone(), ..sandbox })
            }
            Isolation::Namespaces | Isolation::Full => Some(Sandbox {
                view: Some(self.view(spec, places)),
                as_ordinary_user: self.as_ordinary_user(),
                users: self.users(spec),
                capabilities: capabilities(&spec.root),
                filter: self.filter.clone(),
                landlock: Some(Landlock {
                    readable: vec!["/".to_owned()],
                    writable: view::writable(&spec.root, &spec.mounts),
                    ..Landlock::default()
                }),
                ..sandbox
            }),
        })
    }

    /// What stands around a command of a build. `covered` is what it never sees: the platform's own files.
    ///
    /// There is no user namespace for it as root: its user has no rights that one could take, and the groups by which it reads what earlier
    /// builds made, and the owners that tools look at, are those of the machine.
    pub(crate) fn around(&self, command: &Enclosed, covered: &Path, network: Network) -> Sandbox {
        // Without rules about files: what may be written to is what is mounted so. With it there are no abstract sockets of the machine's.
        let apart = Landlock { moves: true, ..Landlock::default() };
        match self.level {
            Isolation::Plain => Sandbox::default(),
            Isolation::Confined => {
                let own =
                    |path: &PathBuf, writable| Mount { source: path.clone(), target: path.clone(), writable };
                let mut mounts: Vec<Mount> = command.readable.iter().map(|path| own(path, false)).collect();
                mounts.extend(command.writable.iter().map(|path| own(path, true)));
                // Many a build script writes there, and there is no other one to give it.
                let tmp = Path::new("/tmp");
                let (readable, writable) = view::confined(command.program.ground().dir(), tmp, &mounts);
                let landlock = Some(Landlock { readable, writable, ..apart });
                Sandbox { landlock, filter: self.filter.clone(), ..Sandbox::default() }
            }
            Isolation::Namespaces | Isolation::Full => Sandbox {
                view: Some(self.view_of_command(command, covered, network)),
                as_ordinary_user: self.as_ordinary_user(),
                filter: self.filter.clone(),
                landlock: Some(apart),
                ..Sandbox::default()
            },
        }
    }

    fn view_of_command(&self, command: &Enclosed, covered: &Path, network: Network) -> View {
        let cgroups = self.cgroups(command.cgroup.as_ref());
        let resolver = (network == Network::Own).then(resolv_conf);
        // Names of mirrors are often written there, and it is no secret how this machine is reached from itself.
        let hosts = if command.offline {
            String::new()
        } else {
            fs::read_to_string("/etc/hosts").unwrap_or_default()
        };
        let entries = view::of_command(&CommandScene {
            readable: &command.readable,
            writable: &command.writable,
            tmp: &command.tmp,
            covered,
            ids: ids(command.program.ground().user()),
            hostname: BUILD_HOST,
            hosts: &hosts,
            resolver: resolver.as_deref(),
            cgroups: &cgroups,
        });
        View {
            place: command.root.to_string_lossy().into_owned(),
            hostname: BUILD_HOST.to_owned(),
            layers: Vec::new(),
            room: FRAME,
            read_only: true,
            entries,
        }
    }

    /// The users of the app's namespace: its own alone, or as many as an image has.
    fn users(&self, spec: &InstanceSpec) -> Option<IdRange> {
        if !self.abilities.root {
            return None;
        }
        match &spec.root {
            Root::Host => {
                spec.user.as_ref().map(|user| IdRange { inner: user.uid, outer: user.uid, count: 1 })
            }
            Root::Layers { uid_base, .. } => Some(IdRange { inner: 0, outer: *uid_base, count: IMAGE_USERS }),
        }
    }

    /// What stands around an app in a container, which is sandbox enough but for what nobody's container needs: the system calls that
    /// are refused everywhere.
    pub(crate) fn contained(&self, spec: &InstanceSpec, oom_counter: Option<String>) -> Sandbox {
        // Whoever is not root has lost them with the change of user.
        let is_root = spec.user.as_ref().is_some_and(|user| user.uid == 0);
        let capabilities = if is_root { capabilities(&spec.root) } else { 0 };
        Sandbox { capabilities, filter: self.filter.clone(), oom_counter, ..Sandbox::default() }
    }

    /// What an app in a root of its own sees.
    pub(crate) fn view(&self, spec: &InstanceSpec, places: &Places<'_>) -> View {
        let bytes = spec.resources.tmp.unwrap_or(TMP);
        let tmp = Room { bytes, inodes: (bytes / BYTES_PER_INODE).max(64) };
        let hostname = hostname(spec);
        let (layers, room, read_only) = match &spec.root {
            Root::Host => (Vec::new(), FRAME, true),
            Root::Layers { lower, .. } => {
                (lower.iter().map(|path| path.to_string_lossy().into_owned()).collect(), tmp, false)
            }
        };
        let cgroups = self.cgroups(places.cgroup);
        // What listens at the machine's loopback is not to be reached from a network of its own.
        let resolver = (spec.network == Network::Own).then(resolv_conf);
        let scene = Scene {
            root: &spec.root,
            dir: &spec.dir,
            mounts: &spec.mounts,
            ids: ids(spec.user.as_ref()),
            hostname: &hostname,
            tmp,
            resolver: resolver.as_deref(),
            hosts: places.hosts.as_deref(),
            cgroups: &cgroups,
        };
        let entries = view::entries(&scene);
        let place = places.root.to_string_lossy().into_owned();
        View { place, hostname: hostname.clone(), layers, room, read_only, entries }
    }

    /// The app's own control groups, where runtimes of languages look for the limits that they adapt to.
    fn cgroups(&self, group: Option<&Cgroup>) -> Vec<(String, String)> {
        let Some(group) = group else { return Vec::new() };
        let own = |controller: &Controller| {
            let dir = group.dir(*controller).to_string_lossy().into_owned();
            let below = if group.is_beside(*controller) { controller.name() } else { "" };
            (dir, format!("/sys/fs/cgroup/{below}").trim_end_matches('/').to_owned())
        };
        // Nothing adapts to how fast a disk may be, and most instances are in no group for it.
        let told = self.abilities.controllers.iter().filter(|controller| **controller != Controller::Disk);
        let mut seen: Vec<_> = told.map(own).collect();
        seen.dedup();
        seen
    }
}

/// What an instance calls itself.
pub(crate) fn hostname(spec: &InstanceSpec) -> String {
    spec.id.short().replace('.', "-").chars().take(63).collect()
}

fn ids(user: Option<&User>) -> AppIds {
    match user {
        Some(user) => AppIds { uid: user.uid, gid: user.gid },
        None => AppIds { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
    }
}

fn capabilities(root: &Root) -> u64 {
    match root {
        Root::Host => 0,
        Root::Layers { .. } => IMAGE_CAPABILITIES.iter().fold(0, |mask, number| mask | 1 << number),
    }
}
