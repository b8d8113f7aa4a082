//! Fills the journal of a home whose platform is down with apps that are stopped: 20 releases and 50 events each, as an app has after some
//! months. For measuring a platform of many apps.
//!
//! `fill HOME APPS`

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;

use berth_clock::{Clock, SystemClock};
use berth_control::event::{Artifact, Event, Reason, ReleaseSubmitted, Stream};
use berth_journal::{Append, Journal, Meta, NewEvent, Options, StreamName, Version};
use berth_spec::{AppId, Command, EnvName, Manifest, ProcessName, ReleaseNumber};

const RELEASES: u64 = 20;
/// Beside what makes an app, and two for each release.
const CHANGES: u64 = 8;
/// So many appends are on their way at once; each waits in memory until it is durable.
const AT_ONCE: usize = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let home = PathBuf::from(words.next().ok_or("fill HOME APPS")?);
    let apps: u64 = words.next().ok_or("fill HOME APPS")?.parse()?;
    let clock = SystemClock::new();
    let journal = Journal::open(&home.join("journal"), Options::default())?;
    let epoch = journal.begin_epoch().await.epoch;
    let mut tickets = Vec::new();
    for app in 0..apps {
        let id: AppId = format!("default/default/stopped-{app:05}").parse()?;
        let new = events(u32::try_from(app)?).into_iter().map(|event| NewEvent {
            kind: event.kind().into(),
            schema: Event::SCHEMA,
            body: event.encode(),
        });
        let meta = Meta {
            at: clock.now(),
            actor: "berth".to_owned(),
            correlation: "filled".to_owned(),
            reason: None,
        };
        let append = Append {
            epoch,
            stream: StreamName::new(&Stream::App(id).to_string())?,
            expected: Version(0),
            first: None,
            events: new.collect(),
            meta,
            idempotency: None,
        };
        tickets.push(journal.append(append).await);
        if tickets.len() == AT_ONCE {
            for ticket in tickets.drain(..) {
                ticket.await?;
            }
        }
    }
    for ticket in tickets {
        ticket.await?;
    }
    journal.close()?;
    Ok(())
}

/// The life of an app so far: made, scaled to nothing, configured, released.
fn events(slot: u32) -> Vec<Event> {
    let web = ProcessName::new(ProcessName::WEB).expect("it is a name");
    let name = |number: u64| format!("SETTING_{number}").parse::<EnvName>().expect("it is a name");
    let config: BTreeMap<_, _> = (0..CHANGES).map(|number| (name(number), "a value".to_owned())).collect();
    let mut events =
        vec![Event::AppCreated { slot }, Event::ScaleChanged { processes: [(web.clone(), 0)].into() }];
    events.extend(config.iter().map(|(name, value)| Event::ConfigChanged {
        set: [(name.clone(), value.clone())].into(),
        unset: BTreeSet::new(),
    }));
    let command = Command::parse("bin/server --listen $PORT").expect("it is a command");
    let artifact = Artifact {
        id: format!("a{}", "0".repeat(40)),
        processes: BTreeMap::from([(web, command)]),
        bytes: 1 << 20,
        why: vec!["there is a Cargo.toml".to_owned()],
        env: BTreeMap::new(),
        path: Vec::new(),
        tools: Vec::new(),
        release_command: None,
        image: None,
    };
    for number in (1..=RELEASES).map(ReleaseNumber) {
        events.push(Event::ReleaseSubmitted(Box::new(ReleaseSubmitted {
            number,
            reason: Reason::Deploy,
            tree: format!("t{}", "b".repeat(64)),
            manifest: Manifest::default(),
            artifact: Some(artifact.clone()),
            config: config.clone(),
            secrets: BTreeMap::new(),
            description: None,
            commit: Some("c".repeat(40)),
        })));
        events.push(Event::ReleaseActivated { number, previous: None });
    }
    events
}
