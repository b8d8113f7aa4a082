//! Builds and release commands.

use std::sync::Arc;

use berth_build::{BuildError, BuildRequest, Mask};
use berth_contract::Code;
use berth_control::event::{Artifact, Failure};
use berth_control::report;
use berth_control::state::{App, Release};
use berth_control::world::{Build, ReleaseCommand};
use berth_runtime::{Backoff, InstanceSpec, Limits, Mark, PortWish, Restart};
use berth_source::NothingFits;
use berth_spec::name::RELEASE_COMMAND_PROCESS;
use berth_spec::{Command, InstanceId, ProcessName, ReleaseId, ReleaseNumber};

use super::evidence::unstarted;
use super::output::{BuildOutput, ToOutput};
use super::surroundings::Surroundings;
use super::{Machine, environment, in_full};
use crate::tasks;

/// The process name of release commands; their ordinal is the release's number. No manifest and no Procfile has a process of this name.
pub(super) const RELEASE_COMMAND: &str = RELEASE_COMMAND_PROCESS;

impl Machine {
    /// Builds the release, unless a build of it runs or has ended and was not taken note of.
    pub fn build(&self, app: &App, number: ReleaseNumber) {
        let id = app.id.release(number);
        let Some(release) = app.release(number).cloned() else {
            return;
        };
        let Some(cancel) = self.jobs.begin_build(&id) else {
            return;
        };
        if let Some(name) = release.manifest.build.image.clone() {
            return self.build_image(app, &release, name, cancel);
        }
        if let Some(path) = release.manifest.build.dockerfile.clone() {
            return self.build_dockerfile(app, &release, path, cancel);
        }
        let output = self.jobs.output(&id);
        let request = self.build_request(app, &release, output, cancel.clone());
        // Found by the builder, where nothing else fits.
        let otherwise = self.dockerfile_work(app, &release, "Dockerfile".to_owned(), cancel);
        let (jobs, builder, desk) = (Arc::clone(&self.jobs), self.builder.clone(), self.desk.clone());
        tasks::run("a build", async move {
            let ended = match request {
                Ok(request) => builder.build(request).await,
                Err(failure) => {
                    jobs.end_build(&id, Build::Failed(failure));
                    desk.changed().add(id.app);
                    return;
                }
            };
            let state = match ended {
                Ok(built) => Build::Done(Artifact {
                    id: built.artifact.as_str().to_owned(),
                    processes: built.processes,
                    bytes: built.bytes,
                    why: built.why,
                    env: built.env,
                    path: built.path,
                    tools: built.tools.iter().map(|folder| folder.to_string_lossy().into_owned()).collect(),
                    release_command: built.release_command,
                    image: None,
                }),
                Err(BuildError::NoBuilder(NothingFits::Dockerfile)) => {
                    otherwise.await.map_or_else(Build::Failed, Build::Done)
                }
                Err(error) => Build::Failed(failure(&error)),
            };
            jobs.end_build(&id, state);
            desk.changed().add(id.app);
        });
    }

    fn build_request(
        &self,
        app: &App,
        release: &Release,
        output: BuildOutput,
        cancel: tokio_util::sync::CancellationToken,
    ) -> Result<BuildRequest, Failure> {
        let unusable = |detail: String| Failure {
            detail: vec![detail],
            ..Failure::new("build_failed", "the build could not begin")
        };
        if let Some(why) = self.builds_too_little(&release.manifest) {
            return Err(Failure::new(
                Code::IsolationTooLow.as_str(),
                format!("the build could not begin: {why}"),
            ));
        }
        let tree = release.tree.parse().map_err(|error| unusable(format!("{error}")))?;
        let secrets =
            environment::secrets(app, release, &self.vault).map_err(|error| unusable(in_full(&error)))?;
        let told = |name: &berth_spec::EnvName| {
            let value = release.config.get(name).or_else(|| secrets.get(name.as_str()))?;
            Some((name.to_string(), value.clone()))
        };
        Ok(BuildRequest {
            env: release.manifest.build.env.iter().filter_map(told).collect(),
            app: app.id.clone(),
            tree,
            manifest: release.manifest.clone(),
            user: self.build_user(app.slot),
            app_gid: self.app_user(app.slot).map(|user| user.gid),
            secrets: secrets.into_values().collect(),
            sink: Arc::new(ToOutput(output)),
            cancel,
        })
    }

    /// Ends the build and the release command of a release, if they run; forgets them, if they have ended.
    pub fn cancel_build(self: &Arc<Self>, app: &App, number: ReleaseNumber) {
        let id = app.id.release(number);
        self.jobs.cancel_build(&id);
        if !self.jobs.abort_command(&id) {
            return;
        }
        let this = Arc::clone(self);
        tasks::run("ending a release command", async move {
            this.clear_now(&command_id(&id)).await;
            this.jobs.forget_command(&id);
            this.desk.changed().add(id.app);
        });
    }

