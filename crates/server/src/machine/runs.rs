//! One-off commands: started once each, for whoever asked or for nobody, and ended when they are not wanted any more.
//!
//! What somebody asked for waits here as an [`Order`] under the token that the journal then has: the values of variables and the way back
//! to whoever is connected are in no journal. So a control that was started anew finds no order, and starts nothing a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_control::event::{RunEnd, RunMode, RunNumber, RunStop};
use berth_control::state::{App, Run};
use berth_control::world::SeenRun;
use berth_runtime::{
    Attach, Attached, Backoff, InstanceSpec, InstanceState, Observed, PortWish, Restart, RuntimeError, Stop,
};
use berth_spec::name::RUN_PROCESS;
use berth_spec::{AppId, Command, EnvName, InstanceId, Millis, ProcessName, Timestamp};
use tokio::sync::oneshot;

use super::evidence::unstarted;
use super::instances::exit;
use super::releases::limits;
use super::surroundings::Surroundings;
use super::within::{Tell, Within};
use super::{Machine, environment, in_full};
use crate::{events, tasks};

/// How long a command that has lost whoever was connected to it may take after the hang-up, until it is killed.
const HANG_UP: Stop = Stop { signal: 1, kill_after: Millis::from_secs(10) };
/// How many lines of what it wrote the journal keeps of a command that failed and that nobody watched.
const TAIL: usize = 20;

/// What is to be started.
#[derive(Debug)]
pub struct Order {
    /// Variables that win over the app's.
    pub env: BTreeMap<EnvName, String>,
    /// How whoever asked is connected; `None` when what it writes goes to the log.
    pub attach: Option<Attach>,
    /// Takes what was started, or why nothing was.
    pub begun: oneshot::Sender<Result<Begun, String>>,
}

/// What was started.
#[derive(Debug)]
pub struct Begun {
    /// Its instance.
    pub id: InstanceId,
    /// Our ends, when somebody is connected, and how it ends.
    pub attached: Option<(Attached, oneshot::Receiver<Ended>)>,
}

/// How a run ended, for whoever is connected to it.
#[derive(Debug)]
pub struct Ended {
    /// How its program ended; `None` when that was not seen.
    pub exit: Option<berth_runtime::Exit>,
    /// Why it was not started, if it was not.
    pub unstarted: Option<String>,
    /// Why the platform ended it, if it did.
    pub why: Option<RunStop>,
}

/// What is remembered of runs, and lost with the process.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Orders that nobody has carried out yet, by token.
    orders: BTreeMap<String, Order>,
    /// The tokens of those that somebody is connected to.
    attended: BTreeSet<String>,
    /// Those that are being started.
    pub(super) starting: BTreeSet<InstanceId>,
    /// Those that could not be started, and why.
    pub(super) failed: BTreeMap<InstanceId, String>,
    /// Why those were ended that were.
    pub(super) stopped: BTreeMap<InstanceId, RunStop>,
    /// Those that run within an instance of the app's.
    pub(super) within: BTreeMap<InstanceId, Within>,
}

/// Whoever is connected to a run. Dropped, nobody is any more, and the run ends.
#[derive(Debug)]
pub struct Attendance {
    token: String,
    app: AppId,
    machine: Arc<Machine>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let mut runs = self.machine.runs();
        runs.attended.remove(&self.token);
        drop(runs.orders.remove(&self.token));
        drop(runs);
        self.machine.desk.changed().add(self.app.clone());
    }
}

/// The instance of a run.
pub(crate) fn run_id(app: &AppId, run: RunNumber) -> InstanceId {
    app.instance(ProcessName::new(RUN_PROCESS).expect("it is a name"), run)
}

impl Machine {
    pub(super) fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an order until the run of this token is to be started, at most for as long as the attendance lives.
    pub fn expect_run(self: &Arc<Self>, app: &AppId, token: &str, order: Order) -> Attendance {
        let mut runs = self.runs();
        runs.orders.insert(token.to_owned(), order);
        runs.attended.insert(token.to_owned());
        drop(runs);
        Attendance { token: token.to_owned(), app: app.clone(), machine: Arc::clone(self) }
    }

    /// Keeps an order for a run of a cron entry, to which nobody is connected and that takes nothing from whoever asks.
    pub fn order_cron(&self, token: &str) {
        let (begun, _nobody_waits) = oneshot::channel();
        self.runs().orders.insert(token.to_owned(), Order { env: BTreeMap::new(), attach: None, begun });
    }

    /// Forgets an order: it came to nothing, or what it was for is over.
    pub fn forget_order(&self, token: &str) {
        drop(self.runs().orders.remove(token));
    }

