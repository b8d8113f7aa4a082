//! The repositories of apps: where they lie, and how git is started on one.
//!
//! A repository belongs to the build user of its app, and git runs as that user with a group that builds do not have; the folder
//! above is passable for that group alone. So a program that git's bugs let in has the rights of one app's builds and no more, and a build reaches
//! neither the repository nor, since the kernel compares groups, the processes of git that work on it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_build::remove_all;
use berth_contract::{Code, Problem};
use berth_control::state::App;
use berth_process::{Child, Ground, GroundError, Launch, LaunchError, Limits, Program, Signal, Stdio, User};
use berth_spec::AppId;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::HOOK;
use super::commit::ObjectId;
use super::webhook::Fetching;
use crate::config::{ControlConfig, PushBounds, UidPlan};
use crate::machine::in_full;

/// The most bytes that a repository takes on disk before pushes to it are refused.
pub(super) const REPOSITORY_MAX: u64 = 4 << 30;
/// How many requests git serves at a time, each a process of some MiB while it waits; more wait for a moment and are then refused.
const AT_ONCE: usize = 32;
/// How long a request waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(30);
/// How long one of git's small commands may take.
pub(super) const COMMAND_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to fetch a commit from elsewhere.
const FETCH_WITHIN: Duration = Duration::from_secs(600);
/// What of the platform's own environment leads to the rest of the world.
const OF_THE_NETWORK: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// How long it may take to pack a repository anew.
const GC_WITHIN: Duration = Duration::from_secs(900);
/// The bytes of a command's errors that are kept.
pub(super) const ERRORS_MAX: u64 = 4096;
/// From so many packs on a repository is packed anew: each push adds one.
const PACKS_MAX: u64 = 30;

/// What git is told on every start, whatever a repository's own file says. `receive.fsck.*`: mistakes of old programs that are in the history of
/// many well-known projects and harm nobody are let through; the big forges do the same.
const SETTINGS: [&str; 34] = [
    "core.bigFileThreshold=16m",
    "core.deltaBaseCacheLimit=32m",
    "core.packedGitLimit=256m",
    "core.packedGitWindowSize=16m",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.askPass=",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "gc.autoDetach=false",
    "maintenance.auto=false",
    "pack.deltaCacheSize=32m",
    "pack.threads=1",
    "pack.windowMemory=64m",
    "protocol.allow=never",
    "protocol.file.allow=never",
    "receive.advertisePushOptions=false",
    "receive.autogc=false",
    "receive.denyCurrentBranch=ignore",
    "receive.denyDeleteCurrent=ignore",
    "receive.denyNonFastForwards=false",
    "receive.fsck.badTimezone=ignore",
    "receive.fsck.missingSpaceBeforeDate=ignore",
    "receive.fsck.zeroPaddedFilemode=ignore",
    "receive.keepAlive=5",
    "receive.shallowUpdate=true",
    "receive.unpackLimit=1",
    "receive.updateServerInfo=false",
    "submodule.recurse=false",
    "transfer.fsckObjects=true",
    "uploadpack.allowFilter=true",
];

