//! The machine as the reconcilers see and move it: instances, builds, release commands, sources, and the way to the supervisor.

pub mod app_log;
mod building;
mod dockerfile;
mod environment;
mod evidence;
mod images;
mod instances;
mod jobs;
mod output;
mod releases;
pub mod runs;
mod source;
mod still;
mod surroundings;
mod upgrade;
mod volume_sizes;
mod volume_work;
mod volumes;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use berth_build::{ArtifactId, Builder};
use berth_clock::Clock;
use berth_contract::{ChunkHash, TreeId};
use berth_control::event::Ordinal;
use berth_control::plan::APPLY_DEADLINE;
use berth_control::report::SourceDiff;
use berth_control::world::Seen;
use berth_image::hosted::{Bounds, Hosted, Repository};
use berth_routing::Names;
use berth_runtime::{Layout, Network, PlainRuntime, Runtime, User};
use berth_source::ChunkStore;
use berth_spec::name::{RELEASE_COMMAND_PROCESS, RUN_PROCESS};
use berth_spec::{AppId, Backend, InstanceId, Isolation, Millis, ReleaseNumber, TenantName};

use crate::api::Refused;
use crate::config::{ControlConfig, SupervisorRequest, UidPlan};
use crate::desk::Desk;
use crate::events;
use crate::git::Repositories;
use crate::secrets::Vault;
use app_log::AppLog;
use building::Building;
use images::{Images, OwnRegistry};
use jobs::Jobs;
pub use output::BuildOutput;
use source::Sources;
pub use upgrade::Unfit;
pub(crate) use volume_sizes::Measured;

/// Of how many ended instances of an app the logs are kept.
const LOGS_KEPT: usize = 20;

/// Instances, builds, release commands, sources.
#[derive(Debug)]
pub struct Machine {
    runtime: Arc<dyn Runtime>,
    builder: Builder,
    /// What stands around the commands of builds.
    build_isolation: Isolation,
    /// In which network they are, in words.
    build_network: String,
    images: Images,
    hosted: Hosted,
    volumes: berth_volume::Store,
    volume_work: volume_work::WorkNotes,
    sources: Sources,
    repositories: Repositories,
    jobs: Arc<Jobs>,
    desk: Desk,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    places: Places,
    uid_plan: Option<UidPlan>,
    supervisor: Mutex<UnixStream>,
    /// When edge was last asked to be restarted.
    edge_restarted: Mutex<Option<Duration>>,
    notes: Arc<Mutex<Notes>>,
    runs: runs::RunNotes,
    /// Whether instances may be started; held while one is, so that going down knows when no more come up.
    starts: Arc<tokio::sync::RwLock<bool>>,
    /// Held while the platform is saved, one backup at a time: nothing is collected as garbage meanwhile.
    saving: Arc<tokio::sync::Mutex<()>>,
}

/// Where things lie.
#[derive(Debug)]
struct Places {
    logs: PathBuf,
    /// This program, where every app's user may execute it.
    exe: PathBuf,
}

/// Why an instance could not be started: the code of the failure, and a sentence.
type NotStarted = (String, String);

/// What is remembered of instances between two looks, and lost with the process.
#[derive(Debug, Default)]
struct Notes {
    /// What was last seen, for those who only want to show it.
    seen: BTreeMap<AppId, BTreeMap<Ordinal, Seen>>,
    /// Instances that could not be started, and why: a code and a sentence.
    not_started: BTreeMap<InstanceId, NotStarted>,
    /// Instances that were told to stop and are not gone.
    stopping: BTreeSet<InstanceId>,
    /// Instances that are being cleared away.
    clearing: BTreeSet<InstanceId>,
    /// Exits that were not written down since the last one that was.
    unwritten_exits: BTreeMap<InstanceId, instances::Unwritten>,
    /// How many processes the kernel had killed for lack of memory at the last look.
    oom_kills: Option<u64>,
    /// Instances that this process had stand still, and those that it had go on.
    frozen: BTreeMap<InstanceId, bool>,
    /// Instances that could not be had stand still.
    not_frozen: BTreeSet<InstanceId>,
    /// Instances whose last exit was a kill, and whether that was for lack of memory.
    killed: BTreeMap<InstanceId, bool>,
}