    /// The runs of an app as they are.
    pub(super) async fn runs_of(&self, app: &App) -> BTreeMap<RunNumber, SeenRun> {
        let observed = self.runtime.list_app(&app.id);
        let mut seen = BTreeMap::new();
        for it in observed.into_iter().filter(|it| it.id.process.as_str() == RUN_PROCESS) {
            let ended = match it.state {
                InstanceState::Exited | InstanceState::Gone => Some(self.run_end(app, &it).await),
                _ => None,
            };
            let attended = self.runs().attended.contains(&it.token.to_string());
            let run = SeenRun { token: it.token.to_string(), attended, ended };
            seen.insert(it.id.ordinal, run);
        }
        let runs = self.runs();
        for (id, within) in runs.within.iter().filter(|(id, _)| id.app == app.id) {
            let attended = runs.attended.contains(&within.token);
            let run = SeenRun { token: within.token.clone(), attended, ended: within.ended.clone() };
            seen.insert(id.ordinal, run);
        }
        let token = |id: &InstanceId| app.runs.get(&id.ordinal).map(|run| run.token.clone());
        for id in runs.starting.iter().filter(|id| id.app == app.id) {
            let token = token(id).unwrap_or_default();
            seen.entry(id.ordinal).or_insert(SeenRun { token, attended: true, ended: None });
        }
        for (id, detail) in runs.failed.iter().filter(|(id, _)| id.app == app.id) {
            let end = RunEnd { detail: vec![detail.clone()], ..RunEnd::stopped(RunStop::NotStarted) };
            let run = SeenRun { token: token(id).unwrap_or_default(), attended: false, ended: Some(end) };
            seen.entry(id.ordinal).or_insert(run);
        }
        seen
    }

    async fn run_end(&self, app: &App, observed: &Observed) -> RunEnd {
        let last = observed.exits.last();
        let told = self.runs().stopped.get(&observed.id).copied();
        let run = app.runs.get(&observed.id.ordinal);
        let command = run.map(|run| &run.command);
        let unstarted = last.and_then(|last| last.failure).map(|failure| unstarted(failure, command));
        let why = match (last, &unstarted) {
            (None, _) => told.or(Some(RunStop::Lost)),
            (Some(_), Some(_)) => Some(RunStop::NotStarted),
            (Some(_), None) => told,
        };
        let failed = last.is_none_or(|last| last.code != Some(0));
        let detached = run.is_some_and(|run| run.mode == RunMode::Detached);
        let mut detail = match unstarted {
            Some(why) => vec![why],
            None if failed && detached => self.log_tail(&observed.id).await,
            None => Vec::new(),
        };
        detail.truncate(TAIL);
        RunEnd { exit: last.map(exit), why, detail }
    }

    /// Starts a run that was ordered, in a task of its own. Should that fail, the next look shows why.
    pub fn start_run(self: &Arc<Self>, app: &Arc<App>, number: RunNumber) {
        let id = run_id(&app.id, number);
        let Some(run) = app.runs.get(&number).cloned() else { return };
        let order = {
            let mut runs = self.runs();
            if runs.starting.contains(&id) || runs.failed.contains_key(&id) {
                return;
            }
            let Some(order) = runs.orders.remove(&run.token) else {
                let detail = match run.cron {
                    None => "whoever asked for it was gone before it began",
                    Some(_) => "control was started anew before it began, and nothing is run twice",
                };
                let detail = detail.to_owned();
                runs.failed.insert(id, detail);
                drop(runs);
                self.desk.changed().add(app.id.clone());
                return;
            };
            runs.starting.insert(id.clone());
            order
        };
        let (this, app) = (Arc::clone(self), Arc::clone(app));
        tasks::run("starting a one-off command", async move {
            if let Some(ordinal) = run.within {
                return this.start_within(&app, &run, &id, ordinal, order).await;
            }
            let Order { env, attach, begun } = order;
            let started = match this.run_spec(&app, &run, &id, env, attach) {
                Ok(spec) => this.start_run_now(spec, attach).await,
                Err(detail) => Err(detail),
            };
            let mut runs = this.runs();
            runs.starting.remove(&id);
            match started {
                Ok(attached) => {
                    events::started_instance(&id, None);
                    let attached = attached.map(|attached| (attached, this.run_over(&id, run.command)));
                    // Whoever asked may be gone; the next look sees that nobody attends to it.
                    drop(begun.send(Ok(Begun { id, attached })));
                }
                Err(detail) => {
                    events::not_started(&id, &detail);
                    runs.failed.insert(id, detail.clone());
                    drop(begun.send(Err(detail)));
                }
            }
            drop(runs);
            this.desk.changed().add(app.id.clone());
        });
    }

    async fn start_run_now(
        &self,
        spec: InstanceSpec,
        attach: Option<Attach>,
    ) -> Result<Option<Attached>, String> {
        let may_start = self.starts.read().await;
        if !*may_start {
            return Err("the platform goes down".to_owned());
        }
        let started = match attach {
            Some(how) => self.runtime.start_attached(spec, how).await.map(|(_, attached)| Some(attached)),
            None => self.runtime.start(spec).await.map(|_| None),
        };
        started.map_err(|error| in_full(&error))
    }

