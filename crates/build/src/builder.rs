//! Building: what to do is planned, an artifact that stands is taken, else one is made in turn.

mod garbage;
mod make;
mod steps;
mod sweep;
pub(crate) mod workplace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_clock::Clock;
use berth_process::{Cgroups, Controller, Enclosure, User};
use berth_source::detect::StoredFiles;
use berth_source::{ChunkStore, Detection, NothingFits, Tree, TreeId, detect};
use berth_spec::manifest::Builder as Kind;
use berth_spec::{AppId, Command, Manifest, Millis, ProcessName, RelativeDir};
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) use make::cgroup_name;

use crate::artifact::{ArtifactId, Inputs, Platform};
use crate::collect::Keeping;
use crate::dockerfile::Engines;
use crate::error::BuildError;
use crate::layout::Layout;
use crate::log::{Log, Sink};
use crate::toolchain::{self, Toolchain, ToolchainPlaces};
use crate::tools::{self, SYSTEM_PATH, ToolUse, Toolbox};

/// Where a platform builds, and how much at once.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of chunks, a store for each tenant in it.
    pub chunks: PathBuf,
    /// The folder of artifacts.
    pub artifacts: PathBuf,
    /// The folder of work directories and of what is kept between builds. On the same file system as `artifacts`.
    pub builds: PathBuf,
    /// As root, the group whose members may pass through these folders to what is theirs.
    pub passage_gid: Option<u32>,
    /// As root, the uid that owns sealed artifacts. Nothing may run as it.
    pub sealed_uid: Option<u32>,
    /// How many builds run at once; the others wait in turn.
    pub parallel: usize,
    /// How long the commands of one build may take.
    pub timeout: Millis,
    /// Where toolchains are looked for.
    pub toolchains: ToolchainPlaces,
    /// What programs run on.
    pub platform: Platform,
    /// Where control groups are made for builds, so that nothing escapes their end.
    pub cgroups: Option<Cgroups>,
    /// What stands around the commands of builds; `None` for nothing but their user and their limits.
    pub enclosure: Option<Arc<dyn Enclosure>>,
    /// How many bytes of memory a build may have, where its control group limits that.
    pub memory_max: Option<u64>,
    /// Variables that every build finds in its environment: how to reach a network from this machine.
    pub env: BTreeMap<String, String>,
    /// How many processes a build may have at once, threads among them: by its control group, else by its user where it has one of its own.
    pub processes_max: u64,
    /// How many bytes the tree of a build, its temporary files and its app's caches may weigh together, while its commands run.
    pub weight_max: u64,
    /// How many bytes builds leave free on the disk: one that takes more is ended.
    pub reserve: u64,
    /// Below how many free bytes what builds keep is removed before a build.
    pub low_water: u64,
    /// How much builds keep.
    pub keeping: Keeping,
    /// Where what builds Dockerfiles is looked for.
    pub engines: Engines,
}

/// What is to be built.
#[derive(Clone)]
pub struct BuildRequest {
    /// For which app.
    pub app: AppId,
    /// From which tree; it and its chunks are in the tenant's store.
    pub tree: TreeId,
    /// How.
    pub manifest: Manifest,
    /// As whom its commands run: needed as root, where there are commands to run. Its groups must let it pass.
    pub user: Option<User>,
    /// As root, the group of the app, which may read the artifact.
    pub app_gid: Option<u32>,
    /// What of the app's configuration and secrets its commands see: what `build.env` of the manifest names.
    pub env: BTreeMap<String, String>,
    /// Values that must not show in the log.
    pub secrets: Vec<String>,
    /// Takes the log.
    pub sink: Arc<dyn Sink>,
    /// Ends the build.
    pub cancel: CancellationToken,
}

/// An artifact and what to run in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its id.
    pub artifact: ArtifactId,
    /// Where it lies.
    pub dir: PathBuf,
    /// Its processes; paths in their commands are relative to it.
    pub processes: BTreeMap<ProcessName, Command>,
    /// What runs once before traffic, unless the manifest says.
    pub release_command: Option<Command>,
    /// Environment of its processes; `$ARTIFACT` in a value stands for its directory.
    pub env: BTreeMap<String, String>,
    /// Folders of it whose programs come first in the `PATH` of its processes.
    pub path: Vec<RelativeDir>,
    /// Folders of the machine whose programs come next: those of the tools that its processes need.
    pub tools: Vec<PathBuf>,
    /// Why it was built so, as sentences.
    pub why: Vec<String>,
    /// The bytes of its files.
    pub bytes: u64,
    /// Those of them that it shares with other artifacts.
    pub shared: u64,
    /// Whether it stood already, so that nothing was done.
    pub unchanged: bool,
    /// How long it took.
    pub took: Millis,
}

