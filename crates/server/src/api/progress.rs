//! How a deployment is getting on, as server-sent events that can be resumed.
//!
//! The journal is followed from the release's submission on, so that whoever comes late, or comes back with `Last-Event-ID`, sees what the
//! others saw. Lines of the build's output are not in the journal: they are there while the build runs and for some time after, and
//! are told in between.

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
use berth_control::state::{App, Phase};
use berth_journal::{Position, Recorded, Subscription};
use berth_spec::{AppId, ReleaseNumber, Timestamp};
use futures_util::stream::{self, Stream as SseStream};

use super::auth::Principal;
use super::problem::Refused;
use super::releases::{ReleasePath, find_release};
use super::words::say;
use super::{Api, views};

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
    let after = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let (after, line) = after.map_or((0, 0), parse_id);
    let begin = api.desk.read(|state| state.apps.get(&app).and_then(|app| submitted_before(app, number)));
    let from = Position(after.max(begin.unwrap_or(0)) + 1);
    let follower = Follower {
        subscription: api.journal.subscribe(from),
        outputs: api.machine.build_output(&app, number),
        api,
        app,
        number,
        position: after,
        line,
        stage: Stage::Submitted,
        ready: Vec::new(),
        ended: false,
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// A position from which reading on meets the release's submission: that of nothing, unless the app's stream is known to be long.
fn submitted_before(app: &App, number: ReleaseNumber) -> Option<u64> {
    app.release(number).map(|release| release.submitted_position.saturating_sub(1))
}

/// `position` or `position.line`: the lines of a build's output stand between two events.
fn parse_id(id: &str) -> (u64, usize) {
    let (position, line) = id.split_once('.').unwrap_or((id, "0"));
    (position.parse().unwrap_or(0), line.parse().unwrap_or(0))
}

struct Follower {
    api: Arc<Api>,
    app: AppId,
    number: ReleaseNumber,
    subscription: Subscription,
    outputs: crate::machine::BuildOutput,
    position: u64,
    line: usize,
    stage: Stage,
    ready: Vec<ProgressEvent>,
    ended: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if !self.ready.is_empty() {
                let progress = self.ready.remove(0);
                self.ended = progress.stage.is_end();
                return Some(self.event(&progress));
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                there = self.subscription.ready() => {
                    if !there {
                        return None;
                    }
                    match self.subscription.take(READ) {
                        Ok(events) => self.take_in(&events),
                        Err(error) => {
                            self.ended = true;
                            let problem = Problem::new(Code::Internal, error.to_string());
                            return SseEvent::default().event(EVENT_PROBLEM).json_data(&problem).ok();
                        }
                    }
                }
                lines = self.outputs.after(self.line) => {
                    for text in lines {
                        self.line += 1;
                        let log = OutputLine { stream: berth_contract::LogStream::Stdout, text };
                        let at = self.api.clock.now();
                        self.ready.push(self.progress(at, Stage::Building, String::new(), Some(log)));
                    }
                }
            }
        }
    }

    fn event(&self, progress: &ProgressEvent) -> SseEvent {
        let id = match &progress.log {
            Some(_) => format!("{}.{}", progress.position, self.line),
            None => progress.position.to_string(),
        };
        let event = SseEvent::default().event(EVENT_PROGRESS).id(id);
        event.json_data(progress).unwrap_or_else(|_never| SseEvent::default())
    }

    fn progress(&self, at: Timestamp, stage: Stage, text: String, log: Option<OutputLine>) -> ProgressEvent {
        ProgressEvent { position: self.position, at, release: self.number, stage, text, log, failure: None }
    }

    fn take_in(&mut self, events: &[Recorded]) {
        let stream = Stream::App(self.app.clone()).to_string();
        for recorded in events.iter().filter(|recorded| recorded.stream.as_str() == stream) {
            let Ok(event) = Event::decode(&recorded.kind, recorded.schema, &recorded.body) else {
                continue;
            };
            if let Some(stage) = self.stage_of(&event) {
                self.stage = stage;
                self.position = recorded.position.0;
                let mut progress = self.progress(recorded.meta.at, stage, say(&event), None);
                if let Event::ReleaseFailed { failure, .. } = &event {
                    progress.failure = Some(views::failure(failure));
                }
                self.ready.push(progress);
            }
        }
        // The end of a release that was settled before its app was destroyed and made anew is not met again.
        let known = self
            .api
            .desk
            .read(|state| state.apps.get(&self.app).and_then(|app| app.release(self.number).cloned()));
        let over = known.is_none_or(|release| release.phase.is_settled());
        if over && self.ready.is_empty() && self.subscription.position().0 > self.api.journal.head().0 {
            self.ended = true;
        }
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
            Event::ReleaseCommandFinished { number: it } if *it == number => Some(Stage::ReleaseCommand),
            Event::InstanceAssigned { release, .. } if *release == number => Some(Stage::Starting),
            Event::InstancesAdopted { number: it, .. } if *it == number => Some(Stage::Ready),
            Event::Routed { .. }
                if matches!(self.stage, Stage::Starting | Stage::Ready | Stage::Shifting) && activating() =>
            {
                Some(Stage::Shifting)
            }
            Event::ReleaseActivated { number: it, .. } if *it == number => Some(Stage::Active),
            Event::ReleaseFailed { number: it, .. } if *it == number => Some(Stage::Failed),
            Event::ReleaseSuperseded { number: it, .. } if *it == number => Some(Stage::Superseded),
            _ => None,
        }
    }
}
