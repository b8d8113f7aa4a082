//! Releases of a Dockerfile: Docker builds it, and the image goes into the store of images like one that was pulled.

use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use berth_build::ImageRequest;
use berth_control::event::{Artifact, Failure};
use berth_control::state::{App, Release};
use berth_control::world::Build;
use berth_docker::{Context, Dockerfile, Engine, EngineError};
use berth_source::tree::{ChunkRef, Node};
use berth_source::{ChunkStore, Dockerignore, Tree};
use tokio_util::sync::CancellationToken;

use super::building::BUILD_TIMEOUT;
use super::images::{artifact_of, failure as image_failure};
use super::output::BuildOutput;
use super::{Machine, in_full};
use crate::tasks;

/// The longest `.dockerignore` that is read, in bytes.
const IGNORE_MAX: u64 = 1 << 20;

/// All that a build takes.
struct Order {
    store: ChunkStore,
    tree: Tree,
    dockerfile: Dockerfile,
    scratch: PathBuf,
    output: BuildOutput,
    cancel: CancellationToken,
    clock: Arc<dyn berth_clock::Clock>,
}

impl Machine {
    /// Has Docker build the Dockerfile at `path` of a release's source, in a task of its own.
    pub(super) fn build_dockerfile(
        &self,
        app: &App,
        release: &Release,
        path: String,
        cancel: CancellationToken,
    ) {
        let id = app.id.release(release.number);
        let making = self.dockerfile_work(app, release, path, cancel);
        let (jobs, desk) = (Arc::clone(&self.jobs), self.desk.clone());
        tasks::run("a build of a Dockerfile", async move {
            jobs.end_build(&id, making.await.map_or_else(Build::Failed, Build::Done));
            desk.changed().add(id.app);
        });
    }

    /// What has Docker build the Dockerfile at `path`, once it is waited for.
    pub(super) fn dockerfile_work(
        &self,
        app: &App,
        release: &Release,
        path: String,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<Artifact, Failure>> + Send + 'static + use<> {
        let order = self.order(app, release, &path, cancel.clone());
        let (images, builder) = (self.images.clone(), self.builder.clone());
        let gid = self.app_user(app.slot).map(|user| user.gid);
        let (app, processes) = (app.id.clone(), release.manifest.processes.clone());
        let making = async move {
            let order = order?;
            let output = order.output.clone();
            let built = tokio::task::spawn_blocking(move || build(order));
            let archive = built.await.map_err(|error| Failure::new("build_failed", error.to_string()))??;
            let pulled = images.load(archive).await.map_err(|error| image_failure(&error))?;
            output.push(&format!("made the image {}", pulled.digest));
            let (artifact, description) = artifact_of(&pulled, &path, processes)?;
            let manifest = pulled.digest.to_string();
            let request =
                ImageRequest { app, manifest, description, bytes: pulled.image.bytes, app_gid: gid };
            let made = builder.image(request).await;
            let made = made.map_err(|error| Failure::new(error.code(), in_full(&error)))?;
            let why = vec![format!("Docker built {path}")];
            Ok(Artifact { id: made.as_str().to_owned(), why, ..artifact })
        };
        async move {
            making.await.map_err(|failure| match cancel.is_cancelled() {
                true => Failure::new("build_cancelled", "the build was cancelled"),
                false => failure,
            })
        }
    }

    fn order(
        &self,
        app: &App,
        release: &Release,
        path: &str,
        cancel: CancellationToken,
    ) -> Result<Order, Failure> {
        let unusable = |detail: String| Failure {
            detail: vec![detail],
            ..Failure::new("build_failed", "the build could not begin")
        };
        let tree_id = release.tree.parse().map_err(|error| unusable(format!("{error}")))?;
        let store = self.sources.of(&app.id.tenant).map_err(|error| unusable(in_full(&error)))?;
        let tree = store.get_tree(&tree_id).map_err(|error| unusable(in_full(&error)))?;
        let wanted = &release.manifest.build.env;
        if let Some(secret) = wanted.iter().find(|name| release.secrets.contains_key(name.as_str())) {
            return Err(Failure {
                next: Some(format!(
                    "leave {secret} out of `build.env`, and have the app read it when it runs"
                )),
                ..unusable(format!(
                    "{secret} is a secret, and an argument of a build is in its image for everybody to read"
                ))
            });
        }
        let told = |name: &berth_spec::EnvName| Some((name.to_string(), release.config.get(name)?.clone()));
        let dockerfile = Dockerfile {
            path: path.to_owned(),
            name: format!("berth/build:{}", app.id.release(release.number).to_string().replace('/', "-")),
            args: wanted.iter().filter_map(told).collect(),
            offline: release.manifest.build.offline,
        };
        let output = self.jobs.output(&app.id.release(release.number));
        let (scratch, clock) = (self.places.builds.clone(), Arc::clone(&self.clock));
        Ok(Order { store, tree, dockerfile, scratch, output, cancel, clock })
    }
}

