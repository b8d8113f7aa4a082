//! The first journey: up, deploy, ask, deploy again under load, roll back, down; and nothing is left.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and the rate that was reached is printed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_acceptance::load::{Activation, Body, Connection, Exchange, Load, Options as LoadOptions};
use berth_acceptance::{Options, Platform, User, example, example_binary};

const APP: &str = "simple-web-app";
const HOST: &str = "simple-web-app.localhost";

/// The example as this user can deploy it: its source, or where the toolchain is out of reach its executable and a Procfile.
fn source(platform: &Platform, user: User) -> PathBuf {
    let (from, to) = (example(APP), platform.scratch().join("source"));
    let copy = |from: &Path, name: &str| {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from, path).unwrap();
    };
    copy(&from.join("berth.toml"), "berth.toml");
    match user {
        User::Own => {
            for name in ["Cargo.toml", "Cargo.lock", "src/main.rs"] {
                copy(&from.join(name), name);
            }
        }
        User::Ordinary => {
            copy(&example_binary(APP), APP);
            fs::write(to.join("Procfile"), format!("web: ./{APP}\n")).unwrap();
        }
    }
    to
}

/// Changes something, so that the next release is not the last one again.
fn change(source: &Path, user: User) {
    match user {
        User::Own => {
            let path = source.join("src/main.rs");
            let changed = fs::read_to_string(&path).unwrap().replace("is running.", "was deployed again.");
            fs::write(path, changed).unwrap();
        }
        User::Ordinary => fs::write(source.join("CHANGES"), "something").unwrap(),
    }
}

fn ask(platform: &Platform) -> String {
    let mut connection = Connection::open(platform.edge(), Duration::from_secs(30)).unwrap();
    Exchange::echo(Body::Chunked(b"hello".to_vec()), HOST, true).perform(&mut connection).unwrap();
    Exchange::get("/version", HOST, false).perform(&mut connection).unwrap()
}

fn deploy(platform: &Platform, source: &Path) {
    let _released = platform.cli([Path::new("deploy"), source]).ok();
}

fn journey(user: User) {
    let mut platform = Platform::start(Options { user, ..Options::default() });
    let source = source(&platform, user);
    deploy(&platform, &source);
    assert_eq!(ask(&platform), "v1");

    let load = Load::start(LoadOptions::new(platform.edge(), APP));
    let first = Activation { release: "v1".to_owned(), submitted: Duration::ZERO, active: Duration::ZERO };
    let submitted = load.now();
    change(&source, user);
    deploy(&platform, &source);
    let second = Activation { release: "v2".to_owned(), submitted, active: load.now() };
    assert_eq!(ask(&platform), "v2");

    let submitted = load.now();
    let _rolled_back = platform.cli(["rollback", "--app", APP]).ok();
    // The warm instances take over, and they were started as v1.
    let third = Activation { release: "v1".to_owned(), submitted, active: load.now() };
    assert_eq!(ask(&platform), "v1");
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&[first, second, third], &[]);

    let status = platform.cli(["status", "--json"]).ok().json();
    assert!(status.is_object(), "{status}");
    let _down = platform.cli(["down"]).ok();
    assert_eq!(platform.wait(), Some(0));
}

#[test]
fn as_the_tests_own_user() {
    journey(User::Own);
}

#[test]
fn as_an_ordinary_user() {
    journey(User::Ordinary);
}

#[test]
fn a_second_start_says_who_has_the_home() {
    let platform = Platform::start(Options::default());
    let second = platform.cli(["up"]);
    assert_eq!(second.status, 4, "{}", second.stderr);
    assert!(second.stderr.contains(&platform.supervisor().to_string()), "{}", second.stderr);
    assert!(second.stderr.contains(&platform.edge().to_string()), "{}", second.stderr);
}

#[test]
fn a_killed_supervisor_is_followed_by_another() {
    let mut platform = Platform::start(Options::default());
    let (edge, old) = (platform.edge(), platform.role("edge"));
    platform.kill(platform.supervisor());
    platform.start_again();
    assert_eq!(platform.edge(), edge);
    assert!(berth_acceptance::wait_until(Duration::from_secs(60), || {
        platform.role("edge").len() == 1 && platform.role("edge") != old
    }));
    assert_eq!(platform.role("control").len(), 1);
}
