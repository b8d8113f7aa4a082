//! The wall clock jumps while the platform runs: nothing ends early, nothing is lost, and work goes on.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::time::Duration;

use berth_acceptance::{Options, Platform, example, wait_until};
use rustix::process::Signal;

/// Debian's faketime, for programs with threads.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
const HOUR_MS: u64 = 3_600_000;

fn newest_time(platform: &Platform) -> u64 {
    let timeline = platform.cli(["timeline", "-n", "1", "--app", "simple-web-app", "--json"]).ok().json();
    timeline["entries"][0]["at"].as_u64().unwrap()
}

fn warm(platform: &Platform) -> usize {
    let listed = platform.cli(["ps", "--app", "simple-web-app", "--json"]).ok().json();
    listed["instances"].as_array().unwrap().iter().filter(|it| it["state"] == "warm").count()
}

#[test]
fn a_wall_clock_that_jumps_ends_nothing_early() {
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).try_exists().unwrap()) else {
        eprintln!("SKIPPED: Debian's faketime is not installed, so the wall clock was not made to jump");
        return;
    };
    let clock = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(clock.path(), "+0").unwrap();
    let env = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.path().to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let platform = Platform::start(Options { env, ..Options::default() });
    let _deployed = platform.cli(["deploy".as_ref(), example("simple-web-app").as_os_str()]).ok();
    let _set = platform.cli(["config", "set", "--app", "simple-web-app", "N=0"]).ok();
    let real = newest_time(&platform);
    assert_eq!(warm(&platform), 1, "the first release is kept warm");

    for (round, jump) in ["+3h", "-3h"].into_iter().enumerate() {
        std::fs::write(clock.path(), jump).unwrap();
        let value = format!("N={}", round + 1);
        let _set = platform.cli(["config", "set", "--app", "simple-web-app", &value]).ok();
        let seen = newest_time(&platform);
        let far = if jump.starts_with('+') { seen > real + 2 * HOUR_MS } else { seen < real - 2 * HOUR_MS };
        assert!(far, "control did not see the clock jump by {jump}: {real} and {seen}");
        assert_eq!(warm(&platform), 1, "ten minutes of warmth are not over by a jump of {jump}");
    }

    let before = platform.cli(["releases", "--app", "simple-web-app", "--json"]).ok().json();
    let control = platform.role("control");
    control.iter().for_each(|pid| platform.signal(*pid, Signal::KILL));
    let another = || platform.role("control").iter().any(|pid| !control.contains(pid));
    assert!(wait_until(Duration::from_secs(60), another));
    let after = platform.cli(["releases", "--app", "simple-web-app", "--json"]).ok().json();
    assert_eq!(before, after);
    let _back = platform.cli(["rollback", "--app", "simple-web-app"]).ok();
}
