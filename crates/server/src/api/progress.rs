//! How a deployment is getting on, as server-sent events that can be resumed.
//!
//! The journal is followed from the release's submission on, so that whoever comes late, or comes back with `Last-Event-ID`, sees what the
//! others saw. Lines of the build's output are not in the journal: they are there while the build runs and for some time after, and
//! are told in between.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use berth_contract::route::{self, EVENT_PROBLEM, EVENT_PROGRESS, LAST_EVENT_ID};
use berth_contract::{Code, OutputLine, Problem, ProgressEvent, Stage};
use berth_control::event::{Event, Stream};
use berth_control::state::Phase;
use berth_journal::{Position, Recorded, Subscription};
use berth_spec::{AppId, ReleaseNumber, Timestamp};
use futures_util::stream::{self, Stream as SseStream};

use super::auth::Principal;
use super::problem::Refused;
use super::releases::{ReleasePath, find_release};
use super::words::say;
use super::{Api, views};
use crate::machine::BuildOutput;

/// How many events are read from the journal at a time.
const READ: usize = 256;
/// How often a comment is sent on a quiet stream, so that whatever is in between does not give it up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[utoipa::path(get, path = route::PROGRESS, tag = "releases",
    responses((status = 200, description = "Server-sent events `progress`, each a ProgressEvent, to the release's end",
        body = ProgressEvent, content_type = "text/event-stream")),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), ("number" = String, Path),
        ("Last-Event-ID" = Option<String>, Header)))]
pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: ReleasePath,
    headers: HeaderMap,
) -> Result<Sse<impl SseStream<Item = Result<SseEvent, Infallible>>>, Refused> {
    let (app, number) = find_release(&api, &principal, path)?;
    let seen = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let (seen, line) = seen.map_or((0, 0), parse_id);
    let follower = Follower::begin(api, &app, number, seen, line);
    let events = stream::unfold(follower, |mut follower| async move {
        let event = match follower.next().await? {
            Ok((line, progress)) => event(line, &progress),
            Err(problem) => SseEvent::default().event(EVENT_PROBLEM).json_data(&problem).ok()?,
        };
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// `position` or `position.line`: the lines of a build's output stand between two events.
fn parse_id(id: &str) -> (u64, usize) {
    let (position, line) = id.split_once('.').unwrap_or((id, "0"));
    (position.parse().unwrap_or(0), line.parse().unwrap_or(0))
}

/// Whoever follows a deployment, with what he has seen of it.
pub(crate) struct Follower {
    api: Arc<Api>,
    app: AppId,
    /// The name of the app's stream.
    stream: String,
    number: ReleaseNumber,
    subscription: Subscription,
    outputs: BuildOutput,
    /// The client has what happened up to this position.
    seen: u64,
    /// The position of the last event of the release that was met.
    position: u64,
    /// How many lines of the output were made ready.
    line: usize,
    stage: Stage,
    /// What is to be sent, each with the number of lines that were sent by then. At most what one look gives: some hundred events and the
    /// lines that an output keeps.
    ready: VecDeque<(usize, ProgressEvent)>,
    ended: bool,
}

impl Follower {
    /// Begins behind the event at position `seen` and the first `line` lines of the build's output.
    pub(crate) fn begin(api: Arc<Api>, app: &AppId, number: ReleaseNumber, seen: u64, line: usize) -> Self {
        let known = api.desk.read(|state| state.apps.get(app).and_then(|app| app.release(number).cloned()));
        let outputs =
            api.machine.build_output(app, number, known.as_ref().is_none_or(|it| it.phase.is_settled()));
        Self {
            // From its submission on even when it is resumed: what it is at follows from all that came before.
            subscription: api.journal.subscribe(Position(known.map_or(1, |it| it.submitted_position))),
            // A control that was started since builds anew and counts anew.
            line: if line <= outputs.count() { line } else { 0 },
            outputs,
            stream: Stream::App(app.clone()).to_string(),
            api,
            app: app.clone(),
            number,
            seen,
            position: 0,
            stage: Stage::Submitted,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// What happened next, with how many lines of output were told by then; nothing after the end.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, ProgressEvent), Problem>> {
        loop {
            if let Some((line, progress)) = self.ready.pop_front() {
                self.ended = progress.stage.is_end();
                return Some(Ok((line, progress)));
            }
            if self.ended || self.is_told() {
                return None;
            }
            tokio::select! {
                biased;
                there = self.subscription.ready() => {
                    if !there {
                        return None;
                    }
                    match self.subscription.take(READ) {
                        Ok(events) => {
                            self.until_shown(&events).await;
                            self.take_in(&events);
                        }
                        Err(error) => {
                            self.ended = true;
                            return Some(Err(Problem::new(Code::Internal, error.to_string())));
                        }
                    }
                }
                lines = self.outputs.after(self.line) => self.take_lines(lines),
            }
        }
    }

    /// Waits until the state shows these events. The journal has them a moment earlier, and a client that was told of the end and asks
    /// for the release must see its end.
    async fn until_shown(&self, events: &[Recorded]) {
        if let Some(last) = events.last() {
            let mut durable = self.api.desk.durable();
            // It fails when control ends, and this stream with it.
            let _shown = durable.wait_for(|position| *position >= last.position.0).await;
        }
    }

    /// Whether the release is settled and everything about it was read: a client that comes back after the end is told that it is over.
    fn is_told(&self) -> bool {
        let over = self.api.desk.read(|state| {
            let release = state.apps.get(&self.app).and_then(|app| app.release(self.number));
            release.is_none_or(|release| release.phase.is_settled())
        });
        over && self.subscription.position() > self.api.journal.head()
    }

    fn progress(&self, at: Timestamp, stage: Stage, text: String, log: Option<OutputLine>) -> ProgressEvent {
        // Lines that come before the client's last event was met again belong after that.
        let position = self.position.max(self.seen);
        ProgressEvent { position, at, release: self.number, stage, text, log, failure: None }
    }

    fn take_lines(&mut self, lines: Vec<String>) {
        let at = self.api.clock.now();
        for text in lines {
            self.line += 1;
            let log = OutputLine { stream: berth_contract::LogStream::Stdout, text };
            self.ready.push_back((self.line, self.progress(at, Stage::Building, String::new(), Some(log))));
        }
    }

    fn take_in(&mut self, events: &[Recorded]) {
        for recorded in events {
            if recorded.stream.as_str() != self.stream {
                continue;
            }
            let Ok(event) = Event::decode(&recorded.kind, recorded.schema, &recorded.body) else {
                continue;
            };
            let Some(stage) = self.stage_of(&event) else {
                continue;
            };
            if matches!(stage, Stage::Built | Stage::Failed) {
                // All that was printed was printed before: the reason of a failure must not be lost behind the end.
                self.take_lines(self.outputs.so_far(self.line));
            }
            self.stage = stage;
            self.position = recorded.position.0;
            if self.position <= self.seen {
                continue;
            }
            let mut progress = self.progress(recorded.meta.at, stage, say(&event), None);
            if let Event::ReleaseFailed { failure, .. } = &event {
                progress.failure = Some(views::failure(failure));
            }
            self.ready.push_back((self.line, progress));
        }
    }

    /// The event comes for every release. To somebody who watches one that runs no release command it would say nothing.
    fn has_release_command(&self) -> bool {
        self.api.desk.read(|state| {
            let release = state.apps.get(&self.app).and_then(|app| app.release(self.number));
            release.is_some_and(|release| release.release_command().is_some())
        })
    }

    fn stage_of(&self, event: &Event) -> Option<Stage> {
        let number = self.number;
        let activating = || {
            let app = self.api.desk.read(|state| state.apps.get(&self.app).cloned());
            app.is_some_and(|app| {
                app.release(number).is_some_and(|release| release.phase >= Phase::Activating)
            })
        };
        match event {
            Event::ReleaseSubmitted(it) if it.number == number => Some(Stage::Submitted),
            Event::ReleaseBuilt { number: it, .. } if *it == number => Some(Stage::Built),
            Event::ActivationBegan { number: it } if *it == number => Some(Stage::Starting),
            Event::ReleaseCommandFinished { number: it } if *it == number && self.has_release_command() => {
                Some(Stage::ReleaseCommand)
            }
            Event::InstanceAssigned { release, .. } if *release == number => Some(Stage::Starting),
            Event::InstancesAdopted { number: it, .. } if *it == number => Some(Stage::Ready),
            Event::Routed { .. }
                if matches!(self.stage, Stage::Starting | Stage::Ready | Stage::Shifting) && activating() =>
            {
                Some(Stage::Shifting)
            }
            Event::TrafficShifted { number: it, .. } if *it == number => Some(Stage::Shifting),
            Event::ReleaseActivated { number: it, .. } if *it == number => Some(Stage::Active),
            Event::ReleaseFailed { number: it, .. } if *it == number => Some(Stage::Failed),
            Event::ReleaseSuperseded { number: it, .. } if *it == number => Some(Stage::Superseded),
            _ => None,
        }
    }
}

/// Every id says how many lines were sent, so that a client that resumes at an event is not sent them again.
fn event(line: usize, progress: &ProgressEvent) -> SseEvent {
    let id = match line {
        0 => progress.position.to_string(),
        line => format!("{}.{line}", progress.position),
    };
    let event = SseEvent::default().event(EVENT_PROGRESS).id(id);
    event.json_data(progress).unwrap_or_else(|_never| SseEvent::default())
}
