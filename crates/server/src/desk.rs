//! The desk where every command is decided: one at a time, in order, ahead of the disk, answered behind it.
//!
//! One task owns the order. It decides on the ledger's speculative state, hands the events to the journal's writer and, when the
//! writer says that they are durable, publishes them and answers. A refusal and "it is so already" rest on the speculative state
//! too, so they are answered only once everything that they rest on is durable. When an append fails everybody who waits is told that
//! nothing was done, and a new epoch begins.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use berth_clock::Clock;
use berth_control::command::{Command, Refusal};
use berth_control::decide;
use berth_control::event::{Event, RunNumber, Stream};
use berth_control::invariant::{Breach, check_answer, check_step};
use berth_control::ledger::{Batch, Ledger};
use berth_control::state::{App, State};
use berth_journal::{
    Append, AppendError, Epoch, Idempotency, Journal, MAX_APPEND_BYTES, Meta, NewEvent, Position, StreamName,
    Ticket, Version,
};
use berth_spec::{AppId, ReleaseNumber};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::events;

/// How many commands may wait for their turn. More wait in their senders, each of which is a request or a pass of the reconciler, and
/// those are bounded where they begin.
const WAITING: usize = 1_024;
/// How long what a command leads to may be when it is encoded, in bytes: what one append takes, less room for who, when and why.
const BATCH_MAX: usize = MAX_APPEND_BYTES - (64 << 10);

/// Who asks, and what ties together all that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// `user:alice`, `token:ci`, or `berth` for the platform itself.
    pub actor: String,
    /// The id of the request that it goes back to.
    pub correlation: String,
}

impl Asker {
    /// The platform itself.
    #[must_use]
    pub fn platform(correlation: &str) -> Self {
        Self { actor: "berth".to_owned(), correlation: correlation.to_owned() }
    }
}

/// By which a repeated request is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The principal within whose keys it is unique.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// A fingerprint of method, path and body.
    pub hash: [u8; 32],
}

/// What a command led to. It is kept beside the idempotency key, so a field may be added and never change its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The release that it made.
    pub release: Option<ReleaseNumber>,
    /// The one-off command that it made.
    #[serde(default)]
    pub run: Option<RunNumber>,
    /// Whether it changed anything.
    pub changed: bool,
    /// The journal's head when it was durable: a state of this position or a later one shows it.
    pub position: u64,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key stands for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The disk is full. Nothing was done.
    #[error("the disk that holds the journal is full")]
    DiskFull,
    /// More than one append takes. Nothing was done.
    #[error("the command holds more than the journal takes at once")]
    TooLarge,
    /// The journal did not take it. Nothing was done.
    #[error("the journal did not take it: {0}")]
    Journal(String),
    /// An append that came before failed and took this one with it. Nothing was done.
    #[error("what came before could not be written, so nothing was done")]
    Discarded,
    /// Control is stopping. The key makes it safe to ask again.
    #[error("control is stopping")]
    Stopping,
}

type Answer = Result<Outcome, SubmitError>;

struct Submission {
    command: Command,
    asker: Asker,
    reason: Option<String>,
    key: Option<RequestKey>,
    reply: oneshot::Sender<Answer>,
}

/// The way to the desk, and a view of what is durable. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    queue: mpsc::Sender<Submission>,
    ledger: Arc<RwLock<Ledger>>,
    durable: watch::Receiver<u64>,
    changed: Arc<Changed>,
    rerouted: Arc<Mutex<BTreeSet<AppId>>>,
}

/// The apps that changed since somebody last asked.
#[derive(Debug, Default)]
pub struct Changed {
    apps: Mutex<BTreeSet<AppId>>,
    notify: tokio::sync::Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Changed {
    /// Adds an app that has to be looked at.
    pub fn add(&self, app: AppId) {
        lock(&self.apps).insert(app);
        self.notify.notify_one();
    }

    /// Adds many.
    pub fn extend(&self, apps: impl IntoIterator<Item = AppId>) {
        lock(&self.apps).extend(apps);
        self.notify.notify_one();
    }

    /// Waits until there is one, and takes them all. One reader.
    pub async fn take(&self) -> BTreeSet<AppId> {
        loop {
            let apps = std::mem::take(&mut *lock(&self.apps));
            if !apps.is_empty() {
                return apps;
            }
            self.notify.notified().await;
        }
    }
}

impl Desk {
    /// Decides on `command`; returns when what follows is durable.
    ///
    /// # Errors
    /// [`SubmitError`]. Only [`SubmitError::Stopping`] leaves open whether it was done.
    pub async fn submit(
        &self,
        command: Command,
        asker: Asker,
        reason: Option<String>,
        key: Option<RequestKey>,
    ) -> Answer {
        let answer = self.enqueue(command, asker, reason, key).await?;
        answer.await.unwrap_or(Err(SubmitError::Stopping))
    }

