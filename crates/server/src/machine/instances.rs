//! Instances: seen, started, stopped, cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_contract::Code;
use berth_control::command::{Command as ControlCommand, Fact};
use berth_control::event::{Exit, Ordinal};
use berth_control::state::{App, Instance, Release};
use berth_control::world::{AppWorld, Life, Listener, Seen};
use berth_runtime::{
    Backoff, Check, InstanceSpec, InstanceState, Mark, Network, OWN_PORT, Observed, PortWish, Restart,
    RuntimeError, RuntimeEvent, Stop,
};
use berth_spec::manifest::Signal;
use berth_spec::name::RUN_PROCESS;
use berth_spec::{AppId, Command, InstanceId, Millis, ProcessName, Timestamp};
use tokio::sync::broadcast::error::RecvError;

use super::releases::{RELEASE_COMMAND, limits};
use super::surroundings::Surroundings;
use super::{Machine, NotStarted, environment, in_full};
use crate::desk::Asker;
use crate::{events, tasks};

/// How many lines of an instance's log a failure shows.
const TAIL: usize = 20;
/// How often an exit of one app's instances is written down: a crash loop must not fill the journal, and a hundred of them neither.
const EXITS_EVERY: Duration = Duration::from_secs(10);
/// Below how much of the machine's memory what is only kept warm has to go, as one part of so many.
const MEMORY_SHORT: u64 = 10;

/// How long to wait before an instance that could not be told to stop is told again.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// How often in a row a shim may die before it has spoken, until its instance counts as one that cannot be started. An app that
/// crashes has more than one try too; everything else that keeps an instance from starting stays so.
const SHIM_TRIES: u32 = 3;

/// Exits of an app's instances since one was last written down.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    last_written: Option<Duration>,
    more: u64,
}

/// When an instance last started and ended, and what it cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lived {
    /// The process id of its program and since when that runs, while it does.
    pub running: Option<(u32, Timestamp)>,
    /// When its program last ended.
    pub ended: Option<Timestamp>,
    /// How many of its processes the kernel has killed because memory ran out.
    pub oom_kills: u64,
}

/// The code of an instance that could not be started for a reason that has none of its own.
pub(super) const START_FAILED: &str = "start_failed";

fn start_failed(detail: String) -> NotStarted {
    (START_FAILED.to_owned(), detail)
}

/// Why an instance could not be started, as its release is told.
fn not_started(error: &RuntimeError) -> NotStarted {
    match error {
        RuntimeError::Engine(engine) if engine.is_absent() => {
            (Code::DockerUnavailable.as_str().to_owned(), in_full(error))
        }
        other => start_failed(in_full(other)),
    }
}

impl Machine {
    /// What there is of an app just now.
    pub async fn observe(&self, app: &App) -> AppWorld {
        let mut instances = BTreeMap::new();
        for mut observed in self.runtime.list_app(&app.id) {
            if is_one_off(&observed.id) {
                continue;
            }
            let ordinal = observed.id.ordinal;
            if let Some(instance) = app.instances.get(&ordinal)
                && self.must_look(app, ordinal, instance, &observed)
                && let Ok(looked) = self.runtime.observe(&observed.id).await
            {
                observed = looked;
            }
            let seen = self.seen_as(app, observed).await;
            instances.insert(ordinal, seen);
        }
        self.add_not_started(app, &mut instances);
        self.jobs.forget_commands(&app.id, |number| {
            app.release(number).is_none_or(|release| release.phase.is_settled())
        });
        self.remember(app, &instances);
        AppWorld {
            instances,
            builds: self.builds_of(app),
            commands: self.jobs.commands_of(&app.id),
            runs: self.runs_of(app).await,
            volume_worked: self.volume_worked(app),
            freezes: self.can_freeze(app),
            frozen: self.frozen(app),
            volumes_left: self.volumes_left(app),
            memory_short: (app.warm.is_some() || app.asleep.is_some()) && memory_is_short(),
            wall: Some(self.clock.now()),
            ..AppWorld::default()
        }
    }

    /// Whether it is worth a look where the instance listens: a web instance that was not seen to listen where it should.
    fn must_look(&self, app: &App, ordinal: Ordinal, instance: &Instance, observed: &Observed) -> bool {
        let known = self.notes().seen.get(&app.id).and_then(|seen| seen.get(&ordinal).cloned());
        let same_life = |seen: &Seen| {
            seen.listener == Listener::Expected && u64::from(seen.restarts) == observed.exit_count
        };
        instance.process.is_web()
            && instance.is_wanted()
            && matches!(observed.state, InstanceState::Running { .. })
            && !known.is_some_and(|seen| same_life(&seen))
    }

