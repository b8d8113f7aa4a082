//! Instances in containers of Docker, for machines where somebody insists on one.
//!
//! A container is made for each instance, and its first process is the instance's shim. It is handed what a child of ours is handed,
//! through a socket that it finds in there ([`berth_shim::door`]): its configuration, so that no secret is in the container's description; the sockets at which control
//! and edge reach it; the folder of its log. So logs, restarts, stops, the way in and the survival of control are the same as without
//! containers, and so is the way out: the pair of interfaces and the rules are laid into the container's network, which begins with a loopback
//! alone. What the daemon does is what it is there for: the root, the namespaces, the limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_docker::{Archive, Bind, Container, Engine, EngineError, Facts, Layer, Net};
use berth_process::{Identity, Mark, procfs};
use berth_shim::config::{Internal, Network};
use berth_shim::door;
use berth_shim::sandbox::Entry;
use berth_spec::Isolation;
use berth_spec::manifest::Egress;
use rustix::net::sockopt;

use super::beside::Beside;
use super::daemon::Attendance;
use super::{Inner, SHIM, remove_file};
use crate::egress::WayOut;
use crate::error::{RuntimeError, during};
use crate::instance::{InstanceSpec, Root};
use crate::layout::{Layout, short};
use crate::sandbox::Places;

/// Where a container has its shim, and the socket behind which the shim is handed what it needs.
const SHIM_WITHIN: &str = "/.berth/shim";
const DOOR_WITHIN: &str = "/.berth/door";
/// The labels by which our containers and images are known.
const PLATFORM: &str = "berth.platform";
const INSTANCE: &str = "berth.instance";
const TOKEN: &str = "berth.token";
const LAYERS: &str = "berth.layers";
/// How long a container may take from its start to its shim's first word.
const DOOR_LIMIT: Duration = Duration::from_secs(30);
/// What a shim needs to run the app as another user and to end it: it gives all of it up for the app.
const OF_THE_SHIM: [&str; 5] = ["CHOWN", "KILL", "SETGID", "SETPCAP", "SETUID"];
/// What the root of an image keeps besides, over its own files: Docker gives these and more to any container.
const OF_IMAGES: [&str; 4] = ["DAC_OVERRIDE", "FOWNER", "FSETID", "NET_BIND_SERVICE"];
/// Processes of a container that are not the app's: the shim.
const OURS: u64 = 1;

/// The daemon that makes the containers of this platform.
#[derive(Debug)]
pub(super) struct Containers {
    engine: Engine,
    facts: Facts,
    platform: String,
    /// Held while an image is loaded, so that it is loaded once.
    loading: Mutex<()>,
    pub(super) attendance: Attendance,
}

/// Where the daemon may listen, as our environment says.
#[must_use]
pub fn daemon_sockets() -> Vec<PathBuf> {
    berth_docker::sockets(std::env::var("DOCKER_HOST").ok().as_deref())
}

/// Whether a daemon answers that instances can run in.
///
/// # Errors
/// [`RuntimeError::Engine`] when none does.
pub fn check_daemon() -> Result<(), RuntimeError> {
    Engine::find(&daemon_sockets())?.facts()?;
    Ok(())
}

/// What a shim is handed.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    descriptors: Vec<OwnedFd>,
    /// The network beside the container's, where there is one.
    beside: Option<Beside>,
}

impl Parcel {
    /// Hands it all over.
    pub(super) fn hand(&self, to: impl AsFd) -> io::Result<()> {
        door::hand(to, &self.descriptors)
    }

    /// Puts a descriptor in, and gives its number there.
    pub(super) fn add(&mut self, descriptor: impl AsFd) -> io::Result<i32> {
        let number = door::FIRST + i32::try_from(self.descriptors.len()).map_err(io::Error::other)?;
        self.descriptors.push(descriptor.as_fd().try_clone_to_owned()?);
        Ok(number)
    }

    /// Makes the network beside the container's and puts in its sockets. Gives their numbers there.
    pub(super) fn add_beside(&mut self, way: &Internal) -> io::Result<Vec<i32>> {
        let (beside, sockets) = Beside::make(way)?;
        self.beside = Some(beside);
        sockets.iter().map(|socket| self.add(socket)).collect()
    }
}

impl Containers {
    /// The first daemon that answers at one of `sockets`, for the platform at `layout`. Puts the shim where containers find it.
    pub(super) fn open(layout: &Layout, sockets: &[PathBuf]) -> Result<Self, RuntimeError> {
        let engine = Engine::find(sockets)?;
        let facts = engine.facts()?;
        put_shim(&layout.shim()).map_err(during("putting the shim where containers find it"))?;
        let (platform, loading) = (layout.platform.clone(), Mutex::default());
        Ok(Self { engine, facts, platform, loading, attendance: Attendance::default() })
    }

