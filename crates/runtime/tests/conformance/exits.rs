//! How an app ends by itself, and what becomes of it then.

use berth_runtime::{InstanceState, RuntimeEvent};

use super::Bench;

pub(super) async fn a_status_is_told(bench: Bench) {
    for status in [0, 1, 7, 255] {
        let exit = bench.run(&bench.shell(&format!("exit {status}"))).await.0;
        assert_eq!((exit.code, exit.signal, exit.stopped, exit.failure), (Some(status), None, false, None));
    }
}

pub(super) async fn a_death_by_signal_is_told(bench: Bench) {
    for signal in [9, 15, 6] {
        let exit = bench.run(&bench.shell(&format!("kill -{signal} $$"))).await.0;
        assert_eq!((exit.code, exit.signal, exit.stopped), (None, Some(signal), false));
    }
}

pub(super) async fn what_it_took_is_told(bench: Bench) {
    let exit = bench.run(&bench.shell("true")).await.0;
    assert!(exit.max_rss > 0 && exit.at > 0, "{exit:?}");
}

pub(super) async fn it_is_started_again(bench: Bench) {
    let spec = bench.service("echo life; exit 3");
    bench.runtime().start(spec.clone()).await.unwrap();
    let observed = bench.until(&spec.id, |observed| observed.restarts >= 3).await;
    assert!(observed.exits.iter().all(|exit| exit.code == Some(3)));
    bench.end(&spec.id).await;
}

pub(super) async fn restarts_back_off(bench: Bench) {
    let mut spec = bench.service("exit 1");
    (spec.backoff.first, spec.backoff.most) = (5, 3_600_000);
    bench.runtime().start(spec.clone()).await.unwrap();
    let waits = |observed: &berth_runtime::Observed| match observed.state {
        InstanceState::BackingOff { until } => observed.exit_count >= 8 && until.0 > 0,
        _ => false,
    };
    let observed = bench.until(&spec.id, waits).await;
    assert_eq!(observed.restarts + 1, observed.exit_count);
    bench.end(&spec.id).await;
}

pub(super) async fn all_exits_are_counted_and_sixteen_kept(bench: Bench) {
    let spec = bench.service("exit 4");
    bench.runtime().start(spec.clone()).await.unwrap();
    let observed = bench.until(&spec.id, |observed| observed.exit_count >= 20).await;
    assert_eq!(observed.exits.len(), 16);
    bench.end(&spec.id).await;
}

pub(super) async fn one_that_is_not_started_again_stays_ended(bench: Bench) {
    let spec = bench.shell("exit 5");
    bench.runtime().start(spec.clone()).await.unwrap();
    let over = bench.until(&spec.id, |observed| observed.state.is_over()).await;
    assert_eq!((over.state, over.shim, over.restarts), (InstanceState::Exited, None, 0));
    assert_eq!(over.exits.last().unwrap().code, Some(5));
    bench.runtime().remove(&spec.id).await.unwrap();
}

/// The second life would find the first one's child.
pub(super) async fn what_it_left_behind_is_ended_before_it_starts_again(bench: Bench) {
    // A sleep of as many seconds as nobody else's on this machine.
    let script = r#"for it in /proc/[0-9]*/cmdline; do tr '\0' ' ' < $it; echo; done 2>/dev/null | grep -c "^sleep $UNIQUE"
        setsid sleep $UNIQUE & exit 0"#;
    let mut spec = bench.service(script);
    let unique = format!("{}{}", spec.user.as_ref().map_or(1, |user| user.uid), std::process::id());
    spec.env.insert("UNIQUE".to_owned(), unique);
    bench.runtime().start(spec.clone()).await.unwrap();
    let observed = bench.until(&spec.id, |observed| observed.restarts >= 3).await;
    assert!(observed.exit_count >= 3);
    bench.end(&spec.id).await;
    let lines = bench.lines(&spec.id, berth_runtime::Stream::Out);
    assert!(lines.len() >= 3 && lines.iter().all(|line| line == "0"), "{lines:?}");
}

pub(super) async fn exits_are_announced(bench: Bench) {
    let mut events = bench.runtime().watch();
    let spec = bench.shell("exit 6");
    bench.runtime().start(spec.clone()).await.unwrap();
    let exit = loop {
        if let RuntimeEvent::Exited { id, exit } = events.recv().await.unwrap() {
            assert_eq!(id, spec.id);
            break exit;
        }
    };
    assert_eq!(exit.code, Some(6));
    bench.until(&spec.id, |observed| observed.state.is_over()).await;
    bench.runtime().remove(&spec.id).await.unwrap();
}
