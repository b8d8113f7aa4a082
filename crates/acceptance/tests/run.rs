//! One-off commands: bytes, exit statuses, signals, lost connections, detached ones, and a control that is killed.

use std::io::Write as _;
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, Victim, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn shop(platform: &Platform) -> Actor<'_> {
    let shop = Actor::web(platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    shop
}

fn runs(shop: &Actor<'_>) -> Vec<String> {
    let all = shop.verb(&["ps"]).ok().json();
    let all = all["instances"].as_array().expect("a list").clone();
    let runs = all.iter().filter(|it| it["process"] == "run").filter_map(|it| it["id"].as_str());
    runs.map(|id| id.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_command_is_as_if_it_ran_here() {
    let platform = Platform::start(Options::default());
    let _shop = shop(&platform);
    let run = |arguments: &[&str]| platform.cli(["run", "-a", "shop"].iter().chain(arguments));
    let told =
        run(&["--env", "X=a b", "--", "sh", "-c", "echo $APP_NAME/$INSTANCE_ID/$X; echo no >&2; exit 42"]);
    assert_eq!((told.status, told.stdout.as_str(), told.stderr.as_str()), (42, "shop/run.1/a b\n", "no\n"));
    // One argument is a line, as in the manifest.
    assert_eq!(run(&["echo one | tr a-z A-Z"]).ok().stdout, "ONE\n");
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status, 137);
    let missing = run(&["--", "no-such-program", "x"]);
    assert_eq!(missing.status, 127, "{}", missing.stderr);
    assert!(missing.stderr.contains("there is no program `no-such-program`"), "{}", missing.stderr);
    assert_eq!(run(&["--release", "v9", "true"]).status, 3);
    let told = platform.cli(["timeline", "-a", "shop"]).ok().stdout;
    assert!(told.contains("ran run.1 in v1, through pipes: sh -c 'echo $APP_NAME"), "{told}");
    assert!(told.contains("run.1 exited with status 42"), "{told}");
    assert!(!told.contains("a b"), "values of variables are kept nowhere: {told}");
}

#[test]
fn every_byte_arrives_both_ways() {
    let platform = Platform::start(Options::default());
    let _shop = shop(&platform);
    let path = platform.scratch().join("bytes");
    let mut file = std::fs::File::create(&path).expect("our directory");
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    file.write_all(&bytes).expect("there is room");
    drop(file);
    let copy = platform.scratch().join("copy");
    let answer = platform.begin_through(["run", "-a", "shop", "--", "cat"], &path, &copy).wait();
    assert_eq!(answer.status, 0, "{}", answer.stderr);
    assert!(std::fs::read(&copy).expect("it was written") == bytes, "bytes were lost or changed");
}

#[test]
fn a_command_ends_with_whoever_is_connected_and_a_detached_one_does_not() {
    let platform = Platform::start(Options::default());
    let shop = shop(&platform);
    let mut attached = platform.begin(["run", "-a", "shop", "--", "sleep", "1000"]);
    assert!(wait_until(PATIENCE, || runs(&shop) == ["run.1"]));
    let line = "echo begun; sleep 1000";
    let detached =
        platform.cli(["run", "-a", "shop", "--json", "--detach", "--", "sh", "-c", line]).ok().json();
    assert_eq!(detached["id"], "default/default/shop/run.2");
    assert!(wait_until(PATIENCE, || runs(&shop) == ["run.1", "run.2"]));

    // Killed, control takes the connection along; the next one ends what nobody is connected to and goes on with the other.
    for control in platform.role("control") {
        platform.kill(control);
    }
    assert!(wait_until(PATIENCE, || attached.has_ended()));
    let ended = attached.wait();
    assert_eq!(ended.status, 5, "{}", ended.stderr);
    assert!(ended.stderr.contains("the connection to the platform was lost"), "{}", ended.stderr);
    assert!(wait_until(PATIENCE, || runs(&shop) == ["run.2"]));
    assert!(wait_until(PATIENCE, || {
        let lines = platform.cli(["logs", "-a", "shop", "-i", "run.2"]).ok().stdout;
        lines.contains("begun")
    }));
    let told = platform.cli(["why", "run.1", "-a", "shop"]).ok().stdout;
    assert!(told.contains("the connection of whoever ran it was lost"), "{told}");
    let _prey = platform.prey(Victim::Instance);
    let _gone = shop.verb(&["destroy", "--yes"]).ok();
}