/// Makes artifacts. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(crate) inside: Arc<Inside>,
}

#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
    toolbox: Toolbox,
    /// As many as there are calls under way: control bounds those.
    turns: Mutex<Turns>,
    /// Which work directories of each app are in use.
    works: Mutex<BTreeMap<AppId, BTreeSet<u32>>>,
}

/// The turns under way, by whose artifact they are for.
type Turns = BTreeMap<(AppId, ArtifactId), Arc<Turn<()>>>;

/// What will be done, all of it known before anything is done.
struct Plan {
    request: BuildRequest,
    tree: Tree,
    store: ChunkStore,
    detection: Detection,
    toolchain: Option<Toolchain>,
    tools: Vec<ToolUse>,
    id: ArtifactId,
    log: Arc<Log>,
}

/// The bytes of an artifact, and those of them that it shares with others.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    shared: u64,
}

impl Builder {
    /// A builder for these folders. Call [`Builder::sweep`] before the first build.
    #[must_use]
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Self {
        let layout = Layout {
            artifacts: config.artifacts.clone(),
            builds: config.builds.clone(),
            passage: config.passage_gid,
        };
        let permits = Arc::new(Semaphore::new(config.parallel.max(1)));
        let (toolbox, turns, works) = (Toolbox::default(), Mutex::default(), Mutex::default());
        Self { inside: Arc::new(Inside { config, layout, clock, permits, toolbox, turns, works }) }
    }

    /// How many processes a build may have at once, which `own_user` says has a user of its own or none; nothing where nobody counts them.
    #[must_use]
    pub fn processes_max(&self, own_user: bool) -> Option<u64> {
        let config = &self.inside.config;
        let counted = config
            .cgroups
            .as_ref()
            .is_some_and(|groups| groups.controllers().contains(&Controller::Processes));
        (counted || own_user).then_some(config.processes_max)
    }

    /// What would build a Dockerfile now, in words; nothing where nobody would. Blocks.
    #[must_use]
    pub fn dockerfile_engine(&self) -> Option<String> {
        self.inside.config.engines.here()
    }

    /// Where the artifact `id` of `app` lies, or would.
    #[must_use]
    pub fn artifact_dir(&self, app: &AppId, id: &ArtifactId) -> PathBuf {
        self.inside.layout.artifact(app, id)
    }

    /// Makes the artifact, or takes the one that stands when all inputs are the same. Two builds of the same artifact
    /// at once are one: the second waits for the first.
    ///
    /// End it by the request's `cancel`. To drop it works, too, but waits for its processes to end and leaves its
    /// work directory for [`Builder::sweep`].
    ///
    /// # Errors
    /// [`BuildError`]; then there is no artifact and nothing half done.
    pub async fn build(&self, request: BuildRequest) -> Result<Built, BuildError> {
        self.build_as(request, |files, request| detect(files, &request.manifest, &request.app.app)).await
    }

