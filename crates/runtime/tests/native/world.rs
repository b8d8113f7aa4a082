//! A home of its own for a test, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use berth_clock::{SystemClock, random_bytes};
use berth_process::{Cgroups, Tree};
use berth_runtime::{
    Backoff, Cursor, Identity, InstanceSpec, InstanceState, Layout, Limits, Mark, Mount, Network, Observed,
    PlainRuntime, PortWish, Record, Resources, Restart, Root, Runtime, Stop, User,
};
use berth_shim::dial;
use berth_spec::manifest::Egress;
use berth_spec::{Command, InstanceId, Millis};

use crate::roles::ROLE;

/// Longer than anything takes on the slowest machine; only a test that fails waits for so long.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) struct World {
    home: tempfile::TempDir,
    platform: String,
    uid: u32,
    ordinals: AtomicU64,
    marks: Mutex<Vec<Mark>>,
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        // This program where the instances' user reaches it: what was built may lie below a folder that keeps others out.
        let (built, here) = (std::env::current_exe().unwrap(), home.path().join("exe"));
        if std::fs::hard_link(&built, &here).is_err() {
            std::fs::copy(&built, &here).unwrap();
        }
        let platform = format!("test-{}-{count}", std::process::id());
        let uid = 2_000_900_000 + (std::process::id() % 1_000) * 100 + count;
        Self { home, platform, uid, ordinals: AtomicU64::new(1), marks: Mutex::new(Vec::new()) }
    }

    pub(crate) fn layout(&self) -> Layout {
        let below = |name: &str| self.home.path().join(name);
        Layout {
            instances: below("instances"),
            logs: below("logs"),
            run: below("run"),
            platform: self.platform.clone(),
            edge: rustix::process::geteuid().is_root().then(|| self.edge()),
        }
    }

    /// The user of the platform's edge.
    pub(crate) fn edge(&self) -> u32 {
        self.uid + 50
    }

    /// Where the world's folders lie.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The user outside that is the root of every image.
    pub(crate) fn images(&self) -> u32 {
        1_900_000_000 + (std::process::id() % 1_000) * 65_536
    }

    pub(crate) fn runtime(&self) -> PlainRuntime {
        crate::open(self.layout())
    }

    pub(crate) fn folder(&self, id: &InstanceId) -> PathBuf {
        self.layout().instances.join(id.to_string())
    }

    /// Changes the record of an instance on disk.
    pub(crate) fn edit_record(&self, id: &InstanceId, change: impl Fn(&mut serde_json::Value)) {
        let path = self.folder(id).join("start.json");
        let mut record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut record);
        std::fs::write(&path, record.to_string()).unwrap();
    }

    /// An instance that plays `role`, restarted without a wait.
    pub(crate) fn spec(&self, role: &str) -> InstanceSpec {
        let token = Mark(random_bytes(&SystemClock::new()));
        self.marks.lock().unwrap().push(token);
        let ordinal = self.ordinals.fetch_add(1, Ordering::Relaxed);
        let exe = self.home.path().join("exe").to_str().unwrap().to_owned();
        let name = format!("roles::role_{role}");
        let as_root = rustix::process::geteuid().is_root();
        InstanceSpec {
            id: format!("default/default/shop/web.{ordinal}").parse().unwrap(),
            token,
            command: Command::Argv(
                [&exe, "--exact", &name, "--nocapture", "--test-threads=1"].map(str::to_owned).to_vec(),
            ),
            env: BTreeMap::from([(ROLE.to_owned(), role.to_owned())]),
            dir: "/".into(),
            root: Root::Host,
            // This program, where the app finds it.
            mounts: vec![Mount { source: exe.clone().into(), target: exe.into(), writable: false }],
            resources: Resources::default(),
            user: as_root.then(|| User { uid: self.uid, gid: self.uid, groups: Vec::new() }),
            port: PortWish::Any { exclude: BTreeSet::new() },
            network: Network::Host,
            egress: Egress::None,
            aliases: BTreeMap::new(),
            limits: Limits { open_files: Some(256), ..Limits::default() },
            restart: Restart::Always,
            backoff: Backoff { first: 1, most: 4, good_life: 3_600_000 },
            check: None,
        }
    }
}

