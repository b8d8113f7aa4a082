//! The sandbox of one instance, from what it is to be and what the machine can do.

use std::path::PathBuf;

use berth_process::{Cgroup, Controller, Quota, User};
use berth_shim::config::Network;
use berth_shim::sandbox::{IdRange, Landlock, Room, Sandbox, View};
use berth_spec::Isolation;

use super::abilities::Abilities;
use super::seccomp;
use super::view::{self, AppIds, Scene};
use crate::egress::resolv_conf;
use crate::error::RuntimeError;
use crate::instance::{InstanceSpec, Root};

/// How many processes and threads an instance may have when nobody says: far more than any app has, far fewer than a machine bears.
const PROCESSES: u64 = 4_096;
/// How much an instance may write to `/tmp`, or to the root of an image, when nobody says. It is memory.
const TMP: u64 = 512 << 20;
/// Of how many bytes of room there is one file: small ones must not take more of the kernel's memory than large ones.
const BYTES_PER_INODE: u64 = 8 << 10;
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
        Self { level, abilities, filter: seccomp::filter() }
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
                let landlock = Some(Landlock { readable, writable, port: None });
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
                    port: None,
                }),
                ..sandbox
            }),
        })
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
            // Folders, links and a few short files.
            Root::Host => (Vec::new(), Room { bytes: 1 << 20, inodes: 2_048 }, true),
            Root::Layers { lower, .. } => {
                (lower.iter().map(|path| path.to_string_lossy().into_owned()).collect(), tmp, false)
            }
        };
        let cgroups = self.cgroups(places);
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
    fn cgroups(&self, places: &Places<'_>) -> Vec<(String, String)> {
        let Some(group) = places.cgroup else { return Vec::new() };
        let own = |controller: &Controller| {
            let dir = group.dir(*controller).to_string_lossy().into_owned();
            let below = if group.is_beside(*controller) { controller.name() } else { "" };
            (dir, format!("/sys/fs/cgroup/{below}").trim_end_matches('/').to_owned())
        };
        let mut seen: Vec<_> = self.abilities.controllers.iter().map(own).collect();
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
