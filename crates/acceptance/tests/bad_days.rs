//! Bad days: full disks, taken ports, apps that do not do as they should, machines that lose power.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and a test that cannot run here says so"
)]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use berth_acceptance::{Actor, Answer, Api, Options, Platform, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
/// Ends what would wait for ten minutes, long after a busy machine would have got ready.
const SHORT: &str = "[deploy]\ntimeout = \"8s\"\n";

/// A manifest whose process `web` plays `part`.
fn web(part: &str, rest: &str) -> String {
    format!("[processes]\nweb = \"./actor {part}\"\n{rest}")
}

/// The failure of a deployment that failed, which must have its status.
fn failure(answer: &Answer) -> Value {
    assert_eq!(answer.status, 1, "{}{}", answer.stdout, answer.stderr);
    let release = answer.json()["release"].clone();
    assert_eq!(release["state"], "failed", "{release}");
    release["failure"].clone()
}

/// The problem that a verb ended with.
fn problem(answer: &Answer) -> Value {
    serde_json::from_str(&answer.stderr).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// An app whose first release serves and whose second, this one, fails; that must leave the first alone.
fn second_release_fails(platform: &Platform, name: &str, manifest: &str) -> Value {
    let app = Actor::web(platform, name, "serve");
    let _first = app.deploy().ok();
    app.change(manifest);
    let failed = failure(&app.deploy());
    assert_eq!(app.ask("/release"), (200, "v1".to_owned()), "the first release was touched");
    let listed = platform.cli(["apps", "--json"]).ok().json();
    let listed = listed["apps"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    assert_eq!((&listed["state"], &listed["release"]), (&"running".into(), &1.into()), "{listed}");
    // Of the failed release nothing keeps running.
    assert!(wait_until(PATIENCE, || {
        let ps = app.verb(&["ps"]).ok().json();
        ps["instances"].as_array().unwrap().iter().all(|it| it["release"] == 1)
    }));
    failed
}

#[test]
fn of_two_starts_at_once_in_one_home_one_wins() {
    let host = Platform::start(Options::default());
    let home = host.scratch().join("contested");
    let home = home.to_str().unwrap();
    let up = ["up", "--json", "--home", home, "--edge", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let mut contenders = [(); 3].map(|()| host.begin(up));
    assert!(wait_until(PATIENCE, || {
        contenders.iter_mut().map(berth_acceptance::Running::has_ended).filter(|ended| *ended).count() == 2
            && host.cli(["status", "--json", "--home", home]).status == 0
    }));
    let _down = host.cli(["down", "--home", home]).ok();
    let mut statuses = contenders.map(|contender| contender.wait().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [0, 4, 4]);
}

#[test]
fn a_taken_port_is_named_and_nothing_is_left() {
    let host = Platform::start(Options::default());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let home = host.scratch().join("second");
    let home_text = home.to_str().unwrap();
    let up = |edge: SocketAddr, api: SocketAddr| {
        let (edge, api) = (edge.to_string(), api.to_string());
        host.begin(["up", "--json", "--home", home_text, "--edge", &edge, "--api", &api])
    };
    let any = "127.0.0.1:0".parse().unwrap();
    for (edge, api) in [(taken, any), (any, taken), (host.edge(), any), (any, host.api())] {
        let answer = up(edge, api).wait();
        assert_eq!((answer.status, answer.stdout.as_str()), (1, ""), "{answer:?}");
        let problem = problem(&answer);
        assert_eq!(problem["code"], "port_taken", "{problem}");
        let port = if edge == any { api.port() } else { edge.port() };
        assert!(problem["detail"].as_str().unwrap().contains(&port.to_string()), "{problem}");
        assert!(problem["next"].is_string(), "{problem}");
    }
    // The home is as good as new.
    let running = up(any, any);
    assert!(wait_until(PATIENCE, || host.cli(["status", "--home", home_text]).status == 0));
    let _down = host.cli(["down", "--home", home_text]).ok();
    assert_eq!(running.wait().status, 0);
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        println!("SKIPPED: only root can mount the file system that is to be full");
    }
    root
}

/// Fills the file system of the home to its last byte.
fn fill(platform: &Platform) {
    let mut filler =
        fs::File::options().create(true).append(true).open(platform.home().join("filler")).unwrap();
    for size in [1 << 20, 4_096, 1] {
        let block = vec![0x5A; size];
        while filler.write_all(&block).is_ok() {}
    }
}

fn empty(platform: &Platform) {
    fs::remove_file(platform.home().join("filler")).unwrap();
}

fn small_home() -> Options {
    Options { home_size: Some(256 << 20), ..Options::default() }
}

#[test]
fn a_full_disk_is_said_so_and_apps_go_on() {
    if !is_root() {
        return;
    }
    let platform = Platform::start(small_home());
    let shop =
        Actor::new(&platform, "shop", "[processes]\nweb = \"./actor serve\"\nworker = \"./actor count\"\n");
    let _first = shop.deploy().ok();
    let log = || shop.verb(&["logs", "-p", "worker", "-n", "1"]).ok().json()["text"].to_string();
    fill(&platform);

    // Something new to upload, a change of configuration, a new app: nothing of it can be kept.
    fs::write(shop.directory().join("new"), vec![7; 300_000]).unwrap();
    for answer in [
        shop.deploy(),
        shop.verb(&["config", "set", "COLOUR=green"]),
        Actor::web(&platform, "other", "serve").deploy(),
    ] {
        assert_eq!(answer.status, 1, "{answer:?}");
        let problem = problem(&answer);
        assert_eq!((&problem["code"], &problem["status"]), (&"disk_full".into(), &507.into()), "{problem}");
        assert!(problem["next"].is_string(), "{problem}");
    }
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
    let releases = shop.verb(&["releases"]).ok().json();
    assert_eq!(releases["releases"].as_array().unwrap().len(), 1, "{releases}");
    assert_eq!(shop.verb(&["config"]).ok().json()["config"], serde_json::json!({}));
    assert_eq!(platform.cli(["apps", "--json"]).ok().json()["apps"].as_array().unwrap().len(), 1);

    empty(&platform);
    let last = log();
    assert!(wait_until(PATIENCE, || log() != last), "the log does not go on");
    let second = shop.deploy().ok().json();
    assert_eq!(second["release"]["state"], "active", "{second}");
    let _set = shop.verb(&["config", "set", "COLOUR=green"]).ok();
    assert_eq!(shop.ask("/env/COLOUR"), (200, "green".to_owned()));
}

#[test]
fn a_build_that_fills_the_disk_fails_alone() {
    if !is_root() {
        return;
    }
    let platform = Platform::start(small_home());
    let shop = Actor::web(&platform, "shop", "serve");
    let _first = shop.deploy().ok();
    let greedy = web("serve", "[build]\nbuilder = \"copy\"\ncommand = \"cp /dev/zero big\"\n");
    let other = Actor::new(&platform, "other", &greedy);
    let failed = failure(&other.deploy());
    assert_eq!(failed["code"], "disk_full", "{failed}");
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
    // What it wrote is gone, without anybody's help.
    other.change(&web("serve", ""));
    let _built = other.deploy().ok();
    assert_eq!(other.ask("/release"), (200, "v2".to_owned()));
}

#[test]
fn an_app_that_never_listens_fails_its_deployment() {
    let platform = Platform::start(Options::default());
    let failed = second_release_fails(&platform, "shop", &web("silent", SHORT));
    assert_eq!(failed["code"], "never_listened", "{failed}");
    assert!(failed["next"].is_string(), "{failed}");
}

#[test]
fn an_app_that_listens_elsewhere_is_told_where() {
    let platform = Platform::start(Options::default());
    // Found out while there is time, and when time is over.
    for (name, rest) in [("shop", SHORT), ("hasty", "[deploy]\ntimeout = \"2s\"\n")] {
        let failed = second_release_fails(&platform, name, &web("elsewhere", rest));
        assert_eq!(failed["code"], "listens_elsewhere", "{failed}");
        assert!(failed["next"].as_str().unwrap().contains("PORT"), "{failed}");
        let text = failed.to_string();
        let (before, after) = text.split_once(", expected ").unwrap();
        let actual = before.rsplit("is listening on ").next().unwrap();
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let expected: u16 = digits.parse().unwrap();
        // In a network of its own, or on the machine's.
        assert!(expected == 8_080 || (20_000..30_000).contains(&expected), "{failed}");
        assert!(actual.parse::<u16>().is_ok_and(|actual| actual != expected), "{failed}");
    }
}

#[test]
fn a_program_that_is_not_there_is_named_as_the_reason() {
    let platform = Platform::start(Options::default());
    let failed = second_release_fails(&platform, "shop", "[processes]\nweb = \"./nowhere\"\n");
    assert_eq!(failed["code"], "crashed_at_start", "{failed}");
    assert!(failed["details"].to_string().contains("No such file or directory"), "{failed}");
}

#[test]
fn a_stubborn_app_is_killed_after_its_time() {
    let platform = Platform::start(Options::default());
    let shutdown = "[shutdown]\ndrain = \"1s\"\nkill_after = \"1s\"\n";
    let shop = Actor::new(&platform, "shop", &web("stubborn", shutdown));
    let _first = shop.deploy().ok();
    let _gone = shop.verb(&["destroy", "--yes"]).ok();
    assert_eq!(shop.verb(&["ps"]).status, 3);
}

#[test]
fn what_forks_away_ends_with_its_instance() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "scattered");
    let _first = shop.deploy().ok();
    let status = platform.cli(["status", "--json"]).ok().json();
    let isolated = ["namespaces", "full"].iter().any(|level| status["isolation"] == **level);
    let log = shop.verb(&["logs"]).ok().stdout;
    let pid = log.split("scattered ").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    // It knows itself by the number that it has in its own namespace.
    let knows_itself_so = |status: String| {
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).map(str::to_owned);
        numbers.is_some_and(|numbers| {
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            numbers.last() == Some(&pid) && (numbers.len() > 1 || !isolated)
        })
    };
    let lives = || {
        let all = std::fs::read_dir("/proc").unwrap();
        let statuses =
            all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("status")).ok());
        statuses.into_iter().any(knows_itself_so)
    };
    assert!(lives());
    let _gone = shop.verb(&["destroy", "--yes"]).ok();
    assert!(!lives(), "{pid} outlived its app");
}

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_gigabyte_of_output_blocks_nobody_and_fills_no_disk() {
    const GIGABYTE: u64 = 1 << 30;
    let platform = Platform::start(Options::default());
    let quiet = Actor::web(&platform, "quiet", "serve");
    let _first = quiet.deploy().ok();
    let noisy = Actor::web(&platform, "noisy", &format!("noisy {GIGABYTE}"));
    let _first = noisy.deploy().ok();
    let logs = platform.home().join("logs/default/default/noisy");
    let mut largest = 0;
    assert!(wait_until(Duration::from_secs(300), || {
        largest = largest.max(size_of(&logs));
        assert_eq!(quiet.ask("/").0, 200);
        noisy.ask("/written").1.parse::<u64>().unwrap() >= GIGABYTE
    }));
    assert!(largest < 64 << 20, "{largest} bytes of log");
    // What is missing is said, in the place where it is missing.
    assert!(wait_until(PATIENCE, || {
        let log = noisy.verb(&["logs", "-n", "10000"]).ok().stdout;
        log.lines().any(|line| line.contains("\"stream\":\"berth\"") && line.contains("lines were dropped"))
    }));
}