/// Why git did not do what it was to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// It cannot be started.
    #[error("git cannot be started")]
    Start(#[from] LaunchError),
    /// As root, the app has no user of its own.
    #[error("git cannot be started")]
    Ground(#[from] GroundError),
    /// The repository's folder cannot be used.
    #[error("the repository cannot be {verb}")]
    Folder {
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command ended badly.
    #[error("git {what} failed: {errors}")]
    Failed {
        /// Its verb.
        what: &'static str,
        /// What it said.
        errors: String,
    },
    /// A command did not end in time.
    #[error("git {0} took too long")]
    TimedOut(&'static str),
    /// The repository is full.
    #[error("the repository takes {0} MiB, more than the {max} MiB that it may", max = REPOSITORY_MAX >> 20)]
    Full(u64),
    /// Everybody pushes at once.
    #[error("{AT_ONCE} requests for repositories are served at once, and this one waited for too long")]
    Busy,
}

impl From<GitError> for Problem {
    fn from(error: GitError) -> Self {
        let text = in_full(&error);
        match error {
            GitError::Start(LaunchError::NotFound { .. }) => {
                Self::new(Code::GitMissing, "git is not installed on the platform's machine")
                    .next("install it there, with `apt-get install git` for example")
            }
            GitError::Full(_) => Self::new(Code::LimitExceeded, text)
                .next("remove large files from its history, or destroy the app and make it anew"),
            GitError::Busy => Self::new(Code::Overloaded, text).next("try again in a moment"),
            GitError::Failed { what: "fetch", .. } => Self::new(Code::CloneFailed, text)
                .next("look at the address, the branch and the token; `berth git connect` sets them"),
            GitError::TimedOut(_) => Self::new(Code::LimitExceeded, text).next("make the repository smaller"),
            GitError::Folder { ref source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Self::new(Code::DiskFull, text).next("make room and try again; nothing was done")
            }
            GitError::Start(_) | GitError::Ground(_) | GitError::Folder { .. } | GitError::Failed { .. } => {
                Self::new(Code::Internal, text).next("logs/platform/control.log says more")
            }
        }
    }
}

pub(super) fn folder(verb: &'static str) -> impl Fn(io::Error) -> GitError {
    move |source| GitError::Folder { verb, source }
}

/// All repositories.
#[derive(Debug)]
pub(crate) struct Repositories {
    home: PathBuf,
    root: PathBuf,
    hooks: PathBuf,
    bounds: PushBounds,
    plan: Option<UidPlan>,
    turns: Arc<Semaphore>,
    /// Held while a branch of an app is being moved, from the hook's question to git's end. As many as there are apps that were pushed to.
    moving: Mutex<BTreeMap<AppId, Arc<tokio::sync::Mutex<()>>>>,
    fetching: Fetching,
}

/// A commit that was fetched, and the repository that has it alone.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) repository: Repository,
    pub(super) commit: ObjectId,
}

/// What git counts in a repository.
struct Counts {
    bytes: u64,
    packs: u64,
}

/// The repository of one app.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    dir: PathBuf,
    hooks: PathBuf,
    bounds: PushBounds,
    ground: Ground,
}

impl Repositories {
    /// Those of a platform. The hook is made anew: the program may lie elsewhere than last time.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub(crate) fn open(config: &ControlConfig) -> io::Result<Self> {
        let root = config.home.join("git");
        let hooks = root.join(".hooks");
        // The home made the folder itself, with its mode.
        DirBuilder::new().recursive(true).mode(0o755).create(&hooks)?;
        let next = hooks.join(".next");
        drop(fs::remove_file(&next));
        symlink(&config.exe, &next)?;
        fs::rename(&next, hooks.join(HOOK))?;
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self {
            home: config.home.clone(),
            root,
            hooks,
            bounds: config.push_bounds,
            plan: config.uid_plan,
            turns,
            moving: Mutex::default(),
            fetching: Fetching::default(),
        })
    }

    /// A turn to be served, kept until the service ends.
    ///
    /// # Errors
    /// When there are too many for too long.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, GitError> {
        let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&self.turns).acquire_owned()).await;
        Ok(turn.map_err(|_late| GitError::Busy)?.expect("nobody closes the semaphore"))
    }

    /// What is held while a branch of `app` is moved.
    pub(super) fn moving(&self, app: &AppId) -> Arc<tokio::sync::Mutex<()>> {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(moving.entry(app.clone()).or_default())
    }

    /// The repository of `app`, made if it is not there, with `branch` as what a clone checks out.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) async fn of(&self, app: &App, branch: &str) -> Result<Repository, GitError> {
        let repository = self.at(self.place(app), app)?;
        if repository.dir.try_exists().map_err(folder("looked at"))? {
            return Ok(repository);
        }
        let moving = self.moving(&app.id);
        let _held = moving.lock().await;
        if repository.dir.try_exists().map_err(folder("looked at"))? {
            return Ok(repository);
        }
        // Under another name until it is whole: a kill in between leaves nothing that looks like a repository.
        let making =
            self.make_fresh(app, self.parent(app).join(format!(".new-{}", app.id.app)), branch).await?;
        self.unpack(app, &making).await?;
        fs::rename(&making.dir, &repository.dir).map_err(folder("made"))?;
        Ok(repository)
    }

    /// Fetches the newest commit of a branch elsewhere, into a repository of its own that is gone with what is given.
    ///
    /// # Errors
    /// When the repository cannot be reached, has no such branch, or is too large.
    pub(super) async fn fetch(
        &self,
        app: &App,
        url: &str,
        token: Option<&str>,
        branch: &str,
    ) -> Result<Fetched, GitError> {
        let parent = self.parent(app);
        let dir = parent.join(format!(".fetch-{}", app.id.app));
        let repository = self.make_fresh(app, dir, branch).await?;
        let fetched = Fetched { commit: ObjectId::nothing(), repository };
        let scheme = if url.starts_with("http://") { "http" } else { "https" };
        let refs = format!("+refs/heads/{branch}:refs/heads/{branch}");
        let mut git = fetched
            .repository
            .git()
            .args(["-c", &format!("protocol.{scheme}.allow=always")])
            // A redirect would take the token elsewhere.
            .args([
                "-c",
                "http.followRedirects=false",
                "-c",
                "http.lowSpeedLimit=1",
                "-c",
                "http.lowSpeedTime=60",
            ])
            .env("GIT_ALLOW_PROTOCOL", scheme);
        git = OF_THE_NETWORK.into_iter().fold(git, Launch::env_from_ours);
        if let Some(token) = token {
            // Not an argument, which everybody on the machine may read.
            let (key, value) = ("http.extraHeader", authorization(token));
            git = git
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", key)
                .env("GIT_CONFIG_VALUE_0", value);
        }
        let args = ["--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", url, &refs];
        output(git, FETCH_WITHIN, "fetch", &args, 0).await?;
        let name = format!("refs/heads/{branch}");
        let id = fetched.repository.run("for-each-ref", &["--format=%(objectname)", &name], 4_096).await?;
        let unknown = || GitError::Failed { what: "fetch", errors: format!("there is no branch {branch}") };
        let commit = ObjectId::read(String::from_utf8_lossy(&id).trim()).ok_or_else(unknown)?;
        Ok(Fetched { commit, ..fetched })
    }

    /// The apps that a webhook is deploying.
    pub(super) fn fetching(&self) -> &Fetching {
        &self.fetching
    }

    /// Makes a repository at `dir`, where nothing is left of what was there before.
    async fn make_fresh(&self, app: &App, dir: PathBuf, branch: &str) -> Result<Repository, GitError> {
        let parent = self.parent(app);
        for passage in [parent.parent().unwrap_or(&self.root), &parent] {
            self.make(passage, 0o710, None).map_err(folder("made"))?;
        }
        let gone = dir.clone();
        let removed = tokio::task::spawn_blocking(move || remove_all(&gone)).await;
        removed.expect("removing does not panic").map_err(folder("made"))?;
        self.make(&dir, 0o700, self.user(app).as_ref()).map_err(folder("made"))?;
        let making = self.at(dir, app)?;
        let head = format!("--initial-branch={branch}");
        making.run("init", &["--bare", "--quiet", "--template=", &head, "."], 0).await?;
        Ok(making)
    }

    /// The repository of `app`, if there is one.
    pub(super) fn there(&self, app: &App) -> Result<Option<Repository>, GitError> {
        let repository = self.at(self.place(app), app)?;
        let there = repository.dir.try_exists().map_err(folder("looked at"))?;
        Ok(there.then_some(repository))
    }

    /// The platform's home.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Makes a folder: of `owner`, or of our own with the group that git has.
    fn make(&self, path: &Path, mode: u32, owner: Option<&User>) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        let Some(plan) = self.plan else { return Ok(()) };
        chown(path, owner.map(|user| user.uid), Some(plan.git_gid()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    /// Removes the repositories of apps that are gone, and packs those anew that many pushes have left in pieces. `apps` are those that
    /// live. One that is pushed to just now is left for the next time.
    pub(crate) async fn keep_tidy(&self, apps: &[Arc<App>]) -> Result<(), GitError> {
        let known: BTreeMap<PathBuf, &Arc<App>> = apps.iter().map(|app| (self.place(app), app)).collect();
        let projects = names(&self.root).into_iter().flat_map(|tenant| names(&tenant));
        for path in projects.flat_map(|project| names(&project)) {
            let Some(app) = known.get(&path) else {
                let removed = tokio::task::spawn_blocking(move || remove_all(&path)).await;
                removed.expect("removing does not panic").map_err(folder("removed"))?;
                continue;
            };
            let moving = self.moving(&app.id);
            let Ok(_held) = moving.try_lock() else { continue };
            let repository = self.at(path, app)?;
            if repository.counts().await?.packs >= PACKS_MAX {
                repository.run_within(GC_WITHIN, "gc", &["--quiet", "--prune=1.hour.ago"], 0).await?;
            }
        }
        self.forget_unpacked(apps).map_err(folder("removed"))
    }

    /// Where the repository of `app` lies. The time at which the app was made is part of it: one that is made anew under its name does not
    /// find the repository of the one before.
    fn place(&self, app: &App) -> PathBuf {
        self.parent(app).join(format!("{}.{}.git", app.id.app, app.created_at.0))
    }

    fn parent(&self, app: &App) -> PathBuf {
        self.root.join(app.id.tenant.as_str()).join(app.id.project.as_str())
    }

    /// The repository of `app` that lies, or will lie, at `dir`.
    fn at(&self, dir: PathBuf, app: &App) -> Result<Repository, GitError> {
        let (ground, hooks) = (Ground::new(&dir, self.user(app))?, self.hooks.clone());
        Ok(Repository { ground, dir, hooks, bounds: self.bounds })
    }

    /// As whom git runs on it, when the platform runs as root.
    pub(super) fn user(&self, app: &App) -> Option<User> {
        let plan = self.plan?;
        let uid = plan.builds(app.slot)?;
        Some(User { uid, gid: plan.git_gid(), groups: vec![plan.platform_gid()] })
    }
}

/// What lies in a folder and is not hidden; nothing when it is none.
fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|it| !it.file_name().as_encoded_bytes().starts_with(b".")).map(|it| it.path()).collect()
}

