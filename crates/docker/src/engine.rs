//! The daemon: found, asked what it can do, and told.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use crate::error::{EngineError, asking, during};

/// Seconds that the daemon may take for an answer, or for the next piece of one.
const TIMEOUT: u64 = 120;
/// The version of the API that we speak, and no higher one: that of Docker 20.10.
const VERSION: bollard::ClientVersion = bollard::ClientVersion { major_version: 1, minor_version: 41 };
/// Bytes of a file that are sent at once.
const PIECE: usize = 256 << 10;

/// A daemon that answered.
#[derive(Debug, Clone)]
pub struct Engine {
    client: Docker,
    socket: PathBuf,
    product: Product,
    version: String,
}

/// Whose daemon it is that speaks Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Docker's own.
    Docker,
    /// Podman, which has secrets for builds and goes on with one that nobody listens to.
    Podman,
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}

/// What a daemon says of itself and its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its version.
    pub version: String,
    /// What it can limit, in the kernel's names.
    pub limits: Vec<&'static str>,
    /// Whether its machine has control groups of version 2 alone.
    pub unified_cgroups: bool,
    /// Whether it filters system calls.
    pub seccomp: bool,
    /// Whether it runs as an ordinary user.
    pub rootless: bool,
}

/// Where daemons listen, in the order in which they are tried: what `DOCKER_HOST` says, else the usual places.
#[must_use]
pub fn sockets(docker_host: Option<&str>) -> Vec<PathBuf> {
    let said = docker_host.and_then(|host| host.strip_prefix("unix://"));
    let known = ["/run/docker.sock", "/var/run/docker.sock"];
    match said {
        Some(path) => vec![PathBuf::from(path)],
        None => known.map(PathBuf::from).to_vec(),
    }
}

/// Where Podman's service listens: what `CONTAINER_HOST` says, else its usual place, which for an ordinary user is in that user's run directory.
#[must_use]
pub fn podman_sockets(container_host: Option<&str>, own_run_dir: Option<&Path>) -> Vec<PathBuf> {
    let said = container_host.and_then(|host| host.strip_prefix("unix://"));
    let usual = "podman/podman.sock";
    match (said, own_run_dir) {
        (Some(path), _) => vec![PathBuf::from(path)],
        (None, Some(run_dir)) => vec![run_dir.join(usual)],
        (None, None) => vec![Path::new("/run").join(usual)],
    }
}

impl Engine {
    /// The first daemon that answers at one of these sockets.
    ///
    /// # Errors
    /// [`EngineError::Absent`] when there is none; what the last one said when there is and it does not do.
    pub fn find(sockets: &[PathBuf]) -> Result<Self, EngineError> {
        let mut failed = None;
        for socket in sockets.iter().filter(|socket| socket.try_exists().unwrap_or(false)) {
            match Self::connect(socket) {
                Ok(engine) => return Ok(engine),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| EngineError::Absent(sockets.to_vec())))
    }

    /// The daemon at `socket`.
    ///
    /// # Errors
    /// When none answers there, or one that is too old.
    pub fn connect(socket: &Path) -> Result<Self, EngineError> {
        let client = Docker::connect_with_unix(&socket.to_string_lossy(), TIMEOUT, &VERSION);
        let client = client.map_err(asking("connecting to the daemon"))?;
        let version = wait(client.version())?.map_err(asking("asking the daemon what it is"))?;
        let parts = version.components.unwrap_or_default();
        let is_podman = parts.iter().any(|part| part.name.starts_with("Podman"));
        Ok(Self {
            client,
            socket: socket.to_owned(),
            product: if is_podman { Product::Podman } else { Product::Docker },
            version: version.version.unwrap_or_default(),
        })
    }

    /// Whose daemon it is.
    #[must_use]
    pub fn product(&self) -> Product {
        self.product
    }

    /// Its version: `20.10.24`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether somebody listens where it did.
    ///
    /// # Errors
    /// [`EngineError::Absent`] when nobody does.
    pub fn listens(&self) -> Result<(), EngineError> {
        let absent = |_nobody| EngineError::Absent(vec![self.socket.clone()]);
        UnixStream::connect(&self.socket).map(drop).map_err(absent)
    }