#[test]
fn a_crash_is_counted_and_explained() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _first = shop.deploy().ok();
    let _cut_short = shop.ask("/crash");
    let instance = || shop.verb(&["ps"]).ok().json()["instances"][0].clone();
    assert!(wait_until(PATIENCE, || instance()["restarts"] == 1 && instance()["state"] == "ready"));
    let crashed = instance();
    assert_eq!(crashed["exit"]["status"], 7, "{crashed}");
    assert_eq!(shop.ask("/").0, 200);
    let subject = crashed["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    for subject in [subject.as_str(), "web"] {
        let why = shop.verb(&["why", subject]).ok().json();
        assert!(why.to_string().contains("exit") && why.to_string().contains('7'), "{subject}: {why}");
    }
    let shown = platform.cli(["ps", "--app", "shop"]).ok().stdout;
    assert!(shown.contains('7'), "{shown}");
}

#[test]
fn a_release_command_that_fails_fails_the_deployment() {
    let platform = Platform::start(Options::default());
    let manifest = web("serve", "[deploy]\nrelease_command = \"./actor exit 9\"\n");
    let failed = second_release_fails(&platform, "shop", &manifest);
    assert_eq!(failed["code"], "release_command_failed", "{failed}");
    assert!(failed["summary"].as_str().unwrap().contains('9'), "{failed}");
    assert!(failed.to_string().contains("on purpose"), "{failed}");
}

