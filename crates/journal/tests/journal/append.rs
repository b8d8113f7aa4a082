//! Appending: groups, conflicts, epochs, idempotency, a full database.

use berth_journal::{AppendError, Committed, Journal, MAX_APPEND_BYTES, Options, Position, Version};
use berth_spec::Timestamp;

use crate::fixture::{append, bodies, key, open, stream};

#[tokio::test]
async fn positions_are_dense_and_known_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    assert_eq!(start.head, Position(0));
    let mut next = start.head.next();
    let mut tickets = Vec::new();
    for version in 0..100 {
        let mut append = append(start.epoch, "a", version * 2, &[b"x", b"y"]);
        append.first = Some(next);
        tickets.push((next, journal.append(append).await));
        next = next.plus(2);
    }
    for (first, ticket) in tickets {
        let committed = ticket.await.unwrap();
        assert_eq!(committed, Committed { first, last: first.next(), at: Timestamp(1_000) });
        assert!(journal.head() >= committed.last);
    }
    assert_eq!(journal.stream_version(&stream("a")).unwrap(), Version(200));
    let recorded = journal.read(Position(3), 1).unwrap().remove(0);
    assert_eq!((recorded.position, recorded.version), (Position(3), Version(3)));
    assert_eq!(
        (recorded.kind.as_str(), recorded.schema, recorded.body.as_slice()),
        ("Happened", 1, b"x".as_slice())
    );
    assert_eq!(recorded.meta, append(start.epoch, "a", 0, &[]).meta);
}

#[tokio::test]
async fn a_conflict_ends_its_epoch_and_spares_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let first = journal.begin_epoch().await;
    let good = journal.append(append(first.epoch, "a", 0, &[b"1"])).await;
    let bad = journal.append(append(first.epoch, "a", 0, &[b"2"])).await;
    let behind = journal.append(append(first.epoch, "b", 0, &[b"3"])).await;
    good.await.unwrap();
    let conflict = bad.await.unwrap_err();
    assert!(
        matches!(conflict, AppendError::Conflict { expected: Version(0), actual: Version(1), .. }),
        "{conflict}"
    );
    assert!(matches!(behind.await.unwrap_err(), AppendError::EpochOver { .. }));
    let second = journal.begin_epoch().await;
    assert_eq!(second.head, Position(1));
    let stale = journal.append(append(first.epoch, "c", 0, &[b"4"])).await;
    assert!(matches!(stale.await.unwrap_err(), AppendError::EpochOver { .. }));
    // A stale append is no failure of the epoch that runs.
    journal.append(append(second.epoch, "a", 1, &[b"5"])).await.await.unwrap();
    assert_eq!(bodies(&journal), [b"1", b"5"]);
}

#[tokio::test]
async fn nothing_is_accepted_before_the_first_epoch_of_this_opening() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let old = journal.begin_epoch().await;
    journal.close().unwrap();
    let journal = open(dir.path());
    let stale = journal.append(append(old.epoch, "a", 0, &[b"1"])).await;
    assert!(matches!(stale.await.unwrap_err(), AppendError::EpochOver { .. }));
}

#[tokio::test]
async fn misplaced_and_oversized_appends_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    let mut misplaced = append(start.epoch, "a", 0, &[b"1"]);
    misplaced.first = Some(Position(2));
    let error = journal.append(misplaced).await.await.unwrap_err();
    assert!(
        matches!(error, AppendError::Misplaced { expected: Position(2), actual: Position(1) }),
        "{error}"
    );
    let start = journal.begin_epoch().await;
    let error =
        journal.append(append(start.epoch, "a", 0, &[&vec![0; MAX_APPEND_BYTES]])).await.await.unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    assert_eq!(journal.head(), Position(0));
}

