//! Debian's registry, to be pulled from: neither ours nor Docker's client has anything to do with how it answers.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::sample::Sample;
use crate::platform::free_address;
use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// A registry that ends when this goes.
pub(super) struct Registry {
    address: SocketAddr,
    child: Child,
}

impl Registry {
    /// Starts one that keeps its files in `dir`.
    #[expect(clippy::disallowed_methods, reason = "it runs beside what is measured")]
    pub(super) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let address = free_address()?;
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.join("data").display()
        );
        let (path, log) = (dir.join("config.yml"), File::create(dir.join("log"))?);
        fs::write(&path, config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start docker-registry")?;
        let mut registry = Self { address, child };
        let stopwatch = Stopwatch::start();
        while TcpStream::connect(address).is_err() {
            ensure!(registry.child.try_wait()?.is_none(), "docker-registry ended; see {}/log", dir.display());
            ensure!(stopwatch.elapsed() < Duration::from_secs(60), "docker-registry does not listen");
            std::thread::yield_now();
        }
        Ok(registry)
    }

    /// Pushes an image and gives its name.
    pub(super) fn push(&self, sample: &Sample) -> Result<String> {
        let name = format!("{}/bench/sample:1", self.address);
        let how = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        let from = format!("oci:{}:sample", sample.layout.display());
        Program::new("skopeo").args(how).args([from, format!("docker://{name}")]).run()?;
        Ok(name)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
