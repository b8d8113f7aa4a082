//! The API through its router: who may do what, what is refused and how, and each journey's requests.

use std::os::unix::net::UnixStream;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use berth_contract::route::{IDEMPOTENCY_KEY, LAST_EVENT_ID, PROBLEM_JSON};
use berth_control::command::{Command, Fact, Wish};
use berth_control::event::{Failure, Grant};
use berth_control::state::State;
use berth_journal::Options;
use berth_spec::{AppId, ReleaseNumber};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::auth::Peer;
use super::*;
use crate::desk::Asker;
use crate::edge_link::CertificateShelf;
use crate::stage::{OWNER, config};

const A: &str = "/api/v1/tenants/default/projects/default/apps";

struct Stage {
    _dir: tempfile::TempDir,
    _ends: Vec<UnixStream>,
    api: Arc<Api>,
    router: Router,
    _desk_task: tokio::task::JoinHandle<()>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, text }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts that it is a problem, whole, and gives its code.
    fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], PROBLEM_JSON, "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        for member in ["type", "title", "detail", "code"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Stage {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, ends) = config(dir.path(), Arc::new(berth_clock::SystemClock::new()));
        let journal = Arc::new(Journal::open(&dir.path().join("journal"), Options::default()).unwrap());
        let (desk, task) =
            crate::desk::open(Arc::clone(&journal), Arc::clone(&config.clock), State::default()).await;
        let desk_task = tokio::spawn(task.run());
        let vault = Arc::new(Vault::new(config.key_encryption_key.clone()));
        let api = Arc::new(Api {
            machine: Arc::new(Machine::open(&config, &desk).await.unwrap()),
            edge: Arc::new(
                EdgeLink::open(
                    &dir.path().join("routing"),
                    None,
                    crate::edge_link::EdgeClaims::below(dir.path()),
                    CertificateShelf::open(&dir.path().join("routing"), None, Arc::clone(&vault)).unwrap(),
                    Arc::clone(&config.clock),
                )
                .unwrap(),
            ),
            vault,
            clock: Arc::clone(&config.clock),
            identity: crate::identity(&config),
            down: watch::channel(false).0,
            desk,
            journal,
        });
        let stage =
            Self { _dir: dir, _ends: ends, router: router(Arc::clone(&api)), api, _desk_task: desk_task };
        for project in ["default/default", "other/web"] {
            stage.submit(Command::EnsureProject { project: project.parse().unwrap() }).await;
        }
        let grants = [
            ("stranger", Grant::Tenant { tenant: "other".parse().unwrap() }),
            ("project", Grant::Project { project: "default/default".parse().unwrap() }),
        ];
        for (token, grant) in grants {
            let sha256 = auth::hash_token(token);
            let grants = vec![grant];
            stage.submit(Command::IssueToken { token: token.to_owned(), sha256, grants }).await;
        }
        stage
    }

    async fn submit(&self, command: Command) {
        self.api.desk.submit(command, Asker::platform("test"), None, None).await.unwrap();
    }

    async fn send(&self, mut request: Request<Body>, peer: Peer) -> Answer {
        request.extensions_mut().insert(peer);
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// As the platform's owner, over the Unix socket.
    async fn ask(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> Answer {
        let owner = Peer::Local { uid: OWNER, gid: OWNER, pid: None };
        self.send(request(method, path, Some(key), body), owner).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, None, None), Peer::Local { uid: OWNER, gid: OWNER, pid: None })
            .await
    }

    /// Over TCP with a token.
    async fn with_token(&self, token: &str, mut request: Request<Body>) -> Answer {
        let value = format!("Bearer berth_{token}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        self.send(request, Peer::Network).await
    }

    /// Uploads a chunk, gives its hash.
    async fn upload(&self) -> String {
        let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"hello").as_ref());
        let put = Request::put(format!("/api/v1/tenants/default/chunks/{hash}"));
        let answer = self.with_token("project", put.body(Body::from("hello")).unwrap()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        hash
    }
}

fn request(method: Method, path: &str, key: Option<&str>, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header(IDEMPOTENCY_KEY, key);
    }
    match body {
        Some(body) => {
            request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string()))
        }
        None => request.body(Body::empty()),
    }
    .unwrap()
}

