//! What happened, and why it is as it is.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use berth_contract::{
    Code, Evidence, Problem, TimelineEntry, TimelinePage, TimelineQuery, Why, WhyQuery, route,
};
use berth_control::event::{Event, Ordinal, RunNumber, Stream};
use berth_control::state::App;
use berth_journal::{Journal, Position, ReadError, Recorded, StreamName};
use berth_spec::ReleaseNumber;
use berth_spec::name::RUN_PROCESS;

use super::apps::{AppPath, find};
use super::auth::Principal;
use super::problem::{Query, Refused};
use super::words::{say, shown};
use super::{Api, report, views};

const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;
/// How far back an explanation looks: far enough for some hundred deployments.
const WHY_EVENTS: usize = 5_000;

#[utoipa::path(get, path = route::PLATFORM_TIMELINE, tag = "history", params(TimelineQuery),
    responses((status = 200, body = TimelinePage)))]
pub(super) async fn platform_timeline(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Query(query): Query<TimelineQuery>,
) -> Result<Json<TimelinePage>, Refused> {
    let limit = limit(&query);
    let after = after(&query);
    let journal = Arc::clone(&api.journal);
    let events = blocking(move || match after {
        Some(after) => journal.read(Position(after).next(), limit),
        None => journal.read_back(None, limit).map(oldest_first),
    })
    .await?;
    let next = events.last().map_or(after.unwrap_or(0), |event| event.position.0);
    let entries = events.iter().filter_map(entry).filter(|entry| match &entry.app {
        Some(app) => principal.may_see(app),
        None => principal.owns_platform(),
    });
    Ok(Json(TimelinePage { entries: entries.collect(), next }))
}

#[utoipa::path(get, path = route::TIMELINE, tag = "history", responses((status = 200, body = TimelinePage)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), TimelineQuery))]
pub(super) async fn app_timeline(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
    Query(query): Query<TimelineQuery>,
) -> Result<Json<TimelinePage>, Refused> {
    let app = find(&api, &principal, path)?;
    let (limit, after) = (limit(&query), after(&query));
    let events = stream_events(&api, &app, after, limit).await?;
    let next = events.last().map_or(after.unwrap_or(0), |event| event.position.0);
    Ok(Json(TimelinePage { entries: events.iter().filter_map(entry).collect(), next }))
}

fn limit(query: &TimelineQuery) -> usize {
    query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX) as usize
}

/// No journal grows beyond the positions that its database can count, and what is added to one of those does not overflow.
fn after(query: &TimelineQuery) -> Option<u64> {
    query.after.map(|after| after.min(i64::MAX as u64 - 1))
}

fn oldest_first(mut events: Vec<Recorded>) -> Vec<Recorded> {
    events.sort_by_key(|event| event.position);
    events
}

/// The app's events after a position, or its newest.
async fn stream_events(
    api: &Api,
    app: &App,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<Recorded>, Refused> {
    let stream = StreamName::new(&Stream::App(app.id.clone()).to_string()).expect("an id is a short name");
    let journal = Arc::clone(&api.journal);
    blocking(move || match after {
        None => journal.read_stream_back(&stream, None, limit).map(oldest_first),
        Some(after) => first_after(&journal, &stream, after, limit),
    })
    .await
}

/// The first events of a stream after a position. A stream is read by version, so the place is looked for from the newest backwards.
fn first_after(
    journal: &Journal,
    stream: &StreamName,
    after: u64,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    let mut before = None;
    let mut found: VecDeque<Recorded> = VecDeque::new();
    loop {
        let page = journal.read_stream_back(stream, before, LIMIT_MAX as usize)?;
        let reached = page.iter().any(|event| event.position.0 <= after);
        before = page.last().map(|event| event.position);
        for event in page.into_iter().filter(|event| event.position.0 > after) {
            found.push_front(event);
            // Those nearest to the place are wanted, and come last.
            found.truncate(limit);
        }
        if reached || before.is_none() {
            return Ok(found.into());
        }
    }
}

/// Reads the journal where it does not hold up others.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            Err(Problem::new(Code::Internal, format!("reading the journal failed: {error}")).into())
        }
    }
}

fn decoded(event: &Recorded) -> Option<Event> {
    Event::decode(&event.kind, event.schema, &event.body).ok()
}

