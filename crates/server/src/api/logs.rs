//! An app's log as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use berth_contract::route::{self, EVENT_LINE, EVENT_PROBLEM, LAST_EVENT_ID};
use berth_contract::{Code, LogLine, LogQuery, LogStream, Problem};
use berth_shim::record::Stream;
use futures_util::stream::{self, Stream as SseStream};
use tokio::sync::Semaphore;

use super::Api;
use super::apps::{AppPath, find};
use super::auth::Principal;
use super::problem::{Query, Refused};
use crate::machine::app_log::{AppCursor, AppLog, Filter, Line};

const LINES: u32 = 100;
const LINES_MAX: u32 = 10_000;
/// How often a followed log is looked at: below what a person notices, and nothing beside what printing costs.
const LOOK: Duration = Duration::from_millis(150);
/// How many looks are taken at a time.
static LOOKING: Semaphore = Semaphore::const_new(8);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[utoipa::path(get, path = route::LOGS, tag = "apps",
    responses((status = 200, description = "Server-sent events `line`, each a LogLine; its id is the cursor to resume at",
        body = LogLine, content_type = "text/event-stream")),
    params(("tenant" = String, Path), ("project" = String, Path), ("app" = String, Path), LogQuery,
        ("Last-Event-ID" = Option<String>, Header)))]
pub(super) async fn lines(
    State(api): State<Arc<Api>>,
    principal: Principal,
    path: AppPath,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl SseStream<Item = Result<SseEvent, Infallible>>>, Refused> {
    let app = find(&api, &principal, path)?;
    let resumed = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let after = match resumed.or(query.after) {
        None => None,
        Some(text) => Some(
            text.parse::<AppCursor>()
                .map_err(|error| Problem::new(Code::RequestInvalid, error.to_string()))?,
        ),
    };
    let follower = Follower {
        log: api.machine.log(&app.id),
        filter: Filter {
            process: query.process.map(|process| process.to_string()),
            instance: query.instance,
        },
        count: query.lines.unwrap_or(LINES).min(LINES_MAX) as usize,
        follow: query.follow,
        place: after,
        ready: std::collections::VecDeque::new(),
        over: false,
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Follower {
    log: AppLog,
    filter: Filter,
    count: usize,
    follow: bool,
    /// Behind what was sent; `None` before the first look.
    place: Option<AppCursor>,
    ready: std::collections::VecDeque<Line>,
    over: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                let place = self.place.get_or_insert_default();
                place.pass(&line);
                return Some(event(place.to_string(), line));
            }
            if self.over {
                return None;
            }
            let first = self.place.is_none();
            if let Err(error) = self.look().await {
                self.over = true;
                let problem = Problem::new(Code::Internal, format!("the log cannot be read: {error}"));
                return SseEvent::default().event(EVENT_PROBLEM).json_data(&problem).ok();
            }
            // The newest lines are one look; from a cursor on all that is there, which may take several.
            self.over = !self.follow && (first || self.ready.is_empty());
            if self.follow && !first && self.ready.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn look(&mut self) -> std::io::Result<()> {
        let (log, filter, count, place) =
            (self.log.clone(), self.filter.clone(), self.count, self.place.clone());
        // The disk takes no more from many followers at once than from a few, and others need its threads.
        let _turn = LOOKING.acquire().await.map_err(std::io::Error::other)?;
        let looked = tokio::task::spawn_blocking(move || match place {
            None => log.tail(&filter, count),
            Some(place) => log.read(&filter, &place),
        });
        let (lines, next) = looked.await.map_err(std::io::Error::other)??;
        self.ready.extend(lines);
        self.place = Some(next);
        Ok(())
    }
}

fn event(cursor: String, line: Line) -> SseEvent {
    let shown = LogLine {
        cursor: cursor.clone(),
        at: line.at,
        process: line.instance.process.clone(),
        instance: line.instance,
        stream: match line.stream {
            Stream::Out => LogStream::Stdout,
            Stream::Err => LogStream::Stderr,
            Stream::Shim => LogStream::Berth,
        },
        text: line.text,
    };
    let event = SseEvent::default().event(EVENT_LINE).id(cursor);
    event.json_data(&shown).unwrap_or_else(|_never| SseEvent::default())
}
