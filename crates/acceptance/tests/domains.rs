//! Domains: they lead to their app as soon as the command returns, without a release, and to nobody else's.

use berth_acceptance::{Actor, Options, Platform, exchange};

/// What edge answers on this host: its status, and the body.
fn visit(platform: &Platform, host: &str) -> (u16, String) {
    let request = format!("GET /env/APP_NAME HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let reply = exchange(platform.edge(), request.as_bytes()).expect("edge answers");
    (reply.status, reply.text())
}

#[test]
fn a_domain_leads_to_its_app_at_once_and_to_no_other() {
    let platform = Platform::start(Options::default());
    let (shop, blog) = (Actor::web(&platform, "shop", "serve"), Actor::web(&platform, "blog", "serve"));
    let _deployed = [shop.deploy().ok(), blog.deploy().ok()];
    assert_eq!(visit(&platform, "shop.example.com").0, 404);

    let added = shop.verb(&["domains", "add", "Shop.Example.com.", "*.b\u{fc}cher.example"]).ok().json();
    assert_eq!(added["applied"], true, "{added}");
    for host in ["shop.example.com", "SHOP.example.com:8080", "a.xn--bcher-kva.example"] {
        assert_eq!(visit(&platform, host), (200, "shop".to_owned()), "{host}");
    }
    assert_eq!(visit(&platform, "a.b.xn--bcher-kva.example").0, 404);
    let refused = blog.verb(&["domains", "add", "shop.example.com"]);
    assert_eq!(refused.status, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("belongs to default/default/shop"), "{}", refused.stderr);
    let fixed = shop.verb(&["domains", "remove", "shop.localhost"]);
    assert_eq!((fixed.status, fixed.stderr.contains("domain_fixed")), (4, true), "{}", fixed.stderr);

    // An exact name of the same tenant wins over a wildcard.
    let _exact = blog.verb(&["domains", "add", "blog.xn--bcher-kva.example"]).ok();
    assert_eq!(visit(&platform, "blog.xn--bcher-kva.example").1, "blog");
    let releases = shop.verb(&["releases"]).ok().json();
    assert_eq!(releases["releases"].as_array().map(Vec::len), Some(1), "{releases}");

    let _removed = shop.verb(&["domains", "remove", "shop.example.com"]).ok();
    assert_eq!(visit(&platform, "shop.example.com").0, 404);
    let _taken = blog.verb(&["domains", "add", "shop.example.com"]).ok();
    assert_eq!(visit(&platform, "shop.example.com").1, "blog");
    let told = shop.verb(&["timeline"]).ok().stdout;
    assert!(
        told.contains("added the domain *.xn--bcher-kva.example, added the domain shop.example.com"),
        "{told}"
    );
}

/// A host for which nobody gives certificates is listed with the others, and says so; one below localhost has no need of it.
#[test]
fn a_host_that_has_no_certificate_says_why() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let _added = shop.verb(&["domains", "add", "shop.test", "shop.example.com"]).ok();
    let listed = platform.cli(["certs", "--json"]).ok().json();
    let told: Vec<(&str, bool)> = listed["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["host"].as_str().unwrap(), it["unasked"].is_string()))
        .collect();
    assert_eq!(told, [("shop.example.com", false), ("shop.test", true)], "{listed}");
    let said = platform.cli(["certs"]).ok().stdout;
    assert!(said.contains("shop.test is no name for which a server of the internet gives"), "{said}");
    let local = platform.cli(["domains", "add", "-a", "shop", "localhost"]).ok();
    assert!(local.stderr.contains("from this machine alone"), "{}", local.stderr);
    assert!(!local.stderr.contains("DNS"), "{}", local.stderr);
}
