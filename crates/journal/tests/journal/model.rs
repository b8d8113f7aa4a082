//! Random histories, against a model in memory that is simple enough to be believed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use berth_journal::{
    Append, AppendError, Epoch, Idempotency, Journal, Meta, NewEvent, Position, Recorded, Ticket, Version,
};
use berth_spec::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixture::{open, stream};

#[derive(Debug, Clone)]
enum Step {
    /// Appends that are all queued before any is awaited.
    Burst(Vec<Attempt>),
    BeginEpoch,
    Reopen,
    Purge(u64),
    Look {
        from: u64,
        limit: usize,
        stream: u8,
    },
}

#[derive(Debug, Clone)]
struct Attempt {
    stream: u8,
    events: Vec<Vec<u8>>,
    key: Option<u8>,
    at: u64,
    stale_version: bool,
    wrong_position: bool,
}

fn attempts() -> impl Strategy<Value = Attempt> {
    let seldom = || proptest::bool::weighted(0.03);
    let events = vec(vec(any::<u8>(), 0..40), 0..4);
    (0..3_u8, events, proptest::option::weighted(0.3, 0..60_u8), 0..100_u64, seldom(), seldom()).prop_map(
        |(stream, events, key, at, stale_version, wrong_position)| Attempt {
            stream,
            events,
            key,
            at,
            stale_version,
            wrong_position,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    let look = |(from, limit, stream)| Step::Look { from, limit, stream };
    prop_oneof![
        6 => vec(attempts(), 1..12).prop_map(Step::Burst),
        2 => Just(Step::BeginEpoch),
        1 => Just(Step::Reopen),
        1 => (0..100_u64).prop_map(Step::Purge),
        4 => (0..40_u64, 0..20_usize, 0..4_u8).prop_map(look),
    ]
}

#[derive(Default)]
struct Model {
    events: Vec<Recorded>,
    keys: BTreeMap<String, (Vec<u8>, u64, u64)>,
    /// Whether the journal accepts appends of `epoch`.
    accepting: bool,
    epoch: Option<Epoch>,
}

impl Model {
    fn version(&self, name: &str) -> u64 {
        u64::try_from(self.events.iter().filter(|event| event.stream.as_str() == name).count()).unwrap()
    }

    fn head(&self) -> u64 {
        u64::try_from(self.events.len()).unwrap()
    }

    fn make(&self, attempt: &Attempt, epoch: Epoch) -> Append {
        let name = format!("stream {}", attempt.stream);
        let expected = self.version(&name) + u64::from(attempt.stale_version);
        let event = |body: &Vec<u8>| NewEvent { kind: "k".into(), schema: 3, body: body.clone() };
        Append {
            epoch,
            stream: stream(&name),
            expected: Version(expected),
            first: Some(Position(self.head() + 1 + u64::from(attempt.wrong_position))),
            events: attempt.events.iter().map(event).collect(),
            meta: Meta {
                at: Timestamp(attempt.at),
                actor: "a".to_owned(),
                correlation: format!("c{}", attempt.at),
                reason: attempt.at.is_multiple_of(2).then(|| "even".to_owned()),
            },
            idempotency: attempt.key.map(|key| Idempotency {
                scope: "s".to_owned(),
                key: key.to_string(),
                request_hash: [key; 32],
                result: vec![key],
            }),
        }
    }

    /// Whether the append is accepted; what it then changes.
    fn apply(&mut self, append: &Append, attempt: &Attempt) -> bool {
        let taken = append.idempotency.as_ref().is_some_and(|record| self.keys.contains_key(&record.key));
        if !self.accepting || attempt.stale_version || attempt.wrong_position || taken {
            self.accepting = false;
            return false;
        }
        for (version, event) in (append.expected.0 + 1..).zip(&append.events) {
            self.events.push(Recorded {
                position: Position(self.head() + 1),
                stream: append.stream.clone(),
                version: Version(version),
                kind: event.kind.clone().into_owned(),
                schema: event.schema,
                body: event.body.clone(),
                meta: append.meta.clone(),
            });
        }
        if let Some(record) = &append.idempotency {
            self.keys.insert(record.key.clone(), (record.result.clone(), self.head(), append.meta.at.0));
        }
        true
    }
}

async fn burst(journal: &Journal, model: &mut Model, attempts: &[Attempt]) {
    let Some(epoch) = model.epoch else { return };
    let mut waiting: Vec<(Ticket, bool, u64)> = Vec::new();
    for attempt in attempts {
        let append = model.make(attempt, epoch);
        let ticket = journal.append(append.clone()).await;
        let accepted = model.apply(&append, attempt);
        waiting.push((ticket, accepted, model.head()));
    }
    for (ticket, accepted, head) in waiting {
        match ticket.await {
            Ok(committed) => {
                assert!(accepted, "accepted what the model refuses");
                assert_eq!(committed.last.0, head);
            }
            Err(error) => {
                assert!(!accepted, "refused what the model accepts: {error}");
                assert!(!matches!(error, AppendError::Storage { .. } | AppendError::Full { .. }));
            }
        }
    }
}

fn look(journal: &Journal, model: &Model, from: u64, limit: usize, number: u8) {
    let name = stream(&format!("stream {number}"));
    let all = || model.events.iter();
    let of_stream = || model.events.iter().filter(|event| event.stream == name);
    let list = |events: &mut dyn Iterator<Item = &Recorded>| events.take(limit).cloned().collect::<Vec<_>>();
    let before = Some(Position(from));
    assert_eq!(journal.head().0, model.head());
    assert_eq!(
        journal.read(Position(from), limit).unwrap(),
        list(&mut all().filter(|e| e.position.0 >= from))
    );
    assert_eq!(
        journal.read_stream(&name, Version(from), limit).unwrap(),
        list(&mut of_stream().filter(|e| e.version.0 >= from))
    );
    assert_eq!(
        journal.read_back(before, limit).unwrap(),
        list(&mut all().rev().filter(|e| e.position.0 < from))
    );
    assert_eq!(journal.read_back(None, limit).unwrap(), list(&mut all().rev()));
    assert_eq!(
        journal.read_stream_back(&name, before, limit).unwrap(),
        list(&mut of_stream().rev().filter(|e| e.position.0 < from))
    );
    assert_eq!(journal.stream_version(&name).unwrap().0, model.version(name.as_str()));
}

fn compare(journal: &Journal, model: &Model) {
    let mut replayed = Vec::new();
    let visit = |event: berth_journal::EventRef<'_>| {
        replayed.push(event.to_recorded());
        Ok::<_, Infallible>(())
    };
    journal.replay(Position(1), Position(u64::MAX), visit).unwrap();
    assert_eq!(replayed, model.events);
    for key in 0..60_u8 {
        let found = journal.idempotent("s", &key.to_string()).unwrap();
        let known = model.keys.get(&key.to_string());
        assert_eq!(found.map(|found| (found.result, found.position.0)), known.map(|k| (k.0.clone(), k.1)));
    }
    assert_eq!(journal.check().unwrap(), Vec::<String>::new());
}

async fn run(dir: &Path, steps: Vec<Step>) {
    let mut model = Model::default();
    let mut journal = open(dir);
    for step in steps {
        match step {
            Step::Burst(attempts) => burst(&journal, &mut model, &attempts).await,
            Step::BeginEpoch => {
                let start = journal.begin_epoch().await;
                assert_eq!(start.head.0, model.head());
                model.epoch = Some(start.epoch);
                model.accepting = true;
            }
            Step::Reopen => {
                drop(journal);
                journal = open(dir);
                model.accepting = false;
                model.epoch = None;
                compare(&journal, &model);
            }
            Step::Purge(before) => {
                let old = model.keys.iter().filter(|(_, key)| key.2 < before).count();
                let purged = journal.purge_idempotency(Timestamp(before)).await.unwrap();
                assert_eq!(purged, u64::try_from(old).unwrap());
                model.keys.retain(|_, key| key.2 >= before);
            }
            Step::Look { from, limit, stream } => look(&journal, &model, from, limit, stream),
        }
    }
    compare(&journal, &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_does_what_the_model_does(mut steps in vec(steps(), 1..30)) {
        steps.insert(0, Step::BeginEpoch);
        let dir = tempfile::tempdir().unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(dir.path(), steps));
    }
}
