//! A platform in a home of its own, run by a binary that is given: what benches and sample apps are measured on.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::program::Program;
use crate::stopwatch::Stopwatch;

pub(crate) struct Platform {
    berth: PathBuf,
    dir: PathBuf,
    env: Vec<(&'static str, OsString)>,
    supervisor: Child,
    edge: SocketAddr,
    api: SocketAddr,
}

impl Platform {
    /// Starts `berth` with a home in `dir`, which is made anew, and waits until it answers. `env` is added to the environment.
    pub(crate) fn start(berth: &Path, dir: &Path, env: Vec<(&'static str, OsString)>) -> Result<Self> {
        if dir.try_exists()? {
            std::fs::remove_dir_all(dir)?;
        }
        std::fs::create_dir_all(dir)?;
        let (edge, api) = (free_address()?, free_address()?);
        let (berth, dir) = (berth.to_owned(), dir.to_owned());
        let supervisor = launch(&berth, &dir, &env, edge, api)?;
        let mut platform = Self { berth, dir, env, supervisor, edge, api };
        platform.until_up(Duration::from_secs(120), Duration::from_millis(50))?;
        Ok(platform)
    }

    /// Takes it down, does `meanwhile` with its home, starts it again; gives the seconds from the command to the API's first answer.
    pub(crate) fn start_again(&mut self, meanwhile: impl FnOnce(&Path) -> Result<()>) -> Result<f64> {
        self.berth(&["down"])?;
        self.supervisor.wait()?;
        meanwhile(&self.home())?;
        let stopwatch = Stopwatch::start();
        self.supervisor = launch(&self.berth, &self.dir, &self.env, self.edge, self.api)?;
        self.until_up(Duration::from_secs(120), Duration::from_millis(10))?;
        Ok(stopwatch.seconds())
    }

    fn until_up(&mut self, limit: Duration, look: Duration) -> Result<()> {
        let stopwatch = Stopwatch::start();
        while self.command(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.code()
            != Some(0)
        {
            if let Some(status) = self.supervisor.try_wait()? {
                bail!("the platform ended with {status} while it started");
            }
            ensure!(stopwatch.elapsed() < limit, "the platform did not start within {} s", limit.as_secs());
            self.rest(look);
        }
        Ok(())
    }

    pub(crate) fn edge(&self) -> SocketAddr {
        self.edge
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    /// The folder that it was given: the home is in it, and what else is put there goes with the platform.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    #[expect(clippy::disallowed_methods, reason = "the time that passes is what is measured")]
    pub(crate) fn rest(&self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Runs a verb and gives what it printed.
    pub(crate) fn berth(&self, verb: &[&str]) -> Result<String> {
        let program = Program::new(&self.berth).args(verb).env("BERTH_HOME", self.home());
        program.env("XDG_CONFIG_HOME", self.dir.join("config")).output()
    }

    /// Starts a verb; what it says is dropped.
    pub(crate) fn spawn(&self, verb: &[&str]) -> Result<Child> {
        Ok(self.command(verb).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Starts a verb; what it says goes into `file`.
    pub(crate) fn spawn_into(&self, verb: &[&str], file: &Path) -> Result<Child> {
        let out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(self.command(verb).stdout(out.try_clone()?).stderr(out).spawn()?)
    }

    pub(crate) fn wait(&self, mut running: Child, verb: &[&str]) -> Result<()> {
        let status = running.wait()?;
        ensure!(status.success(), "{verb:?} ended with {status}");
        Ok(())
    }

    /// Starts the strict client, the program `load`; it sends until [`Platform::stop_load`].
    #[expect(clippy::disallowed_methods, reason = "it runs beside what is measured")]
    pub(crate) fn spawn_load(&self, load: &Path, args: &[&str]) -> Result<Child> {
        let mut command = Command::new(load);
        command.arg(self.edge.to_string()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().with_context(|| format!("cannot start {}", load.display()))
    }

    pub(crate) fn stop_load(&self, mut load: Child) -> Result<Value> {
        drop(load.stdin.take());
        let output = load.wait_with_output()?;
        ensure!(output.status.success(), "the load ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("what the load printed")
    }

    /// Supervisor, control and edge.
    pub(crate) fn own_pids(&self) -> Result<Vec<u32>> {
        let status: Value = serde_json::from_str(&self.berth(&["status", "--json"])?)?;
        let roles = status.get("roles").and_then(Value::as_array).context("no roles in the status")?;
        let pids = roles.iter().filter_map(|role| role.get("pid")?.as_u64()?.try_into().ok()).collect();
        Ok(pids)
    }

    pub(crate) fn token(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.home().join("keys/owner-token"))?.trim().to_owned())
    }

    /// The file system of the home.
    pub(crate) fn file_system(&self) -> Result<String> {
        let output = Program::new("stat").args(["--file-system", "--format=%T"]).arg(&self.dir).output()?;
        Ok(output.trim().to_owned())
    }

    pub(crate) fn down(self) -> Result<()> {
        let dir = self.dir.clone();
        self.leave()?;
        Ok(std::fs::remove_dir_all(dir)?)
    }

    /// Takes it down and leaves what it wrote.
    pub(crate) fn leave(mut self) -> Result<()> {
        let said = self.command(&["down"]).output()?;
        ensure!(said.status.success(), "`berth down`: {}", String::from_utf8_lossy(&said.stderr));
        let status = self.supervisor.wait()?;
        ensure!(status.success(), "the supervisor ended with {status}");
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "what happens while it runs is what is measured")]
    fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(&self.berth);
        command.args(verb).stdin(Stdio::null()).envs(self.env.iter().cloned());
        command.env("BERTH_HOME", self.home()).env("XDG_CONFIG_HOME", self.dir.join("config"));
        command
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Only where measuring failed; down() has waited otherwise and a second kill finds nobody.
        if matches!(self.supervisor.try_wait(), Ok(None)) {
            // One that never came up takes no order.
            if self.berth(&["down"]).is_err() {
                drop(self.supervisor.kill());
            }
            drop(self.supervisor.wait());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it is watched and stopped, which Program cannot")]
fn launch(
    berth: &Path,
    dir: &Path,
    env: &[(&'static str, OsString)],
    edge: SocketAddr,
    api: SocketAddr,
) -> Result<Child> {
    Command::new(berth)
        .args(["up", "--edge", &edge.to_string(), "--api", &api.to_string()])
        .arg("--home")
        .arg(dir.join("home"))
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start berth")
}

/// An address that nobody listens on, outside of the range of apps.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