impl Repository {
    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What may be pushed to it.
    pub(super) fn bounds(&self) -> PushBounds {
        self.bounds
    }

    /// A start of git in the repository, with our settings and nothing else.
    pub(super) fn git(&self) -> Launch {
        let hooks = format!("core.hooksPath={}", self.hooks.display());
        // Its owner is the user that git runs as; the setting is for when the home's own folder is not.
        let safe = format!("safe.directory={}", self.dir.display());
        let longest = format!("receive.maxInputSize={}", self.bounds.bytes);
        let settings = SETTINGS.into_iter().chain([hooks.as_str(), safe.as_str(), longest.as_str()]);
        Launch::new(Program::Git(self.ground.clone()))
            .args(settings.flat_map(|setting| ["-c", setting]))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("GIT_DIR", ".")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .dir(&self.dir)
            .umask(0o077)
            .limits(limits(self.bounds))
            .die_with_parent()
    }

    /// The same for a command that reads or writes all that a repository may hold.
    pub(super) fn git_for_all(&self) -> Launch {
        self.git().limits(limits(PushBounds { bytes: REPOSITORY_MAX, ..self.bounds }))
    }

    /// Refuses a repository that is full.
    pub(super) async fn check_size(&self) -> Result<(), GitError> {
        let size = self.counts().await?.bytes;
        if size > REPOSITORY_MAX { Err(GitError::Full(size >> 20)) } else { Ok(()) }
    }