    async fn seen_as(&self, app: &App, observed: Observed) -> Seen {
        let exits = observed.exit_count;
        let (log_tail, not_begun) = self.evidence(app, &observed).await;
        let check = self.check_of(app, &observed);
        let life = match observed.state {
            InstanceState::Exited | InstanceState::Gone => Life::Gone,
            _ if self.notes().stopping.contains(&observed.id) => Life::Stopping,
            InstanceState::Starting => Life::Starting,
            InstanceState::Running { .. } => Life::Running,
            InstanceState::BackingOff { .. } => Life::BackingOff,
            InstanceState::Stopping => Life::Stopping,
        };
        let known = self.notes().seen.get(&app.id).and_then(|seen| seen.get(&observed.id.ordinal).cloned());
        let dialer = observed.dialer();
        let listener = match observed.listener {
            berth_runtime::Listener::Expected => Listener::Expected,
            berth_runtime::Listener::Elsewhere { ports } => Listener::Elsewhere(ports),
            berth_runtime::Listener::Unreachable { addresses } => {
                Listener::Unreachable(addresses.iter().map(ToString::to_string).collect())
            }
            // It was not looked at anew: what was seen in this life of the app still holds.
            berth_runtime::Listener::None => known
                .filter(|seen| u64::from(seen.restarts) == exits && seen.listener == Listener::Expected)
                .map_or(Listener::None, |seen| seen.listener),
        };
        let killed = self.notes().killed.get(&observed.id).copied();
        let last_exit = observed.exits.last().map(exit);
        Seen {
            token: observed.token.to_string(),
            life,
            port: observed.port,
            dialer,
            listener,
            restarts: u32::try_from(exits).unwrap_or(u32::MAX),
            last_exit: last_exit.map(|exit| Exit { oom: exit.oom.or(killed), ..exit }),
            log_tail,
            not_begun,
            check,
        }
    }

    pub(super) async fn log_tail(&self, id: &InstanceId) -> Vec<String> {
        let log = self.runtime.log(id);
        let read = tokio::task::spawn_blocking(move || log.tail(TAIL)).await;
        let Ok(Ok(batch)) = read else {
            return Vec::new();
        };
        batch.records.iter().map(|(_, record)| String::from_utf8_lossy(&record.body).into_owned()).collect()
    }

    /// What an instance that is being activated printed last, and why it was not started if it was not.
    async fn evidence(&self, app: &App, observed: &Observed) -> (Vec<String>, Vec<String>) {
        let activating = app.activation.as_ref().map(|activation| activation.release);
        let instance = app.instances.get(&observed.id.ordinal);
        let instance = instance.filter(|it| Some(it.release) == activating && !it.proven);
        let Some((instance, release)) = instance.and_then(|it| Some((it, app.release(it.release)?))) else {
            return Default::default();
        };
        let tail = self.last_lines(app, release, &observed.id).await;
        let not_begun = self.not_begun(app, release, instance, observed, &tail).await;
        (tail, not_begun)
    }

    fn add_not_started(&self, app: &App, instances: &mut BTreeMap<Ordinal, Seen>) {
        let mut notes = self.notes();
        let is_left = |id: &InstanceId| id.app != app.id || app.instances.contains_key(&id.ordinal);
        notes.not_started.retain(|id, _| is_left(id));
        notes.unwritten_exits.retain(|id, _| is_left(id));
        notes.killed.retain(|id, _| is_left(id));
        notes.frozen.retain(|id, _| is_left(id));
        notes.not_frozen.retain(is_left);
        for (id, (code, detail)) in notes.not_started.iter().filter(|(id, _)| id.app == app.id) {
            let token = app.instances.get(&id.ordinal).map(|it| it.token.clone()).unwrap_or_default();
            instances.entry(id.ordinal).or_insert_with(|| Seen {
                token,
                life: Life::NotStarted { code: code.clone(), detail: detail.clone() },
                port: None,
                dialer: None,
                listener: Listener::None,
                restarts: 0,
                last_exit: None,
                log_tail: Vec::new(),
                not_begun: Vec::new(),
                check: None,
            });
        }
    }

    fn remember(&self, app: &App, instances: &BTreeMap<Ordinal, Seen>) {
        let mut notes = self.notes();
        if instances.is_empty() {
            notes.seen.remove(&app.id);
        } else {
            notes.seen.insert(app.id.clone(), instances.clone());
        }
    }