    /// The same, with what else says how to build.
    async fn build_as<D>(&self, request: BuildRequest, detect: D) -> Result<Built, BuildError>
    where
        D: FnOnce(&StoredFiles<'_>, &BuildRequest) -> Result<Detection, NothingFits> + Send + 'static,
    {
        let started = self.inside.clock.monotonic();
        let cancel = request.cancel.clone();
        let inside = Arc::clone(&self.inside);
        let plan = Arc::new(blocking(move || inside.plan(request, detect)).await?);
        let turn = self.inside.turn(&plan.request.app, &plan.id);
        let outcome: Result<(Size, bool), BuildError> = async {
            let _held = unless_cancelled(&cancel, turn.lock()).await?;
            if let Some(size) = self.inside.standing(&plan)? {
                plan.log.say("unchanged: the artifact stands already");
                return Ok((size, true));
            }
            let permit = unless_cancelled(&cancel, self.inside.permits.acquire()).await?;
            let size = Box::pin(self.inside.make(&plan)).await;
            drop(permit);
            Ok((size?, false))
        }
        .await;
        self.inside.leave(turn, &plan.request.app, &plan.id);
        let (Size { bytes, shared }, unchanged) = outcome?;
        let at_run: Vec<ToolUse> = plan.tools.iter().filter(|tool| tool.at_run).cloned().collect();
        let took = self.inside.clock.monotonic().saturating_sub(started);
        Ok(Built {
            artifact: plan.id.clone(),
            dir: self.inside.layout.artifact(&plan.request.app, &plan.id),
            processes: plan.detection.processes.clone(),
            release_command: plan.detection.release_command.clone(),
            env: plan.detection.recipe.env.clone(),
            path: plan.detection.recipe.path.clone(),
            tools: tools::folders(&at_run, SYSTEM_PATH),
            why: plan.detection.why.clone(),
            bytes,
            shared,
            unchanged,
            took: Millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

impl Inside {
    fn plan<D>(&self, request: BuildRequest, detect: D) -> Result<Plan, BuildError>
    where
        D: FnOnce(&StoredFiles<'_>, &BuildRequest) -> Result<Detection, NothingFits>,
    {
        let log = Arc::new(Log::new(Arc::clone(&request.sink), &request.secrets));
        let store = ChunkStore::open(&self.config.chunks, &request.app.tenant)?;
        let tree = store.get_tree(&request.tree)?;
        let files = StoredFiles { tree: &tree, store: &store };
        let detection = detect(&files, &request)?;
        let toolchain = match detection.builder {
            Kind::Cargo => Some(toolchain::find(&self.config.toolchains, channel(&files).as_deref())?),
            _ => None,
        };
        let recipe = &detection.recipe;
        let chosen = self.toolbox.choose(&self.config.toolchains, recipe, request.user.is_some())?;
        let tools: Result<Vec<ToolUse>, BuildError> =
            chosen.into_iter().map(|tool| tool.reachable(&self.layout)).collect();
        let tools = tools?;
        for mirror in tools.iter().filter_map(ToolUse::mirror_name) {
            garbage::touch(&self.layout.toolchains().join(mirror), self.clock.now());
        }
        let inputs = Inputs {
            app: &request.app,
            tree: request.tree,
            builder: detection.builder,
            build: &request.manifest.build,
            platform: &self.config.platform,
            toolchain: toolchain.as_ref().map(|toolchain| toolchain.version.as_str()),
            recipe,
            env: &request.env,
            tools: &tools.iter().map(|tool| tool.identity.as_str()).collect::<Vec<_>>(),
        };
        let id = inputs.id();
        for why in &detection.why {
            log.say(why.clone());
        }
        if !tools.is_empty() {
            log.say(format!("with {}", tools.iter().map(|tool| &*tool.shown).collect::<Vec<_>>().join(", ")));
        }
        for mismatch in tools.iter().filter_map(|tool| tool.mismatch.as_ref()) {
            log.say(mismatch.clone());
        }
        Ok(Plan { tree, store, detection, toolchain, tools, id, log, request })
    }

    /// The bytes of the artifact, when it stands.
    fn standing(&self, plan: &Plan) -> Result<Option<Size>, BuildError> {
        let dir = self.layout.artifact(&plan.request.app, &plan.id);
        let stands = dir.try_exists().map_err(crate::error::failed(&dir, "read"))?;
        Ok(stands.then(|| make::noted(&self.layout.note(&plan.request.app, &plan.id)).size()))
    }

    /// The turn for an artifact, shared by all who want it.
    pub(crate) fn turn(&self, app: &AppId, id: &ArtifactId) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry((app.clone(), id.clone())).or_default())
    }

    /// Forgets a turn that nobody else wants.
    pub(crate) fn leave(&self, turn: Arc<Turn<()>>, app: &AppId, id: &ArtifactId) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        let key = (app.clone(), id.clone());
        if turns.get(&key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&key);
        }
    }
}

/// The toolchain channel that the project asks for.
fn channel(files: &StoredFiles<'_>) -> Option<String> {
    use berth_source::Files as _;
    ["rust-toolchain.toml", "rust-toolchain"]
        .into_iter()
        .find_map(|name| files.head(name).ok())
        .and_then(|file| toolchain::wanted_channel(&file))
}

/// Waits for `what`, or until the build is cancelled.
pub(crate) async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    what: impl Future<Output = T>,
) -> Result<T, BuildError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(BuildError::Cancelled),
        done = what => Ok(done),
    }
}

/// Does file work where it blocks nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that shuts down gives blocking work up.
        Err(_) => Err(BuildError::Cancelled),
    }
}

#[cfg(test)]
mod tests;