    /// The daemon, in words.
    pub(super) fn daemon(&self) -> String {
        let away = if self.attendance.is_away() { ", which does not answer" } else { "" };
        format!("{} at {}{away}", self.facts.version, self.engine.socket().display())
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        self.engine.socket()
    }

    /// Asks the daemon for a sign of life. Blocks.
    pub(super) fn ask(&self) -> Result<(), EngineError> {
        self.engine.facts().map(drop).map_err(|error| self.engine.told(error))
    }

    /// Whether there is anybody to make a container.
    pub(super) fn listens(&self) -> Result<(), RuntimeError> {
        Ok(self.engine.listens()?)
    }

    /// A call's error as it is told.
    fn told(&self) -> impl Fn(EngineError) -> EngineError {
        |error| self.engine.told(error)
    }

    /// The level of isolation that its containers have.
    pub(super) fn level(&self) -> Isolation {
        let limits = ["memory", "pids"].iter().all(|name| self.facts.limits.contains(name));
        let root = rustix::process::geteuid().is_root();
        if root && limits && self.facts.seccomp { Isolation::Full } else { Isolation::Namespaces }
    }

    /// What is limited, in the kernel's names.
    pub(super) fn limits(&self) -> Vec<&'static str> {
        self.facts.limits.clone()
    }

    /// What keeps its instances from more, a sentence each.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.attendance.is_away() {
            missing.push(format!(
                "Docker does not answer at {}: instances that run without it go on, and none is started until it is back; `systemctl start docker`",
                self.engine.socket().display()
            ));
        }
        if !rustix::process::geteuid().is_root() {
            missing.push("no users of their own for apps: run Berth as root".to_owned());
        }
        if !self.facts.seccomp {
            missing
                .push("the daemon filters no system calls: its kernel or its build lacks seccomp".to_owned());
        }
        let lacks = |name: &&str| !self.facts.limits.contains(name);
        let unlimited: Vec<&str> = ["memory", "cpu", "pids"].into_iter().filter(|name| lacks(name)).collect();
        if !unlimited.is_empty() {
            missing.push(format!("no limits on {}: `docker info` says why", unlimited.join(", ")));
        }
        missing
    }

    /// Where the shim finds how often memory ran out.
    pub(super) fn oom_counter(&self) -> Option<String> {
        let path = if self.facts.unified_cgroups { "memory.events" } else { "memory/memory.oom_control" };
        self.facts.limits.contains(&"memory").then(|| format!("/sys/fs/cgroup/{path}"))
    }

    /// Makes the container of an instance and hands its shim the parcel. Gives the shim as it is known out here. Blocks.
    pub(super) fn start(
        &self,
        inner: &Inner,
        spec: &InstanceSpec,
        mut parcel: Parcel,
    ) -> Result<Identity, RuntimeError> {
        let path = inner.layout.door(spec.token).map_err(during("naming a socket"))?;
        remove_file(&path).map_err(during("removing a socket"))?;
        let door = UnixListener::bind(&path).map_err(during("binding a shim's socket"))?;
        let hosts = parcel.beside.is_some().then(|| inner.layout.hosts(&spec.id));
        let container = self.container(inner, spec, &path, hosts)?;
        self.engine.run(&container).map_err(self.told())?;
        let (line, shim) = meet(&door).map_err(|error| self.not_met(spec, &container.name, &error))?;
        let network = File::open(format!("/proc/{}/ns/net", shim.pid));
        let network = network.map_err(during("opening a container's network"))?;
        if let Some(beside) = parcel.beside.take() {
            let joined = beside.join(network.as_fd());
            joined.map_err(during("leading a container's network to other apps"))?;
        }
        if let (Network::Own, Egress::Internet, Ok(WayOut::Pair(pair))) =
            (spec.network, spec.egress, &inner.way_out)
        {
            let led = pair.lead_out(network.as_fd(), spec.token, &*inner.clock);
            led.map_err(during("making a way out of a container's network"))?;
        }
        parcel.hand(&line).map_err(during("handing descriptors to a shim"))?;
        remove_file(&path).map_err(during("removing a socket"))?;
        Ok(shim)
    }

    fn not_met(&self, spec: &InstanceSpec, name: &str, error: &io::Error) -> RuntimeError {
        let runs = self.engine.pid(name).ok().flatten().is_some();
        tracing::warn!(instance = %spec.id, %error, runs, "the shim of a container is not met");
        let what = if runs { "it does not come to its door" } else { "its container ended at once" };
        RuntimeError::Shim { id: spec.id.clone(), what }
    }

    fn container(
        &self,
        inner: &Inner,
        spec: &InstanceSpec,
        door: &Path,
        hosts: Option<PathBuf>,
    ) -> Result<Container, RuntimeError> {
        let (root, tmp) = (inner.layout.root(&spec.id), inner.layout.tmp(&spec.id));
        let places = Places { root, tmp, cgroup: None, hosts };
        let view = inner.policy.view(spec, &places);
        let mut container = Container {
            name: self.name(spec.token),
            image: self.image(inner, spec, &view.entries)?,
            command: vec![SHIM_WITHIN.to_owned(), spec.id.to_string(), DOOR_WITHIN.to_owned()],
            env: vec![spec.token.assignment()],
            user: format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            dir: "/".to_owned(),
            hostname: view.hostname,
            labels: self.labels(spec),
            network: if spec.network == Network::Own { Net::Own } else { Net::Machine },
            read_only: spec.root == Root::Host,
            capabilities: capabilities(spec),
            shared_memory: 64 << 20,
            memory: spec.resources.memory,
            cpu_millis: spec.resources.cpu_millis,
            processes: inner.policy.quota(spec).processes.map(|most| most + OURS),
            ..Container::default()
        };
        let bind = |source: &Path, target: &str| Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            writable: false,
        };
        container.binds = vec![bind(&inner.layout.shim(), SHIM_WITHIN), bind(door, DOOR_WITHIN)];
        // One that cannot be written to cannot be connected to.
        container
            .binds
            .iter_mut()
            .filter(|bind| bind.target == DOOR_WITHIN)
            .for_each(|bind| bind.writable = true);
        let files = inner.layout.files(&spec.id);
        furnish(&mut container, &view.entries, &files).map_err(during("making the files of a container"))?;
        Ok(container)
    }

    /// The image of an instance, loaded if the daemon does not have it yet.
    fn image(&self, inner: &Inner, spec: &InstanceSpec, entries: &[Entry]) -> Result<String, RuntimeError> {
        let archive = match &spec.root {
            Root::Host => {
                let mut made: BTreeMap<String, Option<String>> =
                    ["/.berth", "/etc", "/var"].map(|path| (path.to_owned(), None)).into();
                made.extend(entries.iter().filter_map(|entry| match entry {
                    Entry::Link { path, to } if !path.starts_with("/dev/") => {
                        Some((path.clone(), Some(to.clone())))
                    }
                    _ => None,
                }));
                Archive::new("host", vec![Layer::Made(made)], BTreeMap::new())
            }
            Root::Layers { lower, uid_base } => {
                let paths: Vec<String> =
                    lower.iter().map(|path| path.to_string_lossy().into_owned()).collect();
                let labels = [(PLATFORM, self.platform.clone()), (LAYERS, paths.join("\n"))];
                let labels = labels.map(|(name, value)| (name.to_owned(), value)).into();
                let folder = |path: &PathBuf| Layer::Folder { path: path.clone(), uid_base: *uid_base };
                Archive::new("image", lower.iter().rev().map(folder).collect(), labels)
            }
        };
        let _turn = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.engine.has_image(&archive.name).map_err(self.told())? {
            self.engine.load(archive.write(&inner.layout.instances)?).map_err(self.told())?;
        }
        Ok(archive.name)
    }

    fn name(&self, token: Mark) -> String {
        format!("berth-{}-{}", self.platform, short(token))
    }

    fn labels(&self, spec: &InstanceSpec) -> BTreeMap<String, String> {
        let labels =
            [(PLATFORM, self.platform.clone()), (INSTANCE, spec.id.to_string()), (TOKEN, short(spec.token))];
        labels.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// The shim of a container, as it is known out here. Blocks.
    pub(super) fn shim(&self, token: Mark) -> Result<Option<Identity>, RuntimeError> {
        let Some(pid) = self.engine.pid(&self.name(token))? else { return Ok(None) };
        Identity::of(pid).map_err(during("looking at a shim"))
    }

    /// Has an instance stand still, its shim included. Blocks.
    pub(super) fn freeze(&self, token: Mark) -> Result<(), RuntimeError> {
        Ok(self.engine.pause(&self.name(token)).map_err(self.told())?)
    }

    /// Has an instance go on. Blocks.
    pub(super) fn thaw(&self, token: Mark) -> Result<(), RuntimeError> {
        Ok(self.engine.unpause(&self.name(token)).map_err(self.told())?)
    }

    /// Removes the container of an instance, whatever it does. What a daemon still has that cannot be asked is swept when it is back: no
    /// process of it is left by then. Blocks.
    pub(super) fn remove(&self, token: Mark) -> Result<(), RuntimeError> {
        match self.engine.remove(&self.name(token)).map_err(self.told()) {
            Err(error @ (EngineError::Absent(_) | EngineError::Broken { .. })) => {
                tracing::warn!(container = self.name(token), %error, "a container is removed later");
                self.attendance.owe();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Removes this platform's containers of which nobody knows, and images whose layers are no more. Who is `known` is asked once the
    /// containers are: whose container there is has been known before. Blocks.
    pub(super) fn sweep(
        &self,
        known: impl FnOnce() -> Result<BTreeSet<String>, RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let containers = self.engine.containers(PLATFORM, &self.platform)?;
        let known = known()?;
        for stray in containers {
            if !stray.labels.get(TOKEN).is_some_and(|token| known.contains(token)) {
                tracing::warn!(container = stray.id, "a container without a record is ended");
                self.engine.remove(&stray.id)?;
            }
        }
        for (name, layers) in self.engine.images(LAYERS)? {
            if !layers.lines().all(|path| Path::new(path).try_exists().unwrap_or(true)) {
                self.engine.remove_image(&name)?;
            }
        }
        Ok(())
    }
}

fn capabilities(spec: &InstanceSpec) -> Vec<String> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let more: &[&str] = if spec.root == Root::Host { &[] } else { &OF_IMAGES };
    OF_THE_SHIM.iter().chain(more).map(|name| (*name).to_owned()).collect()
}

/// Gives a container what an app's root has, as far as the daemon does not give it anyway.
fn furnish(container: &mut Container, entries: &[Entry], files: &Path) -> io::Result<()> {
    let is_daemons =
        |path: &str| ["/dev", "/proc", "/sys"].iter().any(|top| Path::new(path).starts_with(top));
    for entry in entries {
        match entry {
            Entry::Bind { path, .. } if is_daemons(path) => {}
            Entry::Bind { source, path, how } => {
                let source = PathBuf::from(source);
                if !how.optional || source.try_exists()? {
                    container.binds.push(Bind { source, target: path.clone(), writable: how.writable });
                }
            }
            Entry::Memory { path, room, .. } if is_daemons(path) => container.shared_memory = room.bytes,
            Entry::Memory { path, room, exec } => {
                let exec = if *exec { "exec" } else { "noexec" };
                let options =
                    format!("nosuid,nodev,{exec},mode=1777,size={},nr_inodes={}", room.bytes, room.inodes);
                container.memory_mounts.insert(path.clone(), options);
            }
            Entry::File { path, text } => {
                fs::create_dir_all(files)?;
                let source = files.join(path.trim_start_matches('/').replace('/', "-"));
                fs::write(&source, text)?;
                fs::set_permissions(&source, Permissions::from_mode(0o644))?;
                container.binds.push(Bind { source, target: path.clone(), writable: false });
            }
            Entry::Directory { path } if !is_daemons(path) => container.dir.clone_from(path),
            Entry::Directory { .. }
            | Entry::Link { .. }
            | Entry::Processes { .. }
            | Entry::Terminals { .. }
            | Entry::Mask { .. }
            | Entry::Freeze { .. } => {}
        }
    }
    Ok(())
}

/// Waits for a shim to come to its door, and gives the way to it and who the kernel says that it is.
fn meet(door: &UnixListener) -> io::Result<(UnixStream, Identity)> {
    sockopt::set_socket_timeout(door, sockopt::Timeout::Recv, Some(DOOR_LIMIT))?;
    let (line, _) = door.accept()?;
    let pid = sockopt::socket_peercred(&line)?.pid.as_raw_nonzero().get().cast_unsigned();
    let shim = Identity::of(pid)?;
    // A daemon on another machine has other processes.
    shim.map(|shim| (line, shim)).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The process out here that is called `pid` in the namespace of `shim`.
pub(super) fn outside(shim: u32, pid: u32) -> Option<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (there, called) = (namespace(shim)?, pid.to_string());
    let is_it = |outside: &u32| {
        let status = fs::read_to_string(format!("/proc/{outside}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        line.and_then(|line| line.split_whitespace().last()) == Some(&called)
    };
    procfs::pids()
        .ok()?
        .into_iter()
        .find(|outside| is_it(outside) && namespace(*outside).as_ref() == Some(&there))
}

/// Puts the shim where containers find it. Those that run keep the one that they have.
fn put_shim(path: &Path) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == SHIM) {
        return Ok(());
    }
    let made = path.with_extension("new");
    let mut file = File::create(&made)?;
    file.write_all(SHIM)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    drop(file);
    fs::rename(made, path)
}