/// Every operation of the OpenAPI document, with a path and a body that would do.
fn operations() -> Vec<(Method, String, Option<Value>)> {
    let document = serde_json::to_value(document()).unwrap();
    let mut operations = Vec::new();
    for (template, methods) in document["paths"].as_object().unwrap() {
        let path = template
            .replace("{tenant}", "default")
            .replace("{project}", "default")
            .replace("{app}", "shop")
            .replace("{number}", "1")
            .replace("{entry}", "nightly")
            .replace("{volume}", "data")
            .replace("{certificate}", &"0".repeat(64))
            .replace("{snapshot}", "20261127T171530Z")
            .replace("{hash}", &"0".repeat(64));
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let what = (method.clone(), template.rsplit('/').next().unwrap());
            let body = match what {
                (Method::POST, "missing") => Some(json!({ "chunks": [] })),
                (Method::POST, "apps") => Some(json!({ "name": "shop" })),
                (Method::POST, "releases") => Some(json!({ "tree": format!("t{}", "0".repeat(64)) })),
                (Method::POST, "restore") => Some(json!({ "snapshot": "20261127T171530Z" })),
                (Method::POST, "rollback") | (Method::PATCH, _) => Some(json!({})),
                (Method::POST, "runs") => Some(json!({ "command": ["true"] })),
                (Method::PUT, "branch") => Some(json!({ "branch": "main" })),
                (Method::PUT, "connection") => Some(json!({ "url": "https://git.example.com/a/b" })),
                (Method::POST, "upgrade") => Some(json!({ "from": "/usr/local/bin/berth" })),
                (Method::POST, "certificates") => Some(json!({ "chain": "", "key": "" })),
                (Method::POST, "certificate-renewals") => Some(json!({ "host": "shop.example.com" })),
                (Method::PUT, "acme") => Some(json!({ "directory": "http://acme.example.com" })),
                (Method::PUT, "traffic") => Some(json!({ "release": 1, "percent": 10 })),
                (Method::PUT, "gate") => Some(json!({ "gate": "maintenance" })),
                (Method::PUT, "scale") => Some(json!({ "web": 1 })),
                _ => None,
            };
            operations.push((method, path.clone(), body));
        }
    }
    assert!(operations.len() >= 24, "{operations:?}");
    operations
}

#[tokio::test]
async fn nobody_gets_in_over_tcp_without_a_token() {
    let stage = Stage::new().await;
    let elsewhere = [(Method::GET, "/".to_owned(), None), (Method::GET, "/api/v1/nothing".to_owned(), None)];
    for (method, path, body) in operations().into_iter().chain(elsewhere) {
        let answer = stage.send(request(method.clone(), &path, Some("k"), body.clone()), Peer::Network).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (401, "unauthenticated"),
            "{method} {path}"
        );
        let wrong = stage.with_token("wrong", request(method, &path, Some("k"), body)).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    }
    // Neither is another user of the machine the owner, and a token that is wrong is not made good by a peer that is right.
    let local = |uid| Peer::Local { uid, gid: uid, pid: None };
    let status = || request(Method::GET, route::PLATFORM, None, None);
    assert_eq!(stage.send(status(), local(OWNER + 1)).await.status, StatusCode::UNAUTHORIZED);
    let mut with_wrong = status();
    with_wrong.headers_mut().insert(header::AUTHORIZATION, "Bearer berth_wrong".parse().unwrap());
    assert_eq!(stage.send(with_wrong, local(OWNER)).await.status, StatusCode::UNAUTHORIZED);
}

/// What an owner of the platform alone may read.
const OF_OWNERS: [&str; 3] = [route::PLATFORM_BACKUP, route::CERTIFICATES, route::AUTHORITY];

