//! What a new user does, verb by verb: what each prints, and what it ends with.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, User, actor_binary, actor_source, exchange, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const KINDS: [&str; 4] = ["static", "executable", "procfile", "cargo"];

/// A source of each kind, without berth.toml.
fn source(platform: &Platform, kind: &str) -> PathBuf {
    let directory = platform.scratch().join(kind);
    fs::create_dir(&directory).unwrap();
    let actor = || fs::copy(actor_binary(), directory.join("actor")).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    match kind {
        "static" => write("index.html", "here"),
        "executable" => {
            actor();
            write("Procfile", "web: ./actor\n");
        }
        "procfile" => {
            actor();
            let processes = "# three of them\nweb: ./actor serve\nworker: ./actor count\n";
            write("Procfile", &format!("{processes}release: ./actor say 'migrated, once'\n"));
        }
        _ => {
            fs::create_dir(directory.join("src")).unwrap();
            for name in ["Cargo.toml", "Cargo.lock", "src/main.rs"] {
                fs::copy(actor_source().join(name), directory.join(name)).unwrap();
            }
        }
    }
    directory
}

fn get(platform: &Platform, app: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {app}.localhost\r\nconnection: close\r\n\r\n");
    exchange(platform.edge(), request.as_bytes()).unwrap().text()
}

fn deploy(platform: &Platform, directory: &Path) -> Value {
    platform.cli([Path::new("deploy"), Path::new("--json"), directory]).ok().json()
}

fn every_kind(user: User, kinds: &[&str]) {
    let platform = Platform::start(Options { user, ..Options::default() });
    for kind in kinds {
        let directory = source(&platform, kind);
        // Without berth.toml the directory's name is the app's.
        let first = deploy(&platform, &directory);
        assert_eq!((&first["release"]["number"], &first["followed"]), (&1.into(), &true.into()), "{first}");
        assert_eq!(first["release"]["state"], "active", "{first}");
        assert_eq!(get(&platform, kind, "/"), "here", "{kind}");

        let named = format!("{kind}-named");
        fs::write(directory.join("berth.toml"), format!("app = \"{named}\"\n[env]\nCOLOUR = \"blue\"\n"))
            .unwrap();
        let second = deploy(&platform, &directory);
        assert_eq!(second["release"]["number"], 1, "{second}");
        assert_eq!(get(&platform, &named, "/"), "here", "{named}");
        if *kind != "static" {
            assert_eq!(get(&platform, &named, "/env/COLOUR"), "blue", "{named}");
        }
    }
    if kinds.contains(&"procfile") {
        let log = platform.cli(["logs", "--app", "procfile", "-p", "release-command"]).ok().stdout;
        assert!(log.contains("release-command.1 migrated, once"), "{log}");
        let ps = platform.cli(["ps", "--app", "procfile", "--json"]).ok().json();
        let ready = |name: &str| {
            let instances = ps["instances"].as_array().unwrap().iter();
            instances.filter(|it| it["process"] == name && it["state"] == "ready").count()
        };
        assert_eq!((ready("web"), ready("worker")), (1, 1), "{ps}");
    }
}

#[test]
fn every_kind_of_source_with_and_without_a_manifest() {
    every_kind(User::Own, &KINDS);
}

#[test]
fn every_kind_of_source_as_an_ordinary_user() {
    every_kind(User::Ordinary, &["static", "executable", "procfile"]);
}

