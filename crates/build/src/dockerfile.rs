//! Images by Dockerfile: whoever is there builds it - Docker, Podman or buildah - and the image comes back as an archive.
//!
//! All three are given the same: the source without what `.dockerignore` leaves out, arguments, secrets where the engine has them, the limits
//! of every build. Their own storage keeps nothing of the image but what the next build of it takes from their cache.

mod addresses;
mod buildah;
mod context;
mod daemon;
mod engine;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_source::{ChunkStore, Tree, TreeId};
use berth_spec::AppId;
use tokio_util::sync::CancellationToken;

pub use engine::{EngineKind, Engines};

use crate::builder::{Builder, Inside, blocking};
use crate::error::BuildError;
use crate::log::{Log, Sink};
use engine::Engine;

/// A Dockerfile that is to be built.
#[derive(Clone)]
pub struct DockerfileRequest {
    /// For which app.
    pub app: AppId,
    /// What the image is called in the storage of a daemon while it is there, a name of its own for each build: `berth/build:8c2f…`.
    pub name: String,
    /// From which tree; it and its chunks are in the tenant's store.
    pub tree: TreeId,
    /// Where the Dockerfile is in it.
    pub path: String,
    /// The stage that is the image; the last one when not given.
    pub target: Option<String>,
    /// Its arguments, which the image's history shows.
    pub args: BTreeMap<String, String>,
    /// Its secrets, for `RUN --mount=type=secret,id=NAME`.
    pub secrets: BTreeMap<String, String>,
    /// Values that must not show in the log.
    pub masked: Vec<String>,
    /// Whether its commands are kept from every network.
    pub offline: bool,
    /// Takes the log.
    pub sink: Arc<dyn Sink>,
    /// Ends the build.
    pub cancel: CancellationToken,
}

/// An image that was built.
#[derive(Debug)]
pub struct BuiltImage {
    /// As `docker save` writes it, in a file without a name.
    pub archive: File,
    /// What built it: `Docker 20.10.24`.
    pub engine: String,
}

/// The group below a build's in which engines have commands. They make it and delete it for each; the limits stay with the build's.
pub(crate) const MADE_BELOW: &str = "run";

/// All that an engine is given, beside where it works.
struct Order {
    request: DockerfileRequest,
    tree: Tree,
    store: Arc<ChunkStore>,
    log: Arc<Log>,
    /// When it has to be done.
    deadline: Duration,
}

impl Builder {
    /// Has the first engine that is there build a Dockerfile. End it by the request's `cancel`.
    ///
    /// # Errors
    /// [`BuildError`]; then there is no image, and nothing half done but in the engine's cache.
    pub async fn dockerfile(&self, request: DockerfileRequest) -> Result<BuiltImage, BuildError> {
        let log = Arc::new(Log::new(Arc::clone(&request.sink), &request.masked));
        let (inside, cancel) = (Arc::clone(&self.inside), request.cancel.clone());
        let logged = Arc::clone(&log);
        let (engine, mut order) = blocking(move || inside.order(request, logged)).await?;
        let (app, named) = (order.request.app.clone(), engine.to_string());
        log.say(format!("{named} builds {}", order.request.path));
        let place = self.workplace(&app, buildah::kept_as(), &log, &cancel).await?;
        order.deadline = self.inside.clock.monotonic() + self.inside.config.timeout.as_duration();
        let archive = match engine {
            Engine::Daemon(daemon) => daemon::build(&self.inside, daemon, order, &place).await,
            Engine::Buildah(buildah) => buildah.build(&self.inside, order, &place).await,
        };
        place.leave().await;
        Ok(BuiltImage { archive: archive?, engine: named })
    }
}

/// Whether engines take a Dockerfile of this name for one that is to be preprocessed first (buildah-build(1)).
fn is_preprocessed(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".in")
}

impl Inside {
    fn order(&self, request: DockerfileRequest, log: Arc<Log>) -> Result<(Engine, Order), BuildError> {
        let store = Arc::new(ChunkStore::open(&self.config.chunks, &request.app.tenant)?);
        let tree = store.get_tree(&request.tree)?;
        if tree.node(&request.path).is_none() {
            return Err(BuildError::Outcome(format!("the source has no {}", request.path)));
        }
        // buildah and Podman, whose builder is buildah's, run a file of such a name through the machine's C preprocessor, in their own rights: its `#include`
        // reads whatever they may, and what is no instruction is printed.
        if is_preprocessed(&request.path) {
            return Err(BuildError::Outcome(format!(
                "`{}` would be run through a C preprocessor, which may read any file of the machine: give the Dockerfile a name that does not end in `.in`",
                request.path
            )));
        }
        addresses::check(&store, &tree, &request.path, request.offline)?;
        let engine = self.config.engines.find(request.secrets.keys().next().map(String::as_str))?;
        Ok((engine, Order { request, tree, store, log, deadline: Duration::ZERO }))
    }

    /// Where builds are, for what is watched of the disk.
    fn disk(&self) -> PathBuf {
        self.layout.builds.clone()
    }
}
