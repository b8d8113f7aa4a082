//! Saved while it serves, lost, restored: the same apps, releases, configuration, secrets and tokens, in the same place and beside the one
//! that was saved.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and what was saved is printed"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_acceptance::load::{Activation, Load, Options as LoadOptions};
use berth_acceptance::{Actor, Options, Platform, Source, User, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "s3cret-s3cret";

/// What an app answers at an edge: the body, if it answers 200.
fn ask(edge: SocketAddr, app: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(edge).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {app}.localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// What must be the same afterwards.
fn state(platform: &Platform, rest: &[&str]) -> Vec<Value> {
    let verb = |words: &[&str]| {
        let words = words.iter().chain(rest).copied().chain(["--json"]);
        platform.cli(words).ok().json()
    };
    let mut all = Vec::new();
    for app in ["shop", Source::APP] {
        for words in [&["releases"][..], &["config"], &["secrets"], &["releases", "v1"]] {
            all.push(verb(&[words, &["--app", app]].concat()));
        }
    }
    all
}

/// Two apps: one with configuration and a secret, one built from source with several releases.
fn furnish(platform: &Platform, user: User) -> Source {
    let shop = Actor::web(platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let _config = shop.verb(&["config", "set", "GREETING=hello"]).ok();
    let _secret = shop.verb(&["secrets", "set", &format!("TOKEN={SECRET}")]).ok();
    let mut source = Source::for_user(platform, user);
    for _ in 0..2 {
        let _deployed = platform.cli([Path::new("deploy"), source.path()]).ok();
        source.change();
    }
    source
}

fn serves_all(edge: SocketAddr) -> bool {
    ask(edge, "shop", "/env/GREETING").as_deref() == Some("hello")
        && ask(edge, "shop", "/env/TOKEN").as_deref() == Some(SECRET)
        && ask(edge, Source::APP, "/version").is_some_and(|answer| answer.contains("\"v2\""))
}

/// Every file of an artifact belongs to the one who owns artifacts and to its app's group, and to nobody else.
fn owners(dir: &Path) -> Vec<(u32, u32)> {
    let mut owners: Vec<(u32, u32)> = Vec::new();
    let mut left: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_none_or(|extension| extension != "json") {
            owners.push((found.uid(), found.gid()));
        }
    }
    owners.sort_unstable();
    owners.dedup();
    owners
}

fn journey(user: User) {
    let mut platform = Platform::start(Options { user, ..Options::default() });
    let _source = furnish(&platform, user);
    assert!(wait_until(PATIENCE, || serves_all(platform.edge())));
    let before = state(&platform, &[]);
    let token = fs::read_to_string(platform.home().join("keys/owner-token")).unwrap();

    // Under load, into a directory: it gets a name.
    let saved = platform.home().parent().unwrap().join("user");
    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    let answer = platform.cli(["backup", saved.to_str().unwrap(), "--json"]).ok().json();
    let serving =
        Activation { names: vec!["v2".to_owned()], submitted: Duration::ZERO, active: Duration::ZERO };
    load.stop().assert_clean(&[serving], &[]);
    let backup = answer["file"].as_str().unwrap().to_owned();
    println!("{} bytes in {backup}", answer["bytes"]);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read(&backup).unwrap().windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    assert_eq!(platform.cli(["backup", &backup]).status, 4, "it is there already");
    let key = saved.join("key").to_str().unwrap().to_owned();
    let _key = platform.cli(["backup", "key", &key]).ok();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let _whole = platform.cli(["backup", "verify", &backup]).ok();
    let listed = platform.cli(["backup", "list", &backup]).ok().stdout;
    assert!(listed.contains("secrets   shop: TOKEN") && listed.contains("journal.db"), "{listed}");

    beside(&platform, &backup, &key, &before);

    // What runs is lost with the home all the same: down only leaves nothing of it on the machine of the test.
    let _down = platform.cli(["down"]).ok();
    assert_eq!(platform.wait(), Some(0));
    fs::remove_dir_all(platform.home()).unwrap();
    let refused = platform.cli(["restore", &backup]);
    assert_eq!(refused.status, 4, "{refused:?}");
    assert!(
        refused.stderr.contains("shop: TOKEN") && refused.stderr.contains("--without-key"),
        "{refused:?}"
    );
    let restored = platform.cli(["restore", &backup, "--key", &key]).ok();
    assert!(restored.stdout.contains("restored 2 apps"), "{restored:?}");
    platform.start_again();
    assert!(wait_until(PATIENCE, || serves_all(platform.edge())), "{}", platform.log("control"));
    assert_eq!(state(&platform, &[]), before);
    // Who had a token has it still.
    assert_eq!(fs::read_to_string(platform.home().join("keys/owner-token")).unwrap(), token);
    let again = platform.cli(["restore", &backup, "--key", &key]);
    assert_eq!(again.status, 4, "a home is not restored over: {again:?}");
    // And it goes on from there.
    let _rolled_back = platform.cli(["rollback", "--app", Source::APP]).ok();
    assert!(wait_until(PATIENCE, || ask(platform.edge(), Source::APP, "/version")
        .is_some_and(|answer| !answer.contains("\"v2\""))));
}

/// Restored beside the platform that was saved, which goes on serving: other user ids, other ports, another name.
fn beside(platform: &Platform, backup: &str, key: &str, before: &[Value]) {
    let home = platform.home().parent().unwrap().join("user/second");
    let second = home.to_str().unwrap();
    let restored = platform.cli(["restore", backup, "--key", key, "--home", second]).ok().stdout;
    assert!(restored.contains("is in use here") && restored.contains("berth up --home"), "{restored}");
    let up = ["up", "--json", "--home", second, "--edge", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let mut running = platform.begin(up);
    let status = || platform.cli(["status", "--json", "--home", second]);
    assert!(wait_until(PATIENCE, || running.has_ended() || status().status == 0));
    let status = status().ok().json();
    let edge: SocketAddr = status["edge"].as_str().unwrap().parse().unwrap();
    assert!(wait_until(PATIENCE, || serves_all(edge)));
    assert!(serves_all(platform.edge()), "the one that was saved serves on");
    assert_eq!(state(platform, &["--home", second]), before);
    let [own, other] = [platform.home(), home.clone()].map(|home| owners(&home.join("artifacts")));
    if fs::metadata(&home).unwrap().uid() == 0 {
        assert_eq!(own.len(), other.len());
        assert!(own.iter().all(|owner| !other.contains(owner)), "{own:?} {other:?}");
    }
    let _down = platform.cli(["down", "--home", second]).ok();
    assert_eq!(running.wait().status, 0);
}

#[test]
fn as_the_tests_own_user() {
    journey(User::Own);
}

#[test]
fn as_an_ordinary_user() {
    journey(User::Ordinary);
}