    /// What was last seen of an app's instances.
    #[must_use]
    pub fn seen(&self, app: &AppId) -> BTreeMap<Ordinal, Seen> {
        self.notes().seen.get(app).cloned().unwrap_or_default()
    }

    /// When an app's instances last started and ended.
    #[must_use]
    pub fn lives(&self, app: &AppId) -> BTreeMap<Ordinal, Lived> {
        let lived = |it: Observed| {
            let running = match it.state {
                InstanceState::Running { pid, since } => Some((pid, since)),
                _ => None,
            };
            let ended = it.exits.last().map(|exit| Timestamp(exit.at));
            (it.id.ordinal, Lived { running, ended, oom_kills: it.oom_kills })
        };
        self.runtime.list_app(app).into_iter().filter(|it| !is_one_off(&it.id)).map(lived).collect()
    }

    /// Starts an instance. Should that fail, the next look shows why.
    pub async fn start(&self, app: &App, ordinal: Ordinal, ports_in_use: &BTreeSet<u16>) {
        let Some((id, instance)) = app.instance_id(ordinal).zip(app.instances.get(&ordinal)) else {
            return;
        };
        let started = match self.spec(app, &id, instance, ports_in_use) {
            Ok(spec) => self.start_now(spec).await,
            Err(not_started) => Err(not_started),
        };
        match started {
            Ok(observed) => {
                events::started_instance(&id, observed.port);
                self.notes().not_started.remove(&id);
            }
            Err((code, detail)) => {
                events::not_started(&id, &detail);
                self.notes().not_started.insert(id, (code, detail));
            }
        }
        self.desk.changed().add(app.id.clone());
    }

    /// Starts it, in a task of its own: a pass may be given up halfway, and what comes up after that is known to nobody who
    /// would stop it.
    async fn start_now(&self, spec: InstanceSpec) -> Result<Observed, NotStarted> {
        let (runtime, starts) = (Arc::clone(&self.runtime), Arc::clone(&self.starts));
        let task = tokio::spawn(async move {
            let may_start = starts.read().await;
            if !*may_start {
                return Err(start_failed("the platform goes down".to_owned()));
            }
            let mut tries = 1;
            loop {
                match runtime.start(spec.clone()).await {
                    Err(RuntimeError::Shim { .. }) if tries < SHIM_TRIES => tries += 1,
                    started => return started.map_err(|error| not_started(&error)),
                }
            }
        });
        task.await.unwrap_or_else(|error| Err(start_failed(in_full(&error))))
    }

    /// Starts nothing any more, and waits for the starts that are under way.
    pub async fn end_starts(&self) {
        *self.starts.write().await = false;
    }

    fn spec(
        &self,
        app: &App,
        id: &InstanceId,
        instance: &Instance,
        ports_in_use: &BTreeSet<u16>,
    ) -> Result<InstanceSpec, NotStarted> {
        let release = app.release(instance.started_as);
        let release = release.ok_or_else(|| start_failed("its release is not there".to_owned()))?;
        let artifact = self.artifact_dir(app, release).map_err(start_failed)?;
        let mut env = environment::shared(app, release, &artifact, &self.vault)
            .map_err(|error| start_failed(in_full(&error)))?;
        env.insert("INSTANCE_ID".to_owned(), id.short());
        let command = self.command(release, id, &artifact).map_err(start_failed)?;
        let Surroundings { root, dir, user, mounts, resources, network } =
            self.surroundings(app, release, &id.process, artifact, &mut env)?;
        let port = match network {
            _ if !instance.process.is_web() => PortWish::None,
            Network::Own => PortWish::Exactly(own_port(release)),
            Network::Host => match instance.port.filter(|_| instance.dialer.is_none()) {
                Some(port) => PortWish::Exactly(port),
                None => PortWish::Any { exclude: ports_in_use.clone() },
            },
        };
        let mut token = [0; 16];
        hex::decode_to_slice(&instance.token, &mut token)
            .map_err(|error| start_failed(format!("its token: {error}")))?;
        Ok(InstanceSpec {
            command,
            id: id.clone(),
            token: Mark(token),
            env,
            dir,
            root,
            mounts,
            resources,
            user,
            port,
            network,
            egress: release.manifest.network.egress,
            aliases: release.manifest.network.names.clone(),
            limits: limits(),
            restart: Restart::Always,
            backoff: Backoff::default(),
            check: check(release, &id.process),
        })
    }

