//! Apps that sleep while nobody asks for them: they wake for whoever does, whatever was killed meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, User, wait_until};

/// What a busy machine is given before the test says that something does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A manifest of an app that sleeps soon; `more` goes to `[scale.web]`.
fn sleepy(more: &str) -> String {
    format!(
        "[processes]\nweb = \"./actor serve\"\n[deploy]\nwarm = \"0s\"\n\
         [scale.web]\nmin = 0\nidle_after = \"1s\"\n{more}\n"
    )
}

/// How deep the app sleeps, and how its instances are.
fn sleep_of(actor: &Actor<'_>) -> (Option<String>, Vec<String>) {
    let shown = actor.verb(&["ps"]).ok().json();
    let depth = shown["asleep"]["depth"].as_str().map(str::to_owned);
    let instances = shown["instances"].as_array().expect("a list");
    (depth, instances.iter().map(|it| it["state"].as_str().expect("a state").to_owned()).collect())
}

/// Waits until it stands still.
fn until_frozen(actor: &Actor<'_>) {
    let frozen = (Some("frozen".to_owned()), vec!["frozen".to_owned()]);
    let mut last = None;
    let slept = wait_until(PATIENCE, || last.insert(sleep_of(actor)) == &frozen);
    assert!(slept, "it does not stand still: {last:?}");
}

/// Waits until it sleeps and nothing of it runs.
fn until_stopped(actor: &Actor<'_>) {
    let mut last = None;
    let slept =
        wait_until(PATIENCE, || last.insert(sleep_of(actor)) == &(Some("stopped".to_owned()), vec![]));
    assert!(slept, "it is not stopped: {last:?}");
}

/// So many ask at once, each on a connection of its own. Everybody is answered.
fn burst(actor: &Actor<'_>, count: usize) {
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..count).map(|_| scope.spawn(|| actor.ask("/"))).collect();
        for answer in asked {
            assert_eq!(answer.join().expect("it asked"), (200, "here".to_owned()));
        }
    });
}

fn kinds(actor: &Actor<'_>) -> Vec<String> {
    let shown = actor.verb(&["timeline", "-n", "200"]).ok().json();
    let entries = shown["entries"].as_array().expect("a list");
    entries.iter().map(|it| it["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn pid_of(actor: &Actor<'_>) -> u64 {
    actor.verb(&["ps"]).ok().json()["instances"][0]["pid"].as_u64().expect("it runs")
}

/// A connection on which both sides speak another protocol from here on.
fn switched(platform: &Platform, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(platform.edge()).expect("edge listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!(
        "GET /switch HTTP/1.1\r\nhost: {name}.localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("edge reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("edge answers");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Sends a frame and hears it again.
fn echo(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(frame).expect("edge reads");
    let mut heard = vec![0; frame.len()];
    stream.read_exact(&mut heard).expect("it comes back");
    assert_eq!(heard, frame);
}

/// A message of one letter, masked with nought.
const MESSAGE: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, b'x'];
/// A pong, as libraries send them by themselves.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

#[test]
fn it_stands_still_and_wakes_for_a_hundred_at_once() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy(""));
    let _deployed = actor.deploy().ok();
    until_frozen(&actor);
    let pid = pid_of(&actor);
    let why = actor.verb(&["why"]).ok().json();
    assert!(why["answer"].as_str().expect("text").contains("stand still"), "{why}");
    let apps = platform.cli(["apps"]).ok().stdout;
    assert!(apps.contains("asleep (frozen)") && apps.contains("web 0/1"), "{apps}");
    burst(&actor, 100);
    assert_eq!(pid_of(&actor), pid, "it is the same process");
    let kinds = kinds(&actor);
    let count = |kind: &str| kinds.iter().filter(|it| *it == kind).count();
    assert!(count("app_woken") >= 1 && count("app_slept") >= 1, "{kinds:?}");
    // And again: it was no accident.
    until_frozen(&actor);
    burst(&actor, 20);
    assert_eq!(pid_of(&actor), pid);
}

#[test]
fn who_asks_why_it_does_not_sleep_hears_of_the_release_that_is_kept_warm() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy("").replace("warm = \"0s\"", "warm = \"1h\""));
    let _deployed = actor.deploy().ok();
    until_frozen(&actor);
    let _changed = actor.verb(&["config", "set", "A=1"]).ok();
    let why = actor.verb(&["why"]).ok().json();
    let answer = why["answer"].as_str().expect("text");
    assert!(
        answer.contains("v2 of shop serves") && answer.contains("does not sleep while v1 is kept warm"),
        "{why}"
    );
}

#[test]
fn it_is_stopped_and_starts_for_a_hundred_at_once() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy("stop_after = \"0s\""));
    let _deployed = actor.deploy().ok();
    until_stopped(&actor);
    let shown = platform.cli(["ps", "--app", "shop"]).ok();
    assert!(format!("{}{}", shown.stdout, shown.stderr).contains("asleep (stopped)"), "{shown:?}");
    burst(&actor, 100);
    assert!(sleep_of(&actor).0.is_none());
    until_stopped(&actor);
}

#[test]
fn after_a_longer_while_what_stands_still_is_stopped() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy("stop_after = \"2s\""));
    let _deployed = actor.deploy().ok();
    until_stopped(&actor);
    let shown = actor.verb(&["timeline", "-n", "200"]).ok().json();
    let depths: Vec<&str> = shown["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|it| it["kind"] == "app_slept")
        .map(|it| it["data"]["depth"].as_str().expect("a depth"))
        .collect();
    assert_eq!(depths, ["frozen", "stopped"]);
    burst(&actor, 10);
}

