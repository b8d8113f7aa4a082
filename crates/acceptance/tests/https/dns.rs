//! Proofs by DNS, which a program of the operator's writes to, and servers that want to be asked less.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use berth_acceptance::{AcmeServer, Actor, Options, Platform, wait_until};

use super::front::Front;
use super::{PATIENCE, YEAR, certs, host_of, plain, program, use_server, visit, wait_for};

/// A hook that writes to the tests' DNS, as a person would write one.
struct Hook {
    file: PathBuf,
    mode: PathBuf,
    calls: PathBuf,
}

impl Hook {
    fn new(platform: &Platform, server: &AcmeServer) -> Self {
        let at = |name: &str| platform.scratch().join(name);
        let (file, mode, calls) = (at("dns-hook"), at("dns-mode"), at("dns-calls"));
        let names = server.names();
        let text = format!(
            "#!/bin/sh\n\
             echo \"$*\" >> {calls}\n\
             case $(cat {mode}) in\n\
             fail) echo 'the provider knows no such zone' >&2; exit 1 ;;\n\
             hang) echo 'waiting for the provider'; sleep 1000 ;;\n\
             esac\n\
             case $1 in\n\
             present) curl -sf --data \"{{\\\"host\\\":\\\"$2\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{names}/set-txt ;;\n\
             cleanup) curl -sf --data \"{{\\\"host\\\":\\\"$2\\\"}}\" http://{names}/clear-txt ;;\n\
             esac\n",
            calls = calls.display(),
            mode = mode.display(),
        );
        fs::write(&file, text).expect("it is written");
        fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("it is ours");
        fs::write(&calls, "").expect("it is written");
        let hook = Self { file, mode, calls };
        hook.set("work");
        hook
    }

    fn set(&self, mode: &str) {
        fs::write(&self.mode, mode).expect("it is written");
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("it is text")
    }

    /// The calls so far, with the value left out.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(&self.calls).expect("it is there");
        calls.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    }
}

#[test]
fn a_wildcard_gets_its_certificate_by_dns_and_is_renewed_under_requests() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    // Two thirds of it are twenty seconds.
    let server = AcmeServer::start(platform.edge().port(), platform.https().unwrap().port(), 30);
    use_server(&platform, &server, &[]);
    let _added = shop.verb(&["domains", "add", "*.example.com", "example.com"]).ok();
    let _apex = wait_for(&platform, "example.com", "valid");
    assert_eq!(host_of(&certs(&platform), "*.example.com")["state"], "none", "nobody can prove it");
    let refused = platform.cli(["certs", "renew", "*.example.com"]);
    assert!(refused.stderr.contains("--dns-hook"), "{}", refused.stderr);

    let hook = Hook::new(&platform, &server);
    use_server(&platform, &server, &["--dns-hook", hook.path(), "--dns-wait", "0s"]);
    let first = wait_for(&platform, "*.example.com", "valid")["certificate"].clone();
    let root = server.root();
    assert_eq!(visit(&platform, "www.example.com", &root, &[]).unwrap(), "200 2");
    let record = "_acme-challenge.example.com.";
    assert_eq!(hook.calls().get(..2), Some(&[format!("present {record}"), format!("cleanup {record}")][..]));
    assert!(plain(&platform, "www.example.com").starts_with("308 https://www.example.com"));

    let mut failed = Vec::new();
    let renewed = wait_until(PATIENCE, || {
        failed.extend(visit(&platform, "api.example.com", &root, &[]).err());
        let list = certs(&platform);
        let now = &host_of(&list, "*.example.com")["certificate"];
        !now.is_null() && *now != first
    });
    assert!(renewed, "{}\n{:?}", certs(&platform), hook.calls());
    assert_eq!(failed, Vec::<String>::new());
    let told = platform.cli(["certs"]).ok().stdout;
    assert!(
        told.contains("*.example.com") && told.contains(&format!("wildcards are proven by {}", hook.path())),
        "{told}"
    );
}

