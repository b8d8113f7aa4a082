//! Whole verbs against a platform that answers by path, with fixed data and a clock that stands still.

mod launch;
mod settings;
mod stack;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use berth_clock::{Clock, ManualClock};
use berth_contract::ExitStatus;
use berth_spec::Timestamp;
use tempfile::TempDir;

use crate::context::tests::environment;
use crate::screen::Screen;
use crate::screen::tests::Written;
use crate::{Parsed, parse};

const NOW: Timestamp = Timestamp(1_795_233_785_042);
const APP: &str = "/api/v1/tenants/default/projects/default/apps/shop";

/// `METHOD PATH`, status, body.
type Answers = Arc<Mutex<Vec<(String, u16, String)>>>;

/// A platform that answers `METHOD PATH` with a status and a body; what it does not know is not found.
struct Platform {
    directory: TempDir,
    seen: Arc<Mutex<Vec<(String, String)>>>,
    answers: Answers,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Platform {
    fn run(answers: &[(&str, u16, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("api.sock")).unwrap();
        let answers: Vec<(String, u16, String)> =
            answers.iter().map(|(path, status, body)| ((*path).into(), *status, (*body).into())).collect();
        let answers: Answers = Arc::new(Mutex::new(answers));
        let given = Arc::clone(&answers);
        let (seen, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, ends) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    scope.spawn(|| serve(stream.unwrap(), &given, &noted));
                }
            });
        });
        Self { directory, seen, answers, over, thread: Some(thread) }
    }

    /// Answers these, too.
    fn also(&self, more: &[(String, &str)]) {
        let more = more.iter().map(|(path, body)| (path.clone(), 200, (*body).to_owned()));
        self.answers.lock().unwrap().extend(more);
    }

    fn berth(&self, arguments: &str, input: &'static str) -> (ExitStatus, String, String) {
        let api = format!("unix:{}", self.directory.path().join("api.sock").display());
        berth(self.directory.path(), &api, arguments, input)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    fn body(&self, line: &str) -> String {
        let seen = self.seen.lock().unwrap();
        seen.iter().find(|(seen, _)| seen == line).map(|(_, body)| body.clone()).unwrap_or_default()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(self.directory.path().join("api.sock")));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(stream: UnixStream, answers: &Answers, noted: &Mutex<Vec<(String, String)>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header == "\r\n" {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        noted.lock().unwrap().push((request.clone(), String::from_utf8_lossy(&body).into_owned()));
        let missing =
            (404, r#"{"type":"","title":"","status":404,"detail":"no app shop","code":"app_not_found"}"#);
        let found = answers.lock().unwrap().iter().find(|(path, ..)| *path == request).cloned();
        let (status, text) =
            found.map_or((missing.0, missing.1.to_owned()), |(_, status, text)| (status, text));
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", text.len());
        // The client may have gone by now.
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn berth(directory: &Path, api: &str, arguments: &str, input: &'static str) -> (ExitStatus, String, String) {
    let all = std::iter::once("berth").chain(arguments.split_whitespace());
    let Parsed::Verb(line) = parse(all.map(Into::into)) else { panic!("{arguments} is a verb") };
    let (out, err) = (Written::default(), Written::default());
    let mut screen = Screen::plain(out.clone(), err.clone(), input.as_bytes());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW, 1));
    let status = crate::run(*line, &environment(directory, &[("BERTH_API", api)]), &clock, &mut screen);
    let crate::Status::Own(status) = status else { panic!("{arguments} runs no program") };
    (status, out.text(), err.text())
}

fn app(state: &str, release: &str) -> String {
    format!(
        r#"{{"id":"default/default/shop","name":"shop","state":"{state}","urls":["http://shop.localhost:8080"],"release":{release},"processes":{{"web":{{"wanted":2,"running":2}},"worker":{{"wanted":1,"running":0}}}},"created_at":1795233000000,"deploying":null,"warm":null,"trouble":null}}"#
    )
}

fn release(number: u64, state: &str, rest: &str) -> String {
    format!(
        r#"{{"number":{number},"state":"{state}","reason":"deploy","rollback_of":null,"created_at":{},"created_by":"user:alice","description":null,"commit":"0123456789abcdef0123","tree":null,"artifact":null,"config_names":["LOG"],"secret_versions":{{"TOKEN":2}},"took_ms":2140{rest}}}"#,
        NOW.0 - 400_000 + number * 60_000
    )
}

fn releases() -> String {
    let failure = r#","failure":{"code":"health_check_failed","summary":"/healthz answered 500","details":["3 probes of web.9: 500"],"log":["panic: no DB"]}"#;
    let all = [
        release(4, "active", r#","failure":null"#),
        release(3, "failed", failure),
        release(2, "retired", r#","failure":null"#),
        release(1, "retired", r#","failure":null"#),
    ];
    format!(r#"{{"releases":[{}]}}"#, all.join(","))
}

fn platform_status() -> String {
    format!(
        r#"{{"platform":"0123456789abcdef","version":"0.0.0","home":"/home/a/.local/share/berth","edge":"127.0.0.1:8080","api":"127.0.0.1:7070","socket":"/x","isolation":"full","isolation_words":"a user for every app; a root, processes, few system calls and limits of its own for every instance","limits":["memory","cpu","pids"],"started_at":0,"uptime_ms":7300000,"position":42,"roles":[{{"name":"supervisor","pid":10}},{{"name":"control","pid":11}},{{"name":"edge","pid":12}}],"apps":[{}]}}"#,
        app("degraded", "4")
    )
}

fn progress(stage: &str, failure: &str) -> String {
    let event = |position: u64, stage: &str, rest: &str| {
        format!(
            "id: {position}\nevent: progress\ndata: {{\"position\":{position},\"at\":{},\"release\":1,\"stage\":\"{stage}\",\"text\":\"{stage} it\"{rest}}}\n\n",
            NOW.0 + position * 100
        )
    };
    let log = r#","log":{"stream":"stdout","text":"Compiling shop"}"#;
    event(1, "submitted", "")
        + &event(2, "building", "")
        + &event(2, "building", log)
        + &event(5, stage, failure)
}

const INSTANCES: &str = r#"{"instances":[
{"id":"default/default/shop/web.7","process":"web","release":4,"state":"ready","started_at":1795233690000,"pid":4711,"port":20007,"restarts":0,"exit":null,"oom_kills":2},
{"id":"default/default/shop/worker.8","process":"worker","release":4,"state":"backoff","started_at":null,"pid":null,"port":null,"restarts":3,"exit":{"status":null,"signal":9,"at":1795233780000}},
{"id":"default/default/shop/worker.9","process":"worker","release":4,"state":"ready","started_at":1795233690000,"pid":4712,"port":null,"restarts":1,"exit":{"status":null,"signal":9,"at":1795233680000,"oom":true}}]}"#;
const TIMELINE: &str = r#"{"entries":[{"position":40,"at":1795233000000,"app":"default/default/shop","actor":"user:alice","correlation":"c1","kind":"release_submitted","text":"v4 submitted","data":{}},
{"position":42,"at":1795233780000,"app":null,"actor":"berth","correlation":"c2","kind":"instance_exited","text":"worker.8 was ended by signal 9","data":{}}],"next":42}"#;
const WHY: &str = r#"{"question":"why is shop degraded?","answer":"worker.8 ends again and again.","because":[{"position":42,"at":1795233780000,"text":"worker.8 was ended by signal 9"}]}"#;
const CRON: &str = r#"{"release":4,"stopped":false,"entries":[
{"name":"report","schedule":"30 8 * * mon-fri","in_words":"Monday to Friday at 08:30","timezone":"Europe/Berlin","command":"bin/report --mail","concurrency":"replace","timeout_s":1200,"catch_up_s":21600,"next":1795246200000,"last":{"due":1795159800000,"at":1795159800004,"state":"failed","run":"default/default/shop/run.6","ended_at":1795159803000,"why":"exited with status 3 after 2.900 s","missed":0}},
{"name":"tidy","schedule":"@daily","in_words":"every day at 00:00","timezone":"UTC","command":"bin/tidy","concurrency":"forbid","timeout_s":86400,"catch_up_s":3600,"next":1795305600000,"last":null}]}"#;
const VOLUMES: &str = r#"{"volumes":[
{"name":"cache","path":null,"processes":[],"size":null,"enforced":false,"used":4096,"entries":0,"instances":[],"place":"/home/volumes/default/default/shop/cache"},
{"name":"data","path":"/data","processes":["web"],"size":10737418240,"enforced":true,"used":123456789,"entries":42,"instances":["default/default/shop/web.7"],"place":"/home/volumes/default/default/shop/data"},
{"name":"uploads","path":"/srv/uploads","processes":[],"size":null,"enforced":false,"used":null,"entries":null,"instances":[],"place":"/home/volumes/default/default/shop/uploads"}]}"#;
const LINES: &str = "id: a\nevent: line\ndata: {\"cursor\":\"a\",\"at\":1795233785042,\"instance\":\"default/default/shop/web.7\",\"process\":\"web\",\"stream\":\"stdout\",\"text\":\"hello\"}\n\n";

