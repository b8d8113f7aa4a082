//! Commands that say whether an app is well.

use berth_runtime::{Attach, Check, Checked, Exec, Frozen, InstanceSpec, Observed, Verdict};
use berth_spec::Command;

use super::Bench;
use crate::world::{LONG, descendants, is_running};

/// A check that nothing hurries, and that has passed or failed for long before it is due again.
fn check(script: &str) -> Check<Command> {
    Check {
        command: Command::Shell(script.to_owned()),
        interval: 3_600_000,
        timeout: 3_600_000,
        start_period: 0,
        start_interval: 10,
        retries: 2,
        stop_signal: 15,
        kill_after: 3_600_000,
    }
}

/// One that is asked all the time.
fn often(script: &str) -> Check<Command> {
    Check { interval: 20, ..check(script) }
}

fn with(bench: &Bench, app: &str, check: Check<Command>) -> InstanceSpec {
    InstanceSpec { check: Some(check), ..bench.service(app) }
}

fn verdict(observed: &Observed) -> Option<Verdict> {
    observed.checked.as_ref().map(|checked| checked.verdict)
}

fn is_healthy(observed: &Observed) -> bool {
    verdict(observed) == Some(Verdict::Healthy)
}

fn failed(observed: &Observed) -> bool {
    observed.checked.as_ref().is_some_and(|it| it.last.as_ref().is_some_and(|last| !last.passed()))
}

fn text(checked: &Checked) -> String {
    String::from_utf8_lossy(&checked.last.as_ref().unwrap().output).into_owned()
}

const SLEEPS: &str = "echo ready; exec sleep 1000";

pub(super) async fn one_that_passes_makes_it_healthy(bench: Bench) {
    let spec = with(&bench, SLEEPS, check("echo fine; echo yes >&2"));
    bench.start(&spec, "ready").await;
    let observed = bench.until(&spec.id, is_healthy).await;
    let checked = observed.checked.unwrap();
    assert_eq!((text(&checked).as_str(), checked.failures), ("fine\nyes\n", 0));
    // It went to no log.
    assert_eq!(bench.lines(&spec.id, berth_runtime::Stream::Out), ["ready"]);
    bench.end(&spec.id).await;
    let none = bench.service(SLEEPS);
    let started = bench.start(&none, "ready").await;
    assert_eq!(started.checked, None);
    bench.end(&none.id).await;
}

