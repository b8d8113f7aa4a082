//! The first journey: up, deploy, ask, deploy again under load, roll back, down; and nothing is left.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and the rate that was reached is printed"
)]

use std::path::Path;
use std::time::Duration;

use berth_acceptance::load::{Activation, Body, Connection, Exchange, Load, Options as LoadOptions};
use berth_acceptance::{Options, Platform, Source, User};

const HOST: &str = "simple-web-app.localhost";

fn ask(platform: &Platform) -> String {
    let mut connection = Connection::open(platform.edge(), Duration::from_secs(30)).unwrap();
    Exchange::echo(Body::Chunked(b"hello".to_vec()), HOST, true).perform(&mut connection).unwrap();
    Exchange::get("/version", HOST, false).perform(&mut connection).unwrap()
}

fn deploy(platform: &Platform, source: &Source) {
    let _released = platform.cli([Path::new("deploy"), source.path()]).ok();
}

fn journey(user: User) {
    let mut platform = Platform::start(Options { user, ..Options::default() });
    let mut source = Source::for_user(&platform, user);
    deploy(&platform, &source);
    assert_eq!(ask(&platform), "v1");

    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    let first =
        Activation { names: vec!["v1".to_owned()], submitted: Duration::ZERO, active: Duration::ZERO };
    let submitted = load.now();
    source.change();
    deploy(&platform, &source);
    let second = Activation { names: vec!["v2".to_owned()], submitted, active: load.now() };
    assert_eq!(ask(&platform), "v2");

    let submitted = load.now();
    let _rolled_back = platform.cli(["rollback", "--app", Source::APP]).ok();
    // The warm instances take over, and they were started as v1.
    let third = Activation { names: vec!["v1".to_owned()], submitted, active: load.now() };
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
fn a_platform_in_the_background_is_up_when_the_command_returns() {
    let mut platform = Platform::start(Options::default());
    let _down = platform.cli(["down"]).ok();
    assert_eq!(platform.wait(), Some(0));
    let up = platform.cli(["up", "--detach", "--json"]).ok().json();
    assert_eq!(up["edge"], platform.edge().to_string());
    let _apps = platform.cli(["apps"]).ok();
    let _down = platform.cli(["down"]).ok();
    let ended = || platform.role("edge").is_empty() && !platform.run_dir().try_exists().unwrap();
    assert!(berth_acceptance::wait_until(Duration::from_secs(60), ended));
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
