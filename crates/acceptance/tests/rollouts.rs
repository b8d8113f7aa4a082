//! Rollouts by canary on the real platform: what is worse is taken back by itself, what is as good takes over, visitors keep their release,
//! and whoever wants otherwise has his way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, Reply, exchange, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);

/// The actor's manifest with a part and the steps of its rollout.
fn manifest(part: &str, steps: &str, interval: &str) -> String {
    format!(
        "[processes]\nweb = \"./actor {part}\"\n[deploy]\nstrategy = \"canary\"\n[deploy.canary]\nsteps = {steps}\ninterval = \"{interval}\"\n"
    )
}

fn ask(platform: &Platform, headers: &str) -> Reply {
    let request =
        format!("GET /release HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n{headers}\r\n");
    exchange(platform.edge(), request.as_bytes()).expect("edge answers")
}

/// Visitors who come until `work` is done: how many there were, and how many got no 200.
fn visited<T>(platform: &Platform, work: impl FnOnce() -> T) -> (T, u64, u64) {
    let (over, all, bad) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let done = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let status = ask(platform, "").status;
                    all.fetch_add(1, Ordering::Relaxed);
                    bad.fetch_add(u64::from(status != 200), Ordering::Relaxed);
                    // wait: for nothing; this is their pace.
                    std::thread::park_timeout(Duration::from_millis(15));
                }
            });
        }
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    });
    (done, all.into_inner(), bad.into_inner())
}

fn percent(shop: &Actor<'_>, release: u64) -> u64 {
    let traffic = shop.verb(&["traffic"]).ok().json();
    let shares = traffic["shares"].as_array().cloned().unwrap_or_default();
    let own = shares.iter().find(|share| share["release"] == release);
    own.and_then(|share| share["percent"].as_u64()).unwrap_or(0)
}

#[test]
fn one_that_fails_a_tenth_of_its_requests_is_taken_back_by_itself() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", &manifest("serve", "[20]", "60s"));
    let _first = shop.deploy().ok();
    shop.change(&manifest("flaky 10", "[20]", "60s"));
    let (second, all, bad) = visited(&platform, || shop.deploy());
    assert_eq!(second.status, 1, "{}", second.stdout);
    assert!(second.stdout.contains("rollout_worse"), "{}", second.stdout);
    // A tenth of a fifth, for as long as it took; and none since.
    assert!(bad > 0 && bad * 10 < all, "{bad} of {all}");
    let (_, all, bad) =
        visited(&platform, || (0..50).for_each(|_| assert_eq!(ask(&platform, "").text(), "v1")));
    assert_eq!(bad, 0, "of {all}");
    let why = shop.verb(&["why", "v2"]).ok().stdout;
    for said in ["gave v2 20 % of the requests", "v2 is worse than v1: it fails more often, at 20 %"] {
        assert!(why.contains(said), "{said}: {why}");
    }
    let shown = platform.cli(["releases", "v2", "--app", "shop"]).ok().stdout;
    assert!(shown.contains("error rate:") && shown.contains("chance alone does this"), "{shown}");
    assert_eq!(shop.verb(&["promote"]).status, 4);
    assert!(wait_until(PATIENCE, || !shop.verb(&["ps"]).ok().stdout.contains("\"release\": 2")));
}

#[test]
fn one_that_fails_all_of_its_requests_is_taken_back_by_itself() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", &manifest("serve", "[20]", "60s"));
    let _first = shop.deploy().ok();
    // Its one instance is not passed over, or it would be found as good as the old one, by whose answers its visitors got.
    shop.change(&manifest("flaky 1", "[20]", "60s"));
    let (second, all, bad) = visited(&platform, || shop.deploy());
    assert_eq!(second.status, 1, "{}", second.stdout);
    assert!(second.stdout.contains("rollout_worse"), "{}", second.stdout);
    assert!(bad > 0 && bad * 2 < all, "{bad} of {all}");
    let (_, all, bad) =
        visited(&platform, || (0..50).for_each(|_| assert_eq!(ask(&platform, "").text(), "v1")));
    assert_eq!(bad, 0, "of {all}");
}