pub(super) async fn until_one_has_passed_it_is_starting(bench: Bench) {
    let app = r#"rm -f "$TMPDIR/up"; echo ready; exec sleep 1000"#;
    let spec = with(&bench, app, check(r#"test -e "$TMPDIR/up" || { echo not yet; exit 7; }"#));
    bench.start(&spec, "ready").await;
    let observed = bench.until(&spec.id, failed).await;
    let checked = observed.checked.unwrap();
    assert_eq!((checked.verdict, text(&checked).as_str()), (Verdict::Starting, "not yet\n"));
    assert_eq!(checked.last.unwrap().code, Some(7));
    touch(&bench, &spec, "up").await;
    let observed = bench.until(&spec.id, is_healthy).await;
    assert_eq!(observed.exit_count, 0);
    bench.end(&spec.id).await;
}

async fn touch(bench: &Bench, spec: &InstanceSpec, name: &str) {
    let script = format!(r#"touch "$TMPDIR/{name}""#);
    let exec = Exec { argv: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(), ..Exec::default() };
    let (_attached, mut executing) = bench.runtime().exec(&spec.id, exec, Attach::Pipes).await.unwrap();
    let exit = tokio::time::timeout(LONG, executing.over()).await.unwrap().unwrap();
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

pub(super) async fn one_that_becomes_unwell_is_ended_and_started_again(bench: Bench) {
    let app = r#"rm -f "$TMPDIR/sick"; echo ready; exec sleep 1000"#;
    let spec = with(&bench, app, often(r#"test ! -e "$TMPDIR/sick" || { echo sick; exit 1; }"#));
    bench.start(&spec, "ready").await;
    bench.until(&spec.id, is_healthy).await;
    touch(&bench, &spec, "sick").await;
    let observed = bench.until(&spec.id, |it| it.exit_count > 0).await;
    let exit = observed.exits[0];
    assert_eq!((exit.unhealthy, exit.signal, exit.stopped), (true, Some(15), false), "{exit:?}");
    // Its next life is asked from the beginning.
    bench.until(&spec.id, |it| is_running(it) && is_healthy(it) && it.restarts > 0).await;
    bench.end(&spec.id).await;
}

pub(super) async fn one_that_does_not_heed_it_is_killed(bench: Bench) {
    let app = "trap '' TERM; echo ready; while true; do sleep 0.1; done";
    let spec = with(&bench, app, Check { kill_after: 50, ..often("exit 1") });
    bench.start(&spec, "ready").await;
    let observed = bench.until(&spec.id, |it| it.exit_count > 0).await;
    let exit = observed.exits[0];
    assert_eq!((exit.unhealthy, exit.signal), (true, Some(9)), "{exit:?}");
    bench.end(&spec.id).await;
}

/// What it wrote last is still known when it is started again, to be told.
pub(super) async fn why_it_was_ended_outlives_it(bench: Bench) {
    let spec = with(&bench, SLEEPS, often("echo no database; exit 4"));
    bench.start(&spec, "ready").await;
    let again = |it: &Observed| it.restarts > 0 && it.exits.iter().all(|exit| exit.unhealthy) && failed(it);
    let observed = bench.until(&spec.id, again).await;
    let checked = observed.checked.unwrap();
    assert_eq!((text(&checked).as_str(), checked.last.unwrap().code), ("no database\n", Some(4)));
    bench.end(&spec.id).await;
}

pub(super) async fn one_that_hangs_is_killed_with_all_that_it_started(bench: Bench) {
    let script = "trap '' TERM HUP; (setsid sleep 1000 &); (sleep 1000 & sleep 1000 &); echo hung; sleep 1000";
    let spec = with(&bench, SLEEPS, Check { timeout: 200, ..check(script) });
    let started = bench.start(&spec, "ready").await;
    let timed_out =
        |it: &Observed| it.checked.as_ref().and_then(|it| it.last.as_ref()).is_some_and(|it| it.timed_out);
    bench.until(&spec.id, timed_out).await;
    // It is asked again and again as long as nothing has passed. With what was asked last the app ends, and all with it.
    let shim = started.shim.unwrap().pid;
    bench.runtime().stop(&spec.id, crate::world::stop_within(100)).await.unwrap();
    assert_eq!(descendants(shim), Vec::<u32>::new());
    bench.runtime().remove(&spec.id).await.unwrap();
}

pub(super) async fn one_that_passes_leaves_nothing_behind(bench: Bench) {
    let script = "for i in 1 2 3 4 5 6; do (setsid sh -c 'trap \"\" HUP TERM; sleep 1000' &); done; exit 0";
    let spec = with(&bench, SLEEPS, check(script));
    let started = bench.start(&spec, "ready").await;
    bench.until(&spec.id, is_healthy).await;
    // The shim, the init of its namespace where it has one, and the app.
    let left = descendants(started.shim.unwrap().pid);
    let names: Vec<String> = left
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    let apps = names.iter().filter(|name| *name != "berth-shim").count();
    assert_eq!(apps, 1, "{names:?}");
    bench.end(&spec.id).await;
}

pub(super) async fn one_that_floods_is_bounded(bench: Bench) {
    let spec = with(&bench, SLEEPS, Check { timeout: 300, ..check("exec yes a flood") });
    bench.start(&spec, "ready").await;
    // One that was killed before it had begun is followed by others.
    let flooded =
        |it: &Observed| it.checked.as_ref().and_then(|it| it.last.as_ref()).is_some_and(|it| !it.output.is_empty());
    let observed = bench.until(&spec.id, flooded).await;
    let last = observed.checked.unwrap().last.unwrap();
    assert!(last.timed_out, "{last:?}");
    assert!(last.output.len() <= 4_096 && last.output.starts_with(b"a flood\n"), "{}", last.output.len());
    bench.end(&spec.id).await;
}

pub(super) async fn one_that_cannot_be_run_is_told(bench: Bench) {
    let missing = check("").with(Command::Argv(vec!["/no/such/check".to_owned()]));
    let spec = with(&bench, SLEEPS, missing);
    bench.start(&spec, "ready").await;
    let observed = bench.until(&spec.id, failed).await;
    let last = observed.checked.unwrap().last.unwrap();
    assert_eq!(last.failure.unwrap().errno, libc::ENOENT, "{last:?}");
    assert!(last.to_string().starts_with("could not be run: running the program"), "{last}");
    bench.end(&spec.id).await;
}

pub(super) async fn one_that_stands_still_is_not_asked(bench: Bench) {
    let app = r#"rm -f "$TMPDIR/sick"; echo ready; exec sleep 1000"#;
    let still = with(&bench, app, Check { retries: 1, ..often(r#"test ! -e "$TMPDIR/sick""#) });
    bench.start(&still, "ready").await;
    bench.until(&still.id, is_healthy).await;
    bench.runtime().freeze(&still.id, Frozen::Resident).await.unwrap();
    // Another one is asked as often meanwhile, until it has failed more than once.
    let other = with(&bench, SLEEPS, Check { retries: 20, ..often("exit 1") });
    bench.start(&other, "ready").await;
    bench.until(&other.id, |it| it.exits.iter().any(|exit| exit.unhealthy)).await;
    bench.end(&other.id).await;
    bench.runtime().thaw(&still.id).await.unwrap();
    let observed = bench.until(&still.id, is_healthy).await;
    assert_eq!(observed.exit_count, 0);
    touch(&bench, &still, "sick").await;
    bench.until(&still.id, |it| it.exits.iter().any(|exit| exit.unhealthy)).await;
    bench.end(&still.id).await;
}

pub(super) async fn checks_go_on_without_a_control(mut bench: Bench) {
    let app = r#"rm -f "$TMPDIR/sick"; echo ready; exec sleep 1000"#;
    let spec = with(&bench, app, often(r#"test ! -e "$TMPDIR/sick""#));
    bench.start(&spec, "ready").await;
    bench.until(&spec.id, is_healthy).await;
    bench.reopen();
    bench.runtime().adopt_all().await.unwrap();
    bench.until(&spec.id, is_healthy).await;
    touch(&bench, &spec, "sick").await;
    bench.until(&spec.id, |it| it.exits.iter().any(|exit| exit.unhealthy) && it.restarts > 0).await;
    bench.end(&spec.id).await;
}
