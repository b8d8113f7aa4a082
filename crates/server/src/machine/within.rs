//! One-off commands that run within an instance of the app's: asked of its shim, spoken to like any other, and of no life of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_control::event::{Ordinal, RunEnd, RunStop};
use berth_control::state::{App, Run};
use berth_runtime::{Attach, Attached, Exec, Executing, Stop};
use berth_spec::{Command, EnvName, InstanceId, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::evidence::unstarted;
use super::instances::exit;
use super::runs::{Begun, Ended, Order};
use super::{Machine, environment, in_full};
use crate::{events, tasks};

/// Signals that wait for a command: whoever is connected sends few.
const TOLD: usize = 16;

/// What is known of such a command.
#[derive(Debug)]
pub(super) struct Within {
    pub(super) token: String,
    pub(super) since: Timestamp,
    /// How it ended, once it has.
    pub(super) ended: Option<RunEnd>,
    orders: mpsc::Sender<Tell>,
}

/// What such a command is told.
#[derive(Debug)]
pub(super) enum Tell {
    /// A signal, and it is left to the command what it makes of it.
    Signal(i32),
    /// To end.
    Stop(Stop),
}

impl Machine {
    /// Starts a run within an instance. Should that fail, the next look shows why.
    pub(super) async fn start_within(
        self: &Arc<Self>,
        app: &App,
        run: &Run,
        id: &InstanceId,
        ordinal: Ordinal,
        order: Order,
    ) {
        let Order { env, attach, begun } = order;
        let started = self.execute(app, run, ordinal, env, attach).await;
        let mut runs = self.runs();
        runs.starting.remove(id);
        match started {
            Ok((attached, executing)) => {
                events::started_instance(id, None);
                let (orders, told) = mpsc::channel(TOLD);
                let (tell_end, ended) = oneshot::channel();
                let within =
                    Within { token: run.token.clone(), since: self.clock.now(), ended: None, orders };
                runs.within.insert(id.clone(), within);
                // Whoever asked may be gone; the next look sees that nobody attends to it.
                drop(begun.send(Ok(Begun { id: id.clone(), attached: Some((attached, ended)) })));
                let (this, id, command) = (Arc::clone(self), id.clone(), run.command.clone());
                tasks::run("waiting for a command within an instance", async move {
                    let exit = converse(executing, told).await;
                    this.end_within(&id, &command, exit, tell_end);
                });
            }
            Err(detail) => {
                events::not_started(id, &detail);
                runs.failed.insert(id.clone(), detail.clone());
                drop(begun.send(Err(detail)));
            }
        }
        drop(runs);
        self.desk.changed().add(app.id.clone());
    }

    async fn execute(
        &self,
        app: &App,
        run: &Run,
        ordinal: Ordinal,
        env: BTreeMap<EnvName, String>,
        attach: Option<Attach>,
    ) -> Result<(Attached, Executing), String> {
        let instance = app.instance_id(ordinal).ok_or("its instance is gone")?;
        if self.stands_still(&instance) {
            return Err("the app sleeps, and its instance stands still; a request wakes it".to_owned());
        }
        let release = app.release(run.release).ok_or("its release is not there")?;
        let artifact = self.artifact_dir(app, release)?;
        let mut known =
            environment::shared(app, release, &artifact, &self.vault).map_err(|error| in_full(&error))?;
        let mut more: BTreeMap<String, String> =
            env.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        if matches!(attach, Some(Attach::Terminal(_))) && !known.contains_key("TERM") {
            more.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        known.extend(more.clone());
        let how = attach.unwrap_or(Attach::Pipes);
        let command = Exec {
            argv: run.command.argv(&known).map_err(|error| in_full(&error))?,
            env: more.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            terminal: matches!(how, Attach::Terminal(_)),
        };
        self.runtime.exec(&instance, command, how).await.map_err(|error| in_full(&error))
    }

    /// Tells a run something, if it is one within an instance.
    pub(super) fn tell_within(&self, id: &InstanceId, what: Tell) -> bool {
        let runs = self.runs();
        let Some(within) = runs.within.get(id) else { return false };
        // One that is told more than it hears has enough to do.
        drop(within.orders.try_send(what));
        true
    }

    fn end_within(
        &self,
        id: &InstanceId,
        command: &Command,
        ended: Option<berth_runtime::Exit>,
        tell_end: oneshot::Sender<Ended>,
    ) {
        let mut runs = self.runs();
        let told = runs.stopped.get(id).copied();
        let unstarted =
            ended.and_then(|ended| ended.failure).map(|failure| unstarted(failure, Some(command)));
        let why = match (&ended, &unstarted) {
            (None, _) => told.or(Some(RunStop::Lost)),
            (Some(_), Some(_)) => Some(RunStop::NotStarted),
            (Some(_), None) => told,
        };
        let detail = unstarted.iter().cloned().collect();
        let end = RunEnd { exit: ended.as_ref().map(exit), why, detail };
        if let Some(within) = runs.within.get_mut(id) {
            within.ended = Some(end);
        }
        drop(runs);
        // Whoever was connected may be gone.
        drop(tell_end.send(Ended { exit: ended, unstarted, why: told }));
        self.desk.changed().add(id.app.clone());
    }
}

/// Passes on what a command is told until it has ended. One that does not heed being told to stop is killed, by hanging up.
async fn converse(mut executing: Executing, mut told: mpsc::Receiver<Tell>) -> Option<berth_runtime::Exit> {
    loop {
        let tell = tokio::select! {
            exit = executing.over() => return exit,
            Some(tell) = told.recv() => tell,
        };
        match tell {
            Tell::Signal(signal) => executing.signal(signal).await,
            Tell::Stop(how) => {
                executing.signal(how.signal).await;
                let over = tokio::time::timeout(how.kill_after.as_duration(), executing.over());
                return over.await.ok().flatten();
            }
        }
    }
}