#[test]
fn a_health_check_that_does_not_succeed_is_evidence() {
    let platform = Platform::start(Options::default());
    let check = "[[http.checks]]\ntype = \"readiness\"\npath = \"/healthz\"\n";
    for (name, part, evidence) in [
        ("broken", "status '500 Broken'", ["500", "/healthz"]),
        ("moved", "status '302 Found'", ["302", "/login"]),
    ] {
        let failed = second_release_fails(&platform, name, &web(part, &format!("{SHORT}{check}")));
        assert_eq!(failed["code"], "health_check_failed", "{failed}");
        let text = failed.to_string();
        assert!(evidence.iter().all(|part| text.contains(part)), "{failed}");
    }
}

#[test]
fn of_two_deployments_at_once_the_later_one_serves() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _first = shop.deploy().ok();
    let deploy = |number: u32| {
        fs::write(shop.directory().join("number"), number.to_string()).unwrap();
        platform.begin([Path::new("deploy"), Path::new("--json"), shop.directory()])
    };
    let both = [deploy(1), deploy(2)].map(berth_acceptance::Running::wait);
    let numbers = both.each_ref().map(|answer| answer.json()["release"]["number"].as_u64().unwrap());
    assert_eq!(
        {
            let mut sorted = numbers;
            sorted.sort_unstable();
            sorted
        },
        [2, 3]
    );
    for (answer, number) in both.iter().zip(numbers) {
        assert!(answer.status == 0 || (answer.status == 6 && number == 2), "{answer:?}");
    }
    assert_eq!(shop.ask("/release"), (200, "v3".to_owned()));
}

