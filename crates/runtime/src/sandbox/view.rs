//! What an app sees: the files of its root, in the order in which they are put there.
//!
//! An app from source has the machine's programs and libraries, read-only, with an `/etc` that tells nothing of the machine; an image has
//! its own files. Both have their artifact or volumes, a `/tmp` in memory, a small `/dev`, and a `/proc` of their own processes, of
//! which what tells about the machine is hidden. A command of a build sees what an app from source does, with the build's folders in place
//! of the artifact.

use std::fs;
use std::path::{Path, PathBuf};

use berth_shim::sandbox::{BindMode, Entry, Room};

use crate::hosts;
use crate::instance::{Mount, Root};

/// Folders of the machine that have its programs and libraries. Where one is a link, as `/bin` mostly is, the app gets the link.
const PROGRAMS: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];

/// What programs need of the machine's configuration and no more: certificates, how libraries are found, which of several programs a
/// name stands for, which distribution it is (what is built for one must find the same when it runs), settings of language runtimes and
/// fonts, names of protocols, the time zone.
const SETTINGS: &[&str] = &[
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld-musl-x86_64.path",
    "/etc/alternatives",
    "/etc/os-release",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    // What people include from a configuration of their own; the rest of the folder may hold the machine's keys and passwords.
    "/etc/nginx/fastcgi.conf",
    "/etc/nginx/fastcgi_params",
    "/etc/nginx/mime.types",
    "/etc/nginx/scgi_params",
    "/etc/nginx/uwsgi_params",
    "/etc/protocols",
    "/etc/services",
    "/etc/fonts",
    "/etc/ImageMagick-6",
    "/etc/ImageMagick-7",
    "/etc/magic",
    "/etc/php",
    "/etc/perl",
    "/etc/python3",
    "/etc/java-11-openjdk",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/java",
    "/etc/elixir",
    "/etc/bash.bashrc",
];

/// What tools that build need beside that: where they look for packages, on this machine.
const SETTINGS_OF_BUILDS: [&str; 7] = [
    "/etc/gitconfig",
    "/etc/npmrc",
    "/etc/pip.conf",
    "/etc/gemrc",
    "/etc/maven",
    "/etc/gradle",
    "/etc/dotnet",
];

/// Libraries that a distribution keeps among data.
const LIBRARIES: [&str; 1] = ["/var/lib/gems"];

/// The devices that every program may count on.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// What of `/proc` tells about the machine, its keys or its timers, as other container engines hide it.
const HIDDEN: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// What of `/proc` changes the machine.
const FROZEN: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How much `/dev/shm` takes, as with Docker.
const SHARED_MEMORY: Room = Room { bytes: 64 << 20, inodes: 4_096 };
/// How much room there is for what covers a folder: the folders on the way to what lies within it.
const COVER: Room = Room { bytes: 256 << 10, inodes: 256 };
/// How much `/run` takes: sockets and files of process ids.
const RUN: Room = Room { bytes: 8 << 20, inodes: 4_096 };

/// The user that an app runs as, within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppIds {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What the view of an app is made from.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) root: &'a Root,
    /// The app's directory, which is there and cannot be written to.
    pub(super) dir: &'a Path,
    pub(super) mounts: &'a [Mount],
    pub(super) ids: AppIds,
    pub(super) hostname: &'a str,
    pub(super) tmp: Room,
    /// The text of `/etc/resolv.conf`; `None` for the machine's own.
    pub(super) resolver: Option<&'a str>,
    /// The file that is its `/etc/hosts`; `None` for one that never changes.
    pub(super) hosts: Option<&'a Path>,
    /// Folders of the app's control groups, and where they are to be seen.
    pub(super) cgroups: &'a [(String, String)],
}

/// The entries of the app's root, in order.
pub(super) fn entries(scene: &Scene<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    match scene.root {
        Root::Host => host(scene, &mut entries),
        Root::Layers { .. } => {
            entries.push(Entry::Directory { path: scene.dir.to_string_lossy().into_owned() });
        }
    }
    let path = "/etc/hosts".to_owned();
    let hosts = match scene.hosts {
        Some(file) => {
            let source = file.to_string_lossy().into_owned();
            Entry::Bind { source, path, how: BindMode::default() }
        }
        None => Entry::File { path, text: hosts::own(scene.hostname) },
    };
    names(scene.hostname, hosts, scene.resolver, &mut entries);
    kernel(scene.cgroups, &mut entries);
    entries.extend(scene.mounts.iter().map(|mount| Entry::Bind {
        source: mount.source.to_string_lossy().into_owned(),
        path: mount.target.to_string_lossy().into_owned(),
        how: BindMode { writable: mount.writable, ..BindMode::default() },
    }));
    entries
}