    /// What the instance runs; for a static site this program, which every app's user may execute.
    fn command(&self, release: &Release, id: &InstanceId, dir: &std::path::Path) -> Result<Command, String> {
        let command = release.processes().and_then(|processes| processes.get(&id.process));
        match command.ok_or_else(|| format!("{} has no process {}", release.number, id.process))? {
            Command::StaticSite { root, single_page } => {
                let text = |path: std::path::PathBuf| path.into_os_string().into_string();
                let paths = [text(self.places.exe.clone()), text(dir.join(root.as_str()))];
                let [exe, files] = paths.map(|path| path.map_err(|path| format!("{path:?} is not UTF-8")));
                let mut argv = vec![exe?, "__static".to_owned(), files?];
                argv.extend(single_page.then(|| "--single-page".to_owned()));
                Ok(Command::Argv(argv))
            }
            other => Ok(other.clone()),
        }
    }

    /// Tells an instance to stop, in a task of its own.
    pub async fn stop(self: &Arc<Self>, app: &App, ordinal: Ordinal) {
        let Some((id, instance)) = app.instance_id(ordinal).zip(app.instances.get(&ordinal)) else {
            return;
        };
        if !self.notes().stopping.insert(id.clone()) {
            return;
        }
        let how = app
            .release(instance.release)
            .map_or(Stop { signal: 15, kill_after: Millis::from_secs(30) }, |release| how_to_stop(release));
        events::stopping_instance(&id);
        let this = Arc::clone(self);
        tasks::run("stopping an instance", async move {
            match this.runtime.stop(&id, how).await {
                // It never came to be, or is cleared away: nothing is left to be stopped.
                Ok(_) | Err(RuntimeError::NotFound(_)) => {}
                Err(error) => {
                    events::could_not("stop an instance", &error);
                    // It is told again once this is over, and what failed at once may fail for long.
                    tokio::time::sleep(STOP_RETRY).await;
                }
            }
            this.notes().stopping.remove(&id);
            this.desk.changed().add(id.app);
        });
    }

    /// Clears away what the runtime has of an instance that the state has not, in a task of its own. Gives its id.
    pub async fn remove(self: &Arc<Self>, app: &AppId, ordinal: Ordinal) -> Option<InstanceId> {
        let stray = |it: &Observed| it.id.ordinal == ordinal && !is_one_off(&it.id);
        let id = self.runtime.list_app(app).into_iter().find(stray)?.id;
        self.clear(&id);
        Some(id)
    }

    pub(super) fn clear(self: &Arc<Self>, id: &InstanceId) {
        if !self.notes().clearing.insert(id.clone()) {
            return;
        }
        let (this, id) = (Arc::clone(self), id.clone());
        tasks::run("clearing an instance away", async move {
            this.clear_now(&id).await;
            this.notes().clearing.remove(&id);
            this.desk.changed().add(id.app);
        });
    }

    pub(super) async fn clear_now(&self, id: &InstanceId) {
        let runs = self.runtime.list_app(&id.app).into_iter().any(|it| it.id == *id && !it.state.is_over());
        if runs && let Err(error) = self.runtime.kill(id).await {
            events::could_not("end a stray instance", &error);
        }
        match self.runtime.remove(id).await {
            Ok(()) => events::removed_instance(id),
            Err(error) => events::could_not("clear away an instance", &error),
        }
    }

    /// Clears away all instances of an app that the state has never heard of.
    pub async fn clear_unknown(self: &Arc<Self>, app: &AppId) {
        for observed in self.runtime.list_app(app) {
            self.clear(&observed.id);
        }
    }

    /// The instances of an app that are being cleared away.
    #[must_use]
    pub fn clearing(&self, app: &AppId) -> BTreeSet<Ordinal> {
        self.notes().clearing.iter().filter(|id| id.app == *app).map(|id| id.ordinal).collect()
    }

    /// Waits until no instance runs.
    pub async fn all_gone(&self) {
        let mut events = self.runtime.watch();
        while self.runtime.list().iter().any(|it| !it.state.is_over()) {
            if let Err(RecvError::Closed) = events.recv().await {
                return;
            }
        }
    }

    /// Kills what is left.
    pub async fn kill_everything(&self) {
        for observed in self.runtime.list().into_iter().filter(|it| !it.state.is_over()) {
            if let Err(error) = self.runtime.kill(&observed.id).await {
                events::could_not("kill an instance", &error);
            }
        }
    }

