//! Hostile input through the real API: every answer is a proper one, nothing outside of the home changes, and no program runs that
//! is not the platform's, the toolchain's or the tenant's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_acceptance::{Actor, Api, Options, Platform, Reply, Worktree, actor_source, exchange, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
/// Leaves a trace in the watched directory if anything of it is ever given to a shell or opened as a path.
const BAIT: &str = "bait";

/// Texts that have meant something else to somebody, `place` being a directory where a trace would be seen.
fn nasty(place: &Path) -> Vec<String> {
    let place = place.display();
    let mut texts: Vec<String> = [
        "; touch {}/bait",
        "$(touch {}/bait)",
        "`touch {}/bait`",
        "| touch {}/bait",
        "&& touch {}/bait",
        "x\ntouch {}/bait\n",
        "x\r\nX-Injected: yes\r\n\r\n",
        "'; touch {}/bait; '",
        "\"; touch {}/bait; \"",
        "../../../../../../../../{}/bait",
        "{}/bait",
    ]
    .iter()
    .map(|text| text.replace("{}", &place.to_string()))
    .collect();
    let plain = [
        "",
        " ",
        ".",
        "..",
        "../..",
        "/",
        "//",
        "-",
        "-rf",
        "--help",
        "-o",
        "a\0b",
        "\0",
        "%00",
        "%2e%2e%2f",
        "ä",
        "\u{202e}",
        "\u{feff}",
        "\u{1b}[2J",
        "*",
        "?",
        "~",
        "~root",
        "{}",
        "[]",
        "null",
        "0",
        "-1",
        "v0",
        "18446744073709551616",
        "1e999",
        "a/b",
        "a\\b",
        "a;b",
        "a b",
        "default/default",
        "con",
        "web.1",
        "<script>",
        "${jndi:x}",
        "%s%n",
    ];
    texts.extend(plain.map(str::to_owned));
    texts.extend([
        "a".repeat(41),
        "a".repeat(300),
        "../".repeat(400),
        "[".repeat(20_000),
        "A".repeat(70_000),
    ]);
    texts
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Everything below a directory, with what would change if somebody wrote there.
fn snapshot(directory: &Path) -> BTreeSet<(PathBuf, u64, i64, i64)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let metadata = entry.metadata().unwrap();
        found.insert((entry.path(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        if metadata.is_dir() {
            found.extend(snapshot(&entry.path()));
        }
    }
    found
}

/// A directory beside the home, with something to read, to overwrite and to delete.
fn watched(platform: &Platform) -> PathBuf {
    let outside = platform.scratch().join("outside");
    fs::create_dir_all(outside.join("below")).unwrap();
    fs::write(outside.join("file"), "it is as it was").unwrap();
    fs::write(outside.join("below/file"), "it is as it was").unwrap();
    outside
}

/// What the API offers: a method and a path with its parameters in braces.
fn operations() -> Vec<(String, String)> {
    let text = include_str!("../../../contracts/openapi.json");
    let document: Value = serde_json::from_str(text).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone()))
    });
    // Going down is the one that would end the test.
    operations.filter(|(_, path)| !path.ends_with("/platform/down")).collect()
}

/// `path` with this for one of its parameters, and something valid for the others. None when it has not so many.
fn filled(path: &str, which: usize, value: &str) -> Option<String> {
    let mut parts = path.split('{');
    let mut result = parts.next()?.to_owned();
    let mut seen = 0;
    for part in parts {
        let (name, rest) = part.split_once('}')?;
        let valid = match name {
            "number" => "1",
            "hash" => "0000000000000000000000000000000000000000000000000000000000000000",
            "app" => "shop",
            _ => "default",
        };
        result += if seen == which { value } else { valid };
        result += rest;
        seen += 1;
    }
    (which < seen).then_some(result)
}

fn check(reply: &Reply, what: &str) {
    assert!(reply.is_proper(), "{what}: {} {}\n{}", reply.status, reply.head, reply.text());
    assert!(reply.status < 500 || reply.status == 503, "{what}: {}", reply.text());
    assert!(!reply.head.contains("x-injected"), "{what}: {}", reply.head);
}

