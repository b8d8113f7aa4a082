//! What a platform left on the machine after it went down: processes, listeners, port leases, control groups, mounts, files.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::platform::wait_until;

/// Where blocks of user ids are claimed, and how many a block has.
const RANGES: &str = "/var/lib/berth-ranges";
/// Places where a program that is careless leaves files.
const LITTERED: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/dev/shm", "/var/lib"];

/// By what the things of one platform are known.
#[derive(Debug, Clone)]
pub(crate) struct Traces {
    pub(crate) home: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) platform: String,
    pub(crate) ports: Vec<u16>,
}

/// A process, as far as it shows itself.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its arguments, each ended by a NUL.
    pub(crate) arguments: String,
    pub(crate) parent: u32,
    environment: Vec<u8>,
    links: Vec<PathBuf>,
    state: char,
}

/// What was found, a line for each thing.
#[derive(Debug, Default)]
pub(crate) struct Leaks {
    lines: Vec<String>,
}

impl Leaks {
    pub(crate) fn find(traces: &Traces) -> Self {
        let mut lines = Vec::new();
        for process in traces.processes() {
            let Process { pid, arguments, state, .. } = process;
            lines.push(format!("process {pid} ({state}): {}", arguments.replace('\0', " ")));
        }
        lines.extend(traces.leases().into_iter().map(|lease| format!("port lease {lease}")));
        lines.extend(traces.listeners().into_iter().map(|port| format!("listener on port {port}")));
        lines.extend(traces.cgroups().into_iter().map(|path| format!("control group {}", path.display())));
        lines.extend(traces.mounts().into_iter().map(|mount| format!("mount {mount}")));
        lines.extend(traces.files().into_iter().map(|path| format!("file {}", path.display())));
        Self { lines }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl Traces {
    /// Every process that is the platform's: its home or run directory is in what it shows of itself.
    fn processes(&self) -> Vec<Process> {
        let own = std::process::id();
        let entries = fs::read_dir("/proc").expect("/proc is there");
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .filter_map(Process::look_at)
            .filter(|process| self.is_ours(process))
            .collect()
    }

    /// The processes of the platform that `wanted` holds for.
    pub(crate) fn processes_by(&self, wanted: impl Fn(&Process) -> bool) -> Vec<Process> {
        // By the platform's id edge is found too, which knows no path of the home.
        let entries = fs::read_dir("/proc").expect("/proc is there");
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Process::look_at)
            .filter(|process| process.state != 'Z' && wanted(process))
            .collect()
    }

    fn is_ours(&self, process: &Process) -> bool {
        let names =
            [self.home.as_os_str().as_bytes(), self.run_dir.as_os_str().as_bytes(), self.platform.as_bytes()];
        names
            .iter()
            .any(|name| contains(process.arguments.as_bytes(), name) || contains(&process.environment, name))
            || process.is_in(&self.home)
            || (process.is_shim() && process.holds(&self.home))
    }

    /// Port leases that a process of the platform's holds.
    fn leases(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let sockets: Vec<(String, String)> = table
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let name = fields.get(7).filter(|name| name.starts_with("@berth-port-"))?;
                Some((format!("socket:[{}]", fields.get(6)?), (*name).to_owned()))
            })
            .collect();
        let holds = |process: &Process, socket: &str| {
            let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else { return false };
            descriptors
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|target| target.as_os_str() == socket)
        };
        let processes = self.processes();
        let held = |socket: &str| processes.iter().any(|process| holds(process, socket));
        sockets.into_iter().filter(|(socket, _)| held(socket)).map(|(_, name)| name).collect()
    }

    fn listeners(&self) -> Vec<u16> {
        const LISTEN: &str = "0A";
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let listens = |port: u16| {
            let suffix = format!(":{port:04X}");
            table.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(1).is_some_and(|local| local.ends_with(&suffix)) && fields.get(3) == Some(&LISTEN)
            })
        };
        self.ports.iter().copied().filter(|port| listens(*port)).collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find_named(Path::new("/sys/fs/cgroup"), &self.short(), 5, &mut found);
        found
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let names = [self.home.display().to_string(), self.run_dir.display().to_string()];
        let ours = |line: &&str| names.iter().any(|name| line.contains(name.as_str()));
        table.lines().filter(ours).map(str::to_owned).collect()
    }

    /// Files outside of the home: the run directory itself, what carries the platform's name, what belongs to its users.
    fn files(&self) -> Vec<PathBuf> {
        let block = self.block();
        let mut found = Vec::new();
        for place in LITTERED {
            find_named(Path::new(place), &self.short(), 2, &mut found);
            let Ok(entries) = fs::read_dir(place) else { continue };
            let owned = |path: &PathBuf| {
                let owner = fs::symlink_metadata(path).map(|metadata| metadata.uid());
                owner.is_ok_and(|uid| block.as_ref().is_some_and(|block| block.contains(&uid)))
            };
            found.extend(entries.flatten().map(|entry| entry.path()).filter(owned));
        }
        found.retain(|path| !path.starts_with(&self.home));
        found.sort();
        found.dedup();
        found
    }

    /// The user ids that the platform claimed, when it runs as root.
    fn block(&self) -> Option<std::ops::Range<u32>> {
        const BLOCK: u32 = 65_536;
        let text = fs::read_to_string(self.home.join("platform.json")).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let base = u32::try_from(value["uid_base"].as_u64()?).ok()?;
        Some(base..base + BLOCK)
    }

    fn short(&self) -> String {
        self.platform.chars().take(8).collect()
    }

    /// Kills all of it at once, as a loss of power does. Says whether nothing is left.
    pub(crate) fn kill(&self) -> bool {
        wait_until(Duration::from_secs(20), || {
            let processes: Vec<Process> =
                self.processes().into_iter().filter(|process| process.state != 'Z').collect();
            for process in &processes {
                if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                    // It may have ended by itself meanwhile.
                    let _ended = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            processes.is_empty()
        })
    }

    /// Ends and removes what is there, and the claim of user ids, which a platform keeps as long as its home.
    pub(crate) fn sweep(&self) {
        self.kill();
        if let Some(block) = self.block() {
            let claim = Path::new(RANGES).join(block.start.to_string());
            if fs::read(&claim).is_ok_and(|holder| holder == self.home.as_os_str().as_bytes()) {
                drop(fs::remove_file(claim));
            }
        }
        drop(fs::remove_dir_all(&self.run_dir));
        // One that went down in order has taken it along.
        if rustix::process::geteuid().is_root() {
            nft(&["delete", "table", "inet", &self.filter_table()]);
        }
    }

    /// The platform's table in the machine's packet filter.
    fn filter_table(&self) -> String {
        format!("berth_{}", self.platform)
    }

    /// Whether that is there.
    pub(crate) fn has_filter_table(&self) -> bool {
        let table = format!("table inet {}", self.filter_table());
        nft(&["list", "tables"]).lines().any(|line| line == table)
    }
}