    /// How much there is. Git counts it, since the folder is its user's and not for us to walk.
    async fn counts(&self) -> Result<Counts, GitError> {
        let text = self.run("count-objects", &["-v"], 4096).await?;
        let text = String::from_utf8_lossy(&text);
        let count = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        let kibibytes = count("size") + count("size-pack") + count("size-garbage");
        Ok(Counts { bytes: kibibytes << 10, packs: count("packs") })
    }

    /// Runs one of git's small commands and gives what it printed, at most `max` bytes.
    pub(super) async fn run(&self, what: &'static str, args: &[&str], max: u64) -> Result<Vec<u8>, GitError> {
        self.run_within(COMMAND_WITHIN, what, args, max).await
    }

    async fn run_within(
        &self,
        within: Duration,
        what: &'static str,
        args: &[&str],
        max: u64,
    ) -> Result<Vec<u8>, GitError> {
        output(self.git(), within, what, args, max).await
    }
}

/// Runs `git what args` to its end and gives what it printed, at most `max` bytes.
///
/// # Errors
/// When it cannot be started, fails, prints more or takes longer than `within`.
pub(super) async fn output(
    git: Launch,
    within: Duration,
    what: &'static str,
    args: &[&str],
    max: u64,
) -> Result<Vec<u8>, GitError> {
    let launch = git.arg(what).args(args).stdout(Stdio::Piped).stderr(Stdio::Piped);
    let mut started = Started(launch.start()?);
    let pipes = started.0.take_pipes().map_err(folder("worked on"))?;
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let work = async {
        let mut stdout = pipes.stdout.expect("it is piped").take(max + 1);
        let mut stderr = pipes.stderr.expect("it is piped").take(ERRORS_MAX);
        // What is not read to its end ends git by SIGPIPE, and its status says so.
        let (_read, _read_errors) =
            tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut errors));
        drop((stdout, stderr));
        started.0.ended().await
    };
    let Ok(status) = tokio::time::timeout(within, work).await else {
        started.end().await;
        return Err(GitError::TimedOut(what));
    };
    if status.map_err(folder("worked on"))?.success() && out.len() as u64 <= max {
        return Ok(out);
    }
    Err(GitError::Failed { what, errors: shown(&errors) })
}