/// The verbs that only look.
fn every_look(platform: &Platform, shop: &Actor<'_>) {
    for subject in [None, Some("v1"), Some("v3"), Some("web"), Some("scale")] {
        let arguments: Vec<&str> = ["why"].into_iter().chain(subject).collect();
        let why = shop.verb(&arguments).ok().json();
        assert!(why["answer"].is_string() && !why["because"].as_array().unwrap().is_empty(), "{why}");
    }
    let timeline = shop.verb(&["timeline"]).ok().json();
    let entries = timeline["entries"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["text"].as_str().is_some_and(|text| !text.is_empty())));
    assert!(entries.iter().any(|entry| entry["text"].as_str().unwrap().contains("v3")), "{timeline}");
    let releases = shop.verb(&["releases"]).ok().json();
    assert_eq!(releases["releases"].as_array().unwrap().len(), 3, "{releases}");
    let logs = shop.verb(&["logs"]).ok().stdout;
    assert!(logs.lines().count() > 2, "{logs}");
    for line in logs.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["cursor"].is_string() && line["text"].is_string(), "{line}");
    }
    let apps = platform.cli(["apps", "--json"]).ok().json();
    assert_eq!(apps["apps"][0]["processes"]["web"]["wanted"], 3, "{apps}");
    let doctor = platform.cli(["doctor", "--json"]);
    let findings = doctor.json();
    assert!(findings.as_array().is_some_and(|all| !all.is_empty()), "{findings}");
    assert!([0, 1].contains(&doctor.status), "{findings}");
    let status = platform.cli(["status", "--json"]).ok().json();
    assert!(status["version"].is_string() && status["home"].is_string(), "{status}");
}

#[test]
fn every_verb_prints_one_document_and_has_its_status() {
    let mut platform = Platform::start(Options::default());
    {
        let shop = Actor::web(&platform, "shop", "serve");
        let first = shop.deploy().ok().json();
        assert!(first["urls"][0].as_str().unwrap().contains("shop.localhost"), "{first}");
        assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));

        // The first release has nothing before it.
        let refused = shop.verb(&["rollback"]);
        assert_eq!((refused.status, refused.stdout.as_str()), (4, ""), "{}", refused.stderr);
        let problem: Value = serde_json::from_str(&refused.stderr).unwrap();
        assert_eq!(problem["code"], "no_rollback_target", "{problem}");
        assert!(problem["next"].is_string(), "{problem}");

        let config = shop.verb(&["config", "set", "COLOUR=green", "EMPTY="]).ok().json();
        assert_eq!(config["release"]["number"], 2, "{config}");
        assert_eq!(shop.ask("/env/COLOUR"), (200, "green".to_owned()));
        assert_eq!(shop.ask("/env/EMPTY"), (200, String::new()));
        let listed = shop.verb(&["config"]).ok().json();
        assert_eq!(listed["config"]["COLOUR"], "green", "{listed}");

        let back = shop.verb(&["rollback"]).ok().json();
        assert_eq!(back["release"]["number"], 3, "{back}");
        assert_eq!(back["release"]["rollback_of"], 1, "{back}");
        // What was warm takes over as it was, with the configuration of its time.
        assert_eq!(shop.ask("/env/COLOUR"), (200, "unset".to_owned()));
        assert_eq!(shop.verb(&["config"]).ok().json()["config"]["COLOUR"], Value::Null);

        let _scaled = shop.verb(&["scale", "web=3"]).ok();
        assert!(wait_until(PATIENCE, || {
            let ps = shop.verb(&["ps"]).ok().json();
            ps["instances"].as_array().unwrap().iter().filter(|it| it["state"] == "ready").count() == 3
        }));
        let scale = shop.verb(&["scale"]).ok().json();
        assert!(scale.to_string().contains('3'), "{scale}");

        every_look(&platform, &shop);

        let missing = platform.cli(["ps", "--app", "nobody", "--json"]);
        assert_eq!(missing.status, 3, "{}", missing.stderr);
        assert_eq!(shop.verb(&["releases", "v99"]).status, 3);
        assert_eq!(shop.verb(&["rollback", "v99"]).status, 3);
        assert_eq!(shop.verb(&["scale", "nothing=1"]).status, 3);
        assert_eq!(platform.cli(["destroy", "--app", "shop"]).status, 4, "it was not confirmed");
        assert_eq!(platform.cli(["config", "unset", "COLOUR", "--app", "nobody"]).status, 3);
        assert_eq!(
            platform.cli(["secrets", "set", "TOKEN", "--app", "shop"]).status,
            2,
            "the input is empty"
        );
        assert_eq!(platform.cli(["dance"]).status, 2);

        let _gone = shop.verb(&["destroy", "--yes"]).ok();
        assert_eq!(platform.cli(["apps", "--json"]).ok().json()["apps"], serde_json::json!([]));
        assert!(wait_until(PATIENCE, || shop.ask("/").0 == 404), "{:?}", shop.ask("/"));
        let again = shop.deploy().ok().json();
        assert_eq!(again["release"]["number"], 4, "numbers go on in an app's second life: {again}");
        let refused = shop.verb(&["rollback", "v1"]);
        assert!([3, 4].contains(&refused.status), "{}", refused.stderr);
    }
    let down = platform.cli(["down", "--json"]).ok();
    assert!(down.json().is_object(), "{}", down.stdout);
    assert_eq!(platform.wait(), Some(0));
    let late = platform.cli(["status", "--json"]);
    assert_eq!(late.status, 5, "{}", late.stderr);
    assert_eq!(serde_json::from_str::<Value>(&late.stderr).unwrap()["code"], "unreachable");
}