/// What the view of a command of a build is made from.
#[derive(Debug)]
pub(super) struct CommandScene<'a> {
    pub(super) readable: &'a [PathBuf],
    pub(super) writable: &'a [PathBuf],
    /// The folder that is its `/tmp`.
    pub(super) tmp: &'a Path,
    /// What is never seen, also where it lies among the machine's programs: the platform's own files.
    pub(super) covered: &'a Path,
    pub(super) ids: AppIds,
    pub(super) hostname: &'a str,
    /// More lines of `/etc/hosts`.
    pub(super) hosts: &'a str,
    /// As for an app.
    pub(super) resolver: Option<&'a str>,
    pub(super) cgroups: &'a [(String, String)],
}

/// The entries of the root of a command of a build, in order.
pub(super) fn of_command(scene: &CommandScene<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    programs(&mut entries);
    entries.extend(SETTINGS_OF_BUILDS.iter().map(|path| read(path, true)));
    if PROGRAMS.iter().any(|path| scene.covered.starts_with(path)) {
        let path = scene.covered.to_string_lossy().into_owned();
        entries.push(Entry::Memory { path, room: COVER, exec: false });
    }
    let bind = |source: &Path, path: &Path, writable: bool| Entry::Bind {
        source: source.to_string_lossy().into_owned(),
        path: path.to_string_lossy().into_owned(),
        // A tool may have been removed meanwhile; that is for whoever looks for it to say.
        how: BindMode { writable, optional: !writable, ..BindMode::default() },
    };
    // A build leaves far more there than memory has room for, and is weighed.
    entries.push(bind(scene.tmp, Path::new("/tmp"), true));
    furniture(scene.ids, &mut entries);
    let text = format!("{}{}", hosts::own(scene.hostname), scene.hosts);
    let hosts = Entry::File { path: "/etc/hosts".to_owned(), text };
    names(scene.hostname, hosts, scene.resolver, &mut entries);
    kernel(scene.cgroups, &mut entries);
    let seen = PROGRAMS.iter().chain(SETTINGS);
    let is_seen =
        |path: &Path| seen.clone().any(|seen| path.starts_with(seen)) && !path.starts_with(scene.covered);
    entries.extend(scene.readable.iter().filter(|path| !is_seen(path)).map(|path| bind(path, path, false)));
    entries.extend(scene.writable.iter().map(|path| bind(path, path, true)));
    entries
}

/// Devices, processes, and what tells how much of the machine there is.
fn kernel(cgroups: &[(String, String)], entries: &mut Vec<Entry>) {
    devices(entries);
    entries.push(Entry::Processes { path: "/proc".to_owned() });
    entries.extend(HIDDEN.map(|path| Entry::Mask { path: path.to_owned() }));
    entries.extend(FROZEN.map(|path| Entry::Freeze { path: path.to_owned() }));
    // Programs ask it how many processors there are.
    entries.push(read("/sys/devices/system/cpu", true));
    entries.extend(cgroups.iter().map(|(source, path)| Entry::Bind {
        source: source.clone(),
        path: path.clone(),
        how: BindMode { optional: true, ..BindMode::default() },
    }));
}

/// The machine's programs, and folders that can be written to.
fn host(scene: &Scene<'_>, entries: &mut Vec<Entry>) {
    programs(entries);
    entries.push(Entry::Memory { path: "/tmp".to_owned(), room: scene.tmp, exec: true });
    furniture(scene.ids, entries);
    // Beneath what is already there, as /usr, it is there already.
    if !PROGRAMS.iter().any(|path| scene.dir.starts_with(path)) && scene.dir != Path::new("/") {
        entries.push(read(&scene.dir.to_string_lossy(), false));
    }
}

/// The machine's programs, and what they need of its settings.
fn programs(entries: &mut Vec<Entry>) {
    for path in PROGRAMS {
        match fs::read_link(path) {
            Ok(to) => {
                entries.push(Entry::Link { path: path.to_owned(), to: to.to_string_lossy().into_owned() })
            }
            Err(_) => entries.push(read(path, true)),
        }
    }
    entries.extend(SETTINGS.iter().chain(&LIBRARIES).map(|path| read(path, true)));
}

/// What every program expects of a machine beside its `/tmp`.
fn furniture(ids: AppIds, entries: &mut Vec<Entry>) {
    let link = |path: &str, to: &str| Entry::Link { path: path.to_owned(), to: to.to_owned() };
    entries.extend([
        Entry::Memory { path: "/run".to_owned(), room: RUN, exec: false },
        link("/var/tmp", "/tmp"),
        link("/var/run", "/run"),
        link("/etc/mtab", "/proc/self/mounts"),
        Entry::File { path: "/etc/passwd".to_owned(), text: passwd(ids) },
        Entry::File { path: "/etc/group".to_owned(), text: group(ids) },
        Entry::File {
            path: "/etc/nsswitch.conf".to_owned(),
            text: "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
        },
    ]);
}

