//! A daemon of one test's own, which the test kills and starts again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

use super::{is_installed, storage_driver};
use crate::engine::Engine;

/// A dockerd with all of its files in a folder of the test's. It ends with this, and its containers with it.
#[derive(Debug)]
pub struct LoneDaemon {
    /// Where it listens, while it runs.
    pub socket: PathBuf,
    home: PathBuf,
    live_restore: bool,
    child: Option<Child>,
}

impl LoneDaemon {
    /// Starts it in `home`; with `live_restore` its containers outlive it.
    ///
    /// # Errors
    /// Why it cannot be had, for whoever says aloud that nothing was tested.
    pub fn start(home: &Path, live_restore: bool) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can start dockerd".to_owned());
        }
        if !is_installed("dockerd") {
            return Err("dockerd is not installed: apt-get install docker.io".to_owned());
        }
        let socket = home.join("docker.sock");
        let mut daemon = Self { socket, home: home.to_owned(), live_restore, child: None };
        daemon.start_again().map_err(|error| error.to_string())?;
        Ok(daemon)
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// What it said when it does not.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.child = Some(self.spawn()?);
        // Two minutes: it looks after the containers that it finds before it answers.
        for _ in 0..1_200 {
            if Engine::connect(&self.socket).is_ok() {
                return Ok(());
            }
            if !matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None))) {
                break;
            }
            // wait: for the daemon to listen.
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
        let said = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        Err(io::Error::other(format!("dockerd does not come up: {}", tail.join("; "))))
    }

    /// Kills it, as a want of memory does. Its containers outlive this, whatever it was told: it has no time to end them.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.bury_containerd();
    }

    /// Its containerd dies with it. Where nobody reaps what is nobody's child its number stays taken, and the next daemon would wait for an
    /// answer of it.
    fn bury_containerd(&self) {
        let note = self.home.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { return };
        let _unless_it_has_ended = rustix::process::kill_process(pid, Signal::KILL);
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let lives = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        for _ in 0..600 {
            if !lives() {
                break;
            }
            // wait: for its end.
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
        drop(fs::remove_file(&note));
    }

    /// Has it end, as `systemctl stop docker` does, and waits for that: without `live_restore` it ends its containers before.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::TERM).is_ok()) {
            drop(child.wait());
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a daemon of a test's is no program of the platform's")]
    fn spawn(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut dockerd = Command::new("dockerd");
        dockerd.arg("-H").arg(format!("unix://{}", self.socket.display()));
        for (flag, place) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")] {
            dockerd.arg(flag).arg(self.home.join(place));
        }
        dockerd.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        dockerd.args(["--storage-driver", storage_driver()?]);
        dockerd.args(self.live_restore.then_some("--live-restore"));
        dockerd.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
    }
}

impl Drop for LoneDaemon {
    #[expect(clippy::disallowed_methods, reason = "a test cleans up by a program of the machine's")]
    fn drop(&mut self) {
        self.stop();
        // One that was killed, or whose containers outlive it, leaves its folder mounted on itself, in the way of the folder's end.
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(self.home.join("data")).stderr(Stdio::null());
        drop(unmount.status());
    }
}