#[tokio::test]
async fn no_route_tells_a_stranger_of_another_tenant() {
    let stage = Stage::new().await;
    stage.ask(Method::POST, A, "k", Some(json!({ "name": "shop" }))).await;
    let there = stage.api.journal.head();
    for (method, path, body) in operations() {
        let answer = stage.with_token("stranger", request(method.clone(), &path, Some("k"), body)).await;
        if path.contains("/tenants/default") {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {}", answer.text);
            assert!(!answer.text.contains("shop"), "{}", answer.text);
            answer.problem();
        } else if method == Method::GET && !OF_OWNERS.contains(&path.as_str()) {
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert!(path == route::OPENAPI || !answer.text.contains("shop"), "{path}: {}", answer.text);
        } else {
            assert_eq!(answer.problem(), "forbidden", "{method} {path}");
        }
    }
    assert_eq!(stage.api.journal.head(), there, "nothing was changed");
    let status = request(Method::GET, route::PLATFORM, None, None);
    let seen = stage.with_token("stranger", status).await.json();
    assert_eq!((&seen["home"], &seen["roles"], &seen["apps"]), (&json!(""), &json!([]), &json!([])));
    let owner = stage.get(route::PLATFORM).await.json();
    assert_eq!((owner["apps"].as_array().unwrap().len(), &owner["breaches"]), (1, &json!(0)), "{owner}");
    assert!(owner["home"].as_str().is_some_and(|home| !home.is_empty()));
    assert!(owner["isolation_words"].is_string() && owner["roles"].as_array().unwrap().len() >= 2);
}

#[tokio::test]
async fn a_mutation_needs_a_key_and_a_right_body() {
    let stage = Stage::new().await;
    let owner = Peer::Local { uid: 0, gid: 0, pid: None };
    for (method, path, body) in operations() {
        let upload = path.contains("/chunks/") || path.ends_with("/trees");
        if method == Method::GET || upload {
            continue;
        }
        let answer = stage.send(request(method.clone(), &path, None, body), owner).await;
        assert_eq!(answer.problem(), "idempotency_key_missing", "{method} {path}");
        assert!(answer.json()["next"].is_string());
    }
    for key in ["", &"k".repeat(201)] {
        let answer = stage.ask(Method::POST, A, key, Some(json!({ "name": "shop" }))).await;
        assert_eq!(answer.problem(), "request_invalid");
    }
    for body in [json!({}), json!({ "name": "Shop" }), json!({ "name": "shop", "more": 1 }), json!([])] {
        assert_eq!(stage.ask(Method::POST, A, "k", Some(body)).await.problem(), "request_invalid");
    }
    let text = Request::post(A).header(IDEMPOTENCY_KEY, "k").body(Body::from("{\"name\":\"shop\"}")).unwrap();
    assert_eq!(stage.send(text, owner).await.problem(), "request_invalid", "it does not say that it is JSON");
    let long = json!({ "set": { "A": "x".repeat(BODY_MAX) } });
    let answer = stage.ask(Method::PATCH, &format!("{A}/shop/config"), "k", Some(long)).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn other_methods_and_paths_are_problems_and_nothing_is_said_of_origins() {
    let stage = Stage::new().await;
    let head = stage.ask(Method::HEAD, route::PLATFORM, "k", None).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    for method in [Method::OPTIONS, Method::DELETE, Method::TRACE] {
        let answer = stage.ask(method, route::PLATFORM, "k", None).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (405, "method_not_allowed"));
        assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
    let nothing = stage.get("/api/v2").await;
    assert_eq!((nothing.problem().as_str(), nothing.json()["next"].is_string()), ("route_not_found", true));
    let names = stage.get(&format!("{A}/Not_A_Name")).await;
    assert_eq!(names.problem(), "request_invalid");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let stage = Stage::new().await;
    tokio::time::pause();
    let never =
        Body::from_stream(futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    let slow = Request::post(A)
        .header(IDEMPOTENCY_KEY, "k")
        .header(header::CONTENT_TYPE, "application/json")
        .body(never)
        .unwrap();
    let answer = stage.send(slow, Peer::Local { uid: 0, gid: 0, pid: None }).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (408, "request_timed_out"));
}

#[tokio::test]
async fn apps_come_page_by_page_and_only_those_of_the_project() {
    let stage = Stage::new().await;
    let ids = ["default/default/a", "default/default/shop", "default/default/shop-two", "default/default/z"];
    for id in ids.iter().chain(&["other/web/shop"]) {
        stage.submit(Command::App { app: id.parse().unwrap(), wish: Wish::Create }).await;
    }
    let page = async |query: &str| {
        let page = stage.get(&format!("{A}{query}")).await.json();
        let names = page["apps"].as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap());
        (names.collect::<Vec<_>>().join(" "), page["next"].as_str().map(str::to_owned))
    };
    for (query, names, next) in [
        ("", "a shop shop-two z", None),
        ("?limit=2", "a shop", Some("shop")),
        ("?limit=2&after=shop", "shop-two z", None),
        ("?after=m", "shop shop-two z", None),
        ("?after=z", "", None),
        ("?q=hop&limit=1", "shop", Some("shop")),
        ("?q=hop&limit=1&after=shop", "shop-two", None),
    ] {
        assert_eq!(page(query).await, (names.to_owned(), next.map(str::to_owned)), "{query}");
    }
    for bad in ["?limit=x", "?after=..", "?page=2"] {
        assert_eq!(stage.get(&format!("{A}{bad}")).await.problem(), "request_invalid");
    }
}

