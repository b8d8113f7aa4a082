//! A platform of the release build, in a home of its own.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::program::Program;
use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

pub(super) struct Platform {
    berth: PathBuf,
    dir: PathBuf,
    supervisor: Child,
    edge: SocketAddr,
    api: SocketAddr,
}

impl Platform {
    #[expect(clippy::disallowed_methods, reason = "it is watched and stopped, which Program cannot")]
    pub(super) fn start(workspace: &Workspace) -> Result<Self> {
        let berth = workspace.target_dir()?.join("release/berth");
        let dir = workspace.target_dir()?.join("bench-deploy");
        if dir.try_exists()? {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let (edge, api) = (free_address()?, free_address()?);
        let supervisor = Command::new(&berth)
            .args(["up", "--edge", &edge.to_string(), "--api", &api.to_string()])
            .arg("--home")
            .arg(dir.join("home"))
            .env("XDG_CONFIG_HOME", dir.join("config"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start berth")?;
        let platform = Self { berth, dir, supervisor, edge, api };
        let stopwatch = Stopwatch::start();
        while platform.berth(&["status"]).is_err() {
            ensure!(stopwatch.elapsed() < Duration::from_secs(30), "the platform did not start within 30 s");
            platform.rest(Duration::from_millis(50));
        }
        Ok(platform)
    }

    pub(super) fn edge(&self) -> SocketAddr {
        self.edge
    }

    pub(super) fn api(&self) -> SocketAddr {
        self.api
    }

    #[expect(clippy::disallowed_methods, reason = "the time that passes is what is measured")]
    pub(super) fn rest(&self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Runs a verb and gives what it printed.
    pub(super) fn berth(&self, verb: &[&str]) -> Result<String> {
        Program::new(&self.berth)
            .args(verb)
            .env("BERTH_HOME", self.dir.join("home"))
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .output()
    }

    #[expect(clippy::disallowed_methods, reason = "what happens while it runs is what is measured")]
    pub(super) fn spawn(&self, verb: &[&str]) -> Result<Child> {
        let mut command = Command::new(&self.berth);
        command
            .args(verb)
            .env("BERTH_HOME", self.dir.join("home"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.spawn()?)
    }

    pub(super) fn wait(&self, mut running: Child, verb: &[&str]) -> Result<()> {
        let status = running.wait()?;
        ensure!(status.success(), "{verb:?} ended with {status}");
        Ok(())
    }

    /// Starts the strict client; it sends until [`Platform::stop_load`].
    #[expect(clippy::disallowed_methods, reason = "it runs beside what is measured")]
    pub(super) fn spawn_load(&self, workspace: &Workspace, args: &[&str]) -> Result<Child> {
        let program = workspace.target_dir()?.join("release/examples/load");
        let mut command = Command::new(program);
        command.arg(self.edge.to_string()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command.spawn()?)
    }

    pub(super) fn stop_load(&self, mut load: Child) -> Result<Value> {
        drop(load.stdin.take());
        let output = load.wait_with_output()?;
        ensure!(output.status.success(), "the load ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("what the load printed")
    }

    /// The example's source, to be changed.
    pub(super) fn copy_of_example(&self, workspace: &Workspace) -> Result<String> {
        let to = self.dir.join("source");
        std::fs::create_dir_all(to.join("src"))?;
        let from = workspace.root().join("examples/simple-web-app");
        for file in ["Cargo.toml", "Cargo.lock", "berth.toml", "src/main.rs"] {
            std::fs::copy(from.join(file), to.join(file)).with_context(|| format!("cannot copy {file}"))?;
        }
        Ok(to.display().to_string())
    }

    /// Makes the source another one, so that it is compiled anew.
    pub(super) fn change_example(&self, source: &str, round: u32) -> Result<()> {
        let path = Path::new(source).join("src/main.rs");
        let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
        writeln!(file, "\n/// Changed in round {round}.\nconst _ROUND_{round}: u32 = {round};")?;
        Ok(())
    }

    /// A directory that holds the example's program alone: a prebuilt executable.
    pub(super) fn built_example(&self) -> Result<String> {
        let artifacts = self.dir.join("home/artifacts/default/default/simple-web-app");
        let program = std::fs::read_dir(&artifacts)?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/simple-web-app")))
            .find(|path| path.is_file())
            .context("no artifact of the example")?;
        let dir = self.dir.join("program");
        std::fs::create_dir_all(&dir)?;
        std::fs::copy(program, dir.join("server"))?;
        Program::new("chmod").arg("755").arg(dir.join("server")).run()?;
        Ok(dir.display().to_string())
    }

    /// Supervisor, control and edge.
    pub(super) fn own_pids(&self) -> Result<Vec<u32>> {
        let status: Value = serde_json::from_str(&self.berth(&["status", "--json"])?)?;
        let roles = status.get("roles").and_then(Value::as_array).context("no roles in the status")?;
        let pids = roles.iter().filter_map(|role| role.get("pid")?.as_u64()?.try_into().ok()).collect();
        Ok(pids)
    }

    /// The shims: parents of the apps' processes.
    pub(super) fn shims(&self) -> Result<Vec<u32>> {
        let listed: Value =
            serde_json::from_str(&self.berth(&["ps", "--app", "simple-web-app", "--json"])?)?;
        let instances = listed.get("instances").and_then(Value::as_array).context("no instances")?;
        let apps: Vec<u64> = instances.iter().filter_map(|it| it.get("pid")?.as_u64()).collect();
        let mut shims = Vec::new();
        for pid in apps {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let parent = text.lines().find_map(|line| line.strip_prefix("PPid:"));
            shims.extend(parent.and_then(|parent| parent.trim().parse::<u32>().ok()));
        }
        if shims.is_empty() {
            bail!("no instance runs");
        }
        Ok(shims)
    }

    pub(super) fn token(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("home/keys/owner-token"))?.trim().to_owned())
    }

    /// The file system of the home.
    pub(super) fn file_system(&self) -> Result<String> {
        let output = Program::new("stat").args(["--file-system", "--format=%T"]).arg(&self.dir).output()?;
        Ok(output.trim().to_owned())
    }

    pub(super) fn down(mut self) -> Result<()> {
        self.berth(&["down"])?;
        let status = self.supervisor.wait()?;
        ensure!(status.success(), "the supervisor ended with {status}");
        std::fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Only where measuring failed; down() has waited otherwise and a second kill finds nobody.
        if matches!(self.supervisor.try_wait(), Ok(None)) {
            drop(self.berth(&["down"]));
            drop(self.supervisor.wait());
        }
    }
}

/// An address that nobody listens on, outside of the range of apps.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
