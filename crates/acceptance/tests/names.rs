//! Apps of one project that call each other by name, on the real binary: through redeploys and the death of edge, and what of it an app
//! cannot do.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_acceptance::load::{Load, Options as LoadOptions, Page};
use berth_acceptance::{Actor, Options, Platform, User, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
/// Serves at the port that the platform gives, at all addresses: those of other apps are none of its own.
const SERVE: &str = "[processes]\nweb = \"./actor everywhere\"\n[deploy]\nwarm = \"0s\"\n";

/// A platform whose apps have names, or said aloud that there can be none.
#[expect(clippy::print_stdout, reason = "what was not tested must not look as if it had been")]
fn platform(user: User) -> Option<Platform> {
    let platform = Platform::start(Options { user, ..Options::default() });
    let status = platform.cli(["status", "--json"]).ok().json();
    if status["names"] == Value::Bool(true) {
        return Some(platform);
    }
    println!("!! NOT TESTED: this platform has no names of apps: {}", status["network"]);
    assert!(user == User::Ordinary, "as root there are names");
    None
}

fn deployed<'p>(platform: &'p Platform, name: &str, manifest: &str) -> Actor<'p> {
    let app = Actor::new(platform, name, manifest);
    let _released = app.deploy().ok();
    app
}

/// A request to `target`, in a form that another app sends as it is.
fn sending(target: &str, request: &str) -> String {
    let hex: String = request.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("/send/{target}/{hex}")
}

/// Where the name of an app leads from `from`.
fn address_of(from: &Actor<'_>, name: &str) -> Ipv4Addr {
    let hosts = from.ask("/read/etc/hosts").1;
    let line = hosts.lines().find(|line| line.split_whitespace().skip(1).any(|word| word == name));
    line.unwrap_or_else(|| panic!("{name} in {hosts}")).split_whitespace().next().unwrap().parse().unwrap()
}

/// Both apps are redeployed while one calls the other: not one call fails.
fn through_a_redeploy(user: User) {
    let Some(platform) = platform(user) else { return };
    let web = deployed(&platform, "web", SERVE);
    // Its name is known to what ran before it.
    let api = deployed(&platform, "api", SERVE);
    let called = || web.ask("/call/api.internal/release");
    assert!(wait_until(PATIENCE, || called() == (200, "200 v1".to_owned())), "{:?}", called());
    // By HTTP, and by bytes at its own port.
    let loads = ["api.internal", "api.internal:8080"].map(|host| {
        let texts = ["v1", "v2", "v3"].map(str::to_owned).to_vec();
        let page = Some(Arc::new(Page { path: format!("/call/{host}/release"), texts }));
        let options = LoadOptions::new(platform.edge(), "web");
        Load::start(LoadOptions { connections: 8, rate: 40, page, ..options })
    });
    for _ in 0..2 {
        let _released = api.deploy().ok();
        let _released = web.deploy().ok();
    }
    // However quick the deploys were, the calls of a second or two are judged.
    assert!(wait_until(PATIENCE, || loads.iter().all(|load| load.begun() > 60)));
    for load in loads {
        let outcome = load.stop();
        assert!(outcome.failed.is_empty() && outcome.samples.len() > 50, "{outcome:?}");
    }
    assert_eq!(called(), (200, "200 v3".to_owned()));
    // Once it is gone the name leads nowhere, and nobody is told why.
    let _destroyed = api.verb(&["destroy", "--yes"]).ok();
    assert!(wait_until(PATIENCE, || called().1.starts_with("failed: ")), "{:?}", called());
}

#[test]
fn apps_call_each_other_by_name_through_a_redeploy() {
    through_a_redeploy(User::Own);
}

#[test]
fn apps_of_an_ordinary_user_call_each_other_by_name_through_a_redeploy() {
    through_a_redeploy(User::Ordinary);
}

#[test]
fn an_app_is_called_on_its_own_port_too_and_by_what_is_no_web_process() {
    let Some(platform) = platform(User::Own) else { return };
    let echo = "[processes]\nweb = \"./actor echo\"\n[http]\nport = 5432\n[deploy]\nstrategy = \"recreate\"\nwarm = \"0s\"\n";
    let db = deployed(&platform, "db", echo);
    let manifest = "[processes]\nweb = \"./actor everywhere\"\nworker = \"./actor call web.internal/release\"\n\
        [network]\negress = \"internal\"\n[network.names]\ndatabase = \"db\"\n";
    let web = deployed(&platform, "web", manifest);
    let talk = |host: &str| web.ask(&sending(host, "one\nbye\n"));
    assert_eq!(talk("db.internal:5432"), (200, "hello from v1\none\nbye\n".to_owned()));
    assert_eq!(talk("database:5432").1, "hello from v1\none\nbye\n");
    // Not at a port that it does not have, though another app has it.
    let other = talk("db.internal:8080").1;
    assert!(other.is_empty() || other.starts_with("failed: "), "{other}");
    // A connection that finds nobody is held until the next release listens.
    std::thread::scope(|scope| {
        let redeployed = scope.spawn(|| db.deploy().ok());
        while !redeployed.is_finished() {
            let said = talk("db.internal:5432").1;
            assert!(said.starts_with("hello from v"), "{said:?}");
        }
        let _released = redeployed.join().unwrap();
    });
    assert_eq!(talk("db.internal:5432").1, "hello from v2\none\nbye\n");
    // From a worker, and from a one-off command.
    let logs = || platform.cli(["logs", "--app", "web"]).ok().stdout;
    assert!(wait_until(PATIENCE, || logs().contains("called: 200 v1")), "{}", logs());
    let run = platform.cli(["run", "--app", "web", "--", "cat", "/etc/hosts"]).ok();
    assert!(run.stdout.contains("\tdb.internal database"), "{}", run.stdout);
    // Internal, and nothing beside.
    let out = web.ask(&sending("192.0.2.1:80", "x")).1;
    assert!(out.contains("Network is unreachable"), "{out}");
}