/// What a forge takes for a token: any user name, where none is given with it.
fn authorization(token: &str) -> String {
    use base64::Engine as _;
    let pair = if token.contains(':') { token.to_owned() } else { format!("x-access-token:{token}") };
    format!("Authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// What git wrote to its standard error, as one line.
pub(super) fn shown(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("; ") }
}

/// A process of git's that is ended with all that it started when it is dropped.
#[derive(Debug)]
pub(super) struct Started(pub(super) Child);

impl Started {
    /// Ends it now and reaps it.
    pub(super) async fn end(&mut self) {
        self.kill();
        if let Err(error) = self.0.ended().await {
            crate::events::could_not("end git", &error);
        }
    }

    /// Kills its process group: git starts no sessions of its own.
    pub(super) fn kill(&self) {
        if let Err(error) = self.0.signal_group(Signal::KILL) {
            crate::events::could_not("kill git", &error);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.kill();
            // A moment suffices after SIGKILL, and a child that nobody reaps stays for ever.
            drop(self.0.wait_for(Duration::from_secs(1)));
        }
    }
}

/// A pack may hold a few bytes that become terabytes: what git needs in memory and time is bounded by the kernel.
pub(super) fn limits(bounds: PushBounds) -> Limits {
    Limits {
        open_files: Some(1_024),
        core: Some(0),
        file_size: Some(bounds.bytes.saturating_mul(2)),
        address_space: Some(2 << 30),
        cpu_seconds: Some(900),
        ..Limits::default()
    }
}