#[test]
fn a_superseded_deployment_ends_with_its_own_status() {
    let platform = Platform::start(Options::default());
    let manifest =
        |part: &str| format!("[processes]\nweb = \"./actor {part}\"\n[deploy]\ntimeout = \"10s\"\n");
    let shop = Actor::new(&platform, "shop", &manifest("serve"));
    let _first = shop.deploy().ok();
    // Never gets ready, and holds the turn to be activated.
    shop.change(&manifest("silent"));
    let directory = shop.directory().to_owned();
    let begin = || platform.begin([Path::new("deploy"), Path::new("--json"), &directory]);
    let state = |number: u64| {
        shop.verb(&["releases", &format!("v{number}")]).ok().json()["state"].as_str().unwrap().to_owned()
    };
    let holding = begin();
    assert!(wait_until(PATIENCE, || {
        shop.verb(&["releases"]).ok().json()["releases"].as_array().unwrap().len() == 2
            && ["starting", "activating"].contains(&state(2).as_str())
    }));
    let waiting = begin();
    assert!(wait_until(PATIENCE, || {
        shop.verb(&["releases"]).ok().json()["releases"].as_array().unwrap().len() == 3
    }));
    shop.change(&manifest("serve"));
    let last = shop.deploy();
    let (holding, waiting) = (holding.wait(), waiting.wait());
    assert_eq!(last.status, 0, "{}{}", last.stdout, last.stderr);
    assert_eq!(waiting.status, 6, "{}{}", waiting.stdout, waiting.stderr);
    assert!([1, 6].contains(&holding.status), "{}{}", holding.stdout, holding.stderr);
    assert_eq!(shop.ask("/release"), (200, "v4".to_owned()));
    assert_eq!(state(3), "superseded");
}

#[test]
fn followed_logs_lose_and_double_no_line_when_control_is_killed() {
    let platform = Platform::start(Options::default());
    let counter = Actor::new(&platform, "counter", "[processes]\nworker = \"./actor count\"\n");
    let _deployed = counter.deploy().ok();
    let out = platform.scratch().join("followed");
    let following = platform.begin_into(["logs", "-f", "-a", "counter", "--json"], &out);
    let lines = || fs::read_to_string(&out).unwrap_or_default().matches('\n').count();
    for _ in 0..2 {
        let before = lines();
        assert!(wait_until(PATIENCE, || lines() > before + 50), "nothing is followed: {}", lines());
        let control = platform.role("control")[0];
        platform.signal(control, Signal::KILL);
        assert!(wait_until(PATIENCE, || platform.role("control").iter().any(|pid| *pid != control)));
    }
    let before = lines();
    assert!(wait_until(PATIENCE, || lines() > before + 200), "nothing is followed: {}", lines());
    following.interrupt();
    let ended = following.wait();
    assert_eq!(ended.status, 130, "{}", ended.stderr);
    let text = fs::read_to_string(&out).unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter_map(|line| {
            line["text"]
                .as_str()?
                .strip_prefix("number ")?
                .strip_suffix('.')
                .map(|number| number.parse().unwrap())
        })
        .collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "lost or doubled, with {} before it", pair[0]);
    }
}

