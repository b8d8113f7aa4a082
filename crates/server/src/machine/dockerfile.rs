//! Releases of a Dockerfile: an engine builds it, and the image goes into the store of images like one that was pulled.

use std::sync::Arc;

use berth_build::{BuildError, DockerfileRequest, EngineKind, ImageRequest};
use berth_control::event::{Artifact, Failure};
use berth_control::state::{App, Release};
use berth_control::world::Build;
use tokio_util::sync::CancellationToken;

use super::images::{Wished, artifact_of, failure as image_failure};
use super::output::ToOutput;
use super::{Machine, environment, in_full};
use crate::tasks;

impl Machine {
    /// Has an engine build the Dockerfile at `path` of a release's source, in a task of its own.
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

    /// What has an engine build the Dockerfile at `path`, once it is waited for.
    pub(super) fn dockerfile_work(
        &self,
        app: &App,
        release: &Release,
        path: String,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<Artifact, Failure>> + Send + 'static + use<> {
        let request = self.dockerfile_request(app, release, &path, cancel.clone());
        let (images, builder) = (self.images.clone(), self.builder.clone());
        let output = self.jobs.output(&app.id.release(release.number));
        let gid = self.app_user(app.slot).map(|user| user.gid);
        let (app, wished) = (app.id.clone(), Wished::of(&release.manifest));
        let making = async move {
            let built = builder.dockerfile(request?).await.map_err(|error| told(&error))?;
            let pulled = images.load(built.archive).await.map_err(|error| image_failure(&error))?;
            output.push(&format!("made the image {}", pulled.digest));
            let (artifact, description) = artifact_of(&pulled, &path, wished)?;
            let manifest = pulled.digest.to_string();
            let request =
                ImageRequest { app, manifest, description, bytes: pulled.image.bytes, app_gid: gid };
            let made = builder.image(request).await;
            let made = made.map_err(|error| Failure::new(error.code(), in_full(&error)))?;
            let why = vec![format!("{} built {path}", built.engine)];
            Ok(Artifact { id: made.as_str().to_owned(), why, ..artifact })
        };
        async move {
            making.await.map_err(|failure| match cancel.is_cancelled() {
                true => Failure::new("build_cancelled", "the build was cancelled"),
                false => failure,
            })
        }
    }

    fn dockerfile_request(
        &self,
        app: &App,
        release: &Release,
        path: &str,
        cancel: CancellationToken,
    ) -> Result<DockerfileRequest, Failure> {
        let unusable = |detail: String| Failure {
            detail: vec![detail],
            ..Failure::new("build_failed", "the build could not begin")
        };
        let tree = release.tree.parse().map_err(|error| unusable(format!("{error}")))?;
        let values =
            environment::secrets(app, release, &self.vault).map_err(|error| unusable(in_full(&error)))?;
        let wanted = &release.manifest.build.env;
        let told = |name: &berth_spec::EnvName| Some((name.to_string(), release.config.get(name)?.clone()));
        let hidden = |name: &berth_spec::EnvName| {
            let value = values.get(name.as_str()).filter(|_| !release.config.contains_key(name))?;
            Some((name.to_string(), value.clone()))
        };
        let stated =
            release.manifest.build.args.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let id = app.id.release(release.number);
        // A daemon has one storage for all: whoever could guess the name would build on another's image, and the same one from a second platform be taken for it.
        let name = hex::encode(berth_clock::random_bytes::<16>(&*self.clock));
        Ok(DockerfileRequest {
            app: app.id.clone(),
            name: format!("berth/build:{name}"),
            tree,
            path: path.to_owned(),
            // What is set for the app wins, as it does when the app runs.
            args: stated.chain(wanted.iter().filter_map(told)).collect(),
            target: release.manifest.build.target.clone(),
            secrets: wanted.iter().filter_map(hidden).collect(),
            masked: values.into_values().collect(),
            offline: release.manifest.build.offline,
            sink: Arc::new(ToOutput(self.jobs.output(&id))),
            cancel,
        })
    }

    /// What builds Dockerfiles here, in words, as far as it answers at once; nothing where nobody does.
    pub async fn dockerfile_engine(&self) -> Option<String> {
        let builder = self.builder.clone();
        let found = tokio::task::spawn_blocking(move || builder.dockerfile_engine());
        match tokio::time::timeout(ANSWERS_WITHIN, found).await {
            Ok(found) => found.unwrap_or_default(),
            Err(_late) => Some("an engine that does not answer".to_owned()),
        }
    }
}

/// How long an engine has to say that it is there.
const ANSWERS_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Why there is no image, with what to do about it.
fn told(error: &BuildError) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error {
        BuildError::NoEngine { wish, tried } => {
            let next = match wish {
                None => "install one: `apt-get install buildah` is all that it takes; `docker.io` or `podman`, with its service running, does as well".to_owned(),
                Some(EngineKind::Buildah) => "install it: `apt-get install buildah`".to_owned(),
                Some(EngineKind::Docker) => "install it (`apt-get install docker.io`) and start it, or say where it listens by DOCKER_HOST".to_owned(),
                Some(EngineKind::Podman) => "install it (`apt-get install podman`) and start its service (`systemctl start podman.socket`), or say where it listens by CONTAINER_HOST".to_owned(),
            };
            Failure { detail: tried.clone(), next: Some(next), ..failure }
        }
        BuildError::SecretArgument(secret) => Failure {
            next: Some(format!(
                "leave {secret} out of `build.env`, or install what has secrets for builds: `apt-get install buildah`"
            )),
            ..failure
        },
        BuildError::Dockerfile { message, tail } => {
            Failure { detail: vec![message.clone()], log: tail.clone(), ..failure }
        }
        other => super::releases::failure(other),
    }
}