/// Nasty texts as every parameter of every path, and as every query.
fn fuzz_paths(api: &Api, texts: &[String]) {
    for (method, path) in operations() {
        for text in texts.iter().filter(|text| text.len() < 2_000) {
            for which in 0..4 {
                let Some(path) = filled(&path, which, &percent(text)) else { break };
                if path.contains("progress") {
                    continue;
                }
                check(&api.ask(&method, &path, b"{}"), &format!("{method} {path}"));
            }
        }
    }
    let app = "/api/v1/tenants/default/projects/default/apps/shop";
    for text in texts.iter().filter(|text| text.len() < 2_000) {
        let text = percent(text);
        for query in [
            "logs?instance=",
            "logs?process=",
            "logs?after=",
            "logs?lines=",
            "why?subject=",
            "timeline?after=",
        ] {
            let path = format!("{app}/{query}{text}");
            check(&api.ask("GET", &path, b""), &path);
        }
    }
}

/// Nasty texts in every place of every body.
fn fuzz_bodies(api: &Api, texts: &[String], tree: &str) {
    let tenant = "/api/v1/tenants/default";
    let app = format!("{tenant}/projects/default/apps/shop");
    for text in texts {
        let bodies: Vec<(&str, String, Value)> = vec![
            ("POST", format!("{tenant}/projects/default/apps"), json!({ "name": text })),
            ("POST", format!("{tenant}/chunks/missing"), json!({ "chunks": [text] })),
            ("POST", format!("{app}/releases"), json!({ "tree": text })),
            ("POST", format!("{app}/releases"), json!({ "tree": tree, "strategy": text })),
            (
                "POST",
                format!("{app}/releases"),
                json!({ "tree": tree, "manifest": text, "procfile": "web: x" }),
            ),
            (
                "POST",
                format!("{app}/releases"),
                json!({ "tree": tree, "manifest": format!("app = {text:?}\n[processes]\n{text:?} = \"x\"") }),
            ),
            (
                "POST",
                format!("{app}/releases"),
                json!({ "tree": tree, "manifest": format!("[processes]\nweb = \"x\"\n[http]\nhosts = [{}]", json!(text)) }),
            ),
            (
                "POST",
                format!("{app}/releases"),
                json!({ "tree": tree, "manifest": format!("[build]\nbuilder = \"static\"\noutput = {}", json!(text)) }),
            ),
            ("POST", format!("{app}/releases"), json!({ "tree": tree, "procfile": format!("{text}: x") })),
            ("POST", format!("{app}/rollback"), json!({ "to": text })),
            ("PATCH", format!("{app}/config"), json!({ "set": { text: "x" } })),
            ("PATCH", format!("{app}/config"), json!({ "unset": [text] })),
            ("PATCH", format!("{app}/secrets"), json!({ "set": { text: "x" } })),
            ("PUT", format!("{app}/scale"), json!({ text: 1 })),
            ("PUT", format!("{app}/scale"), json!({ "web": text })),
        ];
        for (method, path, body) in bodies {
            check(&api.ask(method, &path, body.to_string().as_bytes()), &format!("{method} {path} {text:?}"));
        }
        for (method, path) in [("POST", format!("{app}/releases")), ("PATCH", format!("{app}/config"))] {
            check(&api.ask(method, &path, text.as_bytes()), &format!("{method} {path} raw {text:?}"));
        }
    }
    for raw in [&b"\xff\xfe"[..], b"{\"name\":\"\xc3\x28\"}", b"\0\0\0\0", b"{\"name\":\"\\ud800\"}"] {
        let path = format!("{tenant}/projects/default/apps");
        check(&api.ask("POST", &path, raw), &format!("{raw:?}"));
    }
}