#[test]
fn platforms_side_by_side_do_not_meet() {
    let platforms = [(); 3].map(|()| Platform::start(Options::default()));
    for (number, platform) in platforms.iter().enumerate() {
        let shop = Actor::web(platform, "shop", "serve");
        let _deployed = shop.deploy().ok();
        let _set = shop.verb(&["config", "set", &format!("NUMBER={number}")]).ok();
    }
    for (number, platform) in platforms.iter().enumerate() {
        assert_eq!(get(platform, "shop", "/env/NUMBER"), number.to_string());
    }
    let [first, second, third] = platforms;
    let _down = first.cli(["down"]).ok();
    drop(first);
    for (number, platform) in [(1, &second), (2, &third)] {
        assert_eq!(get(platform, "shop", "/env/NUMBER"), number.to_string());
    }
}

#[test]
fn a_detached_platform_stays_and_goes_down_on_demand() {
    let host = Platform::start(Options::default());
    let home = host.scratch().join("detached");
    let home = home.to_str().unwrap();
    let up = ["up", "--detach", "--json", "--home", home, "--edge", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let greeting = host.cli(up).ok().json();
    let status = host.cli(["status", "--json", "--home", home]).ok().json();
    assert_eq!(status["platform"], greeting["platform"], "{status}\n{greeting}");
    let second = host.cli(up);
    assert_eq!(second.status, 4, "{}{}", second.stdout, second.stderr);
    let _down = host.cli(["down", "--json", "--home", home]).ok();
    let run = Path::new(greeting["run"].as_str().unwrap()).to_owned();
    assert!(wait_until(PATIENCE, || !run.try_exists().unwrap()), "{} is left", run.display());
}

/// Every file below `directory` that holds `text`.
fn files_with(directory: &Path, text: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_with(&entry.path(), text, found);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
}

#[test]
fn a_secret_is_nowhere_but_in_its_app() {
    const SECRET: &str = "hush-3f9a27c1-do-not-tell";
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _first = shop.deploy().ok();
    let value = platform.scratch().join("value");
    fs::write(&value, format!("{SECRET}\n")).unwrap();
    let mut setting = platform.begin_reading(["secrets", "set", "TOKEN", "-a", "shop", "--json"], &value);
    // While it is being set, and after.
    let shown = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.into_iter().any(|line| line.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()))
    };
    assert!(wait_until(PATIENCE, || {
        assert!(!shown(), "the secret is in somebody's arguments");
        setting.has_ended()
    }));
    let set = setting.wait().ok();
    assert_eq!(shop.ask("/env/TOKEN"), (200, SECRET.to_owned()));
    assert!(!shown(), "the secret is in somebody's arguments");
    let mut printed = set.stdout + &set.stderr;
    for verb in
        [&["secrets"][..], &["config"], &["timeline"], &["why"], &["why", "v2"], &["releases"], &["logs"]]
    {
        let answer = shop.verb(verb).ok();
        printed += &(answer.stdout + &answer.stderr);
    }
    assert!(printed.contains("TOKEN") && !printed.contains(SECRET), "{printed}");
    let mut found = Vec::new();
    files_with(&platform.home(), SECRET, &mut found);
    files_with(platform.run_dir(), SECRET, &mut found);
    assert_eq!(found, Vec::<PathBuf>::new());
    // The search finds what is there.
    files_with(platform.scratch(), SECRET, &mut found);
    assert_eq!(found, [value]);
}