#[test]
fn a_dns_hook_that_fails_or_hangs_is_said_and_tried_again() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    // Nothing listens where it would look by HTTP or TLS.
    let server = AcmeServer::start(1, 1, YEAR);
    let missing = platform.cli(["certs", "acme", "--proof", "dns-01"]);
    assert!(
        missing.status == 2 && missing.stderr.contains("--dns-hook"),
        "{} {}",
        missing.status,
        missing.stderr
    );
    let hook = Hook::new(&platform, &server);
    let open = platform.scratch().join("for-everybody");
    fs::copy(&hook.file, &open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let directory = server.directory();
    let changed =
        platform.cli(["certs", "acme", "--directory", &directory, "--dns-hook", open.to_str().unwrap()]);
    assert!(changed.stderr.contains("can be changed by others"), "{}", changed.stderr);

    hook.set("fail");
    let settings =
        ["--proof", "dns-01", "--dns-hook", hook.path(), "--dns-wait", "0s", "--dns-timeout", "2s"];
    use_server(&platform, &server, &settings);
    let _added = shop.verb(&["domains", "add", "shop.example.com"]).ok();
    let failed = wait_for(&platform, "shop.example.com", "failed");
    assert_eq!(failed["failure"]["code"], "dns_hook_failed", "{failed}");
    let told = platform.cli(["certs"]).ok().stdout;
    assert!(told.contains("| the provider knows no such zone") && told.contains("tried again at"), "{told}");
    assert_eq!(plain(&platform, "shop.example.com"), "200 ", "it is served by plain HTTP meanwhile");

    hook.set("hang");
    let before = hook.calls().len();
    let _asked = platform.cli(["certs", "renew", "shop.example.com"]).ok();
    let late = || certs(&platform).to_string().contains("did not end within 2s");
    assert!(wait_until(PATIENCE, late), "{}", certs(&platform));
    assert!(hook.calls().len() > before);

    hook.set("work");
    let _asked = platform.cli(["certs", "renew", "shop.example.com"]).ok();
    let _valid = wait_for(&platform, "shop.example.com", "valid");
    assert_eq!(visit(&platform, "shop.example.com", &server.root(), &[]).unwrap(), "200 2");
    assert_eq!(hook.calls().last().map(String::as_str), Some("cleanup _acme-challenge.shop.example.com."));
}

#[test]
fn a_server_that_limits_is_left_alone_for_as_long_as_it_says() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let server = AcmeServer::start(platform.edge().port(), platform.https().unwrap().port(), YEAR);
    let (_front, port) = Front::limiting(server.address(), &server.certificate());
    let directory = format!("https://127.0.0.1:{port}/dir");
    let authorities = server.authorities().display().to_string();
    let _set = platform.cli(["certs", "acme", "--directory", &directory, "--authorities", &authorities]).ok();
    let began = now_ms();
    let _added = shop.verb(&["domains", "add", "shop.example.com"]).ok();
    let limited = wait_for(&platform, "shop.example.com", "failed");
    let summary = limited["failure"]["summary"].as_str().unwrap();
    assert!(summary.contains("too many new orders recently (rateLimited)"), "{limited}");
    let again = limited["again_at"].as_u64().unwrap();
    assert!(again >= began + 3_600_000, "an hour, and not the usual five minutes: {limited}");
    let told = platform.cli(["certs"]).ok().stdout;
    assert!(told.contains("asks to come more seldom"), "{told}");

    let _asked = platform.cli(["certs", "renew", "shop.example.com"]).ok();
    let _valid = wait_for(&platform, "shop.example.com", "valid");
}

/// What the wall clock says.
fn now_ms() -> u64 {
    let date = program("date").arg("+%s").output().expect("date runs");
    String::from_utf8_lossy(&date.stdout).trim().parse::<u64>().expect("seconds") * 1_000
}