/// Who the app's host is, and how it finds others.
fn names(hostname: &str, hosts: Entry, resolver: Option<&str>, entries: &mut Vec<Entry>) {
    entries.push(hosts);
    entries.push(Entry::File { path: "/etc/hostname".to_owned(), text: format!("{hostname}\n") });
    match resolver {
        Some(text) => {
            entries.push(Entry::File { path: "/etc/resolv.conf".to_owned(), text: text.to_owned() });
        }
        // It is a link into /run on many machines; what it leads to is what the app gets.
        None => entries.push(read("/etc/resolv.conf", true)),
    }
}

fn devices(entries: &mut Vec<Entry>) {
    let how = BindMode { writable: true, devices: true, optional: true };
    entries.push(Entry::Directory { path: "/dev".to_owned() });
    entries.extend(DEVICES.map(|path| Entry::Bind { source: path.to_owned(), path: path.to_owned(), how }));
    entries.push(Entry::Terminals { path: "/dev/pts".to_owned() });
    entries.push(Entry::Memory { path: "/dev/shm".to_owned(), room: SHARED_MEMORY, exec: false });
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    entries.extend(links.map(|(path, to)| Entry::Link { path: path.to_owned(), to: to.to_owned() }));
}

fn read(path: &str, optional: bool) -> Entry {
    let how = BindMode { optional, ..BindMode::default() };
    Entry::Bind { source: path.to_owned(), path: path.to_owned(), how }
}

fn passwd(AppIds { uid, gid }: AppIds) -> String {
    format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\napp:x:{uid}:{gid}:app:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
}

fn group(AppIds { gid, .. }: AppIds) -> String {
    format!("root:x:0:\napp:x:{gid}:\ntty:x:5:\nnogroup:x:65534:\n")
}

/// What the app may write to, by Landlock, below a root of its own.
pub(super) fn writable(root: &Root, mounts: &[Mount]) -> Vec<String> {
    let own: &[&str] = match root {
        Root::Host => &["/tmp", "/run", "/dev", "/proc"],
        Root::Layers { .. } => &["/"],
    };
    let volumes = mounts.iter().filter(|mount| mount.writable);
    let volumes = volumes.map(|mount| mount.target.to_string_lossy().into_owned());
    own.iter().map(|path| (*path).to_owned()).chain(volumes).collect()
}