impl Machine {
    /// Takes up what an earlier control left: instances are adopted, half-made builds swept away.
    ///
    /// # Errors
    /// When that is not possible, in words.
    pub async fn open(config: &ControlConfig, desk: &Desk) -> Result<Self, String> {
        let platform = config.platform.clone();
        let edge = config.uid_plan.map(UidPlan::edge);
        let layout = layout(&config.home, &config.run_dir, &platform, edge);
        let clock = Arc::clone(&config.clock);
        let runtime = match config.backend {
            Backend::Native => PlainRuntime::open(layout, Arc::clone(&clock), config.isolation),
            Backend::Docker => {
                PlainRuntime::open_in_containers(layout, Arc::clone(&clock), &berth_runtime::daemon_sockets())
            }
        };
        let runtime = runtime.map_err(|error| in_full(&error))?;
        let Building { builder, isolation, network } = building::open(config, &runtime)?;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        runtime.adopt_all().await.map_err(|error| in_full(&error))?;
        builder.sweep().await.map_err(|error| in_full(&error))?;
        let volumes = berth_volume::Store::new(config.home.join("volumes"));
        volumes.sweep().map_err(|error| in_full(&error))?;
        let supervisor = config.supervisor.try_clone().map_err(|error| in_full(&error))?;
        let vault = Arc::new(Vault::new(config.key_encryption_key.clone()));
        let own =
            OwnRegistry { address: config.api_addr, vault: Arc::clone(&vault), clock: Arc::clone(&clock) };
        let hosted = Hosted::new(
            config.home.join("registry"),
            Bounds { reserve: building::reserve_of(&config.home), ..Bounds::default() },
        );
        // A line is lost rather than that control waits for a supervisor that does not read.
        supervisor.set_nonblocking(true).map_err(|error| in_full(&error))?;
        let machine = Self {
            runtime,
            builder,
            build_isolation: isolation,
            build_network: network,
            images: Images::open(&config.home, config.uid_plan, own).map_err(|error| in_full(&error))?,
            hosted,
            volumes,
            volume_work: Mutex::default(),
            sources: Sources::new(config.home.join("chunks")),
            repositories: Repositories::open(config).map_err(|error| in_full(&error))?,
            jobs: Arc::default(),
            desk: desk.clone(),
            vault,
            clock,
            places: Places { logs: config.home.join("logs"), exe: config.exe.clone() },
            uid_plan: config.uid_plan,
            supervisor: Mutex::new(supervisor),
            edge_restarted: Mutex::default(),
            notes: Arc::new(Mutex::new(Notes { oom_kills: evidence::oom_kills(), ..Notes::default() })),
            runs: Mutex::default(),
            starts: Arc::new(tokio::sync::RwLock::new(true)),
            saving: Arc::default(),
        };
        machine.thaw_all().await;
        Ok(machine)
    }

    /// The apps that the runtime has instances of.
    #[must_use]
    pub fn apps(&self) -> BTreeSet<AppId> {
        self.runtime.list().into_iter().map(|it| it.id.app).collect()
    }

    /// What of the backend `status` shows.
    #[must_use]
    pub fn capabilities(&self) -> berth_runtime::Capabilities {
        self.runtime.capabilities()
    }

    /// The repositories of images that are pushed here.
    pub(crate) fn hosted_images(&self) -> Hosted {
        self.hosted.clone()
    }

    /// That of one app.
    pub(crate) fn repository_of_images(&self, app: &AppId) -> Repository {
        self.hosted.repository(&app.to_string())
    }

    /// How many processes a build may have at once; nothing where nobody counts them.
    #[must_use]
    pub fn build_processes(&self) -> Option<u64> {
        self.builder.processes_max(self.uid_plan.is_some())
    }

    /// In which network the commands of builds are, in words.
    #[must_use]
    pub fn build_network(&self) -> &str {
        &self.build_network
    }

    /// The log of an app.
    #[must_use]
    pub fn log(&self, app: &AppId) -> AppLog {
        AppLog::new(&self.places.logs, app)
    }

    /// The output of a release's build. That of one that is `over` is given as far as it is kept: whoever looks at many old ones must not
    /// drive out those of the builds that run.
    #[must_use]
    pub fn build_output(&self, app: &AppId, number: ReleaseNumber, over: bool) -> BuildOutput {
        let id = app.release(number);
        if over { self.jobs.kept_output(&id).unwrap_or_default() } else { self.jobs.output(&id) }
    }

