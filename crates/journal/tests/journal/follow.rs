//! Reading in every direction, and following while others write.

use std::sync::Arc;

use berth_journal::{EventRef, Journal, Position, ReplayError, Version};
use tokio::task::JoinSet;

use crate::fixture::{append, open, stream};

/// Positions 1 to 9: a, b, b, a, b, b, a, b, b.
async fn nine(journal: &Journal) {
    let start = journal.begin_epoch().await;
    for round in 0..3_u8 {
        let number = u64::from(round);
        journal.append(append(start.epoch, "a", number, &[&[round]])).await.await.unwrap();
        journal.append(append(start.epoch, "b", number * 2, &[&[round], &[round]])).await.await.unwrap();
    }
}

fn places(events: &[berth_journal::Recorded]) -> Vec<u64> {
    events.iter().map(|event| event.position.0).collect()
}

#[tokio::test]
async fn reads_go_forwards_and_backwards_and_by_stream() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    nine(&journal).await;
    let (a, b) = (stream("a"), stream("b"));
    assert_eq!(places(&journal.read(Position(0), 3).unwrap()), [1, 2, 3]);
    assert_eq!(places(&journal.read(Position(8), 3).unwrap()), [8, 9]);
    assert_eq!(places(&journal.read(Position(10), 3).unwrap()), [0; 0]);
    assert_eq!(places(&journal.read_stream(&b, Version(3), 9).unwrap()), [5, 6, 8, 9]);
    assert_eq!(places(&journal.read_stream(&stream("none"), Version(1), 9).unwrap()), [0; 0]);
    assert_eq!(places(&journal.read_back(None, 2).unwrap()), [9, 8]);
    assert_eq!(places(&journal.read_back(Some(Position(3)), 5).unwrap()), [2, 1]);
    assert_eq!(places(&journal.read_stream_back(&a, None, 2).unwrap()), [7, 4]);
    assert_eq!(places(&journal.read_stream_back(&b, Some(Position(8)), 3).unwrap()), [6, 5, 3]);
}

#[tokio::test]
async fn a_list_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = journal.begin_epoch().await;
    let body = vec![1; 900_000];
    for version in 0..8 {
        journal.append(append(start.epoch, "a", version, &[&body])).await.await.unwrap();
    }
    assert_eq!(places(&journal.read(Position(1), 100).unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(places(&journal.read(Position(6), 100).unwrap()), [6, 7, 8]);
}

#[tokio::test]
async fn a_replay_ends_where_it_is_told_or_refused() {
    #[derive(Debug, thiserror::Error)]
    #[error("enough")]
    struct Enough;

    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    nine(&journal).await;
    let mut seen = Vec::new();
    let visit = |event: EventRef<'_>| {
        seen.push(event.position.0);
        if event.position == Position(6) { Err(Enough) } else { Ok(()) }
    };
    assert_eq!(journal.replay(Position(0), Position(3), visit).unwrap(), 3);
    let refused = journal.replay(Position(4), Position(99), |event| {
        seen.push(event.position.0);
        if event.position == Position(6) { Err(Enough) } else { Ok(()) }
    });
    assert!(matches!(refused, Err(ReplayError::Visit { position: Position(6), .. })));
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert_eq!(journal.replay(Position(7), Position(99), |_| Ok::<_, Enough>(())).unwrap(), 3);
    assert_eq!(journal.replay(Position(10), Position(99), |_| Ok::<_, Enough>(())).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_has_no_hole_and_no_repeat() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    nine(&journal).await;
    let last = 9 + PRODUCERS * EACH * 2;
    let mut followers = JoinSet::new();
    for (from, limit) in [(0, 1), (1, 7), (5, 1_000), (700, 3), (last, 1)] {
        let mut subscription = journal.subscribe(Position(from));
        followers.spawn(async move {
            let mut next = from.max(1);
            while let Some(events) = subscription.next(limit).await.unwrap() {
                assert!((1..=limit).contains(&events.len()));
                for event in events {
                    assert_eq!(event.position, Position(next));
                    next += 1;
                }
            }
            next
        });
    }
    let start = journal.begin_epoch().await;
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let journal = Arc::clone(&journal);
        producers.spawn(async move {
            let name = format!("producer {producer}");
            for number in 0..EACH {
                journal.append(append(start.epoch, &name, number * 2, &[b"1", b"2"])).await.await.unwrap();
            }
        });
    }
    while let Some(done) = producers.join_next().await {
        done.unwrap();
    }
    drop(journal);
    while let Some(end) = followers.join_next().await {
        assert_eq!(end.unwrap(), last + 1);
    }
}

#[tokio::test]
async fn an_abandoned_wait_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut subscription = journal.subscribe(Position(1));
    {
        let mut waiting = std::pin::pin!(subscription.next(10));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(waiting.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }
    nine(&journal).await;
    assert_eq!(places(&subscription.next(100).await.unwrap().unwrap()), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(subscription.position(), Position(10));
    drop(journal);
    assert_eq!(subscription.next(100).await.unwrap(), None);
}
