//! Cron entries: run by hand and by the clock, once each, told when they fail, gone and back with their release.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
const WEB: &str = "[processes]\nweb = \"./actor serve\"\n";
/// Debian's faketime, for programs with threads.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;

fn entry(name: &str, schedule: &str, command: &str) -> String {
    format!("[[cron]]\nname = \"{name}\"\nschedule = \"{schedule}\"\ncommand = \"{command}\"\n")
}

fn last(shop: &Actor<'_>, name: &str) -> Value {
    let list = shop.verb(&["cron"]).ok().json();
    let entries = list["entries"].as_array().unwrap();
    entries.iter().find(|it| it["name"] == name).unwrap()["last"].clone()
}

fn runs(shop: &Actor<'_>) -> Vec<String> {
    let all = shop.verb(&["ps"]).ok().json();
    let all = all["instances"].as_array().unwrap().clone();
    let runs = all.iter().filter(|it| it["process"] == "run").filter_map(|it| it["id"].as_str());
    runs.map(|id| id.rsplit('/').next().unwrap().to_owned()).collect()
}

fn kill_control(platform: &Platform) {
    let before = platform.role("control");
    before.iter().for_each(|pid| platform.kill(*pid));
    assert!(wait_until(PATIENCE, || platform.role("control").iter().any(|pid| !before.contains(pid))));
}

#[test]
fn an_entry_runs_when_it_is_asked_for_and_its_end_is_told() {
    let platform = Platform::start(Options::default());
    let entries = [
        entry("tidy", "0 3 * * *", "echo tidied by $INSTANCE_ID"),
        entry("broken", "@weekly", "sh -c 'echo no such table >&2; exit 3'"),
    ];
    let shop = Actor::new(&platform, "shop", &format!("{WEB}{}", entries.concat()));
    let _deployed = shop.deploy().ok();
    let shown = platform.cli(["cron", "-a", "shop"]).ok().stdout;
    assert!(shown.contains("every day at 03:00 UTC") && shown.contains("on Sunday at 00:00 UTC"), "{shown}");

    let begun = shop.verb(&["cron", "run", "tidy"]).ok().json();
    assert_eq!(begun["id"], "default/default/shop/run.1");
    assert!(wait_until(PATIENCE, || last(&shop, "tidy")["state"] == "succeeded"), "{}", last(&shop, "tidy"));
    let logged = || platform.cli(["logs", "-a", "shop", "-i", "run.1"]).ok().stdout;
    assert!(wait_until(PATIENCE, || logged().contains("tidied by run.1")), "{}", logged());

    let _begun = shop.verb(&["cron:run", "broken"]).ok();
    assert!(wait_until(PATIENCE, || last(&shop, "broken")["state"] == "failed"));
    let why = platform.cli(["why", "-a", "shop"]).ok().stdout;
    assert!(
        why.contains("The cron entry broken failed when it last ran: run.2 exited with status 3"),
        "{why}"
    );
    let why = platform.cli(["why", "run.2", "-a", "shop"]).ok().stdout;
    assert!(why.contains("| no such table"), "{why}");
    let timeline = platform.cli(["timeline", "-a", "shop"]).ok().stdout;
    assert!(timeline.contains("ran broken as run.2 in v1, at once: sh -c"), "{timeline}");
    assert!(timeline.contains("run.2 exited with status 3"), "{timeline}");
    let history = shop.verb(&["cron", "history"]).ok().json();
    assert_eq!(
        (history[0]["entry"].as_str(), history[1]["entry"].as_str()),
        (Some("broken"), Some("tidy")),
        "{history}"
    );
    for verb in [["cron", "run", "none"], ["cron", "history", "none"]] {
        let refused = shop.verb(&verb);
        assert_eq!(refused.status, 3);
        assert!(refused.stderr.contains("cron_not_found"), "{}", refused.stderr);
    }
}