#[tokio::test]
async fn an_app_from_its_making_to_its_end() {
    let stage = Stage::new().await;
    let shop = format!("{A}/shop");
    let below = |what: &str| format!("{shop}/{what}");
    assert_eq!(stage.get(&shop).await.problem(), "app_not_found");
    let name = || Some(json!({ "name": "shop" }));
    let made = stage.ask(Method::POST, A, "make", name()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(made.headers.contains_key("x-request-id"));
    assert_eq!(stage.ask(Method::POST, A, "make", name()).await.status, StatusCode::CREATED, "a repeat");
    assert_eq!(stage.ask(Method::POST, A, "other", name()).await.problem(), "app_exists");
    let reused = stage.ask(Method::POST, A, "make", Some(json!({ "name": "blog" }))).await;
    assert_eq!(reused.problem(), "idempotency_key_reused");
    assert_eq!(stage.get(A).await.json()["apps"][0]["name"], "shop");

    let set = json!({ "set": { "A": "1", "B": "2" } });
    let changed = stage.ask(Method::PATCH, &below("config"), "c1", Some(set)).await.json();
    assert_eq!((&changed["config"], &changed["release"]), (&json!({ "A": "1", "B": "2" }), &Value::Null));
    let both = json!({ "set": { "A": "1" }, "unset": ["A"] });
    assert_eq!(
        stage.ask(Method::PATCH, &below("config"), "c2", Some(both)).await.problem(),
        "request_invalid"
    );
    let secret = || Some(json!({ "set": { "TOKEN": "hunter2" } }));
    let sealed = stage.ask(Method::PATCH, &below("secrets"), "s1", secret()).await;
    assert_eq!(sealed.json()["secrets"], json!({ "TOKEN": 1 }));
    // A repeat makes no second version; the same value under a new key does.
    assert_eq!(
        stage.ask(Method::PATCH, &below("secrets"), "s1", secret()).await.json()["secrets"]["TOKEN"],
        1
    );
    assert_eq!(
        stage.ask(Method::PATCH, &below("secrets"), "s2", secret()).await.json()["secrets"]["TOKEN"],
        2
    );

    let deep = below("timeline?after=0&limit=2");
    let first = stage.get(&deep).await.json();
    assert_eq!(
        (first["entries"][0]["kind"].as_str(), first["entries"].as_array().unwrap().len()),
        (Some("app_created"), 2)
    );
    let all = stage.get(&below("timeline")).await;
    assert!(!all.text.contains("hunter2") && all.text.contains("secrets_changed"), "{}", all.text);
    for far in [u64::MAX, i64::MAX as u64] {
        for path in [below(&format!("timeline?after={far}")), format!("/api/v1/timeline?after={far}")] {
            assert_eq!(stage.get(&path).await.json()["entries"], json!([]));
        }
    }
    for (what, key) in [("instances", "instances"), ("releases", "releases")] {
        assert_eq!(stage.get(&below(what)).await.json()[key], json!([]));
    }
    assert_eq!(
        stage.ask(Method::POST, &below("rollback"), "r", Some(json!({}))).await.problem(),
        "never_deployed"
    );
    for missing in ["releases/v9", "releases/v9/diff", "releases/9/diff?since=1"] {
        assert_eq!(stage.get(&below(missing)).await.problem(), "release_not_found");
    }
    assert_eq!(stage.get(&below("why?subject=web.9")).await.problem(), "instance_not_found");
    assert!(stage.get(&below("why")).await.json()["answer"].as_str().unwrap().contains("no release"));
    assert_eq!(stage.get(&below("logs?lines=5")).await.text, "");
    assert_eq!(stage.get(&below("logs?after=nonsense")).await.problem(), "request_invalid");
    assert_eq!(stage.get(&below("timeline?limit=x")).await.problem(), "request_invalid");

    for _ in 0..2 {
        assert_eq!(stage.ask(Method::DELETE, &shop, "d", None).await.status, StatusCode::ACCEPTED);
    }
    let again = stage.ask(Method::POST, A, "m2", name()).await;
    assert_eq!((again.problem().as_str(), again.json()["next"].is_string()), ("app_destroying", true));
}

#[tokio::test]
async fn source_is_sent_piece_by_piece_and_is_nobody_elses() {
    let stage = Stage::new().await;
    let chunk = stage.upload().await;
    stage.upload().await;
    let missing = |tenant: &str| {
        let path = format!("/api/v1/tenants/{tenant}/chunks/missing");
        request(Method::POST, &path, None, Some(json!({ "chunks": [chunk] })))
    };
    assert_eq!(stage.with_token("project", missing("default")).await.json()["missing"], json!([]));
    assert_eq!(stage.with_token("stranger", missing("other")).await.json()["missing"], json!([chunk]));
    let wrong = Request::put(format!("/api/v1/tenants/default/chunks/{}", "0".repeat(64)));
    let wrong = stage.with_token("project", wrong.body(Body::from("x")).unwrap()).await;
    assert_eq!(wrong.problem(), "chunk_mismatch");
    let large = Request::put(format!("/api/v1/tenants/default/chunks/{chunk}"));
    let large =
        stage.with_token("project", large.body(Body::from(vec![0; upload::CHUNK_MAX + 1])).unwrap()).await;
    assert_eq!(large.problem(), "payload_too_large");
    let tree = request(Method::POST, "/api/v1/tenants/default/trees", None, Some(json!({ "entries": 1 })));
    assert_eq!(stage.with_token("project", tree).await.problem(), "invalid_tree");

    let releases = format!("{A}/shop/releases");
    let none = json!({ "tree": format!("t{}", "0".repeat(64)) });
    assert_eq!(
        stage.ask(Method::POST, &releases, "r1", Some(none.clone())).await.problem(),
        "tree_not_found"
    );
    let mut bad = none;
    bad["manifest"] = json!("app = \"shop\"\nnonsense = 1\n");
    let bad = stage.ask(Method::POST, &releases, "r2", Some(bad)).await;
    assert_eq!(bad.problem(), "manifest_invalid");
    assert_eq!(bad.json()["errors"][0]["line"], 2, "{}", bad.text);
}

/// Submits a release and settles it as failed, without a build.
async fn failed_release(stage: &Stage) -> AppId {
    let app: AppId = "default/default/shop".parse().unwrap();
    let deploy = berth_control::command::Deploy {
        tree: format!("t{}", "0".repeat(64)),
        manifest: berth_spec::Manifest::default(),
        description: None,
        commit: None,
    };
    stage.submit(Command::App { app: app.clone(), wish: Wish::Deploy(Box::new(deploy)) }).await;
    let output = stage.api.machine.build_output(&app, ReleaseNumber(1), false);
    output.push("one");
    output.push("two");
    let failure = Failure::new("build_failed", "it does not build");
    let fact = Fact::Failed { release: ReleaseNumber(1), failure };
    stage.submit(Command::Fact { app: app.clone(), fact }).await;
    app
}

#[tokio::test]
async fn a_repository_is_there_for_those_alone_who_may_see_its_app() {
    let stage = Stage::new().await;
    stage.submit(Command::App { app: "default/default/shop".parse().unwrap(), wish: Wish::Create }).await;
    for (token, app, status, text) in [
        ("stranger", "shop", 404, "there is no project default/default"),
        ("project", "shpo", 404, "there is no app default/default/shpo"),
        ("nobody", "shop", 401, "no valid token came with the request"),
    ] {
        let path = format!("/git/{app}.git/info/refs?service=git-receive-pack");
        let answer = stage.with_token(token, request(Method::GET, &path, None, None)).await;
        assert_eq!(answer.status, status, "{token}: {}", answer.text);
        assert!(answer.text.starts_with(text), "{token}: {}", answer.text);
        assert_eq!(answer.headers.contains_key(header::WWW_AUTHENTICATE), status == 401);
    }
}

#[tokio::test]
async fn a_blob_that_is_sent_at_once_and_fails_leaves_no_upload() {
    let stage = Stage::new().await;
    stage.submit(Command::App { app: "default/default/shop".parse().unwrap(), wish: Wish::Create }).await;
    let uploads = stage._dir.path().join("registry/default/default/shop/uploads");
    let left = || std::fs::read_dir(&uploads).map_or(0, Iterator::count);
    let post = async |digest: &str, body: Body| {
        let request = Request::post(format!("/v2/shop/blobs/uploads/?digest={digest}")).body(body).unwrap();
        let answer = stage.send(request, Peer::Local { uid: OWNER, gid: OWNER, pid: None }).await;
        answer.status.as_u16()
    };
    let digest = |bytes: &[u8]| {
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        format!("sha256:{}", hex::encode(sha256.as_ref()))
    };
    let hello = digest(b"hello");
    let broken = [Ok("hel"), Err(std::io::Error::other("it broke off"))];
    let broken = Body::from_stream(futures_util::stream::iter(broken));
    assert_eq!((post(&digest(b"other"), Body::from("hello")).await, left()), (400, 0));
    assert_eq!((post(&hello, broken).await, left()), (400, 0));
    assert_eq!((post("sha256:hello", Body::from("hello")).await, left()), (400, 0));
    assert_eq!((post(&hello, Body::from("hello")).await, left()), (201, 0));
}

#[tokio::test]
async fn whoever_follows_a_settled_release_is_told_the_whole_story_and_its_end() {
    let stage = Stage::new().await;
    failed_release(&stage).await;
    let path = format!("{A}/shop/releases/1/progress");
    let resumed = |id: &str| {
        let mut again = request(Method::GET, &path, None, None);
        again.headers_mut().insert(LAST_EVENT_ID, id.parse().unwrap());
        stage.send(again, Peer::Local { uid: OWNER, gid: OWNER, pid: None })
    };
    let events = |text: &str| -> Vec<(String, String)> {
        let events = text.split("\n\n").filter(|event| event.contains("event: progress"));
        let of = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        let stage = |event: &str| {
            let data: Value = serde_json::from_str(&of(event, "data:")).unwrap();
            let line = data["log"]["text"].as_str().unwrap_or_default();
            format!("{}{line}", data["stage"].as_str().unwrap())
        };
        events.map(|event| (of(event, "id:"), stage(event))).collect()
    };
    let all = events(&stage.get(&path).await.text);
    let stages: Vec<&str> = all.iter().map(|(_, stage)| stage.as_str()).collect();
    assert_eq!(stages, ["submitted", "buildingone", "buildingtwo", "failed"]);
    // Wherever it broke off, the rest follows: nothing twice, nothing lost, and after the end only the end.
    for (index, (id, _)) in all.iter().enumerate() {
        assert_eq!(events(&resumed(id).await.text), all[index + 1..], "{id}");
    }
    for nonsense in ["x", "18446744073709551615", "1.99999999999"] {
        drop(resumed(nonsense).await);
    }
}

#[tokio::test]
async fn an_upgrade_is_committed_once_nothing_falls_back_any_more() {
    let stage = Stage::new().await;
    let commit = || stage.ask(Method::POST, route::PLATFORM_UPGRADE_COMMIT, "c", None);
    let early = commit().await;
    assert_eq!(
        (early.status, early.problem().as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "upgrade_refused")
    );
    // What the supervisor does once the platform is up.
    stage._ends.last().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
    let committed = commit().await;
    assert_eq!(committed.json(), json!({ "before": 2, "format": 2 }), "there is nothing to commit");
    let platform = stage.get(route::PLATFORM).await.json();
    assert_eq!((&platform["journal_format"], &platform["newest_format"]), (&json!(2), &json!(2)));
}
