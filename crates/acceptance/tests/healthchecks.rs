//! Health checks that are commands, of images and of manifests: readiness by it, a release that it fails, an instance that falls ill; and commands in what runs.
#![expect(clippy::print_stdout, reason = "what is not tested must not look as if it had been")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use berth_acceptance::{Actor, ImageRegistry as Registry, Options, Platform, User, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// A platform that can run images, for each user that it can be of.
fn platforms(each: impl Fn(&Platform)) {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { user, ..Options::default() });
        let status = platform.cli(["status", "--json"]).ok().json();
        if ["full", "namespaces"].iter().any(|level| status["isolation"] == *level) {
            each(&platform);
        } else {
            println!("!! NOT TESTED: this platform is {}", status["isolation"]);
        }
    }
}

/// A check by a shell within the image, asked as often as `millis` says.
fn check(script: &str, millis: u64, retries: u32) -> String {
    let test = serde_json::json!(["CMD", "/bin/busybox", "sh", "-c", script]);
    format!(r#""Healthcheck":{{"Test":{test},"Interval":{},"Retries":{retries}}}"#, millis * 1_000_000)
}

/// The folder of an app that is the image, with `more` in its manifest.
fn source(platform: &Platform, registry: &Registry, more: &str) -> std::path::PathBuf {
    let source = platform.scratch().join("source");
    fs::create_dir_all(&source).expect("our directory");
    let manifest = format!("app = \"shop\"\n[build]\nimage = \"{}/team/shop:1\"\n{more}", registry.address);
    fs::write(source.join("berth.toml"), manifest).expect("our directory");
    source
}

fn instances(platform: &Platform) -> Vec<serde_json::Value> {
    let all = platform.cli(["ps", "--app", "shop", "--json"]).ok().json();
    // A command that was just run in one may still be there, and stands before them.
    all["instances"].as_array().expect("a list").iter().filter(|it| it["process"] != "run").cloned().collect()
}

#[test]
fn an_instance_that_falls_ill_is_ended_and_started_again() {
    let script = "test ! -e /dev/shm/sick || { echo the cellar is flooded; exit 3; }";
    let registry = Registry::with(&check(script, 500, 2));
    platforms(|platform| {
        let source = source(platform, &registry, "");
        let deployed = platform.cli_in(&source, ["deploy"]).ok();
        assert!(deployed.stdout.contains("is active"), "{}", deployed.stdout);
        let before = instances(platform);
        assert_eq!((before.len(), &before[0]["state"]), (1, &"ready".into()), "{before:?}");

        // What is run in it is what the app is, and sees what the app sees.
        let exec = |line: &str| platform.cli_in(&source, ["exec", "--", "/bin/busybox", "sh", "-c", line]);
        let seen = exec("/bin/busybox ps -o args; pwd; echo $COLOUR").ok().stdout;
        assert!(seen.contains("httpd -f") && seen.ends_with("/srv\nblue\n"), "{seen}");
        let told = exec("echo no >&2; exit 42");
        assert_eq!((told.status, told.stderr.as_str()), (42, "no\n"));

        let _sick = exec("> /dev/shm/sick").ok();
        let again = || {
            let now = instances(platform);
            now.len() == 1 && now[0]["restarts"] == 1 && now[0]["state"] == "ready"
        };
        assert!(wait_until(PATIENCE, again), "{:?}", instances(platform));
        let after = &instances(platform)[0];
        assert_eq!(after["exit"]["unhealthy"], true, "{after}");
        assert_eq!(after["id"], before[0]["id"]);
        let told = platform.cli(["timeline", "--app", "shop"]).ok().stdout;
        assert!(told.contains("failed its health check"), "{told}");
        assert!(told.contains("ran run.1 in instance 1 of v1, through pipes: /bin/busybox sh -c"), "{told}");
        let listed = platform.cli(["ps", "--app", "shop"]).ok().stdout;
        assert!(listed.contains("unhealthy, "), "{listed}");
        assert!(exec("test -e /dev/shm/sick || echo new").ok().stdout.contains("new"));
    });
}

#[test]
fn a_release_whose_check_never_passes_fails_with_what_it_said() {
    let registry = Registry::with(&check("echo no database in sight; exit 1", 300, 2));
    platforms(|platform| {
        let source = source(platform, &registry, "");
        let deployed = platform.cli_in(&source, ["deploy"]);
        let said = format!("{}{}", deployed.stdout, deployed.stderr);
        assert_eq!(deployed.status, 1, "{said}");
        assert!(said.contains("health_check_failed") && said.contains("no database in sight"), "{said}");
        let why = platform.cli(["why", "v1", "--app", "shop"]).ok().stdout;
        assert!(why.contains("its health check ended with status 1"), "{why}");
    });
}

/// A process without a port is ready by its check alone, and what the manifest says of the web process counts before the image's check.
#[test]
fn a_worker_has_it_too_and_the_manifest_counts_first() {
    let registry = Registry::with(&check("test -e /dev/shm/up", 300, 20));
    let worker = "[processes]\nworker = [\"/bin/busybox\", \"sh\", \"-c\", \"> /dev/shm/up; exec /bin/busybox sleep 100000\"]\n";
    let web = "web = [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"www\"]\n[[http.checks]]\ntype = \"readiness\"\npath = \"/up\"\n";
    platforms(|platform| {
        let source = source(platform, &registry, &format!("{worker}{web}"));
        let _deployed = platform.cli_in(&source, ["deploy"]).ok();
        let all = instances(platform);
        assert!(all.len() == 2 && all.iter().all(|it| it["state"] == "ready"), "{all:?}");
        let named = all.iter().find(|it| it["process"] == "worker").expect("there is one");
        let name = named["id"].as_str().and_then(|id| id.rsplit('/').next()).expect("it has an id");
        let list = |more: &[&str]| {
            let words = ["exec"].iter().chain(more).chain(&["--", "/bin/busybox", "ls", "/dev/shm"]).copied();
            platform.cli_in(&source, words)
        };
        assert_eq!(list(&["-i", name]).ok().stdout, "up\n");
        // The first one of web is taken where none is named.
        assert_eq!(list(&[]).ok().stdout, "");
        let missing = list(&["-i", "web.99"]);
        assert_eq!(missing.status, 3, "{}", missing.stderr);
        assert!(missing.stderr.contains("instance_not_found"), "{}", missing.stderr);
    });
}

/// What is built from source has a check by its manifest alone. While one of two instances is ill the other gets all requests.
#[test]
fn what_is_built_has_a_check_by_its_manifest() {
    let platform = Platform::start(Options::default());
    let check =
        "[healthcheck.web]\ncommand = \"test ! -e $TMPDIR/sick\"\ninterval = \"200ms\"\nretries = 1\n";
    let more = "[shutdown]\nkill_after = \"1s\"\n";
    let shop = Actor::new(&platform, "shop", &format!("[processes]\nweb = \"./actor serve\"\n{check}{more}"));
    let _deployed = shop.deploy().ok();
    let _scaled = platform.cli(["scale", "--app", "shop", "web=2"]).ok();
    let both = || {
        let asked: BTreeSet<String> = (0..20).map(|_| shop.ask("/instance").1).collect();
        asked.len() == 2
    };
    assert!(wait_until(PATIENCE, both), "both are asked");
    let list = |line: &str| platform.cli(["exec", "--app", "shop", "-i", "web.1", "--", "sh", "-c", line]);
    let _sick = list("> $TMPDIR/sick").ok();
    let ended = |count: u64| {
        let all = instances(&platform);
        let one = all.iter().find(|it| it["id"].as_str().is_some_and(|id| id.ends_with("web.1")));
        one.is_some_and(|it| it["restarts"].as_u64() >= Some(count) && it["exit"]["unhealthy"] == true)
    };
    assert!(wait_until(PATIENCE, || ended(1)), "{:?}", instances(&platform));
    let told = || platform.cli(["timeline", "--app", "shop"]).ok().stdout;
    assert!(wait_until(PATIENCE, || told().contains("failed its health check")), "{}", told());
    assert!(wait_until(PATIENCE, both), "it is well again, and is asked again");
    // A release with another check: of a command that is not there.
    shop.change("[processes]\nweb = \"./actor serve\"\n[healthcheck.web]\ncommand = [\"/no/such/check\"]\ninterval = \"200ms\"\n");
    let failed = shop.deploy();
    let said = format!("{}{}", failed.stdout, failed.stderr);
    assert!(failed.status == 1 && said.contains("health_check_failed"), "{said}");
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
}

/// Whoever hangs up ends it, and the app goes on.
#[test]
fn a_command_in_an_instance_ends_with_whoever_is_connected() {
    let registry = Registry::start();
    platforms(|platform| {
        let source = source(platform, &registry, "");
        let _deployed = platform.cli_in(&source, ["deploy"]).ok();
        let pid = instances(platform)[0]["pid"].clone();
        let line = ": lingers; trap '' HUP TERM; while :; do /bin/busybox sleep 0.1; done";
        let mut begun = platform.begin(["exec", "--app", "shop", "--", "/bin/busybox", "sh", "-c", line]);
        let runs = || {
            let seen = ["exec", "--app", "shop", "--", "/bin/busybox", "ps", "-o", "args"];
            let listed = platform.cli(seen).ok().stdout;
            listed.lines().filter(|it| it.starts_with("/bin/busybox sh") && it.contains(": lingers")).count()
        };
        assert!(wait_until(PATIENCE, || runs() == 1));
        for control in platform.role("control") {
            platform.kill(control);
        }
        assert!(wait_until(PATIENCE, || begun.has_ended()));
        assert_eq!(begun.wait().status, 5);
        assert!(wait_until(PATIENCE, || platform.cli(["ps", "--app", "shop"]).status == 0));
        assert!(wait_until(PATIENCE, || runs() == 0));
        assert_eq!(instances(platform)[0]["pid"], pid);
    });
}
