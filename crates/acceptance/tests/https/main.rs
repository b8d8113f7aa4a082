//! HTTPS with real parts: certificates by ACME from Pebble, clients that are curl.

mod dns;
mod front;
mod graded;
mod proxied;
mod renewing;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use berth_acceptance::{AcmeServer, Actor, Options, Platform, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
const YEAR: u64 = 365 * 24 * 60 * 60;

#[expect(
    clippy::disallowed_methods,
    reason = "the harness stands outside of the platform and its allow-list"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

/// What curl prints of a request to `host` at the platform's port for HTTPS: the status and the version of HTTP, or curl's words.
fn visit(platform: &Platform, host: &str, root: &Path, more: &[&str]) -> Result<String, String> {
    let https = platform.https().expect("it serves HTTPS");
    let curl = program("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code} %{http_version}", "--cacert"])
        .arg(root)
        .args(["--resolve", &format!("{host}:{}:{}", https.port(), https.ip())])
        .args(more)
        .arg(format!("https://{host}:{}/env/APP_NAME", https.port()))
        .output()
        .expect("curl runs");
    if curl.status.success() {
        return Ok(String::from_utf8_lossy(&curl.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&curl.stderr).into_owned())
}

/// Where a request by plain HTTP is sent: its status and location.
fn plain(platform: &Platform, host: &str) -> String {
    let curl = program("curl")
        .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}", "-H"])
        .arg(format!("Host: {host}"))
        .arg(format!("http://{}/env/APP_NAME", platform.edge()))
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&curl.stdout).into_owned()
}

fn certs(platform: &Platform) -> Value {
    platform.cli(["--json", "certs"]).ok().json()
}

fn host_of<'a>(list: &'a Value, host: &str) -> &'a Value {
    let hosts = list["hosts"].as_array().expect("a list");
    hosts.iter().find(|it| it["host"] == host).unwrap_or_else(|| panic!("{host} is not in {list}"))
}

/// Waits until the host stands so, and gives what is said of it.
fn wait_for(platform: &Platform, host: &str, state: &str) -> Value {
    let mut list = Value::Null;
    let came = wait_until(PATIENCE, || {
        list = certs(platform);
        host_of(&list, host)["state"] == state
    });
    assert!(came, "{host} is not {state}: {list}\n{}", platform.log("control"));
    host_of(&list, host).clone()
}

fn use_server(platform: &Platform, server: &AcmeServer, more: &[&str]) {
    let (directory, authorities) = (server.directory(), server.authorities().display().to_string());
    let usual = [
        "certs",
        "acme",
        "--email",
        "ops@example.com",
        "--directory",
        &directory,
        "--authorities",
        &authorities,
    ];
    let _set = platform.cli(usual.iter().chain(more)).ok();
}

#[test]
fn a_host_gets_its_certificate_keeps_it_over_kills_and_has_it_renewed() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    // Short enough to be renewed while the test looks on, two thirds of it being twenty seconds.
    let server = AcmeServer::start(platform.edge().port(), platform.https().unwrap().port(), 30);
    let unset = platform.cli(["certs", "renew", "shop.example.com"]);
    assert!(unset.status == 4 && unset.stderr.contains("acme_unset"), "{}", unset.stderr);
    use_server(&platform, &server, &[]);
    let _added = shop.verb(&["domains", "add", "shop.example.com"]).ok();
    let first = wait_for(&platform, "shop.example.com", "valid")["certificate"].clone();
    let root = server.root();
    assert_eq!(visit(&platform, "shop.example.com", &root, &[]).unwrap(), "200 2");
    assert_eq!(
        visit(&platform, "shop.example.com", &root, &["--http1.1", "--tls-max", "1.2"]).unwrap(),
        "200 1.1"
    );
    let there = format!("https://shop.example.com:{}/env/APP_NAME", platform.https().unwrap().port());
    assert_eq!(plain(&platform, "shop.example.com"), format!("308 {there}"));
    assert_eq!(plain(&platform, "shop.localhost"), "200 ");
    let unknown = visit(&platform, "blog.example.com", &root, &[]).unwrap_err();
    assert!(unknown.contains("alert"), "{unknown}");

    // Edge has it from its files, control from the journal.
    for role in ["control", "edge"] {
        let killed = platform.role(role);
        killed.iter().for_each(|&pid| platform.signal(pid, Signal::KILL));
        let other = || platform.role(role).iter().any(|pid| !killed.contains(pid));
        assert!(wait_until(PATIENCE, other), "{role} is not started again");
        let served =
            || visit(&platform, "shop.example.com", &root, &[]).is_ok_and(|answer| answer == "200 2");
        assert!(
            wait_until(PATIENCE, served),
            "{role} was killed: {:?}",
            visit(&platform, "shop.example.com", &root, &[])
        );
    }

    let mut failed = Vec::new();
    let renewed = wait_until(PATIENCE, || {
        failed.extend(visit(&platform, "shop.example.com", &root, &[]).err());
        let list = certs(&platform);
        let now = &host_of(&list, "shop.example.com")["certificate"];
        !now.is_null() && *now != first
    });
    assert!(renewed, "{}\n{}", certs(&platform), platform.cli(["timeline", "--all"]).stdout);
    assert_eq!(failed, Vec::<String>::new());
    assert_eq!(certs(&platform)["certificates"].as_array().unwrap().len(), 1, "the old one is gone");
    // Control knows of it before the routing that names it is on disk.
    let files = || std::fs::read_dir(platform.home().join("routing/certificates")).unwrap().count();
    assert!(wait_until(PATIENCE, || files() == 1), "and its key with it: {}", files());
    let told = platform.cli(["certs"]).ok().stdout;
    assert!(told.contains("shop.example.com") && told.contains("valid") && told.contains("Pebble"), "{told}");
    let _removed = shop.verb(&["domains", "remove", "shop.example.com"]).ok();
    assert!(visit(&platform, "shop.example.com", &root, &[]).is_err(), "it is nobody's any more");
}