    fn run_spec(
        &self,
        app: &App,
        run: &Run,
        id: &InstanceId,
        env: BTreeMap<EnvName, String>,
        attach: Option<Attach>,
    ) -> Result<InstanceSpec, String> {
        let release = app.release(run.release).ok_or("its release is not there")?;
        let artifact = self.artifact_dir(app, release)?;
        let mut all =
            environment::shared(app, release, &artifact, &self.vault).map_err(|error| in_full(&error))?;
        if matches!(attach, Some(Attach::Terminal(_))) {
            all.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        all.extend(env.into_iter().map(|(name, value)| (name.to_string(), value)));
        all.insert("INSTANCE_ID".to_owned(), id.short());
        let mut token = [0; 16];
        hex::decode_to_slice(&run.token, &mut token).map_err(|error| format!("its token: {error}"))?;
        let Surroundings { root, dir, user, mounts, resources, network } =
            self.surroundings(app, release, &id.process, artifact, &mut all).map_err(|(_code, why)| why)?;
        Ok(InstanceSpec {
            id: id.clone(),
            token: berth_runtime::Mark(token),
            command: run.command.clone(),
            env: all,
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

    /// Tells a run to end, in a task of its own.
    pub fn stop_run(self: &Arc<Self>, app: &App, number: RunNumber, why: RunStop) {
        let id = run_id(&app.id, number);
        if !self.notes().stopping.insert(id.clone()) {
            return;
        }
        self.runs().stopped.entry(id.clone()).or_insert(why);
        let shutdown = app.runs.get(&number).and_then(|run| app.release(run.release));
        let how = match (why, shutdown) {
            (RunStop::Unattended, _) | (_, None) => HANG_UP,
            (_, Some(release)) => {
                let shutdown = &release.manifest.shutdown;
                Stop { signal: shutdown.signal.number(), kill_after: shutdown.kill_after }
            }
        };
        events::stopping_instance(&id);
        if self.tell_within(&id, Tell::Stop(how)) {
            self.notes().stopping.remove(&id);
            return;
        }
        let this = Arc::clone(self);
        tasks::run("stopping a one-off command", async move {
            match this.runtime.stop(&id, how).await {
                Ok(_) | Err(RuntimeError::NotFound(_)) => {}
                Err(error) => events::could_not("stop a one-off command", &error),
            }
            this.notes().stopping.remove(&id);
            this.desk.changed().add(id.app);
        });
    }

    /// Sends a run a signal, and leaves it to the run what it makes of it.
    pub async fn signal_run(&self, id: &InstanceId, signal: i32) {
        if self.tell_within(id, Tell::Signal(signal)) {
            return;
        }
        // One that is over needs none.
        drop(self.runtime.signal(id, signal).await);
    }

    /// Which runs of an app are told to end, and the process ids of those that run, with since when.
    #[must_use]
    pub fn run_lives(&self, app: &AppId) -> BTreeMap<RunNumber, (bool, Option<(u32, Timestamp)>)> {
        let runs = self.runtime.list_app(app).into_iter().filter(|it| it.id.process.as_str() == RUN_PROCESS);
        let stopped = self.runs();
        let mut lives: BTreeMap<RunNumber, (bool, Option<(u32, Timestamp)>)> = runs
            .map(|it| {
                let running = match it.state {
                    InstanceState::Running { pid, since } => Some((pid, since)),
                    _ => None,
                };
                (it.id.ordinal, (stopped.stopped.contains_key(&it.id), running))
            })
            .collect();
        // The process id of one within an instance is its shim's business.
        let within = stopped.within.iter().filter(|(id, _)| id.app == *app);
        lives.extend(
            within.map(|(id, it)| (id.ordinal, (stopped.stopped.contains_key(id), Some((0, it.since))))),
        );
        lives
    }

    /// Waits for the end of a run, from its start on: it is forgotten as soon as its end is written down, which may be before whoever is
    /// connected has taken all that it wrote.
    fn run_over(self: &Arc<Self>, id: &InstanceId, command: Command) -> oneshot::Receiver<Ended> {
        let (told, ended) = oneshot::channel();
        let (this, id) = (Arc::clone(self), id.clone());
        tasks::run("waiting for a one-off command", async move {
            let observed = this.runtime.over(&id).await.ok();
            let exit = observed.and_then(|observed| observed.exits.last().copied());
            let why = this.runs().stopped.get(&id).copied();
            let failure = exit.and_then(|exit| exit.failure);
            let unstarted = failure.map(|failure| unstarted(failure, Some(&command)));
            // Whoever was connected may be gone.
            drop(told.send(Ended { exit, unstarted, why }));
        });
        ended
    }

    /// Clears away what there is of a run that the state no longer has.
    pub fn remove_run(self: &Arc<Self>, app: &AppId, number: RunNumber) {
        let id = run_id(app, number);
        let mut runs = self.runs();
        runs.failed.remove(&id);
        runs.stopped.remove(&id);
        runs.within.remove(&id);
        drop(runs);
        if self.runtime.list_app(app).iter().any(|it| it.id == id) {
            self.clear(&id);
        } else {
            self.desk.changed().add(app.clone());
        }
    }
}

/// The field of [`Machine`].
pub(super) type RunNotes = Mutex<Runs>;