    /// Whether a build of the release runs or waits for its turn.
    #[must_use]
    pub fn is_building(&self, app: &AppId, number: ReleaseNumber) -> bool {
        let builds = self.jobs.builds_of(app);
        builds.get(&number).is_some_and(|build| *build == berth_control::world::Build::Running)
    }

    /// Has the supervisor kill edge and start it anew, unless it was just asked to: every app that waits for edge finds out by itself that
    /// it stays behind. Gives whether it was asked.
    pub fn restart_edge(&self) -> bool {
        let now = self.clock.monotonic();
        let mut last = self.edge_restarted.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_sub(last) < APPLY_DEADLINE.as_duration()) {
            return false;
        }
        *last = Some(now);
        self.ask(SupervisorRequest::RestartEdge);
        true
    }

    /// Has the supervisor take the platform down.
    pub fn ask_down(&self) {
        self.ask(SupervisorRequest::Down);
    }

    /// Tells the supervisor what has to be stopped, and how long it may take.
    pub fn say_stopping(&self, apps: usize, within: Millis) {
        let apps = u32::try_from(apps).unwrap_or(u32::MAX);
        self.ask(SupervisorRequest::Stopping { apps, within_ms: within.0 });
    }

    fn ask(&self, request: SupervisorRequest) {
        let mut supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = supervisor.write_all(format!("{request}\n").as_bytes()) {
            events::could_not("tell the supervisor", &error);
        }
    }

    /// The repositories that apps are pushed to.
    #[must_use]
    pub(crate) fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    /// Where the tenant's source is kept.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn store(&self, tenant: &TenantName) -> Result<ChunkStore, Refused> {
        self.sources.of(tenant).map_err(|error| source::refused(&error))
    }

    /// Those of `hashes` that the tenant has to send.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn missing_chunks(
        &self,
        tenant: &TenantName,
        hashes: Vec<ChunkHash>,
    ) -> Result<Vec<ChunkHash>, Refused> {
        self.sources.missing(tenant, hashes).await
    }

    /// Keeps a chunk.
    ///
    /// # Errors
    /// When its bytes do not have its hash, or the store cannot be written.
    pub async fn put_chunk(&self, tenant: &TenantName, hash: ChunkHash, bytes: Bytes) -> Result<(), Refused> {
        self.sources.put(tenant, hash, bytes).await
    }

    /// Keeps a tree.
    ///
    /// # Errors
    /// When it is none, a chunk is missing, or the store cannot be written.
    pub async fn put_tree(&self, tenant: &TenantName, json: Bytes) -> Result<TreeId, Refused> {
        self.sources.put_tree(tenant, json).await
    }

    /// How the tree `new` differs from `old`, where both are there.
    pub async fn source_diff(&self, tenant: &TenantName, old: &str, new: &str) -> Option<SourceDiff> {
        self.sources.difference(tenant, old, new).await
    }

    /// Whether the tree is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn check_tree(&self, tenant: &TenantName, tree: &str) -> Result<(), Refused> {
        self.sources.check_tree(tenant, tree).await
    }

    /// The turn to save the platform, if nobody has it. While it is held nothing is collected as garbage.
    #[must_use]
    pub fn begin_saving(&self) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        Arc::clone(&self.saving).try_lock_owned().ok()
    }

    /// Deletes the artifacts of each app that are not among those to be kept, and the logs of instances that ended long ago.
    pub async fn collect_garbage(&self, kept: Vec<(AppId, BTreeSet<String>)>) {
        // What is being saved must not go meanwhile; it goes next time.
        let Ok(_not_saving) = self.saving.try_lock() else { return };
        for (app, kept) in kept {
            let artifacts = match self.builder.list(&app).await {
                Ok(artifacts) => artifacts,
                Err(error) => {
                    events::could_not("list artifacts", &error);
                    continue;
                }
            };
            for (id, _) in artifacts.iter().filter(|(id, _)| !kept.contains(id.as_str())) {
                // A build that ends between the two looks is in the state before its artifact is listed here, or is unsettled and kept.
                if self.is_wanted(&app, id) {
                    continue;
                }
                if let Err(error) = self.builder.remove(&app, id).await {
                    events::could_not("delete an artifact", &error);
                }
            }
            self.collect_logs(&app).await;
        }
        self.sweep_images().await;
        self.sweep_hosted().await;
        // After the artifacts, whose layers nothing may need any more.
        if let Err(error) = self.builder.collect(0).await {
            events::could_not("remove what builds keep", &error);
        }
    }

    fn is_wanted(&self, app: &AppId, artifact: &ArtifactId) -> bool {
        if !self.jobs.builds_of(app).is_empty() {
            return true;
        }
        let known = self.desk.read(|state| state.apps.get(app).cloned());
        known.is_some_and(|app| berth_control::invariant::kept_artifacts(&app).contains(artifact.as_str()))
    }

    async fn collect_logs(&self, app: &AppId) {
        let alive: BTreeSet<InstanceId> = self.desk.read(|state| {
            let known = state.apps.get(app).into_iter();
            known
                .flat_map(|app| {
                    let instances = app.instances.keys().filter_map(|&ordinal| app.instance_id(ordinal));
                    instances.chain(app.runs.keys().map(|&run| runs::run_id(&app.id, run)))
                })
                .collect()
        });
        let mut ended: Vec<InstanceId> = self.log(app).instance_ids().unwrap_or_default();
        ended.retain(|id| !alive.contains(id));
        ended.sort_by_key(|id| std::cmp::Reverse(id.ordinal));
        // Instances, release commands and one-off commands count from one each.
        let counted = |id: &InstanceId| {
            [RELEASE_COMMAND_PROCESS, RUN_PROCESS].into_iter().find(|name| *name == id.process.as_str())
        };
        let mut kept: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for id in ended {
            let count = kept.entry(counted(&id)).or_default();
            *count += 1;
            if *count > LOGS_KEPT
                && let Err(error) = self.runtime.remove_log(&id).await
            {
                events::could_not("delete an old log", &error);
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As whom the processes of the app in `slot` run, when the platform runs as root.
    fn app_user(&self, slot: u32) -> Option<User> {
        let plan = self.uid_plan?;
        plan.app(slot).map(|uid| User { uid, gid: uid, groups: vec![plan.platform_gid()] })
    }

    /// Tells instances which apps there are in their projects.
    pub async fn tell_names(&self, names: Names) {
        if let Err(error) = self.runtime.tell_names(names).await {
            events::could_not("tell instances which apps there are", &in_full(&error));
        }
    }

    /// In which network instances are: each in one of its own wherever that can be.
    fn network(&self) -> Network {
        if self.runtime.capabilities().own_network { Network::Own } else { Network::Host }
    }

    /// As whom the builds of the app in `slot` run, when the platform runs as root: in the app's group, so that they read the layers that
    /// earlier builds of the app made.
    fn build_user(&self, slot: u32) -> Option<User> {
        let plan = self.uid_plan?;
        let (uid, app) = plan.builds(slot).zip(plan.app(slot))?;
        Some(User { uid, gid: uid, groups: vec![plan.platform_gid(), app] })
    }
}

fn layout(home: &Path, run_dir: &Path, platform: &str, edge: Option<u32>) -> Layout {
    Layout {
        instances: home.join("instances"),
        logs: home.join("logs"),
        run: run_dir.to_owned(),
        platform: platform.to_owned(),
        edge,
    }
}

/// Whether instances can run in this.
///
/// # Errors
/// When they cannot, in words.
pub fn check_backend(backend: Backend) -> Result<(), String> {
    match backend {
        Backend::Native => Ok(()),
        Backend::Docker => berth_runtime::check_daemon().map_err(|error| in_full(&error)),
    }
}

/// Ends every instance, for a supervisor that goes down and whose control died before it had stopped them. Blocks.
///
/// # Errors
/// When one cannot be ended, in words.
pub fn end_instances(
    home: &Path,
    run_dir: &Path,
    platform: &str,
    backend: Backend,
    clock: Arc<dyn Clock>,
) -> Result<(), String> {
    // Nobody is reached any more.
    let layout = layout(home, run_dir, platform, None);
    let native = || PlainRuntime::open(layout.clone(), Arc::clone(&clock), Some(Isolation::Plain));
    let runtime = match backend {
        Backend::Native => native(),
        // Without the daemon the containers are gone, and what is left of them is files of ours.
        Backend::Docker => {
            let sockets = berth_runtime::daemon_sockets();
            PlainRuntime::open_in_containers(layout.clone(), Arc::clone(&clock), &sockets)
                .or_else(|_absent| native())
        }
    };
    let runtime = runtime.map_err(|error| in_full(&error))?;
    runtime.end_all().map_err(|error| in_full(&error))
}

/// An error with all that caused it, for where it ends up as text.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