#[tokio::test]
async fn an_idempotency_key_stands_or_falls_with_its_append() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    let mut refused = append(start.epoch, "a", 9, &[b"1"]);
    refused.idempotency = Some(key("k", b"lost"));
    journal.append(refused).await.await.unwrap_err();
    assert_eq!(journal.idempotent("ann", "k").unwrap(), None);

    let start = journal.begin_epoch().await;
    let mut kept = append(start.epoch, "a", 0, &[b"1", b"2"]);
    kept.idempotency = Some(key("k", b"kept"));
    journal.append(kept.clone()).await.await.unwrap();
    let found = journal.idempotent("ann", "k").unwrap().unwrap();
    assert_eq!((found.request_hash, found.result, found.position), ([7; 32], b"kept".to_vec(), Position(2)));
    assert_eq!(journal.idempotent("bob", "k").unwrap(), None);

    kept.expected = Version(2);
    let error = journal.append(kept).await.await.unwrap_err();
    assert!(matches!(error, AppendError::DuplicateKey { .. }), "{error}");
    assert_eq!(journal.head(), Position(2));
}

#[tokio::test]
async fn a_key_without_events_and_a_barrier_take_no_position() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    let mut nothing = append(start.epoch, "a", 0, &[]);
    nothing.idempotency = Some(key("k", b"no change"));
    let committed = journal.append(nothing).await.await.unwrap();
    assert_eq!((committed.first, committed.last), (Position(1), Position(0)));
    assert_eq!(journal.idempotent("ann", "k").unwrap().unwrap().position, Position(0));
    journal.append(append(start.epoch, "a", 0, &[])).await.await.unwrap();
    journal.append(append(start.epoch, "a", 0, &[b"1"])).await.await.unwrap();
}

#[tokio::test]
async fn old_keys_are_purged_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    let mut tickets = Vec::new();
    for age in 0..2_500 {
        let mut append = append(start.epoch, "a", 0, &[]);
        append.meta.at = Timestamp(age);
        append.idempotency = Some(key(&age.to_string(), b""));
        tickets.push(journal.append(append).await);
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(journal.purge_idempotency(Timestamp(2_400)).await.unwrap(), 2_400);
    assert_eq!(journal.idempotent("ann", "2399").unwrap(), None);
    assert!(journal.idempotent("ann", "2400").unwrap().is_some());
}

#[tokio::test]
async fn a_full_database_fails_the_epoch_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), Options { max_bytes: Some(512 << 10) }).unwrap();
    let mut start = journal.begin_epoch().await;
    // Half of the room for keys that can be purged, the other half for events until no more fit.
    for number in 0..4 {
        let mut append = append(start.epoch, "a", 0, &[]);
        append.idempotency = Some(key(&number.to_string(), &[0; 50_000]));
        journal.append(append).await.await.unwrap();
    }
    let body = [1; 30_000];
    let mut version = 0;
    let behind = loop {
        let ticket = journal.append(append(start.epoch, "a", version, &[&body])).await;
        let behind = journal.append(append(start.epoch, "b", 0, &[])).await;
        match ticket.await {
            Ok(_) => version += 1,
            Err(error) => {
                assert!(matches!(error, AppendError::Full { .. }), "{error}");
                break behind;
            }
        }
        behind.await.unwrap();
    };
    assert!(version > 3);
    behind.await.unwrap_err();
    let refused = journal.append(append(start.epoch, "b", 0, &[])).await.await.unwrap_err();
    assert!(matches!(refused, AppendError::EpochOver { .. }), "{refused}");
    start = journal.begin_epoch().await;
    assert_eq!(start.head, Position(version));
    let still = journal.append(append(start.epoch, "a", version, &[&body])).await.await.unwrap_err();
    assert!(matches!(still, AppendError::Full { .. }), "{still}");

    assert_eq!(journal.purge_idempotency(Timestamp(2_000)).await.unwrap(), 4);
    start = journal.begin_epoch().await;
    journal.append(append(start.epoch, "a", version, &[&body])).await.await.unwrap();
    assert_eq!(bodies(&journal).len(), usize::try_from(version).unwrap() + 1);
}

#[tokio::test]
async fn closing_writes_and_answers_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    let mut tickets = Vec::new();
    for version in 0..50 {
        tickets.push(journal.append(append(start.epoch, "a", version, &[b"1"])).await);
    }
    drop(journal);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(bodies(&open(dir.path())).len(), 50);
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "journal.db-wal"), "{left:?}");
}
