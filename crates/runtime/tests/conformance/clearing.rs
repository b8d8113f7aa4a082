//! What is left of an instance that has ended, and for how long.

use berth_runtime::RuntimeError;

use super::Bench;

pub(super) async fn what_runs_is_not_cleared_away(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    bench.start(&spec, "ready").await;
    assert!(matches!(bench.runtime().remove(&spec.id).await, Err(RuntimeError::StillRuns(_))));
    bench.end(&spec.id).await;
}

pub(super) async fn nothing_is_left_but_the_log(bench: Bench) {
    let spec = bench.service("echo x > $TMPDIR/file; echo ready; exec sleep 1000");
    bench.start(&spec, "ready").await;
    bench.end(&spec.id).await;
    assert_eq!(bench.runtime().list(), []);
    assert!(!bench.world.folder(&spec.id).try_exists().unwrap());
    let run = bench.world.layout().run;
    for folder in ["i", "d"] {
        assert_eq!(std::fs::read_dir(run.join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert_eq!(bench.lines(&spec.id, berth_runtime::Stream::Out), ["ready"]);
    assert_eq!(crate::left_of(&bench.world, &spec), Vec::<String>::new());
}

pub(super) async fn what_is_unknown_is_cleared_away_already(bench: Bench) {
    bench.runtime().remove(&bench.shell("").id).await.unwrap();
}

pub(super) async fn an_id_that_was_cleared_away_can_be_used_again(bench: Bench) {
    let spec = bench.service("echo ready; exec sleep 1000");
    let first = bench.start(&spec, "ready").await;
    bench.end(&spec.id).await;
    let again = berth_runtime::InstanceSpec { token: bench.shell("").token, ..spec.clone() };
    let second = bench.runtime().start(again).await.unwrap();
    assert_ne!(first.shim, second.shim);
    bench.end(&spec.id).await;
}

pub(super) async fn lists_are_by_app(bench: Bench) {
    let (ours, mut theirs) = (bench.service("exec sleep 1000"), bench.service("exec sleep 1000"));
    theirs.id = "default/default/shop2/web.1".parse().unwrap();
    for spec in [&ours, &theirs] {
        bench.runtime().start(spec.clone()).await.unwrap();
    }
    for spec in [&ours, &theirs] {
        let listed = bench.runtime().list_app(&spec.id.app);
        assert_eq!(listed.iter().map(|it| &it.id).collect::<Vec<_>>(), [&spec.id]);
    }
    assert_eq!(bench.runtime().list().len(), 2);
    for spec in [&ours, &theirs] {
        bench.end(&spec.id).await;
    }
}
