//! Measures the journal: appends by several producers at once, then a replay of everything. Prints one line
//! of JSON.
//!
//! `journal [EVENTS] [PRODUCERS] [BODY_BYTES] [DIRECTORY]`, by default 200,000 events, 64 producers, 200
//! bytes, and a temporary directory.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Clock, SystemClock};
use berth_journal::{
    Append, Epoch, EventRef, Journal, Meta, NewEvent, Options, Position, StreamName, Version,
};
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let (events, producers, body_bytes) = (number(0, 200_000)?, number(1, 64)?.max(1), number(2, 200)?);
    let temporary = tempfile::tempdir()?;
    let dir = arguments.get(3).map_or(temporary.path(), |dir| Path::new(dir));
    let clock = SystemClock::new();

    let journal = Arc::new(Journal::open(dir, Options::default())?);
    let before = journal.head();
    let started = clock.monotonic();
    let mut latencies = append_all(&journal, events, producers, usize::try_from(body_bytes)?).await?;
    let appending = clock.monotonic() - started;
    latencies.sort_unstable();

    let started = clock.monotonic();
    let mut bytes = 0;
    let head = journal.head();
    let replayed = journal.replay(Position(1), head, |event: EventRef<'_>| {
        bytes += event.stream.len() + event.kind.len() + event.body.len();
        Ok::<_, Infallible>(())
    })?;
    let replaying = clock.monotonic() - started;

    let appended = head.0 - before.0;
    let file_bytes = std::fs::metadata(dir.join("journal.db"))?.len();
    let report = serde_json::json!({
        "append": {
            "events": appended,
            "producers": producers,
            "body_bytes": body_bytes,
            "per_second": rate(appended, appending),
            "p50_us": percentile(&latencies, 50),
            "p99_us": percentile(&latencies, 99),
        },
        "replay": { "events": replayed, "bytes": bytes, "per_second": rate(replayed, replaying) },
        "bytes_per_event": file_bytes / replayed.max(1),
    });
    println!("{report}");
    Ok(())
}

/// Each producer appends to a stream of its own, one event at a time; gives how long each waited.
async fn append_all(
    journal: &Arc<Journal>,
    events: u64,
    producers: u64,
    bytes: usize,
) -> Outcome<Vec<Duration>> {
    let epoch = journal.begin_epoch().await.epoch;
    let mut running = JoinSet::new();
    for producer in 0..producers {
        let journal = Arc::clone(journal);
        let share = events / producers + u64::from(producer < events % producers);
        running.spawn(async move { produce(&journal, epoch, producer, share, bytes).await });
    }
    let mut latencies = Vec::new();
    while let Some(done) = running.join_next().await {
        latencies.append(&mut done??);
    }
    Ok(latencies)
}

async fn produce(
    journal: &Journal,
    epoch: Epoch,
    producer: u64,
    share: u64,
    bytes: usize,
) -> Outcome<Vec<Duration>> {
    let clock = SystemClock::new();
    let stream = StreamName::new(&format!("app/default/default/app-{producer}"))?;
    let version = journal.stream_version(&stream)?;
    let mut latencies = Vec::new();
    for number in 0..share {
        let started = clock.monotonic();
        let append = Append {
            epoch,
            stream: stream.clone(),
            expected: Version(version.0 + number),
            first: None,
            events: vec![NewEvent { kind: "InstanceExited".into(), schema: 1, body: vec![b'x'; bytes] }],
            meta: Meta {
                at: clock.now(),
                actor: "platform".to_owned(),
                correlation: format!("{producer:08x}-{number:08x}"),
                reason: None,
            },
            idempotency: None,
        };
        journal.append(append).await.await?;
        latencies.push(clock.monotonic() - started);
    }
    Ok(latencies)
}

fn rate(count: u64, time: Duration) -> u128 {
    u128::from(count) * 1_000_000_000 / time.as_nanos().max(1)
}

fn percentile(sorted: &[Duration], percent: usize) -> u128 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .map_or(0, Duration::as_micros)
}
