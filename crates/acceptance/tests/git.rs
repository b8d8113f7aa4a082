//! Pushing with the real git: what deploys, what does not, and what is left when something goes wrong on the way.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use berth_acceptance::{Answer, Options, Platform, User, Worktree, exchange, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// Makes the app, with a page that says `text`, committed.
fn page(platform: &Platform, app: &str, text: &str) -> Worktree {
    make(platform, app);
    let tree = Worktree::new(platform, &format!("tree-{app}"), app);
    tree.write("index.html", text);
    tree.commit("The first page");
    tree
}

fn make(platform: &Platform, app: &str) {
    let path = "/api/v1/tenants/default/projects/default/apps";
    let body = format!("{{\"name\":\"{app}\"}}");
    let made = berth_acceptance::Api::of(platform).ask("POST", path, body.as_bytes());
    assert_eq!(made.status, 201, "{}", made.text());
}

fn shown(platform: &Platform, app: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {app}.localhost\r\nconnection: close\r\n\r\n");
    exchange(platform.edge(), request.as_bytes()).unwrap().text()
}

fn releases(platform: &Platform, app: &str) -> Vec<Value> {
    let answer = platform.cli(["releases", "--json", "--app", app]).ok().json();
    answer["releases"].as_array().unwrap().clone()
}

fn push(tree: &Worktree, what: &str) -> Answer {
    tree.git(["push", "berth", what])
}

/// A push that must be taken, and what it printed.
fn pushed(tree: &Worktree, what: &str) -> String {
    push(tree, what).ok().stderr
}

/// A platform whose apps see the files of the machine: a deployment is held back by one that is not there.
fn without_roots() -> Platform {
    Platform::start(Options { isolation: Some("plain"), ..Options::default() })
}

/// A page whose deployment waits in its release command until a file is there.
fn held_page(platform: &Platform, app: &str) -> (Worktree, PathBuf) {
    let tree = page(platform, app, "held");
    let gate = platform.scratch().join(format!("gate-{app}"));
    let wait = format!("while ! test -e {}; do sleep 0.05; done", gate.display());
    tree.write("berth.toml", format!("[deploy]\nrelease_command = \"{wait}\"\n"));
    tree.commit("Held");
    (tree, gate)
}

/// Waits until the newest release is past its build.
fn wait_until_held(platform: &Platform, app: &str) {
    let held = || releases(platform, app).first().is_some_and(|it| it["state"] == "starting");
    assert!(wait_until(PATIENCE, held), "{:?}", releases(platform, app));
}