#[test]
fn one_that_is_as_good_takes_over_though_control_is_killed_on_the_way() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", &manifest("serve", "[30, 60]", "4s"));
    let _first = shop.deploy().ok();
    shop.change(&format!("{}[env]\nA = \"1\"\n", manifest("serve", "[30, 60]", "4s")));
    let (second, all, bad) = visited(&platform, || {
        let deploy = platform.begin([std::path::Path::new("deploy"), "--json".as_ref(), shop.directory()]);
        assert!(wait_until(PATIENCE, || percent(&shop, 2) == 30));
        let before = platform.role("control");
        before.iter().for_each(|pid| platform.kill(*pid));
        assert!(wait_until(PATIENCE, || percent(&shop, 2) == 60));
        assert!(wait_until(PATIENCE, || percent(&shop, 2) == 100));
        deploy.wait()
    });
    assert_eq!((second.status, bad), (0, 0), "{bad} of {all} failed; {} {}", second.stdout, second.stderr);
    assert_eq!(ask(&platform, "").text(), "v2");
    let told = shop.verb(&["timeline"]).ok().stdout;
    for said in ["gave v2 30 % of the requests", "gave v2 60 % of the requests: ", "gave v2 all requests: "] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn visitors_keep_their_release_and_whoever_asks_by_name_gets_it() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", &manifest("serve", "[50]", "1h"));
    let _first = shop.deploy().ok();
    assert!(!ask(&platform, "accept: text/html\r\n").head.contains("set-cookie"), "nothing is shared yet");
    let _second = platform
        .cli([
            std::path::Path::new("deploy"),
            "--json".as_ref(),
            "--detach".as_ref(),
            "-m".as_ref(),
            "again".as_ref(),
            shop.directory(),
        ])
        .ok();
    assert!(wait_until(PATIENCE, || ask(&platform, "berth-release: v2\r\n").text() == "v2"));
    for _ in 0..10 {
        assert_eq!(ask(&platform, "berth-release: v1\r\n").text(), "v1");
        assert_eq!(ask(&platform, "berth-release: v2\r\n").text(), "v2");
    }
    assert!(ask(&platform, "berth-release: v9\r\n").status == 200, "one that has no share is passed over");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let first = ask(&platform, "accept: text/html\r\n");
        let cookie = first.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        let pair = cookie.split(';').next().expect("its value").to_owned();
        for _ in 0..5 {
            let again = ask(&platform, &format!("accept: text/html\r\ncookie: a=b; {pair}\r\n"));
            assert_eq!(again.text(), first.text(), "{pair}");
            assert!(!again.head.contains("set-cookie"));
        }
        seen.insert(first.text());
    }
    assert_eq!(seen.len(), 2, "of twenty visitors some get either");
    // A share that is set stays, and either name says it.
    let set = shop.verb(&["traffic", "set", "v1=100"]).ok().json();
    assert_eq!((&set["applied"], &set["traffic"]["rollout"]["held"]), (&true.into(), &true.into()), "{set}");
    assert!((0..20).all(|_| ask(&platform, "").text() == "v1"));
    assert_eq!(ask(&platform, "berth-release: v2\r\n").text(), "v2", "it can still be looked at");
    let aborted = shop.verb(&["abort"]).ok().json();
    assert_eq!(aborted["traffic"]["shares"].as_array().map(Vec::len), Some(1), "{aborted}");
    assert!(
        (0..20).all(|_| ask(&platform, "berth-release: v2\r\n").text() == "v1"),
        "it has no share any more"
    );
    assert!(shop.verb(&["why", "v2"]).ok().stdout.contains("aborted"));
    assert_eq!(shop.verb(&["abort"]).status, 4);
}

#[test]
fn a_rollout_is_promoted_and_the_release_before_gets_a_share_again() {
    let platform = Platform::start(Options::default());
    let shop = Actor::new(&platform, "shop", &manifest("serve", "[10]", "1h"));
    let _first = shop.deploy().ok();
    let deploy = platform.begin([std::path::Path::new("deploy"), "--json".as_ref(), shop.directory()]);
    assert!(wait_until(PATIENCE, || percent(&shop, 2) == 10));
    let promoted = shop.verb(&["promote"]);
    assert_eq!((promoted.status, deploy.wait().status), (0, 0), "{} {}", promoted.stdout, promoted.stderr);
    assert_eq!(ask(&platform, "").text(), "v2");
    let _set = shop.verb(&["traffic", "set", "v1=50"]).ok();
    let mut seen = std::collections::BTreeSet::new();
    assert!(wait_until(PATIENCE, || {
        seen.insert(ask(&platform, "").text());
        seen.len() == 2
    }));
    let refused = shop.verb(&["traffic", "set", "v7=50"]);
    assert_eq!(refused.status, 3, "{}", refused.stderr);
    let _ended = shop.verb(&["traffic", "set", "v1=0"]).ok();
    assert!((0..20).all(|_| ask(&platform, "").text() == "v2"));
}