fn entry(recorded: &Recorded) -> Option<TimelineEntry> {
    let event = decoded(recorded)?;
    let app = match recorded.stream.as_str().parse().ok()? {
        Stream::App(app) => Some(app),
        Stream::Platform => None,
    };
    Some(TimelineEntry {
        position: recorded.position.0,
        at: recorded.meta.at,
        app,
        actor: recorded.meta.actor.clone(),
        correlation: recorded.meta.correlation.clone(),
        kind: recorded.kind.clone(),
        text: say(&event),
        data: shown(&event),
    })
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    App,
    Scale,
    Release(ReleaseNumber),
    Instance(Ordinal),
    Run(RunNumber),
    Process(String),
}

impl Subject {
    fn parse(text: Option<&str>) -> Result<Self, Refused> {
        let Some(text) = text else {
            return Ok(Self::App);
        };
        if text == "scale" {
            return Ok(Self::Scale);
        }
        let instance = text.rsplit_once('.').and_then(|(name, ordinal)| Some((name, ordinal.parse().ok()?)));
        if let Some((name, number)) = instance {
            return Ok(if name == RUN_PROCESS { Self::Run(number) } else { Self::Instance(number) });
        }
        if let (true, Ok(number)) = (text.starts_with('v'), text.parse()) {
            return Ok(Self::Release(number));
        }
        if text.parse::<berth_spec::ProcessName>().is_ok() {
            return Ok(Self::Process(text.to_owned()));
        }
        let detail =
            format!("{text:?} is neither a release (v42), an instance (web.7), a process (web) nor `scale`");
        Err(Problem::new(Code::RequestInvalid, detail).into())
    }

    /// Whether the event has to do with the subject.
    fn concerns(&self, event: &Event, app: &App) -> bool {
        match self {
            Self::App => is_turning_point(event),
            Self::Scale => matches!(event, Event::ScaleChanged { .. }),
            Self::Release(number) => of_release(event) == Some(*number),
            Self::Instance(ordinal) => of_instance(event).contains(ordinal),
            Self::Run(number) => matches!(event,
                Event::RunAssigned { run, .. } | Event::RunEnded { run, .. } if run == number),
            Self::Process(name) => {
                let runs = |it: &Ordinal| app.instances.get(it).is_some_and(|it| it.process.as_str() == name);
                matches!(event, Event::ScaleChanged { processes } if processes.contains_key(name.as_str()))
                    || is_turning_point(event)
                    || of_instance(event).iter().any(runs)
            }
        }
    }
}

/// The events that made an app what it is.
fn is_turning_point(event: &Event) -> bool {
    matches!(
        event,
        Event::AppCreated { .. }
            | Event::ConfigChanged { .. }
            | Event::SecretsChanged { .. }
            | Event::ScaleChanged { .. }
            | Event::DomainsChanged { .. }
            | Event::GateChanged { .. }
            | Event::GitChanged { .. }
            | Event::HookFailed { .. }
            | Event::ReleaseSubmitted(_)
            | Event::TrafficShifted { .. }
            | Event::ReleaseActivated { .. }
            | Event::ReleaseFailed { .. }
            | Event::ReleaseSuperseded { .. }
            | Event::InstanceExited { .. }
            | Event::CronSkipped { .. }
            | Event::CronSetBack { .. }
            | Event::VolumeRemoved { .. }
            | Event::VolumeWorkEnded { .. }
            | Event::AppSlept { .. }
            | Event::AppWoken { .. }
            | Event::AppDestroying { .. }
    ) || matches!(event, Event::RunEnded { end, .. } if !end.detail.is_empty())
}

fn of_release(event: &Event) -> Option<ReleaseNumber> {
    match event {
        Event::ReleaseSubmitted(it) => Some(it.number),
        Event::ReleaseBuilt { number, .. }
        | Event::ReleaseCommandFinished { number }
        | Event::ActivationBegan { number }
        | Event::ProcessesHandedOver { number, .. }
        | Event::InstancesAdopted { number, .. }
        | Event::TrafficShifted { number, .. }
        | Event::ReleaseActivated { number, .. }
        | Event::ReleaseFailed { number, .. }
        | Event::ReleaseSuperseded { number, .. }
        | Event::WarmEnded { number, .. } => Some(*number),
        Event::InstanceAssigned { release, .. } => Some(*release),
        _ => None,
    }
}

fn of_instance(event: &Event) -> Vec<Ordinal> {
    match event {
        Event::InstanceAssigned { ordinal, .. }
        | Event::InstanceStarted { ordinal, .. }
        | Event::InstanceStopping { ordinal, .. }
        | Event::InstanceExited { ordinal, .. }
        | Event::InstanceGone { ordinal, .. } => vec![*ordinal],
        Event::InstancesAdopted { ordinals, .. }
        | Event::Routed { ordinals }
        | Event::AppWoken { ordinals, .. } => ordinals.iter().copied().collect(),
        _ => Vec::new(),
    }
}