#[test]
fn clients_that_hang_hold_nothing_up() {
    let platform = Platform::start(Options::default());
    let api = Api::of(&platform);
    let control = platform.role("control")[0];
    let open = || fs::read_dir(format!("/proc/{control}/fd")).unwrap().count();
    assert_eq!(api.ask("GET", "/api/v1/platform", b"").status, 200);
    let before = open();
    let chunk = format!("/api/v1/tenants/default/chunks/{}", "0".repeat(64));
    let upload = api.request("PUT", chunk.as_bytes(), &[b'x'; 100_000]);
    let head = upload.iter().position(|byte| *byte == b'\n').unwrap() + 10;
    let mut hanging: Vec<TcpStream> = Vec::new();
    for cut in [1, head, 2_000, upload.len() - 1] {
        for _ in 0..8 {
            let mut stream = TcpStream::connect(api.address()).unwrap();
            stream.write_all(&upload[..cut]).unwrap();
            hanging.push(stream);
        }
    }
    assert!(wait_until(PATIENCE, || open() >= before + hanging.len() / 2), "nobody took the connections");
    assert_eq!(api.ask("GET", "/api/v1/platform", b"").status, 200);
    assert_eq!(platform.cli(["apps"]).status, 0);
    // Who has not finished its head is sent away.
    let mut slow = hanging.remove(0);
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    match slow.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    drop(hanging);
    assert!(wait_until(PATIENCE, || open() <= before + 2), "{} descriptors, {before} before", open());
    let staged = platform.home().join("chunks");
    assert_eq!(size_of(&staged), 0, "half a chunk was kept");
}

#[test]
fn after_a_loss_of_power_the_apps_are_back() {
    let mut platform = Platform::start(Options::default());
    {
        let shop = Actor::new(
            &platform,
            "shop",
            "[processes]\nweb = \"./actor serve\"\nworker = \"./actor count\"\n",
        );
        let _first = shop.deploy().ok();
        let _set = shop.verb(&["config", "set", "COLOUR=green"]).ok();
        let _scaled = shop.verb(&["scale", "web=2"]).ok();
    }
    for _ in 0..2 {
        platform.kill_everything();
        platform.start_again();
        let all_ready = || {
            let ps = platform.cli(["ps", "--app", "shop", "--json"]).ok().json();
            let ready = ps["instances"].as_array().unwrap().iter().filter(|it| it["state"] == "ready");
            ready.count() == 3
        };
        assert!(wait_until(PATIENCE, all_ready), "{}", platform.cli(["ps", "--app", "shop"]).stdout);
        let request = b"GET /env/COLOUR HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n";
        let reply = berth_acceptance::exchange(platform.edge(), request).unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, "green"));
    }
}
