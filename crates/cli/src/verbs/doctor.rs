//! `doctor`: what may go wrong on this machine, and what to do about it. Nothing is changed and no program is started.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_clock::Clock;
use berth_contract::{ExitStatus, Platform};
use berth_spec::Timestamp;
use serde::Serialize;

use super::connect;
use crate::args::Globals;
use crate::context::{self, Environment};
use crate::failure::Failure;
use crate::figures::{exact, size};
use crate::screen::{Screen, Style};

/// Below it a build of any size may fill the disk.
const DISK_LOW: u64 = 2_000_000_000;
/// Below it not even the journal is safe.
const DISK_OUT: u64 = 200_000_000;
/// When this was written: a clock before it is wrong.
const BORN: Timestamp = Timestamp(1_790_000_000_000);
/// Where apps and the API answer when nobody says.
const DEFAULT_ADDRESSES: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:7070"];

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    outcome: Outcome,
    text: String,
    next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, text: text.into(), next: None }
    }

    fn warn(name: &'static str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, text: text.into(), next: Some(next.into()) }
    }

    fn fail(name: &'static str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, text: text.into(), next: Some(next.into()) }
    }
}

/// Makes every check and prints what came out; fails when one did.
pub(super) async fn doctor(
    globals: &Globals,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    screen: &mut Screen,
) -> Result<ExitStatus, Failure> {
    let given = globals.home.clone().or_else(|| environment.variable("BERTH_HOME").map(PathBuf::from));
    let target = context::find(globals, environment).ok();
    let home = target.and_then(|target| target.home).or(given).or_else(|| environment.default_home());
    let (reachable, platform) = reach(globals, environment, clock).await;
    let mut checks = vec![reachable];
    if let Some(home) = &home {
        let home = environment.directory.join(home);
        checks.push(check_home(&home, environment));
        checks.push(check_disk(&home));
    }
    checks.push(check_run_directory(environment));
    checks.push(check_cgroups(Path::new("/"), environment.uid));
    checks.extend(platform.as_ref().map(check_isolation));
    checks.extend(platform.as_ref().and_then(check_volumes));
    let dockerfiles = platform.as_ref().and_then(super::platform::dockerfiles);
    checks.extend(dockerfiles.map(|engine| Check::ok("dockerfile", engine)));
    checks.push(check_ports(platform.as_ref()));
    checks.push(check_clock(clock.now()));
    checks.push(check_toolchain(environment));
    let failed = checks.iter().any(|check| check.outcome == Outcome::Fail);
    if globals.json {
        screen.json(&checks)?;
    } else {
        print(&checks, screen)?;
    }
    Ok(if failed { ExitStatus::Failed } else { ExitStatus::Ok })
}

fn print(checks: &[Check], screen: &mut Screen) -> Result<(), Failure> {
    for check in checks {
        let (mark, style) = match check.outcome {
            Outcome::Ok => ("ok  ", Style::Good),
            Outcome::Warn => ("warn", Style::Warning),
            Outcome::Fail => ("fail", Style::Bad),
        };
        let mark = crate::screen::paint(mark, style, screen.colour);
        screen.line(&format!("{mark}  {:<11}{}", check.name, check.text))?;
        if let Some(next) = &check.next {
            screen.line(&format!("{:17}next: {next}", ""))?;
        }
    }
    Ok(())
}

async fn reach(
    globals: &Globals,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
) -> (Check, Option<Platform>) {
    const NAME: &str = "platform";
    let client = match connect(globals, environment, clock) {
        Ok(client) => client,
        Err(problem) => return (Check::warn(NAME, problem.to_string(), "`berth up` starts one"), None),
    };
    if !client.is_there().await {
        let text = format!("nothing answers at {}", client.endpoint());
        return (Check::warn(NAME, text, "`berth up` starts it"), None);
    }
    match client.platform().await {
        Ok(platform) => {
            let text =
                format!("{} answers at {}, home {}", platform.platform, client.endpoint(), platform.home);
            (Check::ok(NAME, text), Some(platform))
        }
        Err(problem) => {
            let next = "see logs/platform/control.log in its home";
            (Check::fail(NAME, format!("{} takes connections, but {problem}", client.endpoint()), next), None)
        }
    }
}

