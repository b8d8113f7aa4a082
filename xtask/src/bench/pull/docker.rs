//! The peer: a dockerd of the bench's own, asked by `docker pull` and `docker run`, as people do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{HANG, answers, sample};
use crate::platform::free_address;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

const NAME: &str = "bench-pull";

/// A daemon that ends when this goes, with all that it keeps in a folder of its own.
pub(super) struct Docker {
    socket: PathBuf,
    child: Child,
}

impl Docker {
    /// Starts it, with its files in `dir`.
    #[expect(clippy::disallowed_methods, reason = "it runs beside what is measured")]
    pub(super) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (socket, log) = (dir.join("docker.sock"), File::create(dir.join("log"))?);
        let mut command = Command::new("dockerd");
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        for (flag, place) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")] {
            command.arg(flag).arg(dir.join(place));
        }
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start dockerd")?;
        let mut docker = Self { socket, child };
        let stopwatch = Stopwatch::start();
        while docker.client(&["version"]).silent().output().is_err() {
            ensure!(docker.child.try_wait()?.is_none(), "dockerd ended; see {}/log", dir.display());
            ensure!(stopwatch.elapsed() < Duration::from_secs(60), "dockerd does not answer");
            std::thread::yield_now();
        }
        Ok(docker)
    }

    fn client(&self, arguments: &[&str]) -> Program {
        let host = format!("unix://{}", self.socket.display());
        Program::new("docker").args(["--host", &host]).args(arguments)
    }

    /// Pulls an image of which it has nothing and runs it. Gives the milliseconds until it has answered.
    pub(super) fn pull(&self, image: &str) -> Result<f64> {
        let address = free_address()?;
        let command = sample::command(address.port());
        let stopwatch = Stopwatch::start();
        self.client(&["pull", "--quiet", image]).output()?;
        let run = ["run", "--detach", "--network", "host", "--name", NAME, image];
        self.client(&run).args(command).output()?;
        while !answers(address, "localhost") {
            ensure!(stopwatch.elapsed() < HANG, "the container did not answer");
            std::thread::yield_now();
        }
        let took = stopwatch.seconds() * 1_000.0;
        self.client(&["rm", "--force", NAME]).output()?;
        Ok(took)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It ends its containerd on its way.
        let pid = self.child.id().to_string();
        let told = Program::new("kill").arg(pid).silent().run();
        if told.is_err() || self.child.wait().is_err() {
            println!("!! the dockerd that was measured did not end");
        }
        // It leaves the machine's network mounted in its folder, for a container that had that.
        let networks = self.socket.with_file_name("exec/netns");
        for network in fs::read_dir(networks).into_iter().flatten().flatten() {
            drop(Program::new("umount").arg(network.path()).silent().output());
        }
    }
}
