//! What an app may take of its machine, and what it insists on, as its manifest says.
#![expect(clippy::print_stdout, reason = "a test that cannot run here says so")]

use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, User, wait_until};

const MANIFEST: &str = "[processes]\nweb = \"./actor serve\"\n[resources.web]\nmemory = \"128Mi\"\ncpu = 0.5\n\
    [resources.run]\nmemory = \"64Mi\"\nprocesses = 16\ntmp = \"1Mi\"\n";

/// A platform whose status names all limits; none where the machine has no control groups for us.
fn limiting() -> Option<Platform> {
    let platform = Platform::start(Options::default());
    let status = platform.cli(["status", "--json"]).ok().json();
    if status["isolation"] == "full" {
        return Some(platform);
    }
    println!("!! NOT TESTED: limits take the isolation `full`, and this platform is {}", status["isolation"]);
    None
}

#[test]
fn a_command_has_the_memory_processes_and_space_that_the_manifest_says() {
    let Some(platform) = limiting() else { return };
    let shop = Actor::new(&platform, "shop", MANIFEST);
    let _deployed = shop.deploy().ok();
    let run = |script: &str| platform.cli(["run", "-a", "shop", "--", "sh", "-c", script]);

    // tail keeps what it may have to print, and gets no 200 MB for it.
    let bomb = run("head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; echo $?");
    assert!(!bomb.stdout.contains("200000000"), "{bomb:?}");
    let forks = run("for i in $(seq 40); do sleep 100 & done; wait");
    assert!(forks.stderr.contains("fork"), "{forks:?}");
    let space = run("head -c 2000000 /dev/zero > $TMPDIR/x || wc -c < $TMPDIR/x");
    assert!(space.stderr.contains("space"), "{space:?}");
    // The process that serves has limits of its own.
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
}

#[test]
fn an_instance_that_needs_more_memory_than_it_has_is_told_so() {
    let Some(platform) = limiting() else { return };
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let greedy = r#"["sh", "-c", "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; exit 137"]"#;
    shop.change(&format!("[processes]\nweb = {greedy}\n[resources.web]\nmemory = \"48Mi\"\n"));
    let told = platform.cli([std::path::Path::new("deploy"), shop.directory()]);
    assert_eq!(told.status, 1, "{told:?}");
    assert!(told.stderr.contains("memory ran out"), "{}", told.stderr);
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));

    // One that ran out once it served, in a process that its program had started.
    let greedy = r#"["sh", "-c", "until test -e /tmp/go; do sleep 0.05; done; head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; exit 3"]"#;
    shop.change(&format!(
        "[processes]\nweb = \"./actor serve\"\nworker = {greedy}\n[resources.worker]\nmemory = \"48Mi\"\n"
    ));
    let _deployed = shop.deploy().ok();
    let worker = || {
        let all = shop.verb(&["ps"]).ok().json();
        all["instances"].as_array().unwrap().iter().find(|it| it["process"] == "worker").cloned().unwrap()
    };
    let name = worker()["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let _told = platform.cli(["exec", "-a", "shop", "-i", &name, "--", "touch", "/tmp/go"]).ok();
    let ran_out = || worker()["exit"]["oom"] == true && worker()["exit"]["status"] == 3;
    assert!(wait_until(Duration::from_secs(30), ran_out), "{}", worker());
    let why = platform.cli(["why", "-a", "shop"]).ok().stdout;
    assert!(why.contains("after the kernel killed a process of it because memory ran out"), "{why}");
    let listed = platform.cli(["ps", "-a", "shop"]).ok().stdout;
    assert!(listed.contains("status 3, out of memory"), "{listed}");
}

#[test]
fn an_app_that_insists_on_more_isolation_than_there_is_is_refused() {
    let options = Options { user: User::Own, isolation: Some("plain"), ..Options::default() };
    let platform = Platform::start(options);
    let minimum = |level: &str| format!("{MANIFEST}[isolation]\nminimum = \"{level}\"\n");
    let shop = Actor::new(&platform, "shop", &minimum("namespaces"));
    let refused = shop.deploy();
    assert_eq!(refused.status, 4, "{refused:?}");
    assert!(refused.stderr.contains("\"code\":\"isolation_too_low\""), "{refused:?}");
    let releases = shop.verb(&["releases"]).ok().json();
    assert_eq!(releases["releases"].as_array().map(Vec::len), Some(0), "{releases}");
    shop.change(&minimum("plain"));
    let _deployed = shop.deploy().ok();
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
}