/// Has Docker build it, and gives the image as an archive. Blocks.
fn build(order: Order) -> Result<std::fs::File, Failure> {
    let Order { store, tree, dockerfile, scratch, output, cancel, clock } = order;
    if tree.node(&dockerfile.path).is_none() {
        let missing = format!("the source has no {}", dockerfile.path);
        return Err(Failure {
            detail: vec![missing],
            ..Failure::new("build_failed", "the build could not begin")
        });
    }
    let engine = Engine::find(&berth_runtime::daemon_sockets()).map_err(|error| told(&error))?;
    let context = context(&store, &tree, &dockerfile.path, &scratch)?;
    let deadline = clock.monotonic() + BUILD_TIMEOUT.as_duration();
    let is_late = || clock.monotonic() >= deadline;
    let mut tail = std::collections::VecDeque::new();
    let mut say = |line: &str| {
        output.push(line);
        if tail.len() >= 30 {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    };
    let built = engine.build(context, &dockerfile, &mut say, &|| cancel.is_cancelled() || is_late());
    match built {
        Ok(true) => {}
        Ok(false) if is_late() => {
            return Err(Failure::new(
                "build_timed_out",
                format!("the build was ended after {BUILD_TIMEOUT}"),
            ));
        }
        Ok(false) => return Err(Failure::new("build_cancelled", "the build was cancelled")),
        Err(error) => return Err(Failure { log: tail.into(), ..told(&error) }),
    }
    let archive = engine.save(&dockerfile.name, &scratch);
    // Its layers are in our store; Docker keeps its cache of them.
    let removed = engine.remove_image(&dockerfile.name);
    removed.map_err(|error| told(&error))?;
    archive.map_err(|error| told(&error))
}

/// What Docker, or its absence, says.
fn told(error: &EngineError) -> Failure {
    match error {
        EngineError::Absent(_) => Failure {
            detail: vec![in_full(error)],
            next: Some("install it (`apt-get install docker.io`) and start it, or say where it listens by DOCKER_HOST".to_owned()),
            ..Failure::new("docker_unavailable", "a Dockerfile is built by Docker, which is not there")
        },
        EngineError::Refused { what: "building", message, .. } => {
            Failure { detail: vec![message.clone()], ..Failure::new("build_failed", "the Dockerfile could not be built") }
        }
        other => Failure { detail: vec![in_full(other)], ..Failure::new("build_failed", "Docker did not do its part") },
    }
}

/// The files that the Dockerfile is built from: the source, without what a `.dockerignore` leaves out.
fn context(
    store: &ChunkStore,
    tree: &Tree,
    path: &str,
    scratch: &std::path::Path,
) -> Result<Context, Failure> {
    let failed = |detail: String| Failure {
        detail: vec![detail],
        ..Failure::new("build_failed", "the build's context could not be made")
    };
    let ignore = match tree.node(".dockerignore") {
        Some(Node::File { size, chunks, .. }) if *size <= IGNORE_MAX => {
            let mut text = String::new();
            let read = Content::new(store, chunks).read_to_string(&mut text);
            read.map_err(|error| failed(format!(".dockerignore: {error}")))?;
            Dockerignore::new(&text)
        }
        _ => Dockerignore::new(""),
    };
    let mut context = Context::begin(scratch).map_err(|error| failed(in_full(&error)))?;
    for entry in tree.entries() {
        // The Dockerfile itself is always sent.
        if ignore.leaves_out(&entry.path) && entry.path != path {
            continue;
        }
        let added = match &entry.node {
            Node::File { exec, size, chunks } => {
                context.file(&entry.path, *exec, *size, Content::new(store, chunks))
            }
            Node::Link { target } => context.link(&entry.path, target),
        };
        added.map_err(|error| failed(in_full(&error)))?;
    }
    Ok(context)
}

/// The content of a file, chunk by chunk.
struct Content<'a> {
    store: &'a ChunkStore,
    chunks: std::slice::Iter<'a, ChunkRef>,
    current: Cursor<Vec<u8>>,
}

impl<'a> Content<'a> {
    fn new(store: &'a ChunkStore, chunks: &'a [ChunkRef]) -> Self {
        Self { store, chunks: chunks.iter(), current: Cursor::default() }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(chunk) = self.chunks.next() else { return Ok(0) };
            self.current = Cursor::new(self.store.get(&chunk.hash).map_err(io::Error::other)?);
        }
    }
}