/// What nft(8) answers: nothing where it is not there, or refuses.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness stands outside of the platform and its allow-list"
)]
fn nft(words: &[&str]) -> String {
    let said = Command::new("nft").args(words).stderr(Stdio::null()).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default()
}

impl Process {
    fn look_at(pid: u32) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(directory.join("stat")).ok()?;
        // The name in parentheses may hold anything; the state and the parent follow the last of them.
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        let (state, parent) = (fields.next()?.chars().next()?, fields.next()?.parse().ok()?);
        let link = |name: &str| fs::read_link(directory.join(name)).ok();
        Some(Self {
            pid,
            arguments: String::from_utf8_lossy(&fs::read(directory.join("cmdline")).ok()?).into_owned(),
            environment: fs::read(directory.join("environ")).unwrap_or_default(),
            parent,
            links: [link("cwd"), link("exe")].into_iter().flatten().collect(),
            state,
        })
    }

    /// Whether it works in the directory, or its executable lies there.
    pub(crate) fn is_in(&self, directory: &Path) -> bool {
        self.links.iter().any(|link| link.starts_with(directory))
    }

    /// Whether it is the program above an instance. That one shows nothing of its platform but the files that it has open.
    pub(crate) fn is_shim(&self) -> bool {
        self.arguments.split('\0').next() == Some("berth-shim")
    }

    /// Whether it has a file below the directory open.
    pub(crate) fn holds(&self, directory: &Path) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return false };
        descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target.starts_with(directory))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

fn find_named(directory: &Path, part: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().contains(part) {
            found.push(entry.path());
        } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_named(&entry.path(), part, depth - 1, found);
        }
    }
}