/// Source trees that would reach out of their directory.
fn fuzz_trees(api: &Api, outside: &Path, texts: &[String]) {
    let file = |path: &str| json!({ "path": path, "kind": "file", "exec": false, "size": 0, "chunks": [] });
    let link = |path: &str, target: &str| json!({ "path": path, "kind": "link", "target": target });
    let outside = outside.to_str().unwrap();
    let mut trees = vec![
        json!([link("out", outside)]),
        json!([link("out", "../../../../../..")]),
        json!([link("a", "b"), link("b", "../x")]),
        json!([link("dir", "."), file("dir/x")]),
        json!([file("a"), file("a")]),
        json!([file("a"), file("a/b")]),
        json!([file("b"), file("a")]),
        json!([file(&format!("{outside}/file"))]),
        json!([{ "path": "a", "kind": "file", "exec": true, "size": 5, "chunks": [] }]),
        json!([{ "path": "a", "kind": "file", "exec": true, "size": -1, "chunks": [] }]),
        json!([{ "path": "a", "kind": "device", "target": "/dev/sda" }]),
        json!({ "a": "b" }),
    ];
    for text in texts {
        trees.push(json!([file(text)]));
        trees.push(json!([file(&format!("below/{text}"))]));
        trees.push(json!([link("link", text)]));
        let chunk = json!({ "hash": text, "len": 1 });
        trees.push(json!([{ "path": "a", "kind": "file", "exec": false, "size": 1, "chunks": [chunk] }]));
    }
    for tree in trees {
        for body in
            [tree.clone(), json!({ "entries": tree.clone() }), json!({ "version": 1, "entries": tree })]
        {
            let reply = api.ask("POST", "/api/v1/tenants/default/trees", body.to_string().as_bytes());
            check(&reply, &body.to_string());
        }
    }
}

/// Requests that are no HTTP, or almost. There need not be an answer, but if there is one it is a refusal; and the API lives on.
fn fuzz_heads(api: &Api, texts: &[String]) {
    let valid = String::from_utf8(api.request("GET", b"/api/v1/platform", b"")).unwrap();
    let mut requests: Vec<Vec<u8>> = [
        "GET / HTTP/9.9\r\n\r\n",
        "\r\n\r\n\r\n",
        "GET /api/v1/platform\r\n\r\n",
        "POST /api/v1/platform/down HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /api/v1/platform/down HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST /api/v1/platform/down HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    requests.push(vec![0xFF; 10_000]);
    for text in texts {
        for name in
            ["authorization", "idempotency-key", "host", "last-event-id", "content-type", "x-forwarded-for"]
        {
            let lines = valid.split("\r\n").filter(|line| !line.starts_with(name) && !line.is_empty());
            let head: Vec<String> = lines.map(str::to_owned).chain([format!("{name}: {text}")]).collect();
            requests.push((head.join("\r\n") + "\r\n\r\n").into_bytes());
        }
        requests.push(valid.replacen("/api/v1/platform", text, 1).into_bytes());
    }
    for request in requests {
        let shown = String::from_utf8_lossy(&request).chars().take(300).collect::<String>();
        if let Ok(reply) = exchange(api.address(), &request) {
            assert!(reply.status < 500 || reply.is_proper(), "{shown}: {} {}", reply.status, reply.text());
            assert!(!reply.head.contains("x-injected"), "{shown}: {}", reply.head);
        }
        assert_eq!(api.ask("GET", "/api/v1/platform", b"").status, 200, "after {shown}");
    }
}

/// strace on the processes of the platform and all that they start.
struct Trace {
    strace: Child,
    out: PathBuf,
}

impl Trace {
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness stands outside of the platform and its allow-list"
    )]
    fn of(platform: &Platform) -> Option<Self> {
        let out = platform.scratch().join("trace");
        let pids: Vec<u32> =
            [vec![platform.supervisor()], platform.role("control"), platform.role("edge")].concat();
        let mut command = Command::new("strace");
        command.args(pids.iter().map(|pid| format!("--attach={pid}")));
        command
            .args(["-f", "-qq", "-s", "300", "-e", "trace=execve,execveat", "-e", "signal=none", "-o"])
            .arg(&out);
        let mut strace = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let is_traced = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        };
        let mut ended = false;
        assert!(wait_until(PATIENCE, || {
            ended = strace.try_wait().unwrap().is_some();
            ended || pids.iter().all(is_traced)
        }));
        (!ended).then_some(Self { strace, out })
    }

    /// The programs that were started, by their paths, with their arguments.
    fn programs(mut self) -> Vec<(String, String)> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.strace.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let _status = self.strace.wait().unwrap();
        let text = fs::read_to_string(&self.out).unwrap();
        let done = text.lines().filter(|line| line.ends_with(" = 0"));
        done.map(|line| (line.split('"').nth(1).unwrap_or_default().to_owned(), line.to_owned())).collect()
    }
}

