//! Programs that run beside a measurement: each on one core, and ended by its own number.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::peers::Line;
use crate::stopwatch::Stopwatch;

/// The core of what is measured.
pub(super) const PROXY_CORE: &str = "0";
/// The core of the clients and of the app.
pub(super) const LOAD_CORE: &str = "1";

/// A program that ends when this goes.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Running {
    /// Starts it on one core. What it logs to its outputs goes to a file below `dir`, as in production.
    #[expect(clippy::disallowed_methods, reason = "it runs beside what is measured")]
    pub(super) fn start(core: &str, (program, arguments): &Line, dir: &Path, feed: Stdio) -> Result<Self> {
        let log = File::create(dir.join("output.log"))?;
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program).args(arguments).env("GOMAXPROCS", "1").env("HOME", dir);
        command.stdin(feed).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// Waits until it listens at these ports.
    pub(super) fn until_listening(&mut self, ports: &[u16]) -> Result<()> {
        let stopwatch = Stopwatch::start();
        for port in ports {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                if let Some(status) = self.0.try_wait()? {
                    bail!("it ended with {status} before it listened");
                }
                ensure!(stopwatch.elapsed() < Duration::from_secs(60), "it did not listen within a minute");
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Its number and those of all below it.
    pub(super) fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = vec![self.0.id()];
        let mut at = 0;
        while let Some(pid) = pids.get(at) {
            let file = format!("/proc/{pid}/task/{pid}/children");
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
            pids.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            at += 1;
        }
        Ok(pids)
    }

    /// Its standard input, which ends when that is dropped.
    pub(super) fn input(&mut self) -> Option<std::process::ChildStdin> {
        self.0.stdin.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The program itself, never a worker of it: an orphaned worker would go on sharing the load. One that ends by itself has ended.
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = self.0.id().to_string();
        let told = crate::program::Program::new("kill").arg(pid).silent().run();
        if told.is_err() || self.0.wait().is_err() {
            println!("!! a program that was measured did not end");
        }
    }
}
