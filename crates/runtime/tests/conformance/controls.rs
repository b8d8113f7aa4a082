//! What a control leaves that was killed, and what the next one makes of it.

use berth_process::Signal;
use berth_runtime::{InstanceState, Runtime as _, Stream};

use super::{Bench, end_of_log};
use crate::world::{World, is_running, stop_within};

pub(super) async fn instances_outlive_control(mut bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    bench.reopen();
    assert!(started.shim.as_ref().unwrap().is_alive().unwrap());
    bench.runtime().adopt_all().await.unwrap();
    bench.end(&spec.id).await;
}

pub(super) async fn the_next_control_knows_what_runs(mut bench: Bench) {
    let specs = ["a", "b", "c"].map(|word| bench.service(&format!("echo {word}; exec sleep 1000")));
    let mut before = Vec::new();
    for spec in &specs {
        bench.runtime().start(spec.clone()).await.unwrap();
        before.push(bench.until(&spec.id, is_running).await);
    }
    bench.reopen();
    assert_eq!(bench.runtime().list(), []);
    let mut adopted = bench.runtime().adopt_all().await.unwrap();
    adopted.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(adopted, before);
    for spec in &specs {
        bench.end(&spec.id).await;
    }
}

pub(super) async fn exits_without_a_control_are_told_later(mut bench: Bench) {
    let spec = bench.service("echo ready; while ! test -e $TMPDIR/first; do sleep 0.05; touch $TMPDIR/first; exit 9; done; exec sleep 1000");
    bench.start(&spec, "ready").await;
    bench.reopen();
    bench.runtime().adopt_all().await.unwrap();
    let observed = bench.until(&spec.id, |observed| observed.exit_count > 0).await;
    assert_eq!(observed.exits[0].code, Some(9));
    bench.end(&spec.id).await;
}

pub(super) async fn restarts_need_no_control(mut bench: Bench) {
    let spec = bench.service("echo life; sleep 0.05; exit 1");
    bench.start(&spec, "life").await;
    let lives = |bench: &Bench| bench.lines(&spec.id, Stream::Out).len();
    let before = lives(&bench);
    bench.reopen();
    // Nobody has adopted it, and its log grows.
    let mut follow = bench.runtime().log(&spec.id).follow(end_of_log(&bench, &spec.id));
    follow.next().await.unwrap();
    assert!(lives(&bench) > before);
    bench.runtime().adopt_all().await.unwrap();
    bench.end(&spec.id).await;
}

pub(super) async fn a_start_repeated_by_the_next_control_is_the_same(mut bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    bench.reopen();
    bench.runtime().adopt_all().await.unwrap();
    assert_eq!(bench.runtime().start(spec.clone()).await.unwrap().shim, started.shim);
    bench.end(&spec.id).await;
}

pub(super) async fn what_was_adopted_can_be_stopped(mut bench: Bench) {
    let spec = bench.service("trap 'exit 14' TERM; echo ready; while :; do sleep 0.05; done");
    bench.start(&spec, "ready").await;
    bench.reopen();
    bench.runtime().adopt_all().await.unwrap();
    let ended = bench.runtime().stop(&spec.id, stop_within(60_000)).await.unwrap();
    assert_eq!((ended.state, ended.exits.last().unwrap().code), (InstanceState::Exited, Some(14)));
    bench.runtime().remove(&spec.id).await.unwrap();
    assert_eq!(bench.runtime().adopt_all().await.unwrap(), []);
}

pub(super) async fn logs_go_on_without_a_control(mut bench: Bench) {
    let spec = bench.service("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    bench.start(&spec, "5").await;
    bench.reopen();
    bench.line(&spec.id, "50").await;
    bench.runtime().adopt_all().await.unwrap();
    bench.end(&spec.id).await;
    let lines = bench.lines(&spec.id, Stream::Out);
    assert!(lines.iter().zip(1..).all(|(line, number)| *line == number.to_string()), "{lines:?}");
}

pub(super) async fn one_whose_shim_died_is_gone(mut bench: Bench) {
    let specs = [bench.service("echo ready; exec sleep 1000"), bench.service("echo ready; exec sleep 1000")];
    let mut shims = Vec::new();
    for spec in &specs {
        shims.push(bench.start(spec, "ready").await.shim.unwrap());
    }
    let kill = |shim: &berth_runtime::Identity| {
        let pidfd = shim.pidfd().unwrap().unwrap();
        rustix::process::pidfd_send_signal(pidfd, Signal::KILL).unwrap();
    };
    // One before the eyes of a control, one while there is none.
    kill(&shims[0]);
    bench.until(&specs[0].id, |observed| observed.state == InstanceState::Gone).await;
    bench.reopen();
    kill(&shims[1]);
    let adopted = bench.runtime().adopt_all().await.unwrap();
    assert!(adopted.iter().all(|observed| observed.state == InstanceState::Gone), "{adopted:?}");
    assert!(shims.iter().all(|shim| !shim.is_alive().unwrap()));
    for spec in &specs {
        bench.runtime().remove(&spec.id).await.unwrap();
    }
}

pub(super) async fn a_start_cut_short_leaves_nothing(mut bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    // Control dies before it knew the shim, and the next one is told to start before it looked.
    bench.world.edit_record(&spec.id, |record| drop(record.as_object_mut().unwrap().remove("shim")));
    bench.reopen();
    let again = bench.start(&spec, "ready").await;
    assert_ne!(again.shim, started.shim);
    assert!(!started.shim.unwrap().is_alive().unwrap());
    bench.end(&spec.id).await;
    // It died before it wrote the record.
    std::fs::create_dir_all(bench.world.folder(&spec.id)).unwrap();
    assert_eq!(bench.runtime().adopt_all().await.unwrap(), []);
    assert!(!bench.world.folder(&spec.id).try_exists().unwrap());
}

pub(super) async fn what_no_record_knows_is_ended(mut bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    bench.reopen();
    std::fs::remove_file(bench.world.folder(&spec.id).join("start.json")).unwrap();
    assert_eq!(bench.runtime().adopt_all().await.unwrap(), []);
    assert!(!started.shim.unwrap().is_alive().unwrap());
}

pub(super) async fn two_platforms_leave_each_other_alone(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let started = bench.start(&spec, "ready").await;
    let other = World::new();
    let runtime = crate::open(other.layout());
    assert_eq!(runtime.adopt_all().await.unwrap(), []);
    assert_eq!(runtime.list(), []);
    runtime.end_all().unwrap();
    assert!(started.shim.unwrap().is_alive().unwrap());
    bench.end(&spec.id).await;
}

pub(super) async fn going_down_leaves_nothing(mut bench: Bench) {
    let specs = [bench.service("echo ready; exec sleep 1000"), bench.service("trap '' TERM; echo ready; while :; do sleep 1; done")];
    let mut shims = Vec::new();
    for spec in &specs {
        shims.push(bench.start(spec, "ready").await.shim.unwrap());
    }
    bench.reopen();
    bench.end_all().unwrap();
    assert!(shims.iter().all(|shim| !shim.is_alive().unwrap()));
    assert_eq!(bench.runtime().adopt_all().await.unwrap(), []);
    let run = bench.world.layout().run;
    for folder in ["i", "d"] {
        assert_eq!(std::fs::read_dir(run.join(folder)).unwrap().count(), 0, "{folder}");
    }
}