#[test]
fn where_nothing_can_stand_still_it_is_stopped_at_once() {
    let platform = Platform::start(Options { user: User::Ordinary, ..Options::default() });
    let actor = Actor::new(&platform, "shop", &sleepy(""));
    let _deployed = actor.deploy().ok();
    let slept = wait_until(PATIENCE, || sleep_of(&actor).0.is_some());
    assert!(slept);
    burst(&actor, 10);
}

#[test]
fn what_stands_open_does_not_keep_it_awake_and_a_message_on_it_wakes_it() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy(""));
    let _deployed = actor.deploy().ok();
    let mut socket = switched(&platform, "shop");
    echo(&mut socket, &MESSAGE);
    // A page that is kept up to date hears something all the time, and says nothing.
    let mut events = TcpStream::connect(platform.edge()).expect("edge listens");
    events.write_all(b"GET /events HTTP/1.1\r\nhost: shop.localhost\r\n\r\n").expect("edge reads");
    events.read_exact(&mut [0; 64]).expect("it is told something");
    let frozen = wait_until(PATIENCE, || {
        socket.write_all(&PONG).expect("edge reads");
        sleep_of(&actor).1 == ["frozen"]
    });
    assert!(frozen, "{:?}", sleep_of(&actor));
    let pid = pid_of(&actor);
    // All that was said before it stood still.
    events.set_nonblocking(true).expect("a socket");
    while matches!(events.read(&mut [0; 4_096]), Ok(1..)) {}
    events.set_nonblocking(false).expect("a socket");
    socket.write_all(&MESSAGE).expect("edge reads");
    // What comes back begins with the pongs.
    let (mut heard, mut piece) = (Vec::new(), [0; 4_096]);
    while !heard.ends_with(&MESSAGE) {
        let count = socket.read(&mut piece).expect("it comes back");
        assert!(count > 0, "the connection lives on");
        heard.extend(&piece[..count]);
    }
    assert_eq!(pid_of(&actor), pid);
    events.set_read_timeout(Some(PATIENCE)).expect("a socket");
    events.read_exact(&mut [0]).expect("it is told more");
}

/// It is drained first, as any that stops, and would hear nothing of it standing still.
#[test]
fn what_stands_open_is_heard_until_what_sleeps_is_stopped() {
    let platform = Platform::start(Options::default());
    let manifest = format!("{}[shutdown]\ndrain = \"10m\"\n", sleepy("stop_after = \"1s\""));
    let actor = Actor::new(&platform, "shop", &manifest);
    let _deployed = actor.deploy().ok();
    let mut socket = switched(&platform, "shop");
    let pid = pid_of(&actor);
    let deep = wait_until(PATIENCE, || sleep_of(&actor).0.as_deref() == Some("stopped"));
    assert!(deep, "{:?}", sleep_of(&actor));
    echo(&mut socket, &MESSAGE);
    let runs = |pid: u64| {
        let shown = actor.verb(&["ps"]).ok().json();
        shown["instances"].as_array().expect("a list").iter().any(|it| it["pid"].as_u64() == Some(pid))
    };
    assert!(runs(pid), "its connection lives on");
    drop(socket);
    assert!(wait_until(PATIENCE, || !runs(pid)), "nobody holds it any more");
}

#[test]
fn control_is_killed_while_it_sleeps_and_who_asks_meanwhile_is_answered_later() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy(""));
    let _deployed = actor.deploy().ok();
    until_frozen(&actor);
    let pid = pid_of(&actor);
    let control = platform.role("control");
    platform.kill(control[0]);
    assert_eq!(actor.ask("/"), (200, "here".to_owned()));
    assert_eq!(pid_of(&actor), pid);
    // And after one that was killed in peace.
    until_frozen(&actor);
    let control = platform.role("control");
    platform.kill(control[0]);
    until_frozen(&actor);
    burst(&actor, 10);
    assert_eq!(pid_of(&actor), pid);
}

#[test]
fn edge_is_killed_while_it_sleeps() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy(""));
    let _deployed = actor.deploy().ok();
    until_frozen(&actor);
    let pid = pid_of(&actor);
    platform.kill(platform.role("edge")[0]);
    burst(&actor, 10);
    assert_eq!(pid_of(&actor), pid);
}

#[test]
fn a_sleeping_app_is_deployed_and_sleeps_again() {
    let platform = Platform::start(Options::default());
    let actor = Actor::new(&platform, "shop", &sleepy(""));
    let _deployed = actor.deploy().ok();
    until_frozen(&actor);
    actor.change(&format!("{}[env]\nCHANGED = \"yes\"\n", sleepy("")));
    let _deployed = actor.deploy().ok();
    until_frozen(&actor);
    assert_eq!(actor.ask("/release"), (200, "v2".to_owned()));
    // One that does not come up leaves the sleeper as it is.
    until_frozen(&actor);
    actor.change(&sleepy("").replace("./actor serve", "./actor exit 3"));
    assert_ne!(actor.deploy().status, 0);
    assert_eq!(actor.ask("/release"), (200, "v2".to_owned()));
}

#[test]
fn two_wake_at_once_and_one_by_the_other() {
    let platform = Platform::start(Options::default());
    let one = Actor::new(&platform, "one", &sleepy(""));
    let two = Actor::new(&platform, "two", &sleepy("stop_after = \"0s\""));
    let _deployed = one.deploy().ok();
    let _deployed = two.deploy().ok();
    until_frozen(&one);
    until_stopped(&two);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| burst(&one, 30));
        burst(&two, 30);
        first.join().expect("everybody is answered");
    });
    // What an app of its project asks for wakes an app as well.
    until_stopped(&two);
    if one.ask("/call/two.internal/release").1.starts_with("200") {
        assert!(sleep_of(&two).0.is_none());
    }
}
