//! A repository elsewhere: its webhooks, as the forges send them, and what is fetched from it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use berth_acceptance::{Forge, Options, Platform, Reply, Worktree, exchange, hmac_sha256, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

struct Connected<'p> {
    platform: &'p Platform,
    forge: Forge,
    tree: Worktree,
    hook: String,
    secret: String,
}

impl<'p> Connected<'p> {
    /// The app `shop`, connected to a repository of a forge, which has nothing yet.
    fn new(platform: &'p Platform) -> Self {
        let forge = Forge::start(&platform.scratch().join("forge"));
        let tree = Worktree::without_remote(platform, "tree", "shop");
        let upstream = forge.path("shop.git");
        tree.run(["init", "--quiet", "--bare", "--initial-branch=main", upstream.to_str().unwrap()]);
        tree.run(["remote", "add", "origin", upstream.to_str().unwrap()]);
        let token = platform.scratch().join("token");
        fs::write(&token, "deployer:hunter2").unwrap();
        let url = forge.url("shop.git");
        let args = ["git", "connect", &url, "--allow-http", "--token", "--app", "shop", "--json"];
        let connected = platform.begin_reading(args, &token).wait().ok().json();
        let hook = connected["connection"]["hook"].as_str().unwrap().to_owned();
        let secret = connected["secret"].as_str().unwrap().to_owned();
        Self { platform, forge, tree, hook, secret }
    }

    /// Pushes a page to the forge, and gives the commit.
    fn page(&self, text: &str) -> String {
        self.tree.write("index.html", text);
        let commit = self.tree.commit(text);
        self.tree.run(["push", "--quiet", "origin", "main"]);
        commit
    }

    fn post(&self, path: &str, headers: &[(&str, String)], body: &str) -> Reply {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        exchange(self.platform.api(), format!("{request}\r\n{body}").as_bytes()).unwrap()
    }

    fn sign(&self, body: &str) -> String {
        hmac_sha256(self.secret.as_bytes(), body.as_bytes())
    }

    fn releases(&self) -> Vec<Value> {
        let answer = self.platform.cli(["releases", "--json", "--app", "shop"]).ok().json();
        answer["releases"].as_array().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        let request = "GET / HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n";
        let shown = || exchange(self.platform.edge(), request.as_bytes()).unwrap().text();
        assert!(wait_until(PATIENCE, || shown() == text), "{}: {:?}", shown(), self.releases());
    }

    fn timeline(&self) -> String {
        self.platform.cli(["timeline", "--app", "shop"]).ok().stdout
    }
}

/// What GitHub sends of a push, shortened.
fn github(commit: &str, branch: &str) -> String {
    json!({
        "ref": format!("refs/heads/{branch}"), "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "after": commit,
        "created": false, "deleted": false, "forced": false, "base_ref": null,
        "repository": { "id": 186_853_002, "full_name": "Codertocat/Hello-World", "pushed_at": 1_557_933_657,
            "clone_url": "https://github.com/Codertocat/Hello-World.git", "default_branch": "main" },
        "pusher": { "name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com" },
        "head_commit": { "id": commit, "message": "x", "timestamp": "2019-05-15T15:20:41Z" },
        "commits": [],
    })
    .to_string()
}

/// What Gitea sends of a push, shortened.
fn gitea(commit: &str) -> String {
    json!({
        "ref": "refs/heads/main", "before": "28e1879d029cb852e4844d9c718537df08844e03", "after": commit,
        "compare_url": "http://localhost:3000/gitea/webhooks/compare/28e1879d029c...bffeb7422404",
        "commits": [], "total_commits": 1,
        "repository": { "id": 140, "name": "webhooks", "full_name": "gitea/webhooks", "clone_url": "http://localhost:3000/gitea/webhooks.git" },
        "pusher": { "id": 1, "login": "gitea" }, "sender": { "id": 1, "login": "gitea" },
    })
    .to_string()
}

/// What GitLab sends of a push, shortened.
fn gitlab(commit: &str) -> String {
    json!({
        "object_kind": "push", "event_name": "push", "before": "95790bf891e76fee5e1747ab589903a6a1f80f22", "after": commit,
        "ref": "refs/heads/main", "ref_protected": true, "checkout_sha": commit, "user_id": 4, "user_name": "John Smith",
        "project_id": 15, "project": { "id": 15, "name": "Diaspora", "path_with_namespace": "mike/diaspora", "default_branch": "main" },
        "commits": [], "total_commits_count": 1,
    })
    .to_string()
}