    /// Like [`Desk::submit`], but returns once the command has its place in the order.
    async fn enqueue(
        &self,
        command: Command,
        asker: Asker,
        reason: Option<String>,
        key: Option<RequestKey>,
    ) -> Result<oneshot::Receiver<Answer>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let submission = Submission { command, asker, reason, key, reply };
        self.queue.send(submission).await.map_err(|_closed| SubmitError::Stopping)?;
        Ok(answer)
    }

    /// Decides on `commands` in this order, without waiting for one before the next; returns when all are answered.
    pub async fn submit_all(&self, commands: Vec<Command>, asker: &Asker) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(self.enqueue(command, asker.clone(), None, None).await);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(SubmitError::Stopping)),
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Looks at what is durable. `look` must be short: the desk waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(self.ledger.read().unwrap_or_else(PoisonError::into_inner).durable())
    }

    /// Looks at what is durable, with the apps that changed since this was last called. One caller; `look` must be short.
    pub fn read_changed<T>(&self, look: impl FnOnce(&State, BTreeSet<AppId>) -> T) -> T {
        let ledger = self.ledger.read().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut *lock(&self.rerouted));
        look(ledger.durable(), changed)
    }

    /// The app as it is durable, unless it never was or is destroyed.
    #[must_use]
    pub fn app(&self, id: &AppId) -> Option<Arc<App>> {
        self.read(|state| state.live_app(id).cloned())
    }

    /// The app as it will be if nothing fails; only for deciding what to ask.
    #[must_use]
    pub fn app_ahead(&self, id: &AppId) -> Option<Arc<App>> {
        let ledger = self.ledger.read().unwrap_or_else(PoisonError::into_inner);
        ledger.speculative().apps.get(id).cloned()
    }

    /// Has nothing decided from here on that a journal of this format does not take.
    pub fn write_format(&self, format: u32) {
        self.ledger.write().unwrap_or_else(PoisonError::into_inner).write_format(format);
    }

    /// The format of the journal that decisions are written in.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner).format()
    }

    /// The durable position, to be watched.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// The apps whose reconciler has to look again.
    #[must_use]
    pub fn changed(&self) -> &Arc<Changed> {
        &self.changed
    }
}

/// Whoever waits for a place in the journal to be durable.
struct Waiting {
    /// `None` for an answer that only waits for what is before it.
    ticket: Option<Ticket>,
    position: u64,
    stream: Option<Stream>,
    key: Option<RequestKey>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

/// The task behind the desk.
#[derive(Debug)]
pub struct DeskTask {
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    ledger: Arc<RwLock<Ledger>>,
    epoch: Epoch,
    queue: mpsc::Receiver<Submission>,
    durable: watch::Sender<u64>,
    changed: Arc<Changed>,
    rerouted: Arc<Mutex<BTreeSet<AppId>>>,
}

/// Opens the desk on a state that was replayed from `journal`.
pub async fn open(journal: Arc<Journal>, clock: Arc<dyn Clock>, replayed: State) -> (Desk, DeskTask) {
    let epoch = journal.begin_epoch().await.epoch;
    let (submissions, queue) = mpsc::channel(WAITING);
    let (announce, durable) = watch::channel(replayed.position);
    let changed = Arc::new(Changed::default());
    let mut ledger = Ledger::new(replayed);
    ledger.write_format(journal.format());
    let ledger = Arc::new(RwLock::new(ledger));
    let rerouted = Arc::default();
    let task = DeskTask {
        journal,
        clock,
        ledger: Arc::clone(&ledger),
        epoch,
        queue,
        durable: announce,
        changed: Arc::clone(&changed),
        rerouted: Arc::clone(&rerouted),
    };
    (Desk { queue: submissions, ledger, durable, changed, rerouted }, task)
}

impl DeskTask {
    /// Works until every [`Desk`] is gone, then answers what is still waiting.
    pub async fn run(mut self) {
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        loop {
            let front = waiting.front_mut().map(|it| it.ticket.as_mut());
            let settled = match front {
                // Nothing before it is on its way any more.
                Some(None) => Some(Ok(())),
                Some(Some(ticket)) => tokio::select! {
                    biased;
                    answer = ticket => Some(answer.map(|_committed| ())),
                    submission = self.queue.recv() => match submission {
                        Some(submission) => {
                            self.decide(submission, &mut waiting).await;
                            None
                        }
                        None => Some(self.last_answer(&mut waiting).await),
                    },
                },
                None => match self.queue.recv().await {
                    Some(submission) => {
                        self.decide(submission, &mut waiting).await;
                        None
                    }
                    None => return,
                },
            };
            match settled {
                Some(Ok(())) => self.publish(&mut waiting),
                Some(Err(error)) => self.fail(error, &mut waiting).await,
                None => {}
            }
        }
    }

