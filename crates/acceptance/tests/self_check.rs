//! An app that looks around for what an intruder could use (examples/self-check) finds nothing at the default level, and at the level that has
//! nothing it does: what finds nothing anywhere would be no check.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use berth_acceptance::{Options, Platform, User, example};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

/// What the app answers.
fn ask(platform: &Platform, path: &str) -> String {
    let mut stream = TcpStream::connect(platform.edge()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: self-check.localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}

/// What it finds, check by check.
fn found(platform: &Platform) -> Vec<String> {
    let source = platform.scratch().join("self-check");
    fs::create_dir(&source).unwrap();
    for name in ["app.py", "Procfile", "berth.toml"] {
        fs::copy(example("self-check").join(name), source.join(name)).unwrap();
    }
    let _deployed = platform.cli([Path::new("deploy"), &source]).ok();
    let ports = [platform.edge(), platform.api()].map(|address| address.port().to_string()).join(",");
    let _told = platform.cli(["config", "set", &format!("CHECK_PORTS={ports}"), "--app", "self-check"]).ok();
    let page = ask(platform, "/");
    assert!(page.contains(" found</h1>"), "{page}");
    let results: Vec<Value> = serde_json::from_str(&ask(platform, "/json")).unwrap();
    assert_eq!(results.len(), 10, "{results:?}");
    let said = results.iter().flat_map(|result| result["found"].as_array().unwrap());
    said.map(|found| found.as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_app_that_looks_around_finds_nothing_of_use() {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { user, ..Options::default() });
        let level = platform.cli(["status", "--json"]).ok().json()["isolation"].as_str().unwrap().to_owned();
        if !["full", "namespaces"].contains(&level.as_str()) {
            eprintln!("NOT TESTED: {user:?} has {level} here");
            continue;
        }
        assert_eq!(found(&platform), [""; 0], "at {level}");
    }
}

#[test]
fn an_app_without_isolation_finds_much() {
    let platform = Platform::start(Options { isolation: Some("plain"), ..Options::default() });
    let found = found(&platform);
    for word in [
        "no filter of system calls",
        "processes of others",
        "the kernel looks at mount",
        "the kernel looks at bpf",
    ] {
        assert!(found.iter().any(|found| found.contains(word)), "{word}: {found:?}");
    }
}