    /// Runs the release command, unless it runs or has ended.
    pub fn run_release_command(&self, app: &Arc<App>, number: ReleaseNumber) {
        let id = app.id.release(number);
        let Some(release) = app.release(number).cloned() else {
            return;
        };
        if !self.jobs.begin_command(&id) {
            return;
        }
        let spec = self.command_spec(app, &release);
        let secrets = environment::secrets(app, &release, &self.vault).unwrap_or_default();
        let mask = Mask::new(&secrets.into_values().collect::<Vec<_>>());
        let limit = release.manifest.deploy.timeout.as_duration();
        let (jobs, runtime, desk) = (Arc::clone(&self.jobs), Arc::clone(&self.runtime), self.desk.clone());
        let ended = id.clone();
        let command = release.manifest.deploy.release_command.clone();
        let task = tasks::run("a release command", async move {
            let state = match spec {
                Err(detail) => failed("could not be started", vec![detail], Vec::new()),
                Ok(spec) => match runtime.run_once(spec, Some(limit)).await {
                    Err(error) => failed("could not be started", vec![in_full(&error)], Vec::new()),
                    Ok(finished) => judge(&finished, command.as_ref(), &mask),
                },
            };
            jobs.end_command(&ended, state);
            desk.changed().add(ended.app);
        });
        self.jobs.set_command_task(&id, task);
    }

    fn command_spec(&self, app: &App, release: &Release) -> Result<InstanceSpec, String> {
        let command = release.release_command().ok_or("there is none")?;
        let artifact = self.artifact_dir(app, release)?;
        let mut env =
            environment::shared(app, release, &artifact, &self.vault).map_err(|error| in_full(&error))?;
        env.insert("RELEASE_COMMAND".to_owned(), "1".to_owned());
        let id = command_id(&app.id.release(release.number));
        env.insert("INSTANCE_ID".to_owned(), id.short());
        let Surroundings { root, dir, user, mounts, resources, network } =
            self.surroundings(app, release, &id.process, artifact, &mut env).map_err(|(_code, why)| why)?;
        Ok(InstanceSpec {
            id,
            token: Mark(berth_clock::random_bytes(&*self.clock)),
            command: command.clone(),
            env,
            dir,
            root,
            mounts,
            resources,
            user,
            port: PortWish::None,
            network,
            egress: release.manifest.network.egress,
            aliases: release.manifest.network.names.clone(),
            limits: limits(),
            restart: Restart::Never,
            backoff: Backoff::default(),
            check: None,
        })
    }

    /// Where the release's artifact lies.
    pub(super) fn artifact_dir(&self, app: &App, release: &Release) -> Result<std::path::PathBuf, String> {
        let artifact = release.artifact.as_ref().ok_or("the release has no artifact")?;
        let id = artifact.id.parse().map_err(|error| format!("{error}"))?;
        Ok(self.builder.artifact_dir(&app.id, &id))
    }

    /// Ends all builds and release commands.
    pub async fn stop_jobs(&self) {
        self.jobs.cancel_all();
    }
}

/// The instance that a release's command runs as.
fn command_id(release: &ReleaseId) -> InstanceId {
    let process = ProcessName::new(RELEASE_COMMAND).expect("it is a name");
    release.app.instance(process, release.number.0)
}

/// What every process of an app may take: many files, many processes, no core files, which would fill the disk.
pub(super) fn limits() -> Limits {
    Limits { open_files: Some(65_536), processes: Some(4_096), core: Some(0), ..Limits::default() }
}

pub(super) fn failure(error: &BuildError) -> Failure {
    let (detail, log) = match error {
        BuildError::Failed { tail, .. } => (Vec::new(), tail.clone()),
        other => (std::error::Error::source(other).map(in_full).into_iter().collect(), Vec::new()),
    };
    Failure { detail, log, ..Failure::new(error.code(), error.to_string()) }
}

fn failed(summary: &str, detail: Vec<String>, log: Vec<String>) -> ReleaseCommand {
    let summary = format!("the release command {summary}");
    ReleaseCommand::Failed(Failure { detail, log, ..Failure::new("release_command_failed", summary) })
}

fn judge(finished: &berth_runtime::Finished, command: Option<&Command>, mask: &Mask) -> ReleaseCommand {
    let lines = finished.tail.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned());
    let lines: Vec<String> = lines.map(|line| mask.hide(line)).collect();
    let tail = report::that_matter(&lines);
    match &finished.exit {
        _ if finished.timed_out => {
            failed("took longer than the deployment may and was killed", Vec::new(), tail)
        }
        Some(exit) if exit.code == Some(0) && exit.failure.is_none() => ReleaseCommand::Succeeded,
        Some(exit) => {
            let ended = super::instances::exit(exit);
            let not_begun =
                exit.failure.map(|failure| format!("it was not started: {}", unstarted(failure, command)));
            let detail = not_begun.or_else(|| report::explained(&ended));
            failed(&ended.to_string(), detail.into_iter().collect(), tail)
        }
        None => failed("was killed together with what watched it", Vec::new(), tail),
    }
}
