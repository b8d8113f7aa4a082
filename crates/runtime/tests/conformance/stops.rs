//! How an instance is ended.

use berth_runtime::{Identity, InstanceState, RuntimeError, Stop};
use berth_spec::Millis;

use super::Bench;
use crate::world::{number_after, process_of, stop_within};

pub(super) async fn it_is_asked_first(bench: Bench) {
    let spec = bench.service("trap 'echo asked; exit 12' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    let ended = bench.runtime().stop(&spec.id, stop_within(60_000)).await.unwrap();
    let exit = ended.exits.last().unwrap();
    assert_eq!((ended.state, exit.code, exit.stopped), (InstanceState::Exited, Some(12), true));
    bench.line(&spec.id, "asked").await;
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn whoever_ignores_the_signal_is_killed(bench: Bench) {
    let spec = bench.service("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    let ended = bench.runtime().stop(&spec.id, stop_within(300)).await.unwrap();
    let exit = ended.exits.last().unwrap();
    assert_eq!((ended.state, exit.signal, exit.stopped), (InstanceState::Exited, Some(9), true));
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn the_signal_is_the_one_that_was_named(bench: Bench) {
    let spec = bench.service("trap 'exit 13' QUIT; trap '' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    let stop = Stop { signal: 3, kill_after: Millis(60_000) };
    let ended = bench.runtime().stop(&spec.id, stop).await.unwrap();
    assert_eq!(ended.exits.last().unwrap().code, Some(13));
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn a_signal_alone_ends_nobody_who_takes_it(bench: Bench) {
    let spec = bench.service("trap 'echo reread' HUP; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    bench.runtime().signal(&spec.id, 1).await.unwrap();
    bench.line(&spec.id, "reread").await;
    let ended = bench.end(&spec.id).await;
    assert_eq!((ended.restarts, ended.exits.len()), (0, 1));
}

/// Starts two children, one that left the session and one that dropped its environment as well.
async fn scatter(bench: &Bench) -> (berth_runtime::InstanceSpec, [Identity; 2]) {
    let spec = bench.world.spec("scatter");
    let started = bench.runtime().start(spec.clone()).await.unwrap();
    let line = bench.line(&spec.id, "scattered").await;
    let away = ["marked", "bare"].map(|word| process_of(&started, number_after(&line, word)));
    assert!(away.iter().all(|process| process.is_alive().unwrap()));
    (spec, away)
}

pub(super) async fn the_whole_tree_ends_with_a_stop(bench: Bench) {
    let (spec, away) = scatter(&bench).await;
    bench.runtime().stop(&spec.id, stop_within(60_000)).await.unwrap();
    assert!(away.iter().all(|process| !process.is_alive().unwrap()));
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn children_that_left_the_session_end_with_a_kill(bench: Bench) {
    let (spec, away) = scatter(&bench).await;
    bench.runtime().kill(&spec.id).await.unwrap();
    assert!(away.iter().all(|process| !process.is_alive().unwrap()));
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn a_kill_does_not_ask(bench: Bench) {
    let spec = bench.service("trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    let ended = bench.runtime().kill(&spec.id).await.unwrap();
    assert_eq!(ended.exits.last().unwrap().signal, Some(9));
    assert_eq!(bench.lines(&spec.id, berth_runtime::Stream::Out), ["ready"]);
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn a_wait_between_restarts_can_be_stopped(bench: Bench) {
    let mut spec = bench.service("exit 1");
    (spec.backoff.first, spec.backoff.most) = (3_600_000, 3_600_000);
    bench.runtime().start(spec.clone()).await.unwrap();
    bench.until(&spec.id, |observed| matches!(observed.state, InstanceState::BackingOff { .. }) && observed.exit_count == 2).await;
    let ended = bench.runtime().stop(&spec.id, stop_within(60_000)).await.unwrap();
    assert_eq!((ended.state, ended.exit_count), (InstanceState::Exited, 2));
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn a_stop_repeated_gives_the_same(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    bench.start(&spec, "ready").await;
    let (first, second) = tokio::join!(
        bench.runtime().stop(&spec.id, stop_within(60_000)),
        bench.runtime().stop(&spec.id, stop_within(60_000)),
    );
    assert_eq!(first.unwrap(), second.unwrap());
    assert!(bench.runtime().kill(&spec.id).await.unwrap().state.is_over());
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn what_is_unknown_is_not_stopped(bench: Bench) {
    let id = bench.shell("").id;
    let runtime = bench.runtime();
    assert!(matches!(runtime.stop(&id, stop_within(1)).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.kill(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.signal(&id, 15).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.observe(&id).await, Err(RuntimeError::NotFound(_))));
}

/// Orphans that have ended are nobody's but the instance's.
pub(super) async fn zombies_are_reaped(bench: Bench) {
    let script = r#"for i in 1 2 3 4 5 6 7 8 9 10; do (setsid true &) ; done
        for i in $(seq 400); do
            left=$(grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | while read it; do
                grep -q "^Uid:.$(id -u)" "$it" 2>/dev/null && echo "$it"; done | wc -l)
            test "$left" = 0 && break; sleep 0.05
        done; echo "zombies $left""#;
    assert_eq!(bench.said(script).await, ["zombies 0"]);
}

pub(super) async fn over_waits_for_the_end(bench: Bench) {
    let spec = bench.shell("echo ready; exec sleep 1000");
    bench.start(&spec, "ready").await;
    let runtime = bench.runtime();
    let (over, killed) = tokio::join!(runtime.over(&spec.id), runtime.kill(&spec.id));
    assert_eq!(over.unwrap(), killed.unwrap());
    runtime.remove(&spec.id).await.unwrap();
}