    async fn last_answer(&mut self, waiting: &mut VecDeque<Waiting>) -> Result<(), AppendError> {
        match waiting.front_mut().and_then(|it| it.ticket.as_mut()) {
            Some(ticket) => ticket.await.map(|_committed| ()),
            None => Ok(()),
        }
    }

    async fn decide(&mut self, submission: Submission, waiting: &mut VecDeque<Waiting>) {
        let Submission { command, asker, reason, key, reply } = submission;
        if let Some(key) = &key
            && let Some(repeated) = self.repeated(key, waiting)
        {
            match repeated {
                Repeat::InFlight(index, answer) => waiting[index].answers.push((reply, answer)),
                Repeat::Settled(answer) => send(reply, answer),
            }
            return;
        }
        // Taken before deciding: what is decided must not get lost on its way into the queue.
        let journal = Arc::clone(&self.journal);
        let permit = journal.reserve().await;
        let meta = Meta { at: self.clock.now(), actor: asker.actor, correlation: asker.correlation, reason };
        let (before, decided, position) = {
            let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
            if is_too_large(ledger.speculative(), &command) {
                send(reply, Err(SubmitError::TooLarge));
                return;
            }
            let before = match &command {
                Command::App { app, .. } | Command::Fact { app, .. } => {
                    ledger.speculative().apps.get(app).cloned()
                }
                Command::EnsureProject { .. }
                | Command::IssueToken { .. }
                | Command::ChangeCertificates { .. }
                | Command::ReportBreach { .. } => None,
            };
            let decided = ledger.submit(&command, meta.at, &meta.actor);
            (before, decided, ledger.speculative().position)
        };
        let (batch, answer) = match decided {
            Ok(Some(batch)) => {
                self.check(before.as_deref(), &batch);
                let (release, run) = (released(&batch.events), begun(&batch.events));
                let answer = Outcome { release, run, changed: true, position };
                (Some(batch), Ok(answer))
            }
            Ok(None) => (None, Ok(Outcome { release: None, run: None, changed: false, position })),
            Err(refusal) => (None, Err(SubmitError::Refused(refusal))),
        };
        let stream = batch.as_ref().map(|batch| batch.stream.clone());
        let kept = key.as_ref().filter(|_| answer.is_ok());
        let ticket = match (&batch, kept) {
            (None, None) => None,
            _ => Some(permit.append(self.append(batch, meta, kept, answer.as_ref().ok()))),
        };
        waiting.push_back(Waiting { ticket, position, stream, key, answers: vec![(reply, answer)] });
    }

    fn append(
        &self,
        batch: Option<Batch>,
        meta: Meta,
        key: Option<&RequestKey>,
        outcome: Option<&Outcome>,
    ) -> Append {
        let idempotency = key.map(|key| Idempotency {
            scope: key.scope.clone(),
            key: key.key.clone(),
            request_hash: key.hash,
            result: serde_json::to_vec(&outcome).expect("an outcome is plain data"),
        });
        let stream = batch.as_ref().map_or_else(|| Stream::Platform, |batch| batch.stream.clone());
        let expected = batch.as_ref().map_or_else(
            || self.ledger.read().unwrap_or_else(PoisonError::into_inner).speculative().version(&stream),
            |batch| batch.expected,
        );
        let first = batch.as_ref().map(|batch| Position(batch.first));
        let events = batch.into_iter().flat_map(|batch| batch.events).map(|event| NewEvent {
            kind: event.kind().into(),
            schema: Event::SCHEMA,
            body: event.encode(),
        });
        Append {
            epoch: self.epoch,
            stream: StreamName::new(&stream.to_string()).expect("ids are short and of a small alphabet"),
            expected: Version(expected),
            first,
            events: events.collect(),
            meta,
            idempotency,
        }
    }