#[test]
fn a_push_elsewhere_is_deployed_when_any_forge_tells_of_it() {
    let platform = Platform::start(Options::default());
    let shop = Connected::new(&platform);

    let body = github(&shop.page("one"), "main");
    let headers = [
        ("x-github-event", "push".to_owned()),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned()),
        ("x-hub-signature-256", format!("sha256={}", shop.sign(&body))),
    ];
    let taken = shop.post(&shop.hook, &headers, &body);
    assert_eq!(taken.status, 202, "{}", taken.text());
    shop.wait_for("one");
    let newest = &shop.releases()[0];
    assert_eq!((&newest["created_by"], &newest["description"]), (&json!("hook:github"), &json!("one")));
    // The same again, and the same under another delivery's id, makes nothing new: not even after a rollback.
    let again = shop.post(&shop.hook, &headers, &body);
    assert_eq!((again.status, again.text().contains("deployed before")), (200, true), "{}", again.text());

    let body = gitea(&shop.page("two"));
    let headers = [
        ("x-gitea-event", "push".to_owned()),
        ("x-github-event", "push".to_owned()),
        ("x-gitea-signature", shop.sign(&body)),
        ("x-hub-signature-256", format!("sha256={}", shop.sign(&body))),
    ];
    assert_eq!(shop.post(&shop.hook, &headers, &body).status, 202);
    shop.wait_for("two");

    let body = gitlab(&shop.page("three"));
    let headers = [("x-gitlab-event", "Push Hook".to_owned()), ("x-gitlab-token", shop.secret.clone())];
    assert_eq!(shop.post(&shop.hook, &headers, &body).status, 202);
    shop.wait_for("three");
    assert_eq!(shop.releases().len(), 3);

    // The token went to the forge, and is nowhere in what the platform shows or keeps in the clear.
    let expected = "Basic ZGVwbG95ZXI6aHVudGVyMg==";
    assert!(shop.forge.authorizations().iter().any(|it| it == expected), "{:?}", shop.forge.authorizations());
    let shown = platform.cli(["timeline", "--json", "--app", "shop"]).ok().stdout;
    let journal =
        String::from_utf8_lossy(&fs::read(platform.home().join("journal/journal.db")).unwrap()).into_owned();
    for kept in [&shown, &journal, &platform.log("control")] {
        assert!(!kept.contains("hunter2") && !kept.contains(&shop.secret));
    }
}

#[test]
fn nothing_is_deployed_for_whoever_has_not_the_secret() {
    let platform = Platform::start(Options::default());
    let shop = Connected::new(&platform);
    let body = github(&shop.page("one"), "main");
    let push = ("x-github-event", "push".to_owned());
    let right = format!("sha256={}", shop.sign(&body));
    for signature in [
        None,
        Some(String::new()),
        Some("sha256=".to_owned()),
        Some(right.replacen("sha256=", "sha1=", 1)),
        Some(format!("sha256={}", hmac_sha256(b"another secret", body.as_bytes()))),
        Some(format!("sha256={}", shop.sign("another body"))),
    ] {
        let mut headers = vec![push.clone()];
        headers.extend(signature.clone().map(|it| ("x-hub-signature-256", it)));
        let refused = shop.post(&shop.hook, &headers, &body);
        assert_eq!(refused.status, 401, "{signature:?}: {}", refused.text());
        assert_eq!(refused.json()["code"], "signature_invalid");
    }
    let headers = [push.clone(), ("x-hub-signature-256", right.clone())];
    let other = format!("{}0", shop.hook.get(..shop.hook.len() - 1).unwrap());
    let hidden =
        [other.as_str(), "/hooks/shop/", "/hooks/other/0123456789abcdef", "/hooks/../shop/0123456789abcdef"];
    for path in hidden.into_iter().filter(|path| **path != shop.hook) {
        assert_eq!(shop.post(path, &headers, &body).status, 404, "{path}");
    }
    for (event, body) in [
        ("ping", "{}".to_owned()),
        ("issues", "{}".to_owned()),
        ("push", github(&"a".repeat(40), "topic")),
        ("push", github(&"0".repeat(40), "main")),
    ] {
        let headers = [
            ("x-github-event", event.to_owned()),
            ("x-hub-signature-256", format!("sha256={}", shop.sign(&body))),
        ];
        assert_eq!(shop.post(&shop.hook, &headers, &body).status, 200, "{event}");
    }
    let nonsense = "payload=%7B%7D";
    let headers = [push, ("x-hub-signature-256", format!("sha256={}", shop.sign(nonsense)))];
    assert_eq!(shop.post(&shop.hook, &headers, nonsense).status, 400);
    let large = "x".repeat(9 << 20);
    assert!([401, 413].contains(&shop.post(&shop.hook, &headers, &large).status));
    assert!(shop.releases().is_empty());
    // Without a connection there is no webhook.
    let _gone = platform.cli(["git", "disconnect", "--app", "shop"]).ok();
    let headers = [("x-github-event", "push".to_owned()), ("x-hub-signature-256", right)];
    assert_eq!(shop.post(&shop.hook, &headers, &body).status, 404);
}

#[test]
fn a_repository_that_cannot_be_fetched_is_told_in_the_timeline() {
    let platform = Platform::start(Options::default());
    let shop = Connected::new(&platform);
    let body = github(&shop.page("one"), "main");
    fs::remove_dir_all(shop.forge.path("shop.git")).unwrap();
    let headers = [
        ("x-github-event", "push".to_owned()),
        ("x-hub-signature-256", format!("sha256={}", shop.sign(&body))),
    ];
    assert_eq!(shop.post(&shop.hook, &headers, &body).status, 202);
    let told = || shop.timeline().contains("did not deploy a push to main elsewhere: git fetch failed");
    assert!(wait_until(PATIENCE, told), "{}", shop.timeline());
    assert!(shop.releases().is_empty());
    // What was pushed again is deployed by the same delivery, sent again.
    shop.tree.run([
        "init",
        "--quiet",
        "--bare",
        "--initial-branch=main",
        shop.forge.path("shop.git").to_str().unwrap(),
    ]);
    shop.tree.run(["push", "--quiet", "origin", "main"]);
    assert_eq!(shop.post(&shop.hook, &headers, &body).status, 202);
    shop.wait_for("one");
    let left = fs::read_dir(platform.home().join("git/default/default")).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|it| Path::new(&it.file_name()).to_string_lossy().starts_with(".fetch")).collect();
    assert!(left.len() <= 1, "at most the one of the last fetch: {left:?}");
}
