//! What becomes of what an app prints.

use berth_runtime::{Cursor, Record, Stream};

use super::{Bench, end_of_log};
use crate::world::{records, stop_within};

pub(super) async fn lines_are_complete_and_in_order(bench: Bench) {
    let lines = bench.said("seq 20000").await;
    assert_eq!(lines.len(), 20_000);
    assert!(lines.iter().zip(1..).all(|(line, number)| *line == number.to_string()));
}

pub(super) async fn errors_are_told_apart(bench: Bench) {
    let spec = bench.shell("echo out; echo err >&2");
    bench.run(&spec).await;
    assert_eq!(bench.lines(&spec.id, Stream::Out), ["out"]);
    assert_eq!(bench.lines(&spec.id, Stream::Err), ["err"]);
}

pub(super) async fn any_bytes_come_through(bench: Bench) {
    let spec = bench.shell(r"printf '\377\376\000\033[2J\r\n\n'");
    bench.run(&spec).await;
    let all = records(bench.runtime(), &spec.id);
    let out: Vec<&[u8]> =
        all.iter().filter(|record| record.stream == Stream::Out).map(|record| &record.body[..]).collect();
    assert_eq!(out, [&b"\xFF\xFE\0\x1B[2J\r"[..], b""]);
}

pub(super) async fn a_long_line_is_split(bench: Bench) {
    let lines = bench.said("head -c 200000 /dev/zero | tr '\\0' y; echo").await;
    let lengths: Vec<usize> = lines.iter().map(String::len).collect();
    assert_eq!(lengths, [65_536, 65_536, 65_536, 200_000 - 3 * 65_536]);
}

pub(super) async fn the_last_words_before_an_exit_are_kept(bench: Bench) {
    for attempt in 0..10 {
        let word = format!("last {attempt}");
        assert_eq!(bench.said(&format!("echo {word}")).await, [word]);
    }
}

pub(super) async fn a_line_without_an_end_is_kept(bench: Bench) {
    assert_eq!(bench.said("printf 'no end'").await, ["no end"]);
}

pub(super) async fn a_flood_is_bounded_and_counted(bench: Bench) {
    // 200 MB, a hundred times what the rate lets through; an app that was held up would not end within the test.
    let spec = bench.world.spec("flood");
    let done = bench.runtime().run_once(spec.clone(), None).await.unwrap();
    assert_eq!(done.exit.unwrap().code, Some(0));
    let dir = bench.world.layout().logs.join(spec.id.to_string());
    let files = std::fs::read_dir(&dir).unwrap();
    let sizes: Vec<u64> = files.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() <= 4 && sizes.iter().all(|size| *size <= 4 << 20), "{sizes:?}");
    let all = records(bench.runtime(), &spec.id);
    let dropped: u64 = all.iter().filter_map(Record::dropped).sum();
    let lines = all.iter().filter(|record| record.body.len() == 99).count() as u64;
    assert!(dropped > 1_000_000, "{dropped} of 2,000,000 lines");
    // The harness of the tests prints a few lines as well.
    assert!(lines > 0 && lines + dropped <= 2_000_020, "{lines} kept, {dropped} dropped");
}

pub(super) async fn a_log_goes_on_over_restarts(bench: Bench) {
    let spec = bench.service("echo life; exit 1");
    bench.runtime().start(spec.clone()).await.unwrap();
    bench.until(&spec.id, |observed| observed.exit_count >= 3).await;
    let ended = bench.end(&spec.id).await;
    let lives = bench.lines(&spec.id, Stream::Out).len() as u64;
    // The last one may have been stopped before it said anything.
    assert!((ended.exit_count - 1..=ended.exit_count).contains(&lives), "{lives} of {ended:?}");
}

pub(super) async fn a_log_is_followed_from_any_place(bench: Bench) {
    let spec = bench.service("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    let place = end_of_log(&bench, &spec.id);
    assert!(place > Cursor::default());
    let mut follow = bench.runtime().log(&spec.id).follow(place);
    // It is told to end, says no to that, and is killed in the end.
    let refusal = async {
        loop {
            let batch = follow.next().await.unwrap();
            // What the shell says of its killed sleep comes before it, or after.
            if batch.records.iter().any(|(_, record)| record.body == b"no") {
                return;
            }
        }
    };
    let (ended, ()) = tokio::join!(bench.runtime().stop(&spec.id, stop_within(2_000)), refusal);
    assert!(ended.unwrap().state.is_over());
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn a_log_outlives_its_instance_until_it_is_removed(bench: Bench) {
    let spec = bench.shell("echo word");
    bench.run(&spec).await;
    assert!(!bench.world.folder(&spec.id).try_exists().unwrap());
    assert!(!bench.runtime().log(&spec.id).segments().unwrap().is_empty());
    bench.runtime().remove_log(&spec.id).await.unwrap();
    assert!(bench.runtime().log(&spec.id).segments().unwrap().is_empty());
    bench.runtime().remove_log(&spec.id).await.unwrap();
}