    /// What a request with this key leads to or has led to.
    ///
    /// Looked up on this thread: an indexed row, some 20 microseconds. On another it could wait behind whatever holds that one, and every
    /// command behind it.
    fn repeated(&self, key: &RequestKey, waiting: &VecDeque<Waiting>) -> Option<Repeat> {
        let same = |it: &RequestKey| it.scope == key.scope && it.key == key.key;
        let in_flight = waiting.iter().enumerate().rev().find(|(_, it)| it.key.as_ref().is_some_and(same));
        if let Some((index, found)) = in_flight {
            let reused = found.key.as_ref().is_some_and(|it| it.hash != key.hash);
            let answer = found.answers.first().map(|(_, answer)| answer.clone());
            return Some(match answer {
                Some(answer) if !reused => Repeat::InFlight(index, answer),
                _ => Repeat::Settled(Err(SubmitError::KeyReused)),
            });
        }
        let settled = match self.journal.idempotent(&key.scope, &key.key) {
            Ok(None) => return None,
            Ok(Some(found)) if found.request_hash != key.hash => Err(SubmitError::KeyReused),
            Ok(Some(found)) => serde_json::from_slice(&found.result)
                .map_err(|error| SubmitError::Journal(format!("a kept answer cannot be read: {error}"))),
            Err(error) => Err(SubmitError::Journal(error.to_string())),
        };
        Some(Repeat::Settled(settled))
    }

    /// The front is durable.
    fn publish(&mut self, waiting: &mut VecDeque<Waiting>) {
        let Some(done) = waiting.pop_front() else {
            return;
        };
        let durable = {
            let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
            ledger.committed(done.position);
            // Below the lock: whoever looks at the state of a position knows which apps became what they are on the way there.
            if let Some(Stream::App(app)) = &done.stream {
                lock(&self.rerouted).insert(app.clone());
            }
            ledger.durable().position
        };
        events::breach(check_answer(done.position, durable));
        self.durable.send_if_modified(|position| std::mem::replace(position, durable) != durable);
        if let Some(Stream::App(app)) = done.stream {
            self.changed.add(app);
        }
        for (reply, answer) in done.answers {
            send(reply, answer);
        }
    }

    /// The front could not be appended: nothing decided since the last durable event counts.
    async fn fail(&mut self, error: AppendError, waiting: &mut VecDeque<Waiting>) {
        events::append_failed(&error, waiting.len());
        self.ledger.write().unwrap_or_else(PoisonError::into_inner).failed();
        let (own, others) = match error {
            AppendError::Full { .. } => (SubmitError::DiskFull, SubmitError::DiskFull),
            AppendError::TooLarge { .. } => (SubmitError::TooLarge, SubmitError::Discarded),
            AppendError::DuplicateKey { .. } => (SubmitError::KeyReused, SubmitError::Discarded),
            AppendError::Closed => (SubmitError::Stopping, SubmitError::Stopping),
            other => (SubmitError::Journal(other.to_string()), SubmitError::Discarded),
        };
        let answers = [own].into_iter().chain(std::iter::repeat(others));
        for (it, answer) in waiting.drain(..).zip(answers) {
            for (reply, _) in it.answers {
                send(reply, Err(answer.clone()));
            }
        }
        self.epoch = self.journal.begin_epoch().await.epoch;
    }

    fn check(&self, before: Option<&App>, batch: &Batch) {
        let Stream::App(id) = &batch.stream else {
            return;
        };
        let fresh = App::new(id.clone());
        let after = {
            let ledger = self.ledger.read().unwrap_or_else(PoisonError::into_inner);
            ledger.speculative().apps.get(id).cloned()
        };
        if let Some(after) = after {
            events::breach(check_step(before.unwrap_or(&fresh), &batch.events, &after));
        }
    }
}

/// Whether what somebody wishes is more than one append takes. Found out before it is decided for good: a failed append would take with it
/// what others asked for meanwhile. Facts are bounded where they are found.
fn is_too_large(state: &State, command: &Command) -> bool {
    let Command::App { .. } = command else {
        return false;
    };
    // What is refused is told so by the decision itself.
    let events = decide::decide(state, command).map(|decision| decision.events).unwrap_or_default();
    events.iter().map(|event| event.encode().len()).sum::<usize>() > BATCH_MAX
}

enum Repeat {
    InFlight(usize, Answer),
    Settled(Answer),
}

fn send(reply: oneshot::Sender<Answer>, answer: Answer) {
    // Whoever asked may have gone; what was decided stands all the same.
    drop(reply.send(answer));
}

fn begun(events: &[Event]) -> Option<RunNumber> {
    events.iter().find_map(|event| match event {
        Event::RunAssigned { run, .. } => Some(*run),
        _ => None,
    })
}

fn released(events: &[Event]) -> Option<ReleaseNumber> {
    events.iter().find_map(|event| match event {
        Event::ReleaseSubmitted(release) => Some(release.number),
        _ => None,
    })
}

/// A breach of an invariant, as a command that writes it down.
#[must_use]
pub fn breach_report(breach: &Breach) -> Command {
    Command::ReportBreach { invariant: breach.invariant.id().to_owned(), detail: breach.detail.clone() }
}

#[cfg(test)]
mod tests;