/// What an app may read, and write, by Landlock alone, where it has no root of its own.
pub(super) fn confined(dir: &Path, tmp: &Path, mounts: &[Mount]) -> (Vec<String>, Vec<String>) {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let known = [
        "/etc/passwd",
        "/etc/group",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc/nsswitch.conf",
    ];
    let more = ["/proc", "/sys/devices/system/cpu", "/run/systemd/resolve", "/dev/pts"];
    let paths = PROGRAMS.iter().chain(SETTINGS).chain(&LIBRARIES).chain(&known).chain(&more);
    let mut readable: Vec<String> = paths.map(|path| (*path).to_owned()).collect();
    readable.push(text(dir));
    readable.extend(mounts.iter().filter(|mount| !mount.writable).map(|mount| text(&mount.source)));
    let mut writable: Vec<String> = DEVICES.iter().map(|path| (*path).to_owned()).collect();
    writable.extend([text(tmp), "/dev/shm".to_owned(), "/dev/pts".to_owned(), "/dev/ptmx".to_owned()]);
    writable.extend(mounts.iter().filter(|mount| mount.writable).map(|mount| text(&mount.source)));
    (readable, writable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene<'a>(root: &'a Root, dir: &'a str, mounts: &'a [Mount]) -> Vec<Entry> {
        entries(&Scene {
            root,
            dir: Path::new(dir),
            mounts,
            ids: AppIds { uid: 7, gid: 8 },
            hostname: "web-1",
            tmp: Room { bytes: 1, inodes: 1 },
            resolver: None,
            hosts: None,
            cgroups: &[],
        })
    }

    fn binds(entries: &[Entry]) -> Vec<(&str, BindMode)> {
        let bind = |entry| match entry {
            &Entry::Bind { ref source, how, .. } => Some((source.as_str(), how)),
            _ => None,
        };
        entries.iter().filter_map(bind).collect()
    }

    #[test]
    fn nothing_of_the_machine_can_be_written_to_but_devices_and_volumes() {
        let volume = Mount { source: "/home/v".into(), target: "/data".into(), writable: true };
        let entries = scene(&Root::Host, "/artifact", std::slice::from_ref(&volume));
        for (source, how) in binds(&entries) {
            let device = source.starts_with("/dev/");
            assert_eq!((how.writable, how.devices), (device || source == "/home/v", device), "{source}");
        }
        for secret in
            ["/", "/home", "/root", "/var", "/etc", "/etc/shadow", "/run", "/proc", "/sys", "/dev", "/boot"]
        {
            assert!(!binds(&entries).iter().any(|(source, _)| *source == secret), "{secret}");
        }
        assert!(binds(&entries).iter().any(|(source, how)| *source == "/artifact" && !how.optional));
        assert_eq!(writable(&Root::Host, &[volume]), ["/tmp", "/run", "/dev", "/proc", "/data"]);
    }

    fn command_scene(readable: &[PathBuf], writable: &[PathBuf], covered: &str) -> Vec<Entry> {
        of_command(&CommandScene {
            readable,
            writable,
            tmp: Path::new("/home/b/builds/app/0/scratch"),
            covered: Path::new(covered),
            ids: AppIds { uid: 7, gid: 8 },
            hostname: "build",
            hosts: "10.0.0.9\tmirror\n",
            resolver: None,
            cgroups: &[],
        })
    }

    #[test]
    fn a_command_of_a_build_has_its_own_folders_and_nothing_around_them() {
        let readable = ["/root/.rustup/toolchains/stable".into(), "/usr/local/go".into()];
        let writable = ["/home/b/builds/app/0/src".into()];
        let entries = command_scene(&readable, &writable, "/home/b");
        let writes: Vec<&str> = binds(&entries)
            .into_iter()
            .filter(|(source, how)| how.writable && !source.starts_with("/dev/"))
            .map(|(source, _)| source)
            .collect();
        assert_eq!(writes, ["/home/b/builds/app/0/scratch", "/home/b/builds/app/0/src"]);
        let sources: Vec<&str> = binds(&entries).into_iter().map(|(source, _)| source).collect();
        assert!(sources.contains(&"/root/.rustup/toolchains/stable"));
        // It is there with all of /usr.
        assert!(!sources.contains(&"/usr/local/go"));
        for secret in ["/", "/home", "/home/b", "/home/b/builds", "/root", "/var", "/etc", "/run", "/proc"] {
            assert!(!sources.contains(&secret), "{secret}");
        }
        let hosts = entries.iter().find_map(|entry| match entry {
            Entry::File { path, text } if path == "/etc/hosts" => Some(text.as_str()),
            _ => None,
        });
        assert!(hosts.unwrap().ends_with("10.0.0.9\tmirror\n"));
    }

    #[test]
    fn a_platform_among_the_programs_is_covered_before_its_builds_folders_are_put_there() {
        let tool = ["/opt/berth/builds/.toolchains/node-20".into()];
        let own = ["/opt/berth/builds/app/0/src".into()];
        let entries = command_scene(&tool, &own, "/opt/berth");
        let at = |wanted: &dyn Fn(&Entry) -> bool| entries.iter().position(wanted).unwrap();
        let cover = at(&|it| matches!(it, Entry::Memory { path, .. } if path == "/opt/berth"));
        for path in tool.iter().chain(&own) {
            let path = path.to_str().unwrap();
            assert!(cover < at(&|it| matches!(it, Entry::Bind { source, .. } if source == path)));
        }
        let elsewhere = command_scene(&tool, &own, "/home/b");
        assert!(!elsewhere.iter().any(|it| matches!(it, Entry::Memory { path, .. } if path.contains("/b"))));
    }

    #[test]
    fn what_hides_comes_after_what_it_hides() {
        let entries = scene(&Root::Host, "/artifact", &[]);
        let at = |wanted: &dyn Fn(&Entry) -> bool| entries.iter().position(wanted).unwrap();
        let proc = at(&|entry| matches!(entry, Entry::Processes { .. }));
        assert!(proc < at(&|entry| matches!(entry, Entry::Mask { .. })));
        assert!(proc < at(&|entry| matches!(entry, Entry::Freeze { .. })));
    }

    #[test]
    fn an_image_gets_nothing_of_the_machines_programs() {
        let root = Root::Layers { lower: vec!["/layers/a".into()], uid_base: 100_000 };
        let entries = scene(&root, "/", &[]);
        let sources: Vec<&str> = binds(&entries).into_iter().map(|(source, _)| source).collect();
        let allowed = |source: &&str| {
            source.starts_with("/dev/") || ["/etc/resolv.conf", "/sys/devices/system/cpu"].contains(source)
        };
        assert!(sources.iter().all(allowed), "{sources:?}");
    }

    #[test]
    fn an_artifact_within_a_folder_of_programs_is_not_mounted_again() {
        let entries = scene(&Root::Host, "/opt/berth/artifacts/x", &[]);
        assert!(!binds(&entries).iter().any(|(source, _)| source.contains("artifacts")));
    }
}