/// What prints something that it only looked at.
const SHOWN: &[&str] = &[
    "status",
    "apps",
    "releases",
    "releases v3",
    "ps",
    "scale",
    "config",
    "config:list",
    "secrets",
    "domains",
    "maintenance",
    "cron",
    "volumes",
    "logs",
    "why",
    "timeline",
    "timeline --all",
    "version",
];

#[test]
fn output_golden() {
    let path = |tail: &str| format!("GET {APP}{tail}");
    let answers = [
        ("GET /api/v1/platform".to_owned(), platform_status()),
        ("GET /api/v1/timeline?limit=50".to_owned(), TIMELINE.to_owned()),
        (
            APP.replace("/api", "GET /api").replace("/shop", ""),
            format!(r#"{{"apps":[{}]}}"#, app("running", "4")),
        ),
        (path(""), app("degraded", "4")),
        (path("/releases"), releases()),
        (
            path("/releases/3"),
            release(
                3,
                "failed",
                r#","failure":{"code":"build_failed","summary":"cargo ended with 101","details":[],"log":["error[E0308]"]}"#,
            ),
        ),
        (path("/instances"), INSTANCES.to_owned()),
        (path("/timeline?limit=50"), TIMELINE.to_owned()),
        (path("/why"), WHY.to_owned()),
        (path("/config"), r#"{"config":{"LOG":"info","URL":"http://x/?a=b"},"release":4}"#.to_owned()),
        (path("/secrets"), r#"{"secrets":{"TOKEN":2},"release":4}"#.to_owned()),
        (
            path("/domains"),
            r#"{"domains":[{"host":"*.example.com","source":"added"},{"host":"shop.example.com","source":"manifest"},{"host":"shop.localhost","source":"default"}]}"#.to_owned(),
        ),
        (path("/cron"), CRON.to_owned()),
        (path("/volumes"), VOLUMES.to_owned()),
        (path("/logs?lines=100"), LINES.to_owned()),
    ];
    let answers: Vec<(&str, u16, &str)> =
        answers.iter().map(|(path, body)| (path.as_str(), 200, body.as_str())).collect();
    let platform = Platform::run(&answers);
    let mut shown = String::new();
    for &verb in SHOWN {
        let of_app = !["status", "apps", "timeline --all", "version"].contains(&verb);
        let line = if of_app { format!("{verb} -a shop") } else { verb.to_owned() };
        let (status, out, err) = platform.berth(&line, "");
        assert_eq!((status, err.as_str()), (ExitStatus::Ok, ""), "{line}");
        writeln!(shown, "$ berth {line}\n{out}").unwrap();
        let (status, out, _) = platform.berth(&format!("{line} --json"), "");
        assert_eq!((status, out.lines().count()), (ExitStatus::Ok, 1), "{line}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/cli/output.txt");
    if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(expected, shown, "contracts/cli/output.txt is stale: run with BERTH_UPDATE_GOLDENS=1");
}

/// A platform that takes a deploy of an app it does not have yet; the deployment ends in `stage`.
fn deploying(stage: &str, failure: &str) -> Platform {
    let chunk = berth_source::ChunkId::of(b"<h1>shop</h1>").to_string();
    let tree = format!(r#"{{"tree":"t{chunk}"}}"#);
    let created = app("empty", "null");
    let submitted = release(1, "submitted", r#","failure":null"#);
    let missing = format!(r#"{{"missing":["{chunk}"]}}"#);
    let platform = Platform::run(&[
        ("POST /api/v1/tenants/default/projects/default/apps", 201, &created),
        ("POST /api/v1/tenants/default/chunks/missing", 200, &missing),
        (&format!("PUT /api/v1/tenants/default/chunks/{chunk}"), 204, ""),
        ("POST /api/v1/tenants/default/trees", 201, &tree),
        (&format!("POST {APP}/releases"), 202, &submitted),
        (&format!("GET {APP}/releases/1/progress"), 200, &progress(stage, failure)),
        (&format!("GET {APP}/releases/1"), 200, &submitted),
        ("GET /api/v1/platform", 200, &platform_status()),
    ]);
    std::fs::create_dir(platform.directory.path().join("site")).unwrap();
    std::fs::write(platform.directory.path().join("site/index.html"), "<h1>shop</h1>").unwrap();
    platform
}

#[test]
fn a_deploy_sends_what_is_missing_and_follows() {
    let platform = deploying(
        "failed",
        r#","failure":{"code":"never_listened","summary":"web.1 never listened","details":["nothing on 20001"],"log":["hi"],"next":"listen on PORT"}"#,
    );
    let (status, out, err) = platform.berth("deploy site --app shop -m first", "");
    assert_eq!(status, ExitStatus::Failed);
    assert_eq!(
        out,
        "sent 1 piece of the source, 13 bytes\ndeploying shop as v1\n* submitted it\n* building it\n  | Compiling shop\n"
    );
    assert_eq!(
        err,
        "made the app shop\nerror: v1 failed: web.1 never listened\n  why:  nothing on 20001\n  | hi\n  next: listen on PORT\n  \
         code: never_listened (docs/errors/never_listened.md)\n"
    );
    let submit = platform.body(&format!("POST {APP}/releases"));
    assert!(submit.contains(r#""description":"first""#) && !submit.contains("manifest"), "{submit}");
}

#[test]
fn a_superseded_deploy_has_a_status_of_its_own() {
    let platform = deploying("superseded", "");
    let (status, out, err) = platform.berth("deploy site --app shop --json", "");
    assert_eq!(status, ExitStatus::Superseded);
    assert_eq!((out.lines().count(), err.as_str()), (1, ""));
}

#[test]
fn a_detached_deploy_returns_at_once() {
    let platform = deploying("active", "");
    let (status, out, _) = platform.berth("deploy site --app shop --detach", "");
    assert_eq!(status, ExitStatus::Ok);
    assert!(out.ends_with("v1 is under way; `berth releases v1` shows how it gets on\n"), "{out}");
    assert!(!platform.seen().iter().any(|line| line.contains("progress")));
}

#[test]
fn a_dry_run_changes_nothing() {
    let platform = deploying("active", "");
    let (status, out, err) = platform.berth("deploy site --app shop --dry-run", "");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, "nothing was done\n"), "{out}");
    assert!(out.contains("app        shop (would be made)\nsource     1 entry, 13 bytes\n"), "{out}");
    assert!(out.contains("build      static\n"), "{out}");
    let changing = |line: &String| !line.starts_with("GET") && !line.ends_with("chunks/missing");
    assert!(!platform.seen().iter().any(changing), "{:?}", platform.seen());
}

#[test]
fn a_release_that_serves_is_shown_with_its_addresses() {
    let active = release(1, "active", r#","failure":null"#);
    let platform = Platform::run(&[
        (&format!("PATCH {APP}/config"), 200, r#"{"config":{"A":"b=c"},"release":1}"#),
        (&format!("GET {APP}/releases/1/progress"), 200, &progress("active", "")),
        (&format!("GET {APP}/releases/1"), 200, &active),
        (&format!("GET {APP}"), 200, &app("running", "1")),
        ("GET /api/v1/platform", 200, &platform_status()),
    ]);
    let (status, out, err) = platform.berth("config:set A=b=c --app shop", "");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, ""));
    assert_eq!(platform.body(&format!("PATCH {APP}/config")), r#"{"set":{"A":"b=c"},"unset":[]}"#);
    let end = "ok v1 of shop is active after 2.1s\n   http://shop.localhost:8080\n   \
               curl -H 'Host: shop.localhost' http://127.0.0.1:8080/\n";
    assert!(out.ends_with(end), "{out}");
}

#[test]
fn a_manifest_with_errors_goes_nowhere() {
    let platform = deploying("active", "");
    std::fs::write(platform.directory.path().join("site/berth.toml"), "app = \"shop\"\n[proceses]\n")
        .unwrap();
    let (status, _, err) = platform.berth("deploy site", "");
    assert_eq!(status, ExitStatus::Refused);
    assert!(err.starts_with("error: berth.toml is not valid\n  berth.toml:2:"), "{err}");
    assert!(platform.seen().is_empty());
}

#[test]
fn a_rollback_is_resolved_here() {
    let made = release(5, "submitted", r#","failure":null"#);
    let platform = Platform::run(&[
        (&format!("GET {APP}/releases"), 200, &releases()),
        (&format!("POST {APP}/rollback"), 202, &made),
    ]);
    let (status, _, err) = platform.berth("rollback --app shop --detach", "");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, "v5 brings v2 of shop back\n"));
    assert_eq!(platform.body(&format!("POST {APP}/rollback")), r#"{"to":2,"keep_config":false}"#);

    let serving = release(3, "active", r#","failure":null"#);
    let platform = Platform::run(&[(&format!("POST {APP}/rollback"), 200, &serving)]);
    let (status, out, err) = platform.berth("rollback v3 --app shop", "");
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (ExitStatus::Ok, "", "v3 of shop serves already: nothing was done\n")
    );

    let first = format!(r#"{{"releases":[{}]}}"#, release(1, "active", r#","failure":null"#));
    let platform = Platform::run(&[(&format!("GET {APP}/releases"), 200, &first)]);
    let (status, _, err) = platform.berth("rollback --app shop", "");
    assert_eq!(status, ExitStatus::Refused);
    assert!(
        err.starts_with("error: v1 is the first release that served: there is nothing to go back to\n"),
        "{err}"
    );
}

#[test]
fn a_secret_is_read_from_input_and_never_shown() {
    let changed = r#"{"secrets":{"TOKEN":1,"OTHER":1},"release":null}"#;
    let patch = format!("PATCH {APP}/secrets");
    let platform = Platform::run(&[(&patch, 200, changed)]);
    let (status, out, err) = platform.berth("secrets set TOKEN --app shop", "hunter2\n");
    assert_eq!((status, err.as_str()), (ExitStatus::Ok, ""));
    assert_eq!(platform.body(&patch), r#"{"set":{"TOKEN":"hunter2"},"unset":[]}"#);
    assert!(!out.contains("hunter2"));
    let (_, _, err) = platform.berth("secrets:set TOKEN=- OTHER=visible --app shop", "x");
    assert!(err.starts_with("warning: a value on the command line stays in the shell's history"), "{err}");
    for wrong in
        ["secrets set A B", "secrets set PORT", "config set A", "config set A=1 A=2", "config set A=- B=-"]
    {
        let (status, _, err) = platform.berth(&format!("{wrong} --app shop"), "x");
        assert_eq!(status, ExitStatus::Usage, "{wrong}: {err}");
    }
}

#[test]
fn destroying_has_to_be_confirmed() {
    let platform = Platform::run(&[
        (&format!("GET {APP}"), 200, &app("running", "1")),
        (&format!("DELETE {APP}"), 202, ""),
    ]);
    let (status, _, err) = platform.berth("destroy --app shop", "shop\n");
    assert_eq!(status, ExitStatus::Refused);
    assert!(err.contains("code: not_confirmed"), "{err}");
    assert!(!platform.seen().contains(&format!("DELETE {APP}")));
    let none = r#"{"type":"about:blank","title":"There is no such app","status":404,"detail":"there is no app shop","code":"app_not_found"}"#;
    let platform = Platform::run(&[(&format!("GET {APP}"), 404, none), (&format!("DELETE {APP}"), 202, "")]);
    let (status, out, _) = platform.berth("destroy --app shop --yes", "");
    assert_eq!((status, out.as_str()), (ExitStatus::Ok, "shop is gone\n"));
    assert!(platform.seen().contains(&format!("DELETE {APP}")));
}

#[test]
fn scale_sends_what_is_named() {
    let platform = Platform::run(&[(&format!("PUT {APP}/scale"), 200, r#"{"web":2,"worker":1}"#)]);
    let (status, out, _) = platform.berth("scale web=2 --app shop", "");
    assert_eq!((status, out.as_str()), (ExitStatus::Ok, "shop wants web=2 worker=1\n"));
    assert_eq!(platform.body(&format!("PUT {APP}/scale")), r#"{"web":2}"#);
}

#[test]
fn cron_entries_are_run_and_their_story_is_told() {
    let story = r#"{"past":[{"due":null,"at":3000,"state":"skipped","run":null,"ended_at":null,"why":"run.4 of it had not ended","missed":2}]}"#;
    let run = format!("POST {APP}/cron/tidy/runs");
    let platform = Platform::run(&[
        (&format!("GET {APP}/cron"), 200, CRON),
        (&format!("GET {APP}/cron/report/runs"), 200, story),
        (&format!("GET {APP}/cron/tidy/runs"), 200, r#"{"past":[]}"#),
        (&run, 201, r#"{"id":"default/default/shop/run.7"}"#),
    ]);
    let (status, out, err) = platform.berth("cron:run tidy --app shop", "");
    assert_eq!((status, out.as_str()), (ExitStatus::Ok, "tidy of shop runs as run.7\n"), "{err}");
    let (status, out, _) = platform.berth("cron history -a shop", "");
    let told = out.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        (status, told.as_str()),
        (ExitStatus::Ok, "report asked for - skipped run.4 of it had not ended; 2 before it missed")
    );
    let (_, out, err) = platform.berth("cron history tidy -a shop", "");
    assert!(out.is_empty() && err.contains("nothing ran by a schedule yet"), "{out}{err}");
}

#[test]
fn domains_are_sent_in_their_one_form() {
    let domains = r#"{"domains":[{"host":"shop.localhost","source":"default"}],"applied":true}"#;
    let patch = format!("PATCH {APP}/domains");
    let platform = Platform::run(&[(&patch, 200, domains)]);
    let (status, out, err) =
        platform.berth("domains:add Shop.Example.COM. *.b\u{fc}cher.example --app shop", "");
    assert_eq!(status, ExitStatus::Ok, "{err}");
    assert_eq!(out, "shop.example.com leads to shop\n*.xn--bcher-kva.example leads to shop\n");
    assert_eq!(err, "for visitors its DNS record has to name this machine\n");
    let sent = r#"{"add":["shop.example.com","*.xn--bcher-kva.example"],"remove":[]}"#;
    assert_eq!(platform.body(&patch), sent);
    let (status, out, _) = platform.berth("domains remove shop.example.com -a shop", "");
    assert_eq!((status, out.as_str()), (ExitStatus::Ok, "shop.example.com no longer leads to shop\n"));
}

#[test]
fn the_app_comes_from_the_directory() {
    let platform = Platform::run(&[]);
    let name = |of: &str| super::valid_name(of).map(|name| name.to_string());
    assert_eq!(name("My Shop_2").as_deref(), Some("my-shop-2"));
    assert_eq!(name("--1--a b--").as_deref(), Some("a-b"));
    assert_eq!(name("123"), None);
    assert_eq!(name(&"x".repeat(60)).map(|name| name.len()), Some(40));
    std::fs::write(platform.directory.path().join("berth.toml"), "app = \"shop\"\n").unwrap();
    let (status, _, err) = platform.berth("ps", "");
    assert_eq!(status, ExitStatus::NotFound);
    assert_eq!(err, "error: no app shop\n  code: app_not_found (docs/errors/app_not_found.md)\n");
    assert_eq!(platform.seen(), [format!("GET {APP}/instances")]);
}

#[test]
fn a_platform_that_is_not_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let api = format!("unix:{}", directory.path().join("api.sock").display());
    let (status, _, err) = berth(directory.path(), &api, "status", "");
    assert_eq!(status, ExitStatus::Unreachable);
    assert!(err.contains("next: start it with `berth up`"), "{err}");
    let (status, out, _) = berth(directory.path(), &api, "down", "");
    assert_eq!((status, out.as_str()), (ExitStatus::Ok, "the platform is not running\n"));
    let (_, out, _) = berth(directory.path(), &api, "doctor --json", "");
    let checks: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(checks[0]["outcome"], "warn");
}
