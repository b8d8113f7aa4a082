//! The guest's side: it makes the machine what a system makes of it, runs the suites, and says what came of them.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};

use super::plan::{ON_XFS, PLAN, Suite, Whom};
use super::word::{TestResult, Word};
use crate::program::Program;
use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

/// This program, as it is called among those of the guest.
pub(super) const PROGRAM: &str = "xtask";
/// The programs, where everybody reaches them: on this machine they may lie below a folder that keeps others out.
const BUILT: &str = "/mnt/built";
const GROUPS: &str = "/sys/fs/cgroup";
const USER: u32 = 1_000;
/// The serial line for words.
const LINE: &str = "/dev/ttyS1";
const BUSYBOX: &str = "/bin/busybox";
/// Tests that run beside one another, as many as there are processors.
const WORKERS: usize = 2;
/// By what a test says that it has not tried.
const UNTRIED: [&str; 3] = ["NOT TESTED", "SKIPPED", "is not to be had here"];
/// How much of what a failed test wrote is told.
const TAIL: usize = 60;
/// The group that a platform of an ordinary user moves itself into, and leaves to whoever gave it the group around that.
const LEFT_BY_PLATFORMS: &str = "berth-itself";

/// What a test program is called among those of the guest.
pub(super) fn test_program(folder: &str, target: &str) -> String {
    format!("test-{folder}-{target}")
}

/// The whole life of the guest. `words` are the folder of its programs, that of its kernel's modules, and the names of the suites.
pub(super) fn run(words: &[String]) -> Result<()> {
    let line = prepare(words).and_then(|()| open_line());
    let off = || Program::new(BUSYBOX).args(["poweroff", "-f"]).run();
    let line = match line {
        Ok(line) => Mutex::new(line),
        Err(error) => {
            println!("!! the guest cannot be made ready: {error:#}");
            return off();
        }
    };
    let done = run_suites(&line, words.get(2..).unwrap_or_default());
    done.or_else(|error| say(&line, &Word::Broken { why: format!("{error:#}") }))?;
    off()
}

/// Enters a control group, gives up root's rights if it is to, and becomes a program: `GROUP UID PROGRAM ARGS`.
pub(super) fn enter(words: &[String]) -> Result<()> {
    let [group, uid, program, args @ ..] = words else { bail!("a group, a user and a program are needed") };
    fs::write(Path::new(group).join("cgroup.procs"), "0").with_context(|| format!("cannot enter {group}"))?;
    let switch = ["--reuid", uid, "--regid", uid, "--clear-groups", "--", program];
    let command = if uid == "0" { Program::new(program) } else { Program::new("setpriv").args(switch) };
    Err(command.args(args).become_it())
}

/// Mounts what a system mounts.
fn prepare(words: &[String]) -> Result<()> {
    let [built, modules, ..] = words else { bail!("the folders are not said") };
    let mount = |kind: &str, options: &str, place: &str| {
        fs::create_dir_all(place)?;
        Program::new(BUSYBOX).args(["mount", "-t", kind, "-o", options, "none", place]).run()
    };
    mount("proc", "nosuid,nodev,noexec", "/proc")?;
    mount("sysfs", "nosuid,nodev,noexec", "/sys")?;
    mount("cgroup2", "nosuid,nodev,noexec", GROUPS)?;
    mount("devpts", "mode=620,ptmxmode=666", "/dev/pts")?;
    mount("tmpfs", "mode=1777", "/dev/shm")?;
    mount("tmpfs", "mode=755", "/run")?;
    // Which users are whose is kept there, and platforms of the machine around come and go meanwhile.
    mount("tmpfs", "mode=755", "/var/lib/berth-ranges")?;
    fs::create_dir_all(BUILT)?;
    Program::new(BUSYBOX).args(["mount", "--bind", built, BUILT]).run()?;
    let version = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    fs::create_dir_all("/lib/modules")?;
    link(modules, &format!("/lib/modules/{}", version.trim()))?;
    // Whom the kernel asks when it lacks one.
    if !Path::new("/sbin/modprobe").is_file() {
        link(BUSYBOX, "/sbin/modprobe")?;
    }
    for module in ["virtio_blk", "ext4", "quota_v2", "xfs", "veth"] {
        Program::new(BUSYBOX).args(["modprobe", module]).run()?;
    }
    Program::new(BUSYBOX).args(["mount", "-t", "ext4", "-o", "prjquota", "/dev/vda", "/tmp"]).run()?;
    fs::create_dir_all(ON_XFS)?;
    Program::new(BUSYBOX).args(["mount", "-t", "xfs", "-o", "pquota", "/dev/vdb", ON_XFS]).run()?;
    for place in ["/tmp", ON_XFS] {
        fs::set_permissions(place, fs::Permissions::from_mode(0o1777))?;
    }
    Program::new(BUSYBOX).args(["ifconfig", "lo", "127.0.0.1", "up"]).run()?;
    let run_dir = format!("/run/user/{USER}");
    for place in [run_dir.as_str(), "/tmp/home-of-user"] {
        fs::create_dir_all(place)?;
        chown(place, Some(USER), Some(USER))?;
    }
    Ok(())
}

fn link(to: &str, place: &str) -> Result<()> {
    let _gone = fs::remove_file(place);
    symlink(to, place).with_context(|| format!("cannot link {place}"))
}

fn open_line() -> Result<File> {
    Program::new(BUSYBOX).args(["stty", "-F", LINE, "raw", "-echo"]).run()?;
    OpenOptions::new().write(true).open(LINE).with_context(|| format!("cannot open {LINE}"))
}