    /// Removes what is left of instances that are over.
    pub async fn clear_everything(&self) {
        for observed in self.runtime.list() {
            self.clear_now(&observed.id).await;
        }
    }

    /// Ends release commands that an earlier control began: nobody waits for them any more, and they are run again.
    pub async fn clear_orphaned_commands(&self) {
        let orphans = self.runtime.list().into_iter().filter(|it| it.id.process.as_str() == RELEASE_COMMAND);
        for orphan in orphans {
            self.clear_now(&orphan.id).await;
        }
    }

    /// Has apps looked at whose instances change, and writes exits down, until the task is dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut changes = self.runtime.watch();
        loop {
            match changes.recv().await {
                Ok(RuntimeEvent::Changed(id)) => self.desk.changed().add(id.app),
                Ok(RuntimeEvent::Exited { id, exit: ended }) => {
                    let exit = self.with_oom(&id, exit(&ended));
                    self.note_exit(&id, exit).await;
                    self.desk.changed().add(id.app);
                }
                Err(RecvError::Lagged(_)) => self.desk.changed().extend(self.apps()),
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    async fn note_exit(&self, id: &InstanceId, exit: Exit) {
        // Those are written down as a whole.
        if is_one_off(id) {
            return;
        }
        let more = {
            let now = self.clock.monotonic();
            let mut notes = self.notes();
            let known = self.desk.read(|state| {
                state
                    .apps
                    .get(&id.app)
                    .is_some_and(|app| app.instances.get(&id.ordinal).is_some_and(Instance::is_wanted))
            });
            if !known {
                return;
            }
            let unwritten = notes.unwritten_exits.entry(id.clone()).or_default();
            if unwritten.last_written.is_some_and(|last| now.saturating_sub(last) < EXITS_EVERY) {
                unwritten.more += 1;
                return;
            }
            unwritten.last_written = Some(now);
            std::mem::take(&mut unwritten.more)
        };
        let fact = Fact::Exited { ordinal: id.ordinal, exit, more };
        let command = ControlCommand::Fact { app: id.app.clone(), fact };
        if let Err(error) = self.desk.submit(command, Asker::platform("exit"), None, None).await {
            events::not_recorded(&id.app, &error);
        }
    }
}

/// How an instance of a release is stopped: by the signal of its manifest, or, where that is the one that everything gets, of its image.
fn how_to_stop(release: &Release) -> Stop {
    let shutdown = &release.manifest.shutdown;
    let image = release.artifact.as_ref().and_then(|artifact| artifact.image.as_ref());
    let asked = image.and_then(|image| image.stop_signal).filter(|_| shutdown.signal == Signal::Term);
    Stop { signal: asked.unwrap_or_else(|| shutdown.signal.number()), kill_after: shutdown.kill_after }
}

/// The check that instances of a process have.
fn check(release: &Release, process: &ProcessName) -> Option<Check<Command>> {
    let check = release.healthcheck(process)?;
    let how = how_to_stop(release);
    Some(Check {
        command: check.command,
        interval: check.interval.0,
        timeout: check.timeout.0,
        start_period: check.start_period.0,
        start_interval: check.start_interval.0,
        retries: check.retries,
        stop_signal: how.signal,
        kill_after: how.kill_after.0,
    })
}

/// Where an instance listens in a network of its own: where its manifest says, or its image, or where nobody else is anyway.
fn own_port(release: &Release) -> u16 {
    let image = release.artifact.as_ref().and_then(|artifact| artifact.image.as_ref());
    release.manifest.http.port.or_else(|| image?.port).unwrap_or(OWN_PORT)
}

/// Whether an instance is a release command or a one-off command: neither is one of the app's processes, and their ordinals are not
/// those of its instances.
fn is_one_off(id: &InstanceId) -> bool {
    [RELEASE_COMMAND, RUN_PROCESS].contains(&id.process.as_str())
}

/// An exit as the control plane keeps it.
pub(super) fn exit(exit: &berth_runtime::Exit) -> Exit {
    Exit {
        status: exit.code,
        signal: exit.signal,
        after: Millis(exit.uptime),
        oom: exit.oom,
        unhealthy: exit.unhealthy,
    }
}

fn memory_is_short() -> bool {
    let free = meminfo("MemAvailable:");
    free.zip(meminfo("MemTotal:")).is_some_and(|(free, all)| free < all / MEMORY_SHORT)
}

/// A line of what the kernel tells of the machine's memory, in KiB.
pub(super) fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