#[utoipa::path(get, path = route::WHY, tag = "history", responses((status = 200, body = Why)),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), WhyQuery))]
pub(super) async fn why(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
    Query(query): Query<WhyQuery>,
) -> Result<Json<Why>, Refused> {
    let app = find(&api, &principal, path)?;
    let subject = Subject::parse(query.subject.as_deref())?;
    let question = question(&app, &subject);
    let mut answer = match &subject {
        Subject::Process(name) if !views::scale(&app).0.keys().any(|process| process.as_str() == name) => {
            let problem = Problem::new(Code::ProcessNotFound, format!("{} has no process {name}", app.id));
            return Err(problem.next("`berth ps` shows the processes there are").into());
        }
        Subject::App | Subject::Process(_) => views::state_in_words(&api, &app),
        Subject::Scale => scale_in_words(&app),
        Subject::Release(number) => match app.release(*number) {
            Some(release) => {
                let failure = report::failure(&api, &app, release).await;
                views::release_in_words(&app, release, failure.as_ref())
            }
            None => {
                let detail = format!("{} has no release {number}", app.id);
                let problem = Problem::new(Code::ReleaseNotFound, detail);
                return Err(problem.next("`berth releases` lists them").into());
            }
        },
        Subject::Instance(ordinal) => views::instance_in_words(&api, &app, *ordinal),
        Subject::Run(number) => match app.runs.get(number) {
            Some(run) => format!("run.{number} runs in {}, for {}.", run.release, run.by),
            None => format!("run.{number} is over."),
        },
    };
    let events = stream_events(&api, &app, None, WHY_EVENTS).await?;
    if let Subject::Run(number) = &subject {
        answer = with_last_lines(answer, *number, &events);
    }
    let relevant: Vec<Evidence> = events
        .iter()
        .filter_map(|recorded| Some((recorded, decoded(recorded)?)))
        .filter(|(_, event)| subject.concerns(event, &app))
        .map(|(recorded, event)| Evidence {
            position: recorded.position.0,
            at: recorded.meta.at,
            text: format!("{}: {}", recorded.meta.actor, say(&event)),
        })
        .collect();
    if relevant.is_empty() && matches!(subject, Subject::Instance(_) | Subject::Run(_)) {
        let detail = format!("{} never had that instance", app.id);
        return Err(Problem::new(Code::InstanceNotFound, detail).into());
    }
    // What decided is at the end; a release's own story is told whole.
    let whole = matches!(subject, Subject::Release(_) | Subject::Instance(_) | Subject::Run(_));
    let tail = if whole { 50 } else { 12 };
    let because = relevant.into_iter().rev().take(tail).collect::<Vec<_>>().into_iter().rev().collect();
    Ok(Json(Why { question, answer, because }))
}

/// The answer with the last lines of a command that failed and that nobody watched.
fn with_last_lines(answer: String, number: RunNumber, events: &[Recorded]) -> String {
    let ended = events.iter().rev().find_map(|recorded| match decoded(recorded)? {
        Event::RunEnded { run, end } if run == number => Some(end.detail),
        _ => None,
    });
    match ended.filter(|lines| !lines.is_empty()) {
        None => answer,
        Some(lines) => {
            let lines: Vec<String> = lines.iter().map(|line| format!("  | {line}")).collect();
            format!("{answer} At its end it said:\n{}", lines.join("\n"))
        }
    }
}

fn question(app: &App, subject: &Subject) -> String {
    let name = &app.id.app;
    match subject {
        Subject::App => format!("Why is {name} as it is?"),
        Subject::Scale => format!("Why does {name} have so many instances?"),
        Subject::Release(number) => format!("Why is {number} of {name} as it is?"),
        Subject::Instance(ordinal) => format!("Why is instance {ordinal} of {name} as it is?"),
        Subject::Run(number) => format!("Why did run.{number} of {name} end as it did?"),
        Subject::Process(process) => format!("Why is the process {process} of {name} as it is?"),
    }
}

fn scale_in_words(app: &App) -> String {
    let counts = views::scale(app).0;
    let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
    if counts.is_empty() {
        return "Nothing was deployed yet, so nothing is scaled.".to_owned();
    }
    format!("{} is wanted; a process that nobody scaled has one instance.", counts.join(" "))
}