fn say(line: &Mutex<File>, word: &Word) -> Result<()> {
    let text = format!("{}\n", word.line()?);
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(line.write_all(text.as_bytes())?)
}

fn run_suites(line: &Mutex<File>, names: &[String]) -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let controllers = fs::read_to_string(format!("{GROUPS}/cgroup.controllers"))?.trim().to_owned();
    say(line, &Word::Begin { kernel, controllers })?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    ensure!(
        !mounts.lines().any(|mount| mount.contains(" cgroup ")),
        "control groups of version 1 are mounted"
    );
    let mut waiting = Vec::new();
    for name in names {
        let suite = PLAN.iter().find(|suite| suite.name == name);
        let suite = suite.with_context(|| format!("there is no suite {name}"))?;
        let tests = tests_of(suite)?;
        say(line, &Word::Suite { name: suite.name.to_owned(), tests: tests.clone() })?;
        waiting.extend(tests.into_iter().map(|name| (suite, name)));
    }
    run_all(line, waiting)?;
    say(line, &Word::End)
}

fn program_of(suite: &Suite) -> PathBuf {
    Path::new(BUILT).join(test_program(suite.folder, suite.target))
}

fn tests_of(suite: &Suite) -> Result<Vec<String>> {
    let listed = Program::new(program_of(suite)).args(["--list", "--format", "terse"]).output()?;
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<String> = names.filter(|name| suite.has(name)).map(str::to_owned).collect();
    let unknown = suite.tests.iter().find(|part| !names.iter().any(|name| name.contains(**part)));
    ensure!(unknown.is_none(), "{} has no test that {unknown:?} names", suite.name);
    Ok(names)
}

/// Runs the tests from the first to the last, as many beside one another as there are processors.
fn run_all(line: &Mutex<File>, mut waiting: Vec<(&Suite, String)>) -> Result<()> {
    waiting.reverse();
    let (workspace, waiting) = (Workspace::open()?, Mutex::new(waiting));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some((suite, name)) = next() {
                let stopwatch = Stopwatch::start();
                let result = run_test(&workspace, suite, &name);
                let result = result.unwrap_or_else(|error| TestResult::Failed(format!("{error:#}")));
                let (suite, seconds) = (suite.name.to_owned(), stopwatch.seconds());
                say(line, &Word::Test { suite, name, result, seconds })?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Runs one test in a process and a group of its own.
fn run_test(workspace: &Workspace, suite: &Suite, name: &str) -> Result<TestResult> {
    let group = group_for(suite.whom)?;
    let (uid, home) = match suite.whom {
        Whom::Root => (0, "/root"),
        Whom::Ordinary => (USER, "/tmp/home-of-user"),
    };
    let command = Program::new(Path::new(BUILT).join(PROGRAM)).args(["guest", "--enter"]).arg(&group);
    let command = command.arg(uid.to_string()).arg(program_of(suite)).args(["--exact", name, "--nocapture"]);
    let command = command
        .env("HOME", home)
        .env("TMPDIR", suite.dir)
        .env("BERTH_BIN", format!("{BUILT}/berth"))
        .env("BERTH_TEST_APPS", BUILT)
        .env("RUST_BACKTRACE", "0")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .dir(&workspace.root().join("crates").join(suite.folder));
    let mut written = Vec::new();
    let passed = command.watch(|line| written.push(line.to_owned()))?;
    let tail = || written[written.len().saturating_sub(TAIL)..].join("\n");
    let untried = written.iter().find(|line| UNTRIED.iter().any(|word| line.contains(word)));
    let one_passed = written.iter().any(|line| line.starts_with("test result: ok. 1 passed"));
    if !passed || !one_passed {
        return Ok(TestResult::Failed(tail()));
    }
    if let Some(untried) = untried {
        return Ok(TestResult::Untried(untried.clone()));
    }
    Ok(match remove(&group) {
        Ok(()) => TestResult::Passed,
        Err(error) => TestResult::Failed(format!("it left something in its group: {error:#}\n{}", tail())),
    })
}

/// A group as a system's first program makes it for a service, and gives it away if it is told to.
fn group_for(whom: Whom) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let slice = Path::new(GROUPS).join(match whom {
        Whom::Root => "system.slice",
        Whom::Ordinary => "user.slice",
    });
    fs::create_dir_all(&slice)?;
    for above in [Path::new(GROUPS), &slice] {
        fs::write(above.join("cgroup.subtree_control"), "+cpu +io +memory +pids")?;
    }
    let group = slice.join(format!("berth-{number}.service"));
    fs::create_dir(&group)?;
    if whom == Whom::Ordinary {
        // What the kernel lists in /sys/kernel/cgroup/delegate is given away, and nothing else.
        chown(&group, Some(USER), Some(USER))?;
        for file in fs::read_to_string("/sys/kernel/cgroup/delegate")?.lines() {
            let file = group.join(file);
            if file.try_exists()? {
                chown(file, Some(USER), Some(USER))?;
            }
        }
    }
    Ok(group)
}

/// Removes a group, in which nothing may be left but the empty one that a platform moves itself into.
fn remove(group: &Path) -> Result<()> {
    let aside = group.join(LEFT_BY_PLATFORMS);
    if aside.try_exists()? {
        fs::remove_dir(&aside).context("the platform's own group")?;
    }
    fs::remove_dir(group).with_context(|| {
        let left = fs::read_dir(group).into_iter().flatten().flatten();
        let left = left.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
        format!("{:?}", left.collect::<Vec<_>>())
    })
}
