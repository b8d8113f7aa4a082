//! A daemon of the tests' own: one for all tests that run at once, whichever process each is in, away from whatever daemon the machine has.
//!
//! The first test that wants it starts it, together with a keeper that ends it by its process id once no test has wanted it for some
//! seconds. Locks on files say who wants it, so that a test that is killed wants nothing.

mod lone;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::FlockOperation;

use crate::engine::Engine;
pub use lone::LoneDaemon;

/// Starts the daemon, waits until nobody wants it, and ends it by its process id; what it kept is removed with it.
const KEEPER: &str = r#"
dockerd -H "unix://$HOME_OF/docker.sock" --data-root "$HOME_OF/data" --exec-root "$HOME_OF/exec" --pidfile "$HOME_OF/docker.pid" \
    --bridge none --iptables=false --ip6tables=false --storage-driver "$DRIVER" >"$HOME_OF/log" 2>&1 9>&- &
daemon=$!
exec 9<"$HOME_OF/wanted"
idle=0
while kill -0 $daemon 2>/dev/null && [ $idle -lt 10 ]; do
    sleep 1
    if flock -n -x 9; then flock -u 9; idle=$((idle + 1)); else idle=0; fi
done
kill -0 $daemon 2>/dev/null || : >"$HOME_OF/ended"
flock -x 9
kill $daemon 2>/dev/null
wait $daemon
rm -rf "$HOME_OF/data" "$HOME_OF/exec" "$HOME_OF/docker.sock"
"#;

/// The daemon, wanted for as long as this lives.
#[derive(Debug)]
pub struct Daemon {
    /// Where it listens.
    pub socket: PathBuf,
    _wanted: File,
}

impl Daemon {
    /// The daemon, started when it does not run.
    ///
    /// # Errors
    /// Why it cannot be had, for whoever says aloud that nothing was tested.
    pub fn get() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can start dockerd".to_owned());
        }
        if !is_installed("dockerd") {
            return Err("dockerd is not installed: apt-get install docker.io".to_owned());
        }
        let home = PathBuf::from("/tmp/berth-test-docker");
        start(&home).map_err(|error| error.to_string())
    }
}

/// Podman's service on a storage of its own, for one test. It ends with this.
#[derive(Debug)]
pub struct Podman {
    /// Where it listens.
    pub socket: PathBuf,
    service: Child,
}

impl Podman {
    /// The service, with all of its files in the folder `home`.
    ///
    /// # Errors
    /// Why it cannot be had, for whoever says aloud that nothing was tested.
    pub fn start(home: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can start Podman's service for this".to_owned());
        }
        if !is_installed("podman") {
            return Err("podman is not installed: apt-get install podman".to_owned());
        }
        let runtime = if is_installed("crun") { "crun" } else { "runc" };
        let mut service = serve(home, runtime).map_err(|error| error.to_string())?;
        let socket = home.join("podman.sock");
        for _ in 0..600 {
            if Engine::connect(&socket).is_ok() {
                return Ok(Self { socket, service });
            }
            if !matches!(service.try_wait(), Ok(None)) {
                break;
            }
            // wait: for the service to listen.
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
        drop(service.kill());
        let said = fs::read_to_string(home.join("podman.log")).unwrap_or_default();
        Err(format!("podman's service does not come up: {said}"))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.service.kill());
        drop(self.service.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "a service of a test's is no program of the platform's")]
fn serve(home: &Path, runtime: &str) -> std::io::Result<Child> {
    let log = File::create(home.join("podman.log"))?;
    let mut podman = Command::new("podman");
    for (flag, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
        podman.arg(flag).arg(home.join(folder));
    }
    // Copies in place of mounts, which would be in the way of the folder's end; and no systemd.
    podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    podman.args(["--runtime", runtime, "system", "service", "--time", "60"]);
    podman.arg(format!("unix://{}", home.join("podman.sock").display()));
    podman.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    podman.spawn()
}

fn start(home: &Path) -> std::io::Result<Daemon> {
    fs::create_dir_all(home)?;
    let starting = File::create(home.join("starting"))?;
    rustix::fs::flock(&starting, FlockOperation::LockExclusive)?;
    let wanted =
        File::options().create(true).truncate(false).write(true).read(true).open(home.join("wanted"))?;
    rustix::fs::flock(&wanted, FlockOperation::LockShared)?;
    let socket = home.join("docker.sock");
    if Engine::connect(&socket).is_ok() {
        return Ok(Daemon { socket, _wanted: wanted });
    }
    // Where it does not come up for one test of a run it will not for the next hundred.
    let (failed, run) = (home.join("failed"), std::env::var("NEXTEST_RUN_ID").unwrap_or_default());
    if !run.is_empty() && fs::read_to_string(&failed).is_ok_and(|failed| failed == run) {
        return Err(std::io::Error::other("dockerd does not come up, as the first test of this run found"));
    }
    let ended = home.join("ended");
    drop(fs::remove_file(&ended));
    spawn(home)?;
    // A minute, and what the daemon said if that was not enough.
    for _ in 0..600 {
        if Engine::connect(&socket).is_ok() {
            return Ok(Daemon { socket, _wanted: wanted });
        }
        if ended.is_file() {
            break;
        }
        // wait: for the daemon to listen.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    fs::write(failed, run)?;
    let said = fs::read_to_string(home.join("log")).unwrap_or_default();
    let tail: Vec<&str> = said.lines().rev().take(5).collect();
    Err(std::io::Error::other(format!("dockerd does not come up: {}", tail.join("; "))))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon has to outlive the test that starts it, and to end by itself"
)]
fn spawn(home: &Path) -> std::io::Result<()> {
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER]).env("HOME_OF", home).env("DRIVER", storage_driver()?);
    keeper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let child = keeper.spawn()?;
    let mut note = File::create(home.join("keeper.pid"))?;
    writeln!(note, "{}", child.id())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// On an overlay there can be no other; the test says so by its slowness alone.
fn storage_driver() -> std::io::Result<&'static str> {
    let overlay = fs::read_to_string("/proc/filesystems")?.contains("overlay");
    Ok(if overlay { "overlay2" } else { "vfs" })
}