    /// The error of a call as it is told: one that broke because the daemon is gone says that.
    #[must_use]
    pub fn told(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Broken { .. } => self.listens().err().unwrap_or(error),
            other => other,
        }
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not say.
    pub fn facts(&self) -> Result<Facts, EngineError> {
        use bollard::models::SystemInfoCgroupVersionEnum as Version;
        let info = wait(self.client.info())?.map_err(asking("asking the daemon what it can do"))?;
        let has = |fact: Option<bool>| fact.unwrap_or(false);
        let limits = [
            ("memory", has(info.memory_limit)),
            ("cpu", has(info.cpu_cfs_quota) && has(info.cpu_cfs_period)),
            ("pids", has(info.pids_limit)),
        ];
        let options = info.security_options.unwrap_or_default();
        let option = |name: &str| options.iter().any(|option| option.contains(&format!("name={name}")));
        Ok(Facts {
            version: info.server_version.unwrap_or_default(),
            limits: limits.into_iter().filter_map(|(name, has)| has.then_some(name)).collect(),
            unified_cgroups: info.cgroup_version == Some(Version::_2),
            seccomp: option("seccomp"),
            rootless: option("rootless"),
        })
    }

    /// Whether there is an image of this name.
    ///
    /// # Errors
    /// When the daemon does not say.
    pub fn has_image(&self, name: &str) -> Result<bool, EngineError> {
        match wait(self.client.inspect_image(name))?.map_err(asking("looking for an image")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the daemon take over the images of an archive.
    ///
    /// # Errors
    /// When it cannot be read or is refused.
    pub fn load(&self, archive: File) -> Result<(), EngineError> {
        let told =
            |said: Result<bollard::models::BuildInfo, _>| said.map(drop).map_err(asking("loading an image"));
        let options = bollard::query_parameters::ImportImageOptions { quiet: true, ..Default::default() };
        let loading = async {
            let mut saying = std::pin::pin!(self.client.import_image_stream(options, pieces(archive), None));
            while let Some(said) = saying.next().await {
                told(said)?;
            }
            Ok(())
        };
        wait(loading)?
    }

    /// The names of the images that have this label, and what it says.
    ///
    /// # Errors
    /// When the daemon does not say.
    pub fn images(&self, label: &str) -> Result<Vec<(String, String)>, EngineError> {
        let filters = Some([("label".to_owned(), vec![label.to_owned()])].into());
        let options = bollard::query_parameters::ListImagesOptions { filters, ..Default::default() };
        let images = wait(self.client.list_images(Some(options)))?.map_err(asking("listing images"))?;
        let named = |mut image: bollard::models::ImageSummary| {
            let said = image.labels.remove(label)?;
            Some((image.repo_tags.into_iter().next().unwrap_or(image.id), said))
        };
        Ok(images.into_iter().filter_map(named).collect())
    }

    /// Removes an image, unless a container needs it.
    ///
    /// # Errors
    /// When the daemon refuses for another reason.
    pub fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        let options = None::<bollard::query_parameters::RemoveImageOptions>;
        match wait(self.client.remove_image(name, options, None))?.map_err(asking("removing an image")) {
            Err(error) if !error.is_missing() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn client(&self) -> &Docker {
        &self.client
    }
}

/// The bytes of a file, piece by piece. Reading blocks, and nothing else runs on the thread that it blocks.
pub(crate) fn pieces(file: File) -> impl stream::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(file), async |file| {
        let mut file = file?;
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), Some(file)))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// Waits for what is asked of the daemon, on a thread of its own: who calls may be within a runtime that must not be blocked on twice.
pub(crate) fn wait<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, EngineError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| runtime.block_on(work))
    };
    let ran = std::thread::scope(|scope| scope.spawn(run).join());
    let ran = ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    ran.map_err(during("making a runtime to ask the daemon with"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_where_is_believed_and_absence_is_told() {
        assert_eq!(sockets(Some("unix:///x/y.sock")), [Path::new("/x/y.sock")]);
        assert_eq!(sockets(None).len(), 2);
        // A daemon elsewhere has none of this machine's files.
        assert_eq!(sockets(Some("tcp://10.0.0.1:2375")).len(), 2);
        assert_eq!(podman_sockets(Some("unix:///x/y.sock"), None), [Path::new("/x/y.sock")]);
        assert_eq!(podman_sockets(None, None), [Path::new("/run/podman/podman.sock")]);
        let own = Path::new("/run/user/1000");
        assert_eq!(podman_sockets(Some("ssh://host"), Some(own)), [own.join("podman/podman.sock")]);
        let dir = tempfile::tempdir().unwrap();
        let nobody = dir.path().join("docker.sock");
        assert!(matches!(Engine::find(std::slice::from_ref(&nobody)), Err(EngineError::Absent(_))));
        drop(std::os::unix::net::UnixListener::bind(&nobody).unwrap());
        assert!(matches!(Engine::find(&[nobody]), Err(EngineError::Broken { .. })));
    }
}