#[test]
fn calls_wait_while_edge_is_killed() {
    let Some(platform) = platform(User::Own) else { return };
    let _api = deployed(&platform, "api", SERVE);
    // It calls by itself, so that no edge is needed to ask it.
    let caller =
        deployed(&platform, "caller", "[processes]\nworker = \"./actor call api.internal/release\"\n");
    let logs = || platform.cli(["logs", "--app", "caller", "-n", "10000"]).ok().stdout;
    let count = || logs().matches("called: 200 v1").count();
    assert!(wait_until(PATIENCE, || count() > 5), "{}", logs());
    for _ in 0..2 {
        let edge = platform.role("edge");
        platform.kill(*edge.last().unwrap());
        let before = count();
        assert!(wait_until(PATIENCE, || count() > before + 10), "{}", logs());
    }
    // What was being answered when edge died is lost; whatever came after that waited for the next one.
    let failed =
        logs().lines().filter(|line| line.contains("called: ") && !line.contains("called: 200")).count();
    assert!(failed <= 2, "{}", logs());
    drop(caller);
}

#[test]
fn attack_on_other_apps_through_the_names() {
    let Some(platform) = platform(User::Own) else { return };
    let api = deployed(&platform, "api", SERVE);
    let web = deployed(&platform, "web", SERVE);
    let _none = deployed(
        &platform,
        "cut-off",
        "[processes]\nweb = \"./actor everywhere\"\n[network]\negress = \"none\"\n",
    );
    let ask = |target: &str, request: &str| web.ask(&sending(target, request)).1;
    let get = |line: &str, more: &str| format!("GET {line} HTTP/1.1\r\nConnection: close\r\n{more}\r\n");

    // Whatever the request says, it is the address that counts.
    for request in [
        get("/env/APP_NAME", "Host: cut-off.localhost\r\n"),
        get("http://cut-off.localhost/env/APP_NAME", "Host: cut-off.localhost\r\n"),
        get("/env/APP_NAME", "Host: web.internal\r\nX-Forwarded-Host: cut-off.localhost\r\n"),
    ] {
        let answer = ask("api.internal", &request);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("api"), "{answer}");
    }
    // Nobody says for himself who he is.
    let forged =
        "Host: api.internal\r\nX-Berth-App: admin\r\nx_berth_app: admin\r\nX-Forwarded-For: 6.6.6.6\r\n";
    let head = ask("api.internal", &get("/head", forged)).to_lowercase();
    assert!(
        head.contains("x-berth-app: web\r\n") && !head.contains("admin") && !head.contains("6.6.6.6"),
        "{head}"
    );
    assert!(head.contains(&format!("x-forwarded-for: {}\r\n", address_of(&web, "web.internal"))), "{head}");
    let outside = format!("GET /head HTTP/1.1\r\nHost: api.localhost\r\nConnection: close\r\n{forged}\r\n")
        .replace("Host: api.internal\r\n", "");
    let seen = berth_acceptance::exchange(platform.edge(), outside.as_bytes()).unwrap().text().to_lowercase();
    assert!(!seen.contains("berth-app") && !seen.contains("berth_app"), "{seen}");

    // An address that no app of the project has is an unknown host, as it is outside.
    let last = u32::from(address_of(&web, "web.internal")).max(u32::from(address_of(&web, "api.internal")));
    let nobody = Ipv4Addr::from(last + 100).to_string();
    let unknown = ask(&nobody, &get("/", "Host: api.internal\r\n"));
    assert!(unknown.starts_with("HTTP/1.1 404") && unknown.contains("no_app_here"), "{unknown}");
    // Neither the API, nor edge, nor metadata are behind it, and nothing else listens there.
    let targets = [
        format!("{nobody}:{}", platform.api().port()),
        format!("api.internal:{}", platform.api().port()),
        format!("api.internal:{}", platform.edge().port()),
        format!("198.19.128.2:{}", platform.api().port()),
        "198.19.128.2:80".to_owned(),
        "169.254.169.254:80".to_owned(),
        format!("127.0.0.1:{}", platform.api().port()),
    ];
    for target in targets {
        let answer = ask(&target, &get("/", "Host: x\r\n"));
        assert!(answer.starts_with("failed: "), "{target}: {answer}");
    }
    // A name of outside leads nowhere here, and a name of here leads nowhere outside.
    let public = "GET / HTTP/1.1\r\nHost: api.internal\r\nConnection: close\r\n\r\n";
    assert_eq!(berth_acceptance::exchange(platform.edge(), public.as_bytes()).unwrap().status, 404);

    // Without leave to reach anything there are no names, and no way to them.
    let cut_off = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: cut-off.localhost\r\nconnection: close\r\n\r\n");
        berth_acceptance::exchange(platform.edge(), request.as_bytes()).unwrap().text()
    };
    assert!(!cut_off("/read/etc/hosts").contains("internal"));
    assert!(cut_off("/call/api.internal/").starts_with("failed: "));
    let by_address = cut_off(&sending(&address_of(&web, "api.internal").to_string(), "x"));
    assert!(by_address.contains("Network is unreachable"), "{by_address}");
    drop(api);
}
