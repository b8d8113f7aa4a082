//! Programs that tests and benches need beside Rust: installed where we may, named loudly where we may not.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::program::{self, Program};

/// A program of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    pub program: &'static str,
    /// Debian's package.
    pub package: &'static str,
    pub for_what: &'static str,
}

/// What the tests use.
pub(crate) const FOR_TESTS: &[Tool] = &[
    Tool {
        program: "strace",
        package: "strace",
        for_what: "proves that data is on disk before the answer is given",
    },
    Tool {
        program: "faketime",
        package: "faketime",
        for_what: "lets a process believe that the clock jumped",
    },
    Tool { program: "setpriv", package: "util-linux", for_what: "runs the platform as an ordinary user" },
    Tool { program: "node", package: "nodejs", for_what: "runs the app of an npm project" },
    Tool { program: "npm", package: "npm", for_what: "installs what an npm project needs" },
    Tool { program: "zsh", package: "zsh", for_what: "completes what is typed, as a person's shell" },
    Tool { program: "fish", package: "fish", for_what: "completes what is typed, as a person's shell" },
    Tool { program: "busybox", package: "busybox-static", for_what: "is the program of an image" },
    Tool { program: "nft", package: "nftables", for_what: "lets instances out by a policy" },
    Tool {
        program: "slirp4netns",
        package: "slirp4netns",
        for_what: "lets an ordinary user's instances out",
    },
    Tool { program: "ip", package: "iproute2", for_what: "makes networks for tests to be in" },
    Tool { program: "dockerd", package: "docker.io", for_what: "runs instances in containers" },
    Tool { program: "podman", package: "podman", for_what: "builds Dockerfiles" },
    Tool { program: "buildah", package: "buildah", for_what: "builds Dockerfiles" },
    Tool { program: "docker-registry", package: "docker-registry", for_what: "is pulled from" },
    Tool { program: "skopeo", package: "skopeo", for_what: "pushes images" },
    Tool { program: "openssl", package: "openssl", for_what: "makes certificates for a registry" },
    Tool { program: "pebble", package: "pebble", for_what: "gives certificates by ACME" },
    Tool { program: "testssl", package: "testssl.sh", for_what: "looks for weaknesses of HTTPS" },
    Tool { program: "haproxy", package: "haproxy", for_what: "stands before the platform, or a server" },
    Tool { program: "curl", package: "curl", for_what: "is a client of HTTPS and HTTP/2" },
    Tool { program: "psql", package: "postgresql", for_what: "is a database, and its client" },
    Tool { program: "umoci", package: "umoci", for_what: "unpacks images, to compare with" },
    Tool { program: VENV, package: "python3-venv", for_what: "builds and runs a Flask app" },
];

/// No program, but what makes virtual environments: Debian has it in a package of its own, and a Python without it looks the same.
const VENV: &str = "python3 with venv";

fn is_there(tool: &Tool) -> bool {
    if tool.program != VENV {
        return program::find(tool.program).is_some();
    }
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut pythons = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    pythons.any(|entry| entry.path().join("ensurepip").is_dir())
}

/// Installs what is missing, as root on a Debian, and gives what is still missing afterwards, said loudly.
pub(crate) fn provide(tools: &'static [Tool]) -> Vec<Tool> {
    let missing = || tools.iter().filter(|tool| !is_there(tool)).copied().collect::<Vec<_>>();
    let wanted = missing();
    install(&wanted.iter().map(|tool| tool.package).collect::<Vec<_>>());
    let still = missing();
    for tool in &still {
        println!(
            "!! NOT INSTALLED: {} ({}). `apt-get install {}`",
            tool.program, tool.for_what, tool.package
        );
    }
    still
}

/// Installs Debian's packages where we may, and says loudly which could not be.
pub(crate) fn install(packages: &[&str]) {
    if !packages.is_empty() && may_install() {
        install_each(packages).unwrap_or_else(|error| println!("!! nothing could be installed: {error:#}"));
    }
}

fn may_install() -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    is_root && program::find("apt-get").is_some()
}

/// One by one: a package that this release of the distribution lacks keeps none of the others away.
fn install_each(packages: &[&str]) -> Result<()> {
    let _guard = NoServices::raise()?;
    let apt = || {
        Program::new("apt-get")
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .env("DEBIAN_FRONTEND", "noninteractive")
    };
    apt().arg("update").run()?;
    for package in packages {
        println!("installing {package}");
        let installed = apt().args(["install", "--yes", "--no-install-recommends", package]).run();
        installed.unwrap_or_else(|error| println!("!! {error:#}"));
    }
    Ok(())
}

/// While it lives, a package that is installed starts no service: nginx would take port 80 for itself.
struct NoServices {
    policy: Option<PathBuf>,
}

impl NoServices {
    fn raise() -> Result<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.try_exists().context("cannot look for a service policy")? {
            return Ok(Self { policy: None });
        }
        // invoke-rc.d(8): 101 forbids the action.
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").context("cannot write a service policy")?;
        std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { policy: Some(policy.to_owned()) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy
            && let Err(error) = std::fs::remove_file(policy)
        {
            println!("!! {} is left over: {error}", policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_missing() {
        const THERE: &[Tool] = &[Tool { program: "sh", package: "dash", for_what: "everything" }];
        assert!(provide(THERE).is_empty());
    }
}
