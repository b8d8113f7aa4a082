//! Why a build failed, with a stable code each.

use std::io;
use std::path::{Path, PathBuf};

use berth_source::lay::LayError;
use berth_source::{NothingFits, StoreError};
use berth_spec::Millis;

use crate::dockerfile::EngineKind;

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No rule of detection fits the source.
    #[error("the source cannot be built")]
    NoBuilder(#[from] NothingFits),
    /// What builds it is not installed.
    #[error("{missing}; {install}")]
    ToolchainMissing {
        /// What is missing.
        missing: String,
        /// How it gets there.
        install: String,
    },
    /// The build's command ended with a failure.
    #[error("{command} {outcome}")]
    Failed {
        /// What ran.
        command: String,
        /// How it ended: `exited with 101`.
        outcome: String,
        /// Its last lines, masked.
        tail: Vec<String>,
    },
    /// The build left something that cannot be an artifact.
    #[error("{0}")]
    Outcome(String),
    /// The build took too long and was ended.
    #[error("the build was ended after {0}")]
    Timeout(Millis),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The disk, or the quota on it, is full.
    #[error("the disk is full at {0:?}; nothing was left half done")]
    DiskFull(PathBuf),
    /// The tree or a chunk of it could not be had.
    #[error("the source is not available")]
    Source(#[source] StoreError),
    /// The work directory or the artifact could not be written.
    #[error("{path:?} could not be {verb}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The command could not be started at all.
    #[error("the build could not be started")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing that is there builds Dockerfiles, or nothing of the kind that was wished for.
    #[error("a Dockerfile is built by {}, and {} here", wish_or_any(*.wish), if .wish.is_some() { "it is not" } else { "none of them is" })]
    NoEngine {
        /// The one that the operator named.
        wish: Option<EngineKind>,
        /// What was looked for, and where.
        tried: Vec<String>,
    },
    /// A secret was to go into a build by an engine that has arguments alone.
    #[error("{0} is a secret, and an argument of a build by Docker is in its image for everybody to read")]
    SecretArgument(String),
    /// The engine says that the Dockerfile fails.
    #[error("the Dockerfile could not be built")]
    Dockerfile {
        /// Its words.
        message: String,
        /// The last lines of the output, masked.
        tail: Vec<String>,
    },
    /// The engine that builds Dockerfiles did not do its part.
    #[error("{engine} did not do its part")]
    Engine {
        /// Its name.
        engine: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The commands were to be kept from every network, and could not be started so.
    #[error(
        "`network = false` cannot be kept on this machine, so nothing was built: remove it from berth.toml, or run the platform as root"
    )]
    NotOffline(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Processes of the build could not be ended; it is not sealed while they may write.
    #[error("processes of the build could not be ended")]
    Unkillable(#[from] berth_process::KillError),
}

impl BuildError {
    /// The stable code of this error; each has a page.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoBuilder(_) => "nothing_to_run",
            Self::ToolchainMissing { .. } => "toolchain_missing",
            Self::Failed { .. }
            | Self::Outcome(_)
            | Self::Start(_)
            | Self::SecretArgument(_)
            | Self::Dockerfile { .. }
            | Self::Engine { .. }
            | Self::NotOffline(_) => "build_failed",
            Self::NoEngine { .. } => "docker_unavailable",
            Self::Timeout(_) => "build_timed_out",
            Self::Cancelled => "build_cancelled",
            Self::DiskFull(_) => "disk_full",
            Self::Source(source) => source.code(),
            Self::Io { .. } | Self::Unkillable(_) => "storage_failed",
        }
    }
}

fn wish_or_any(wish: Option<EngineKind>) -> &'static str {
    match wish {
        None => "Docker, Podman or buildah",
        Some(EngineKind::Docker) => "Docker, as BERTH_BUILD_ENGINE says",
        Some(EngineKind::Podman) => "Podman, as BERTH_BUILD_ENGINE says",
        Some(EngineKind::Buildah) => "buildah, as BERTH_BUILD_ENGINE says",
    }
}

impl From<StoreError> for BuildError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull { path } => Self::DiskFull(path),
            other => Self::Source(other),
        }
    }
}

impl From<LayError> for BuildError {
    fn from(error: LayError) -> Self {
        match error {
            LayError::DiskFull { path } => Self::DiskFull(path.into()),
            LayError::Chunk { source, .. } => source.into(),
            LayError::Io { path, source } => Self::Io { path: path.into(), verb: "written", source },
        }
    }
}

/// Makes an error of what the system said about `path`, for `map_err`.
pub(crate) fn failed<E: Into<io::Error>>(path: &Path, verb: &'static str) -> impl Fn(E) -> BuildError {
    let path = path.to_owned();
    move |error| {
        let source = error.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BuildError::DiskFull(path.clone()),
            _ => BuildError::Io { path: path.clone(), verb, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let errors = [
            BuildError::NoBuilder(NothingFits::Nothing),
            BuildError::ToolchainMissing { missing: String::new(), install: String::new() },
            BuildError::Outcome(String::new()),
            BuildError::Timeout(Millis(1)),
            BuildError::Cancelled,
            BuildError::NoEngine { wish: None, tried: Vec::new() },
            BuildError::DiskFull(PathBuf::new()),
            BuildError::Unkillable(berth_process::KillError::Survivors(Vec::new())),
            BuildError::Source(StoreError::Missing(Vec::new())),
            BuildError::Source(StoreError::Damaged { name: String::new() }),
        ];
        for error in errors {
            let page = pages.join(format!("{}.md", error.code()));
            assert!(page.try_exists().unwrap(), "{} has no page", error.code());
        }
    }
}