#[test]
fn hostile_input_is_refused_and_runs_nothing() {
    let platform = Platform::start(Options::default());
    let outside = watched(&platform);
    let shop = Actor::web(&platform, "shop", "serve");
    let deployed = shop.deploy().ok().json();
    let tree = deployed["release"]["tree"].as_str().unwrap().to_owned();
    let texts = nasty(&outside);
    let before = snapshot(&outside);
    let trace = Trace::of(&platform);
    if trace.is_none() {
        println!("SKIPPED: without strace, or the right to use it, it is not seen what is executed");
    }

    let api = Api::of(&platform);
    fuzz_paths(&api, &texts);
    // Of what was taken on, the app must be left for the rest.
    let _again = shop.deploy();
    fuzz_bodies(&api, &texts, &tree);
    fuzz_trees(&api, &outside, &texts);
    fuzz_heads(&api, &texts);

    // A value may be anything that an environment can hold, and arrives as it was sent.
    let app = "/api/v1/tenants/default/projects/default/apps/shop";
    let _last = shop.deploy().ok();
    let values: Vec<&String> =
        texts.iter().filter(|text| !text.contains('\0') && text.len() < 30_000).collect();
    let set: serde_json::Map<String, Value> =
        values.iter().enumerate().map(|(number, text)| (format!("NASTY_{number}"), json!(text))).collect();
    let reply = api.ask("PATCH", &format!("{app}/config"), json!({ "set": set }).to_string().as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let number = reply.json()["release"].as_u64().unwrap();
    let settled = || {
        let release = shop.verb(&["releases", &format!("v{number}")]).ok().json();
        assert_ne!(release["state"], "failed", "{release}");
        release["state"] == "active"
    };
    assert!(wait_until(PATIENCE, settled));
    for (number, text) in values.iter().enumerate() {
        assert_eq!(shop.ask(&format!("/env/NASTY_{number}")), (200, (*text).clone()));
    }

    // A build, too, runs only what it must.
    let project = platform.scratch().join("project");
    fs::create_dir_all(project.join("src")).unwrap();
    for name in ["Cargo.toml", "Cargo.lock", "src/main.rs"] {
        fs::copy(actor_source().join(name), project.join(name)).unwrap();
    }
    let _built = platform.cli([Path::new("deploy"), &project]).ok();

    // So do a push and a clone, whatever the commit is called.
    let tree = Worktree::new(&platform, "pushed", "shop");
    tree.write("index.html", "pushed");
    for (number, text) in
        texts.iter().filter(|text| text.len() < 2_000 && !text.contains('\0')).take(12).enumerate()
    {
        tree.write("number", number.to_string());
        tree.commit(&format!("_{text}"));
    }
    tree.run(["push", "berth", "main"]);
    tree.run(["clone", "--quiet", tree.url(), "cloned"]);

    assert_eq!(snapshot(&outside), before);
    assert!(!outside.join(BAIT).try_exists().unwrap());
    for directory in [platform.scratch(), Path::new("/")] {
        assert!(!directory.join(BAIT).try_exists().unwrap());
    }
    if let Some(trace) = trace {
        let strays: BTreeSet<String> = trace
            .programs()
            .into_iter()
            .filter(|(path, line)| !is_expected(path, &platform.home()) && !is_packet_filter(line))
            .map(|(_, line)| line)
            .collect();
        assert!(strays.is_empty(), "programs that nobody should have started: {strays:#?}");
    }
}

/// Whether this is the packet filter's program as the platform runs it: its rules come by a pipe, so that nobody's text is an argument.
fn is_packet_filter(line: &str) -> bool {
    ["/usr/sbin/nft", "/sbin/nft"]
        .iter()
        .any(|nft| line.contains(&format!(r#"execve("{nft}", ["{nft}", "-f", "-"], "#)))
}

/// Whether the platform, a build or an app of ours runs this.
fn is_expected(path: &str, home: &Path) -> bool {
    let file =
        Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let toolchain =
        ["cargo", "rustc", "rustup", "cc", "gcc", "ld", "ld.lld", "rust-lld", "gcc-ld", "collect2", "as"];
    // The shim runs from a memory file, the platform's own programs through a descriptor.
    path.is_empty()
        || path.starts_with("/proc/self/")
        || path.starts_with("/dev/fd/")
        || Path::new(path).starts_with(home)
        || ["./actor", "bin/actor"].contains(&path)
        // Git starts its own parts by their paths.
        || file == "git"
        || toolchain.contains(&file.as_str())
        || file.starts_with("x86_64-linux-gnu-")
        || file.starts_with("aarch64-linux-gnu-")
}
