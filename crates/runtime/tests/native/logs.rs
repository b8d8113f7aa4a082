//! What becomes of what an app prints.

use berth_runtime::{Cursor, Runtime as _, Stream};

use crate::world::{World, line_with, records};

#[tokio::test]
async fn a_flood_is_bounded_counted_and_does_not_hold_up_the_app() {
    let world = World::new();
    let runtime = world.runtime();
    let spec = world.spec("flood");
    // 200 MB, a hundred times what the rate lets through; an app that was held up would not end within the test.
    let done = runtime.run_once(spec.clone(), None).await.unwrap();
    assert_eq!(done.exit.unwrap().code, Some(0));
    let dir = world.layout().logs.join(spec.id.to_string());
    let sizes: Vec<u64> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() <= 4 && sizes.iter().all(|size| *size <= 4 << 20), "{sizes:?}");
    let all = records(&runtime, &spec.id);
    let dropped: u64 = all.iter().filter_map(berth_runtime::Record::dropped).sum();
    let lines = all.iter().filter(|record| record.body.len() == 99).count() as u64;
    assert!(dropped > 1_000_000, "{dropped} of 2,000,000 lines");
    // The harness of the tests prints a few lines as well.
    assert!(lines > 0 && lines + dropped <= 2_000_020, "{lines} kept, {dropped} dropped");
}

#[tokio::test]
async fn any_bytes_come_through_and_long_lines_are_split() {
    let world = World::new();
    let runtime = world.runtime();
    let mut spec = world.spec("hostile");
    spec.restart = berth_runtime::Restart::Never;
    runtime.run_once(spec.clone(), None).await.unwrap();
    let all = records(&runtime, &spec.id);
    let out: Vec<_> = all.iter().filter(|record| record.stream == Stream::Out).collect();
    assert!(out.iter().any(|record| record.body == b"\xFF\xFE\0\x1B[2J\r"), "{out:?}");
    let long: Vec<usize> =
        out.iter().filter(|record| record.body.starts_with(b"yy")).map(|record| record.body.len()).collect();
    assert_eq!(long, [65_536, 65_536, 65_536, 200_000 - 3 * 65_536]);
    assert!(out.iter().any(|record| record.body == b"last without an end"));
}

#[tokio::test]
async fn a_log_is_followed_from_any_place_while_it_is_written() {
    let world = World::new();
    let runtime = world.runtime();
    let spec = world.spec("stubborn");
    runtime.start(spec.clone()).await.unwrap();
    line_with(&runtime, &spec.id, "ready").await;
    let place = runtime.log(&spec.id).tail(1).unwrap().next;
    assert!(place > Cursor::default());
    let mut follow = runtime.log(&spec.id).follow(place);
    // It is told to end, says no to that, and is killed in the end.
    let (ended, batch) =
        tokio::join!(runtime.stop(&spec.id, crate::world::stop_within(2_000)), follow.next());
    assert_eq!(batch.unwrap().records[0].1.body, b"no");
    assert!(ended.unwrap().state.is_over());
    runtime.remove(&spec.id).await.unwrap();
}
