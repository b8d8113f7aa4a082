//! A platform on a machine that has control groups of version 2 alone, from its start to its end. `cargo xtask guest` boots such a machine and runs
//! this there, as root and as an ordinary user who was given a part of the control groups.
#![expect(clippy::print_stdout, reason = "a test that cannot run here says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const MANIFEST: &str = "[processes]\nweb = \"./actor serve\"\n[deploy]\nwarm = \"0s\"\n[scale.web]\nmin = 0\nidle_after = \"1s\"\n\
    [resources.web]\nmemory = \"128Mi\"\ncpu = 0.5\nprocesses = 50\n[resources.run]\nmemory = \"64Mi\"\nprocesses = 16\n\
    [[http.checks]]\ntype = \"readiness\"\ngrace = \"60s\"\n";

/// The group of a process.
fn group_of(pid: u64) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let path =
        groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("it is in a group of version 2");
    Path::new("/sys/fs/cgroup").join(path)
}

fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).expect("the group has the controller").trim().to_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What the platform says of itself there.
fn look_at_status(platform: &Platform) {
    let status = platform.cli(["status", "--json"]).ok().json();
    assert_eq!(status["cgroups"], "v2", "{status}");
    assert_eq!(status["isolation"], if is_root() { "full" } else { "namespaces" }, "{status}");
    let limits: Vec<&str> =
        status["limits"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(limits[..3], ["memory", "cpu", "pids"], "{status}");
    assert!(status["build_processes"].is_u64(), "{status}");
    let shown = platform.cli(["status"]).ok().stdout;
    println!("{shown}");
    println!("{}", platform.cli(["doctor"]).stdout);
}

fn instance(shop: &Actor<'_>) -> Value {
    shop.verb(&["ps"]).ok().json()["instances"][0].clone()
}

/// It may sleep, and a translated processor is slow to wake it: edge gives up before.
fn until_answers(shop: &Actor<'_>) {
    let mut last = None;
    let answers = wait_until(PATIENCE, || *last.insert(shop.ask("/release")) == (200, "v1".to_owned()));
    assert!(answers, "{last:?}");
}

#[test]
fn a_platform_on_version_two_alone_limits_freezes_adopts_and_goes_down() {
    if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_err() {
        println!(
            "!! NOT TESTED: this machine has control groups of version 1; `cargo xtask guest` boots one that has not"
        );
        return;
    }
    let mut platform = Platform::start(Options::default());
    look_at_status(&platform);
    let shop = Actor::new(&platform, "shop", MANIFEST);
    let _deployed = shop.deploy().ok();
    until_answers(&shop);

    let pid = instance(&shop)["pid"].as_u64().expect("it runs");
    let group = group_of(pid);
    assert_eq!(read(&group, "memory.max"), (128_u64 << 20).to_string());
    assert_eq!(read(&group, "cpu.max"), "50000 100000");
    assert!(read(&group, "pids.max").parse::<u64>().expect("a limit") >= 50);

    let frozen = wait_until(PATIENCE, || instance(&shop)["state"] == "frozen");
    assert!(frozen && read(&group, "cgroup.events").contains("frozen 1"), "{}", instance(&shop));
    // Whoever comes after a control that died knows what stands still, and wakes it.
    platform.kill(platform.role("control")[0]);
    until_answers(&shop);
    assert_eq!(instance(&shop)["pid"].as_u64(), Some(pid), "it is the same process");

    // So does a supervisor that comes after one that died: the group it was started in hands controllers down by now, and it is below that.
    platform.kill(platform.supervisor());
    platform.start_again();
    let shop = Actor::new(&platform, "shop", MANIFEST);
    until_answers(&shop);
    assert_eq!(instance(&shop)["pid"].as_u64(), Some(pid), "it is the same process");

    let run = |script: &str| platform.cli(["run", "-a", "shop", "--", "sh", "-c", script]);
    let bomb = run("head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; echo $?");
    assert!(!bomb.stdout.contains("200000000"), "{bomb:?}");
    let forks = run("for i in $(seq 40); do sleep 100 & done; wait");
    assert!(forks.stderr.contains("fork"), "{forks:?}");

    let greedy = r#"["sh", "-c", "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; exit 137"]"#;
    shop.change(&format!(
        "[processes]\nweb = {greedy}\n[resources.web]\nmemory = \"48Mi\"\n[[http.checks]]\ntype = \"readiness\"\ngrace = \"60s\"\n"
    ));
    let told = platform.cli([Path::new("deploy"), shop.directory()]);
    assert!(told.status == 1 && told.stderr.contains("memory ran out"), "{told:?}");
    until_answers(&shop);

    let group = group_of(instance(&shop)["pid"].as_u64().expect("it runs"));
    let _down = platform.cli(["down"]).ok();
    assert_eq!(platform.wait(), Some(0), "{}", platform.log("supervisor"));
    assert!(fs::metadata(&group).is_err(), "{} is left", group.display());
}
