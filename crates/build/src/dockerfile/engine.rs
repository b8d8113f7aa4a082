//! Which engine builds Dockerfiles: Docker, else Podman, else buildah, or the one that the operator names.

use std::fmt;
use std::path::PathBuf;

use berth_docker::{EngineError, Product};

use super::buildah::Buildah;
use crate::error::BuildError;

/// An engine that builds Dockerfiles, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker, by its API.
    Docker,
    /// Podman, by the same API.
    Podman,
    /// Buildah, which is a program and needs no service.
    Buildah,
}

impl EngineKind {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Buildah];

    /// As an operator names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn of(product: Product) -> Self {
        match product {
            Product::Docker => Self::Docker,
            Product::Podman => Self::Podman,
        }
    }

    /// Whether its builder has secrets that are no arguments.
    const fn has_secrets(self) -> bool {
        !matches!(self, Self::Docker)
    }
}

/// An engine that is there.
pub(super) enum Engine {
    Daemon(berth_docker::Engine),
    Buildah(Buildah),
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon(daemon) => write!(f, "{} {}", daemon.product(), daemon.version()),
            Self::Buildah(_) => f.write_str("buildah"),
        }
    }
}

/// Where engines are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Engines {
    /// The one kind that the operator wants; the first that is there unless it is said.
    pub wish: Option<EngineKind>,
    /// The sockets at which daemons may listen, in the order in which they are tried. Buildah is looked for in `PATH`.
    pub sockets: Vec<PathBuf>,
}

impl Engines {
    /// Where our own environment says that daemons listen, or where they usually do.
    #[must_use]
    pub fn from_env(wish: Option<EngineKind>) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let is_root = rustix::process::geteuid().is_root();
        let own_run_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|_| !is_root);
        let podman =
            berth_docker::podman_sockets(variable("CONTAINER_HOST").as_deref(), own_run_dir.as_deref());
        let mut sockets = berth_docker::sockets(variable("DOCKER_HOST").as_deref());
        sockets.extend(podman);
        Self { wish, sockets }
    }

    /// What would build a Dockerfile now, in words; nothing where nobody would. Blocks.
    #[must_use]
    pub fn here(&self) -> Option<String> {
        match self.find(None).ok()? {
            Engine::Daemon(daemon) => {
                Some(format!("{} {} at {}", daemon.product(), daemon.version(), daemon.socket().display()))
            }
            Engine::Buildah(buildah) => Some(buildah.to_string()),
        }
    }

    /// The first engine that is there; of one kind where that is wished for, and one that has secrets where `secret` is one. Blocks.
    ///
    /// # Errors
    /// [`BuildError::NoEngine`] with what was tried, or [`BuildError::SecretArgument`] when all that is there has no secrets.
    pub(super) fn find(&self, secret: Option<&str>) -> Result<Engine, BuildError> {
        let (mut tried, mut without_secrets) = (Vec::new(), false);
        let wanted = |kind: EngineKind| self.wish.is_none_or(|wish| wish == kind);
        let daemons = wanted(EngineKind::Docker) || wanted(EngineKind::Podman);
        for socket in self.sockets.iter().filter(|_| daemons) {
            if matches!(socket.try_exists(), Ok(false)) {
                tried.push(format!("nothing listens at {}", socket.display()));
                continue;
            }
            let daemon = match berth_docker::Engine::connect(socket) {
                Ok(daemon) => daemon,
                Err(error) => {
                    tried.push(format!("{}: {}", socket.display(), in_full(&error)));
                    continue;
                }
            };
            // Podman may listen where Docker does.
            let kind = EngineKind::of(daemon.product());
            if !wanted(kind) {
                tried.push(format!("{} is {}", socket.display(), daemon.product()));
            } else if secret.is_some() && !kind.has_secrets() {
                without_secrets = true;
            } else {
                return Ok(Engine::Daemon(daemon));
            }
        }
        if wanted(EngineKind::Buildah) {
            match Buildah::find() {
                Some(buildah) => return Ok(Engine::Buildah(buildah)),
                None => tried.push("no folder of PATH has buildah".to_owned()),
            }
        }
        match secret {
            Some(secret) if without_secrets => Err(BuildError::SecretArgument(secret.to_owned())),
            _ => Err(BuildError::NoEngine { wish: self.wish, tried }),
        }
    }
}

/// An error with what caused it.
pub(super) fn in_full(error: &EngineError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_known_by_the_names_that_operators_use() {
        for kind in EngineKind::ALL {
            assert_eq!(EngineKind::named(kind.name()), Some(kind));
        }
        assert_eq!(EngineKind::named("kaniko"), None);
        assert!(!EngineKind::Docker.has_secrets() && EngineKind::Buildah.has_secrets());
    }
}