impl Drop for World {
    /// A test that failed must not leave its processes behind.
    fn drop(&mut self) {
        let clock = SystemClock::new();
        let groups = Cgroups::discover(&format!("berth-{}", self.platform));
        for mark in self.marks.lock().unwrap().iter() {
            let cgroup = groups.as_ref().map(|groups| groups.group(mark.to_string().get(..12).unwrap()));
            let tree = Tree { root: None, mark: Some(*mark), cgroup: cgroup.clone() };
            drop(tree.kill(&clock, LONG));
            drop(cgroup.map(|cgroup| cgroup.remove()));
        }
        drop(groups.map(|groups| groups.remove()));
    }
}

pub(crate) fn stop_within(millis: u64) -> Stop {
    Stop { signal: 15, kill_after: Millis(millis) }
}

/// Reads the log from its beginning until a line holds `word`, and gives that line.
pub(crate) async fn line_with(runtime: &dyn Runtime, id: &InstanceId, word: &str) -> String {
    let mut follow = runtime.log(id).follow(Cursor::default());
    let found = async {
        loop {
            for (_, record) in follow.next().await.unwrap().records {
                let line = String::from_utf8_lossy(&record.body).into_owned();
                if line.contains(word) {
                    return line;
                }
            }
        }
    };
    tokio::time::timeout(LONG, found).await.unwrap_or_else(|_| panic!("no line with {word:?}"))
}

/// All records of the log.
pub(crate) fn records(runtime: &dyn Runtime, id: &InstanceId) -> Vec<Record> {
    runtime.log(id).tail(usize::MAX).unwrap().records.into_iter().map(|(_, record)| record).collect()
}

pub(crate) fn number_after(line: &str, word: &str) -> u32 {
    let (_, rest) = line.split_once(word).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// The process that the instance itself knows by `pid`, as it is known out here.
pub(crate) fn process_of(started: &Observed, pid: u32) -> Identity {
    let within = descendants(started.shim.as_ref().unwrap().pid);
    let known_as = |outside: &u32| field(*outside, "NSpid:").is_some_and(|last| last == pid.to_string());
    let found = within.into_iter().find(known_as);
    Identity::of(found.unwrap()).unwrap().unwrap()
}

/// The last word of a line of `/proc/<pid>/status`.
pub(crate) fn field(pid: u32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().last().map(str::to_owned)
}

/// A process and all that descend from it.
pub(crate) fn descendants(top: u32) -> Vec<u32> {
    let parent = |pid: u32| field(pid, "PPid:").and_then(|text| text.parse().ok()).unwrap_or(0);
    let descends = |mut pid: u32| {
        while pid > 1 && pid != top {
            pid = parent(pid);
        }
        pid == top
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| descends(*pid)).collect()
}

/// Where edge asks for sockets of the instance's network.
pub(crate) fn dial_path(world: &World, observed: &Observed) -> PathBuf {
    let name = observed.dialer().unwrap();
    assert!(dial::is_name(&name), "{name}");
    berth_runtime::dial_folder(&world.layout().run).join(format!("{name}.sock"))
}

/// A socket of the instance's network, connected to its port.
pub(crate) fn connect(world: &World, observed: &Observed) -> std::io::Result<TcpStream> {
    let mut line = UnixStream::connect(dial_path(world, observed))?;
    line.write_all(&dial::request(1))?;
    let socket = dial::receive(&line)?.pop().unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], observed.port.unwrap()));
    rustix::io::ioctl_fionbio(&socket, false)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// What the server in the instance calls itself.
pub(crate) fn name_behind(world: &World, observed: &Observed) -> String {
    let mut answer = String::new();
    connect(world, observed).unwrap().read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until the instance is as `wanted` says.
pub(crate) async fn until(
    runtime: &dyn Runtime,
    id: &InstanceId,
    wanted: impl Fn(&Observed) -> bool,
) -> Observed {
    let mut events = runtime.watch();
    let waiting = async {
        loop {
            let found = runtime.list().into_iter().find(|observed| observed.id == *id);
            if let Some(observed) = found.filter(|observed| wanted(observed)) {
                return observed;
            }
            // A reader that fell behind looks again all the same.
            drop(events.recv().await);
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap()
}

pub(crate) fn is_running(observed: &Observed) -> bool {
    matches!(observed.state, InstanceState::Running { .. })
}