/// What keeps instances apart, and what is missing for more; the platform has tried it.
fn check_isolation(platform: &Platform) -> Check {
    const NAME: &str = "isolation";
    let within = platform
        .backend
        .strip_prefix("docker ")
        .map_or(String::new(), |daemon| format!("in containers of Docker {daemon}: "));
    let text = format!("{within}{}; the network: {}", platform.isolation_words, platform.network);
    if platform.isolation_missing.is_empty() {
        Check::ok(NAME, text)
    } else {
        Check::warn(NAME, text, platform.isolation_missing.join("; "))
    }
}

/// Whether volumes are kept to their sizes; nothing from a platform that does not say.
fn check_volumes(platform: &Platform) -> Option<Check> {
    const NAME: &str = "volumes";
    let sizes = platform.volume_sizes.as_ref()?;
    let text = super::volumes::sizes_in_words(sizes);
    Some(match &sizes.next {
        None => Check::ok(NAME, text),
        Some(next) => Check::warn(NAME, text, next),
    })
}

fn check_home(home: &Path, environment: &Environment) -> Check {
    const NAME: &str = "home";
    let shown = home.display();
    let metadata = match fs::symlink_metadata(home) {
        Ok(metadata) => metadata,
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {
            return Check::ok(NAME, format!("{shown} does not exist yet; the first `berth up` makes it"));
        }
        Err(problem) => {
            return Check::fail(NAME, format!("{shown}: {problem}"), "choose another with --home");
        }
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() {
        return Check::fail(NAME, format!("{shown} is not a directory"), "choose another with --home");
    }
    if metadata.uid() != environment.uid {
        let text = format!("{shown} belongs to user {}, you are {}", metadata.uid(), environment.uid);
        return Check::warn(NAME, text, "only its owner can start the platform there");
    }
    if mode & 0o027 != 0 {
        let text = format!("{shown} has mode {mode:o}: others can read or change the platform's secrets");
        return Check::fail(NAME, text, format!("chmod 700 {shown}"));
    }
    Check::ok(NAME, format!("{shown}, mode {mode:o}"))
}

fn check_disk(home: &Path) -> Check {
    const NAME: &str = "disk";
    // The home may not be there yet: what counts is the file system that it will lie on.
    let Some(stat) = home.ancestors().find_map(|path| rustix::fs::statvfs(path).ok()) else {
        return Check::warn(NAME, "the free space is not known", "look with `df`");
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{} free below {}", size(free), home.display());
    match free {
        DISK_LOW.. => Check::ok(NAME, text),
        DISK_OUT..DISK_LOW => Check::warn(NAME, text, "free some: a build may need 2 GB"),
        _ => Check::fail(NAME, text, "free some before anything is deployed"),
    }
}

fn check_run_directory(environment: &Environment) -> Check {
    const NAME: &str = "sockets";
    let directory = environment.run_directory("00000000");
    let parent = directory.parent().unwrap_or(Path::new("/"));
    match rustix::fs::access(parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => Check::ok(NAME, format!("in {}", parent.display())),
        Err(problem) => {
            let text = format!("{} cannot be written: {problem}", parent.display());
            Check::fail(NAME, text, "set XDG_RUNTIME_DIR to a directory of your own")
        }
    }
}

/// With a control group for each instance nothing of it escapes its end, whatever session it moves to.
fn check_cgroups(root: &Path, uid: u32) -> Check {
    const NAME: &str = "cgroups";
    let base = root.join("sys/fs/cgroup");
    let has = |path: &str| base.join(path).try_exists().unwrap_or(false);
    let found = if has("cgroup.controllers") {
        "version 2"
    } else if has("unified/cgroup.procs") {
        "version 2 beside version 1"
    } else if has("freezer") {
        "version 1"
    } else {
        let next =
            "apps run all the same; a process that leaves its session and its environment outlives its app";
        return Check::warn(NAME, "none are mounted", next);
    };
    let used =
        if uid == 0 { "" } else { "; an ordinary user has a part of it only where the system delegates one" };
    Check::ok(NAME, format!("{found}{used}"))
}

/// Ports are only tried when no platform runs that may hold them itself.
fn check_ports(platform: Option<&Platform>) -> Check {
    const NAME: &str = "ports";
    if let Some(platform) = platform {
        return Check::ok(NAME, format!("apps at {}, API at {}", platform.edge, platform.api));
    }
    let taken: Vec<String> = DEFAULT_ADDRESSES
        .iter()
        .filter_map(|text| {
            let address: SocketAddr = text.parse().ok()?;
            TcpListener::bind(address).err().map(|problem| format!("{text}: {problem}"))
        })
        .collect();
    if taken.is_empty() {
        return Check::ok(NAME, format!("{} are free", DEFAULT_ADDRESSES.join(" and ")));
    }
    Check::warn(NAME, taken.join("; "), "give others: `berth up --edge 127.0.0.1:8081 --api 127.0.0.1:7071`")
}

fn check_clock(now: Timestamp) -> Check {
    const NAME: &str = "clock";
    let text = exact(now);
    if now < BORN {
        return Check::fail(NAME, format!("{text} is in the past"), "set the machine's clock");
    }
    Check::ok(NAME, text)
}

fn check_toolchain(environment: &Environment) -> Check {
    const NAME: &str = "toolchains";
    let path = environment.variable("PATH").cloned().unwrap_or_default();
    let runs = |name: &str| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| {
            fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
    };
    match runs("cargo") {
        Some(cargo) => Check::ok(NAME, format!("cargo at {}", cargo.display())),
        None => Check::warn(
            NAME,
            "no cargo on the PATH",
            "Cargo projects cannot be built here; static sites and executables can be deployed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::environment;

    #[test]
    fn an_open_home_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let mut set = environment(directory.path(), &[]);
        set.uid = fs::metadata(directory.path()).unwrap().uid();
        let home = directory.path().join("home");
        assert_eq!(check_home(&home, &set).outcome, Outcome::Ok);
        fs::create_dir(&home).unwrap();
        for (mode, outcome) in
            [(0o700, Outcome::Ok), (0o710, Outcome::Ok), (0o755, Outcome::Fail), (0o720, Outcome::Fail)]
        {
            fs::set_permissions(&home, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_home(&home, &set).outcome, outcome, "{mode:o}");
        }
        set.uid += 1;
        assert_eq!(check_home(&home, &set).outcome, Outcome::Warn);
    }

    #[test]
    fn control_groups_are_named_as_the_platform_uses_them() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(check_cgroups(root.path(), 0).outcome, Outcome::Warn);
        let cgroups = root.path().join("sys/fs/cgroup");
        for (file, text) in [
            ("freezer/tasks", "version 1"),
            ("unified/cgroup.procs", "version 2 beside version 1"),
            ("cgroup.controllers", "version 2"),
        ] {
            let file = cgroups.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
            let check = check_cgroups(root.path(), 0);
            assert_eq!((check.outcome, check.text.as_str()), (Outcome::Ok, text));
        }
        assert!(check_cgroups(root.path(), 1).text.contains("delegates"));
    }

    #[test]
    fn a_clock_of_the_past_is_a_failure() {
        assert_eq!(check_clock(Timestamp(0)).outcome, Outcome::Fail);
        assert_eq!(check_clock(Timestamp(1_795_233_785_042)).outcome, Outcome::Ok);
    }
}