#[test]
fn a_run_is_one_whoever_is_killed_and_entries_go_and_come_with_their_release() {
    let platform = Platform::start(Options::default());
    let slow = entry("slow", "@yearly", "echo begun && sleep 1000");
    let shop = Actor::new(&platform, "shop", &format!("{WEB}{slow}"));
    let _deployed = shop.deploy().ok();
    let _begun = shop.verb(&["cron", "run", "slow"]).ok();
    assert!(wait_until(PATIENCE, || runs(&shop) == ["run.1"]));
    // A run that was decided and not begun when control is killed is lost, and told as that: this one has begun.
    assert!(wait_until(PATIENCE, || shop.verb(&["logs", "-i", "run.1"]).stdout.contains("begun")));
    let refused = shop.verb(&["cron", "run", "slow"]);
    assert_eq!(refused.status, 4);
    assert!(refused.stderr.contains("cron_running"), "{}", refused.stderr);
    kill_control(&platform);
    assert_eq!(
        (runs(&shop), last(&shop, "slow")["state"].as_str()),
        (vec!["run.1".to_owned()], Some("running"))
    );

    // It goes on beside a release that has no such entry, and one that replaces ends it.
    shop.change(WEB);
    let _deployed = shop.deploy().ok();
    assert_eq!(shop.verb(&["cron"]).ok().json()["entries"], serde_json::json!([]));
    assert_eq!(runs(&shop), ["run.1"]);
    shop.change(&format!("{WEB}{slow}concurrency = \"replace\"\n"));
    let _deployed = shop.deploy().ok();
    let _begun = shop.verb(&["cron", "run", "slow"]).ok();
    assert!(wait_until(PATIENCE, || runs(&shop) == ["run.2"]), "{:?}", runs(&shop));
    let why = platform.cli(["why", "run.1", "-a", "shop"]).ok().stdout;
    assert!(why.contains("its cron entry was due again, and a new run takes its place"), "{why}");
    let _back = shop.verb(&["rollback", "v1"]).ok();
    let list = shop.verb(&["cron"]).ok().json();
    assert_eq!(
        (list["release"].as_u64(), list["entries"][0]["concurrency"].as_str()),
        (Some(4), Some("forbid"))
    );
    let _gone = shop.verb(&["destroy", "--yes"]).ok();
}

/// How many seconds to add to `now` for the next time of day `at`, at least one day ahead.
fn until(now: u64, at: u64) -> u64 {
    DAY_S + (at + DAY_S - now % DAY_S) % DAY_S
}

#[test]
fn the_clock_starts_an_entry_once_however_it_jumps() {
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).try_exists().unwrap()) else {
        eprintln!("SKIPPED: Debian's faketime is not installed, so no time came at which an entry was due");
        return;
    };
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set = |ahead: u64| std::fs::write(clock.path(), format!("+{ahead}")).unwrap();
    set(0);
    let env = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.path().to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let platform = Platform::start(Options { env, ..Options::default() });
    let shop = Actor::new(&platform, "shop", &format!("{WEB}{}", entry("tidy", "0 3 * * *", "echo tidied")));
    let _deployed = shop.deploy().ok();
    let past = || {
        let history = shop.verb(&["cron", "history", "tidy"]).ok().json();
        history
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // Any change has the app looked at; without one it would be within half a minute.
    let mut changes = 0;
    let mut look = || {
        changes += 1;
        let _set = shop.verb(&["config", "set", &format!("N={changes}")]).ok();
    };
    assert!(past().is_empty());

    // A few seconds after three: it runs, once, though the clock goes back to before it and comes again.
    let timeline = shop.verb(&["timeline", "-n", "1"]).ok().json();
    let now = timeline["entries"][0]["at"].as_u64().unwrap() / 1_000;
    let three = until(now, 3 * HOUR_S);
    set(three + 5);
    look();
    assert!(wait_until(PATIENCE, || past() == ["succeeded"]), "{:?}", past());
    set(three - HOUR_S);
    look();
    kill_control(&platform);
    look();
    set(three + 60);
    look();
    assert_eq!(past(), ["succeeded"]);

    // Two days later at noon it is too late, which is told; and the day after at three it runs again.
    set(three + 2 * DAY_S + 9 * HOUR_S);
    look();
    assert!(wait_until(PATIENCE, || past() == ["skipped", "succeeded"]), "{:?}", past());
    let timeline = platform.cli(["timeline", "-a", "shop"]).ok().stdout;
    assert!(timeline.contains("left tidy out: the platform did not run at its time"), "{timeline}");
    assert!(timeline.contains("the one time before it that was missed left out"), "{timeline}");
    set(three + 3 * DAY_S + 5);
    look();
    assert!(wait_until(PATIENCE, || past() == ["succeeded", "skipped", "succeeded"]), "{:?}", past());
}
