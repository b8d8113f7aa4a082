//! Measures a start of control: replays a journal of real events into the state, decoding and folding each. Prints one line of JSON.
//!
//! `replay [APPS]`, by default 500 apps of 20 releases of 11 events each.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use berth_clock::{Clock, SystemClock};
use berth_control::event::{
    Artifact, Event, GoneCause, Reason, ReleaseSubmitted, StopReason, Stream, WarmEnd,
};
use berth_journal::{Append, Journal, Meta, NewEvent, Options, StreamName, Version};
use berth_spec::{AppId, Command, Manifest, ProcessName, ReleaseNumber};

const RELEASES: u64 = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let apps: u64 = std::env::args().nth(1).map_or(Ok(500), |word| word.parse())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let dir = tempfile::tempdir()?;
    let journal = Journal::open(dir.path(), Options::default())?;
    fill(&journal, &*clock, apps).await?;

    let started = clock.monotonic();
    let state = berth_server::replay::replay(&journal, &*clock, [0; 32])?.state;
    let took = clock.monotonic().saturating_sub(started);
    berth_server::replay::keep_snapshot(&journal, [0; 32], &state);
    let started = clock.monotonic();
    let cached = berth_server::replay::replay(&journal, &*clock, [0; 32])?.state;
    let with_snapshot = clock.monotonic().saturating_sub(started);
    if cached != state {
        return Err("the snapshot gives another state than the replay".into());
    }
    println!(
        "{}",
        serde_json::json!({
            "events": state.position,
            "apps": apps,
            "per_second": state.position as f64 / took.as_secs_f64(),
            "start_s": took.as_secs_f64(),
            "start_with_snapshot_s": with_snapshot.as_secs_f64(),
        })
    );
    Ok(())
}

async fn fill(journal: &Journal, clock: &dyn Clock, apps: u64) -> Result<(), Box<dyn Error>> {
    let epoch = journal.begin_epoch().await.epoch;
    let mut tickets = Vec::new();
    for app in 0..apps {
        let id: AppId = format!("default/default/app-{app}").parse()?;
        let mut events = vec![Event::AppCreated { slot: u32::try_from(app)? }];
        events.extend((1..=RELEASES).flat_map(release));
        let new = events.iter().map(|event| NewEvent {
            kind: event.kind().into(),
            schema: Event::SCHEMA,
            body: event.encode(),
        });
        let ticket = journal
            .append(Append {
                epoch,
                stream: StreamName::new(&Stream::App(id).to_string())?,
                expected: Version(0),
                first: None,
                events: new.collect(),
                meta: Meta {
                    at: clock.now(),
                    actor: "berth".to_owned(),
                    correlation: "filled".to_owned(),
                    reason: None,
                },
                idempotency: None,
            })
            .await;
        tickets.push(ticket);
    }
    for ticket in tickets {
        ticket.await?;
    }
    Ok(())
}

/// What one release of one instance leaves, once it was followed by another.
fn release(number: u64) -> Vec<Event> {
    let (ordinal, number) = (number, ReleaseNumber(number));
    let web = ProcessName::new(ProcessName::WEB).expect("it is a name");
    let command = Command::parse("bin/server --listen $PORT").expect("it is a command");
    let artifact = Artifact {
        id: "a".repeat(64),
        processes: BTreeMap::from([(web.clone(), command)]),
        bytes: 1 << 20,
        why: vec!["there is a Cargo.toml".to_owned()],
        ..Artifact::default()
    };
    let submitted = ReleaseSubmitted {
        number,
        reason: Reason::Deploy,
        tree: format!("t{}", "b".repeat(64)),
        manifest: Manifest::default(),
        artifact: None,
        config: BTreeMap::from([("LOG_LEVEL".parse().expect("it is a name"), "info".to_owned())]),
        secrets: BTreeMap::new(),
        description: None,
        commit: Some("c".repeat(40)),
    };
    vec![
        Event::ReleaseSubmitted(Box::new(submitted)),
        Event::ReleaseBuilt { number, artifact },
        Event::ActivationBegan { number },
        Event::ReleaseCommandFinished { number },
        Event::InstanceAssigned { ordinal, process: web, release: number, token: "d".repeat(32) },
        Event::InstanceStarted { ordinal, port: Some(20_000), dialer: None },
        Event::Routed { ordinals: [ordinal].into() },
        Event::ReleaseActivated { number, previous: None },
        Event::WarmEnded { number, why: WarmEnd::Expired },
        Event::InstanceStopping { ordinal, why: StopReason::Retired },
        Event::InstanceGone { ordinal, cause: GoneCause::Stopped },
    ]
}
