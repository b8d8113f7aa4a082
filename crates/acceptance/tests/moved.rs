//! A platform that moves into a home of another path: what artifacts say of their own place follows, and so do the repositories.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use berth_acceptance::{Actor, Api, Options, Platform, User, Worktree, exchange, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

fn ask(edge: SocketAddr, app: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {app}.localhost\r\nconnection: close\r\n\r\n");
    exchange(edge, request.as_bytes()).map_or((0, String::new()), |reply| (reply.status, reply.text()))
}

/// An app that is started by a script that names the artifact's path, as the programs of a virtual environment do, and by a link that
/// leads there.
fn rooted(platform: &Platform) -> Actor<'_> {
    let manifest = "[build]\ncommand = \"sh build.sh\"\n[processes]\nweb = \"./run serve\"\n";
    let actor = Actor::new(platform, "rooted", manifest);
    let script = "ln -s \"$ARTIFACT_DIR/actor\" link\n\
                  printf '#!/bin/sh\\nexec %s/link \"$@\"\\n' \"$ARTIFACT_DIR\" > run\nchmod +x run\n";
    fs::write(actor.directory().join("build.sh"), script).unwrap();
    actor
}

/// Two apps with repositories: one with a branch and a tag that were never deployed, one whose history is cut off.
fn push(platform: &Platform) {
    let tree = Worktree::new(platform, "whole", "shop");
    tree.write("index.html", "one");
    tree.commit("One");
    tree.run(["tag", "first"]);
    tree.write("index.html", "two");
    tree.commit("Two");
    tree.run(["push", "--quiet", "berth", "main", "main:topic", "first"]);
    let cut = Worktree::new(platform, "cut", "cut");
    let from = format!("file://{}", tree.directory().display());
    cut.run(["fetch", "--quiet", "--depth=1", &from, "main"]);
    cut.run(["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    cut.run(["push", "--quiet", "berth", "main"]);
}

fn journey(user: User) {
    let mut platform = Platform::start(Options { user, ..Options::default() });
    let _rooted = rooted(&platform).deploy().ok();
    let api = Api::of(&platform);
    for app in ["shop", "cut"] {
        let path = "/api/v1/tenants/default/projects/default/apps";
        let body = format!("{{\"name\":\"{app}\"}}");
        let made = api.ask("POST", path, body.as_bytes());
        assert_eq!(made.status, 201);
    }
    push(&platform);
    assert_eq!(ask(platform.edge(), "rooted", "/release"), (200, "v1".to_owned()));
    let token = fs::read_to_string(platform.home().join("keys/owner-token")).unwrap();
    let backup = platform.scratch().join("user/backup.tar").display().to_string();
    let _saved = platform.cli(["backup", &backup, "--with-key"]).ok();
    let _whole = platform.cli(["backup", "verify", &backup]).ok();

    let [tree, cut] =
        ["shop", "cut"].map(|app| Worktree::without_remote(&platform, &format!("{app}-after"), app));

    // The home that was saved is gone: nothing can lean on it.
    let _down = platform.cli(["down"]).ok();
    assert_eq!(platform.wait(), Some(0));
    fs::remove_dir_all(platform.home()).unwrap();
    let home = platform.scratch().join("user/elsewhere").display().to_string();
    let restored = platform.cli(["restore", &backup, "--home", &home]).ok().stdout;
    assert!(!restored.contains("moved"), "{restored}");
    let mut running =
        platform.begin(["up", "--json", "--home", &home, "--edge", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    let status = || platform.cli(["status", "--json", "--home", &home]);
    assert!(wait_until(PATIENCE, || running.has_ended() || status().status == 0));
    let status = status().ok().json();
    let address = |key: &str| -> SocketAddr { status[key].as_str().unwrap().parse().unwrap() };
    let edge = address("edge");
    assert!(
        wait_until(PATIENCE, || ask(edge, "rooted", "/release") == (200, "v1".to_owned())),
        "{:?}",
        ask(edge, "rooted", "/release")
    );

    // One repository is asked for; the other goes into the next backup as it came out of the last.
    let again = platform.scratch().join("user/again.tar").display().to_string();
    let url = |app: &str| format!("http://x:{}@{}/git/{app}.git", token.trim(), address("api"));
    let refs = tree.git(["ls-remote", "--quiet", &url("shop")]).ok().stdout;
    for name in ["refs/heads/main", "refs/heads/topic", "refs/tags/first"] {
        assert!(refs.contains(name), "{refs}");
    }
    tree.run(["pull", "--quiet", &url("shop"), "main"]);
    assert_eq!(tree.git(["log", "--format=%s"]).ok().stdout, "Two\nOne\n");
    let _saved = platform.cli(["backup", &again, "--with-key", "--home", &home]).ok();
    let listed = platform.cli(["backup", "list", &again]).ok().stdout;
    assert!(listed.contains("git/default/default/cut.bundle"), "{listed}");
    // What is pushed goes on from what was there.
    tree.write("index.html", "three");
    tree.commit("Three");
    tree.run(["push", "--quiet", &url("shop"), "HEAD:main"]);
    assert!(wait_until(PATIENCE, || ask(edge, "shop", "/").1 == "three"));
    cut.run(["fetch", "--quiet", "--update-shallow", &url("cut"), "main"]);
    cut.run(["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    assert_eq!(cut.git(["log", "--format=%s"]).ok().stdout, "Two\n");
    cut.write("index.html", "more");
    cut.commit("More");
    cut.run(["push", "--quiet", &url("cut"), "HEAD:main"]);
    assert!(wait_until(PATIENCE, || ask(edge, "cut", "/").1 == "more"));
    let _down = platform.cli(["down", "--home", &home]).ok();
    assert_eq!(running.wait().status, 0);
}

#[test]
fn with_a_user_for_each_app() {
    journey(User::Own);
}

#[test]
fn as_an_ordinary_user() {
    journey(User::Ordinary);
}