fn pushing_deploys(user: User) {
    let platform = Platform::start(Options { user, ..Options::default() });
    let tree = page(&platform, "shop", "one");
    let first = push(&tree, "main").ok();
    for line in [
        "remote: reading ",
        "The first page",
        "remote: ok v1 of shop is active",
        "remote:    http://shop.localhost:",
    ] {
        assert!(first.stderr.contains(line), "{line}: {}", first.stderr);
    }
    assert_eq!(shown(&platform, "shop"), "one");
    tree.write("index.html", "two");
    let commit = tree.commit("The second page\n\nWith a body.");
    pushed(&tree, "main");
    assert_eq!(shown(&platform, "shop"), "two");
    let newest = &releases(&platform, "shop")[0];
    assert_eq!(
        (newest["commit"].as_str(), newest["description"].as_str()),
        (Some(commit.as_str()), Some("The second page"))
    );
    assert!(tree.remote_refs().contains(&format!("{commit}\trefs/heads/main")));
    assert!(push(&tree, "main").ok().stderr.contains("Everything up-to-date"));

    // What was pushed can be cloned, over each version of the protocol, and with the long name too.
    for version in ["0", "1", "2"] {
        let target = platform.scratch().join(format!("clone-{version}"));
        let setting = format!("protocol.version={version}");
        tree.run(["-c", &setting, "clone", "--quiet", tree.url(), target.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(target.join("index.html")).unwrap(), "two");
    }
    let long = tree.url().replace("/git/shop.git", "/git/default/default/shop");
    assert!(tree.git(["ls-remote", &long]).ok().stdout.contains("refs/heads/main"));
}

#[test]
fn pushing_deploys_and_cloning_gives_it_back() {
    pushing_deploys(User::Own);
}

#[test]
fn pushing_deploys_and_cloning_gives_it_back_as_an_ordinary_user() {
    pushing_deploys(User::Ordinary);
}

#[test]
fn a_push_that_fails_to_deploy_is_rejected_and_moves_nothing() {
    let platform = Platform::start(Options::default());
    let tree = page(&platform, "shop", "one");
    pushed(&tree, "main");
    let before = tree.remote_refs();

    tree.write("berth.toml", "[deploy]\nstrateyg = \"canary\"\n");
    tree.commit("A mistake in the manifest");
    let refused = push(&tree, "main");
    assert_ne!(refused.status, 0);
    for line in ["berth.toml:2:1", "code: manifest_invalid", "pre-receive hook declined"] {
        assert!(refused.stderr.contains(line), "{line}: {}", refused.stderr);
    }

    tree.write("berth.toml", "[deploy]\nrelease_command = \"echo the migration is wrong; exit 3\"\n");
    tree.commit("A release command that fails");
    let refused = push(&tree, "main");
    assert_ne!(refused.status, 0);
    for line in ["error: v2 failed:", "the migration is wrong", "code: release_command_failed"] {
        assert!(refused.stderr.contains(line), "{line}: {}", refused.stderr);
    }
    assert_eq!(tree.remote_refs(), before, "no branch was moved");
    assert_eq!(shown(&platform, "shop"), "one", "what served before still serves");

    tree.write("berth.toml", "");
    tree.commit("Corrected");
    pushed(&tree, "main");
    assert_eq!(releases(&platform, "shop")[0]["number"], 3);
}

#[test]
fn only_the_deploy_branch_deploys_and_what_else_is_pushed_is_kept() {
    let platform = Platform::start(Options::default());
    let tree = page(&platform, "shop", "one");
    tree.run(["branch", "topic"]);
    tree.run(["tag", "v1.0"]);
    let kept = tree.git(["push", "berth", "topic", "v1.0"]).ok();
    assert!(
        kept.stderr.contains("topic is kept and not deployed: only main or master is"),
        "{}",
        kept.stderr
    );
    assert!(kept.stderr.contains("the tag v1.0 is kept and not deployed"), "{}", kept.stderr);
    assert!(releases(&platform, "shop").is_empty());
    let refs = tree.remote_refs();
    assert!(refs.contains("refs/heads/topic") && refs.contains("refs/tags/v1.0"), "{refs}");

    // Another branch's commits may be pushed to the deploy branch, history may be replaced, and the deploy branch stays.
    pushed(&tree, "topic:main");
    tree.write("index.html", "another first page");
    tree.run(["commit", "--quiet", "--all", "--amend", "-m", "Rewritten"]);
    assert_ne!(push(&tree, "main").status, 0, "git asks for force");
    pushed(&tree, "+main");
    assert_eq!(shown(&platform, "shop"), "another first page");
    let refused = push(&tree, ":main");
    assert_ne!(refused.status, 0);
    assert!(
        refused.stderr.contains("main is the branch that is deployed, and cannot be deleted"),
        "{}",
        refused.stderr
    );
    pushed(&tree, ":topic");
    let refused = tree.git(["push", "berth", "main", "main:master"]);
    assert_eq!(refused.status, 0, "only one of them changes: {}", refused.stderr);
    tree.commit("More");
    let refused = tree.git(["push", "berth", "main", "main:master"]);
    assert!(refused.stderr.contains("only one branch can be deployed"), "{}", refused.stderr);
}

#[test]
fn nobody_pushes_without_a_token() {
    let platform = Platform::start(Options::default());
    let tree = page(&platform, "shop", "one");
    let plain = format!("http://{}/git/shop.git", platform.api());
    for url in [plain.clone(), plain.replace("http://", "http://x:berth_wrong@")] {
        let refused = tree.git(["push", &url, "main"]);
        assert_ne!(refused.status, 0);
        assert!(
            refused.stderr.contains("could not read") || refused.stderr.contains("Authentication failed"),
            "{}",
            refused.stderr
        );
    }
    let request = "GET /git/shop.git/info/refs?service=git-upload-pack HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let reply = exchange(platform.api(), request.as_bytes()).unwrap();
    assert_eq!(reply.status, 401);
    assert!(reply.head.contains("www-authenticate: basic realm=\"berth\""), "{}", reply.head);
    let missing = tree.git(["push", &tree.url().replace("shop", "shpo"), "main"]);
    assert!(missing.stderr.contains("there is no app default/default/shpo"), "{}", missing.stderr);
    assert_eq!(tree.remote_refs(), "");
}

#[test]
fn a_deployment_goes_on_when_its_pusher_goes_away() {
    let platform = without_roots();
    let (tree, gate) = held_page(&platform, "shop");
    let pushing = tree.begin(["push", "berth", "main"]);
    wait_until_held(&platform, "shop");
    pushing.kill_group();
    drop(pushing.wait());
    fs::write(gate, "").unwrap();
    let head = tree.git(["rev-parse", "HEAD"]).ok().stdout;
    let moved = format!("{}\trefs/heads/main", head.trim());
    assert!(wait_until(PATIENCE, || tree.remote_refs().contains(&moved)), "git moves the branch by itself");
    assert_eq!(releases(&platform, "shop")[0]["state"], "active");
}

#[test]
fn a_control_that_is_killed_during_a_push_leaves_nothing_half_done() {
    let platform = without_roots();
    let (tree, gate) = held_page(&platform, "shop");
    let pushing = tree.begin(["push", "berth", "main"]);
    wait_until_held(&platform, "shop");
    platform.kill(platform.role("control")[0]);
    assert_ne!(pushing.wait().status, 0);
    fs::write(gate, "").unwrap();
    let active = || releases(&platform, "shop").first().is_some_and(|it| it["state"] == "active");
    assert!(wait_until(PATIENCE, active), "the next control goes on with the deployment");
    assert_eq!(tree.remote_refs(), "");
    let again = push(&tree, "main").ok();
    assert!(again.stderr.contains("v1 is of this commit already"), "{}", again.stderr);
    assert_eq!(releases(&platform, "shop").len(), 1);
    assert!(tree.remote_refs().contains("refs/heads/main"));
}

#[test]
fn two_pushes_at_once_are_one_after_the_other() {
    let platform = without_roots();
    let (tree, gate) = held_page(&platform, "shop");
    let other = Worktree::new(&platform, "tree-other", "shop");
    other.write("index.html", "the other");
    other.commit("Another history");
    let first = tree.begin(["push", "berth", "main"]);
    wait_until_held(&platform, "shop");
    // The branch is not there yet for either, so both are sent as new.
    let second = other.begin(["push", "berth", "main"]);
    fs::write(gate, "").unwrap();
    let _taken = first.wait().ok();
    let second = second.wait();
    assert_ne!(second.status, 0);
    let late = second.stderr.contains("refs/heads/main was moved by another push meanwhile");
    // It may have begun only after the first had ended.
    assert!(late || second.stderr.contains("fetch first"), "{}", second.stderr);
    assert_eq!(shown(&platform, "shop"), "held");
}

#[test]
fn a_remote_is_set_up_by_one_command_and_pushes_without_a_token() {
    let platform = Platform::start(Options::default());
    let tree = Worktree::without_remote(&platform, "My Shop's tree", "shop");
    tree.write("index.html", "one");
    tree.commit("One");
    let set_up = platform.cli_in(tree.directory(), ["git", "remote", "--app", "shop"]).ok();
    assert!(set_up.stdout.contains("the remote berth is http://"), "{}", set_up.stdout);
    let again = platform.cli_in(tree.directory(), ["git", "remote", "--app", "shop"]).ok();
    assert_eq!(again.stdout, set_up.stdout, "twice is as once");
    let printed = pushed(&tree, "main");
    assert!(printed.contains("ok v1 of shop is active"), "{printed}");
    let config = fs::read_to_string(tree.directory().join(".git/config")).unwrap();
    assert!(!config.contains("berth_"), "no token is written down: {config}");
    assert!(releases(&platform, "shop")[0]["created_by"].as_str().unwrap().starts_with("uid:"));

    // Another branch, once said, is the one.
    let _said = platform.cli(["git", "branch", "release", "--app", "shop"]).ok();
    tree.write("index.html", "two");
    tree.commit("Two");
    assert!(pushed(&tree, "main").contains("main is kept and not deployed: only release is"));
    assert_eq!(shown(&platform, "shop"), "one");
    pushed(&tree, "main:release");
    assert_eq!(shown(&platform, "shop"), "two");
    let shown = platform.cli(["git", "--app", "shop", "--json"]).ok().json();
    assert_eq!(shown["branches"], serde_json::json!(["release"]));
    // A pass is for one app.
    make(&platform, "other");
    let pass = platform.cli(["git", "credential", "get", "--app", "other"]).ok().stdout;
    let password = pass.lines().find_map(|line| line.strip_prefix("password=")).unwrap();
    let url = |app: &str| format!("http://x:{password}@{}/git/{app}.git", platform.api());
    assert_eq!(tree.git(["ls-remote", &url("other")]).status, 0);
    assert!(tree.git(["ls-remote", &url("shop")]).stderr.contains("there is no app default/default/shop"));
}
