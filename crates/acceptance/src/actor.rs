//! An app that misbehaves as it is told: the executable of `apps/actor` with a manifest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::binary::actor_binary;
use crate::platform::{Answer, Platform};

/// The source of an app, in a directory of the platform's scratch space.
#[derive(Debug)]
pub struct Actor<'p> {
    platform: &'p Platform,
    name: String,
    directory: PathBuf,
}

impl<'p> Actor<'p> {
    /// The app `name` that plays `part` as its process `web`.
    #[must_use]
    pub fn web(platform: &'p Platform, name: &str, part: &str) -> Self {
        Self::new(platform, name, &format!("[processes]\nweb = \"./actor {part}\"\n"))
    }

    /// The app `name` with a manifest, of which the name is left out.
    #[must_use]
    pub fn new(platform: &'p Platform, name: &str, manifest: &str) -> Self {
        let directory = platform.scratch().join(name);
        fs::create_dir_all(&directory).expect("our directory");
        fs::copy(actor_binary(), directory.join("actor")).expect("it was built");
        let actor = Self { platform, name: name.to_owned(), directory };
        actor.change(manifest);
        actor
    }

    /// Writes another manifest.
    pub fn change(&self, manifest: &str) {
        let text = format!("app = \"{}\"\n{manifest}", self.name);
        fs::write(self.directory.join("berth.toml"), text).expect("our directory");
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Deploys it, with `--json`.
    #[must_use]
    pub fn deploy(&self) -> Answer {
        self.platform.cli([Path::new("deploy"), Path::new("--json"), &self.directory])
    }

    /// Runs a verb about it, with `--json`.
    #[must_use]
    pub fn verb(&self, arguments: &[&str]) -> Answer {
        self.platform.cli(arguments.iter().copied().chain(["--app", &self.name, "--json"]))
    }

    /// What it answers through edge: the status and the body.
    #[must_use]
    pub fn ask(&self, path: &str) -> (u16, String) {
        let host = format!("{}.localhost", self.name);
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let reply = crate::api::exchange(self.platform.edge(), request.as_bytes()).expect("edge answers");
        (reply.status, reply.text())
    }
}