#[test]
fn a_host_that_cannot_be_proven_says_why_and_is_tried_again() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let server = AcmeServer::start(platform.edge().port(), platform.https().unwrap().port(), YEAR);
    // Nothing of ours is at that address.
    server.resolve("shop.example.com", Some("127.9.9.9"));
    use_server(&platform, &server, &[]);
    let _added = shop.verb(&["domains", "add", "shop.example.com", "other.example.com"]).ok();
    let failed = wait_for(&platform, "shop.example.com", "failed");
    assert_eq!(failed["failure"]["code"], "acme_refused", "{failed}");
    assert!(failed["again_at"].as_u64().is_some(), "{failed}");
    let _other = wait_for(&platform, "other.example.com", "valid");
    let told = platform.cli(["certs"]).ok().stdout;
    assert!(
        told.contains("tried again at") && told.contains("DNS record has to name this machine"),
        "{told}"
    );
    assert_eq!(plain(&platform, "shop.example.com"), "200 ", "it is served by plain HTTP meanwhile");

    server.resolve("shop.example.com", None);
    let _asked = platform.cli(["certs", "renew", "shop.example.com"]).ok();
    let _valid = wait_for(&platform, "shop.example.com", "valid");
    assert_eq!(visit(&platform, "shop.example.com", &server.root(), &[]).unwrap(), "200 2");
}

#[test]
fn a_host_is_proven_by_tls_where_port_80_is_closed() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let server = AcmeServer::start(1, platform.https().unwrap().port(), YEAR);
    use_server(&platform, &server, &["--proof", "tls-alpn-01"]);
    let _added = shop.verb(&["domains", "add", "shop.example.com"]).ok();
    let _valid = wait_for(&platform, "shop.example.com", "valid");
    assert_eq!(visit(&platform, "shop.example.com", &server.root(), &[]).unwrap(), "200 2");
}

#[test]
fn an_order_is_gone_on_with_by_the_next_control() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let server = AcmeServer::start(platform.edge().port(), platform.https().unwrap().port(), YEAR);
    use_server(&platform, &server, &[]);
    let hosts: Vec<String> = (0..8).map(|number| format!("h{number}.example.com")).collect();
    let mut add = vec!["domains", "add"];
    add.extend(hosts.iter().map(String::as_str));
    let _added = shop.verb(&add).ok();
    // Wherever each of them is: some have their certificate, some an order, some nothing.
    let begun = || certs(&platform)["hosts"].as_array().unwrap().iter().any(|host| host["state"] == "valid");
    assert!(wait_until(PATIENCE, begun));
    platform.role("control").iter().for_each(|&pid| platform.signal(pid, Signal::KILL));
    let answers = || platform.cli(["--json", "certs"]).status == 0;
    assert!(wait_until(PATIENCE, answers));
    for host in &hosts {
        let stands = wait_for(&platform, host, "valid");
        assert!(stands.get("failure").is_none(), "{stands}");
    }
}

#[test]
fn a_certificate_is_brought_and_hosts_below_localhost_have_one_by_themselves() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let at = |name: &str| platform.scratch().join(name);
    std::fs::write(at("ca.pem"), platform.cli(["certs", "ca"]).ok().stdout).unwrap();
    assert_eq!(visit(&platform, "shop.localhost", &at("ca.pem"), &[]).unwrap(), "200 2");
    let stranger = visit(&platform, "blog.localhost", &at("ca.pem"), &[]).unwrap_err();
    assert!(stranger.contains("alert"), "no app is there: {stranger}");

    let made = program("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=own"])
        .args(["-addext", "subjectAltName=DNS:*.example.com", "-keyout"])
        .arg(at("key.pem"))
        .arg("-out")
        .arg(at("chain.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (chain, key) = (at("chain.pem").display().to_string(), at("key.pem").display().to_string());
    let swapped = platform.cli(["certs", "add", "--chain", &key, "--key", &chain]);
    assert!(swapped.status == 4 && swapped.stderr.contains("certificate_invalid"), "{}", swapped.stderr);
    let added = platform.cli(["--json", "certs", "add", "--chain", &chain, "--key", &key]).ok().json();
    let _domain = shop.verb(&["domains", "add", "www.example.com"]).ok();
    assert_eq!(visit(&platform, "www.example.com", &at("chain.pem"), &[]).unwrap(), "200 2");
    let shown = certs(&platform).to_string();
    assert!(!shown.contains("PRIVATE") && !platform.log("control").contains("PRIVATE"), "{shown}");

    let id = added["id"].as_str().unwrap();
    let _removed = platform.cli(["certs", "remove", id.get(..10).unwrap()]).ok();
    assert!(visit(&platform, "www.example.com", &at("chain.pem"), &[]).is_err());
    assert_eq!(plain(&platform, "www.example.com"), "200 ");
}
