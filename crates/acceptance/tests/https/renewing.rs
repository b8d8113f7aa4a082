//! What is set a second time, and servers that do not have a certificate replaced.

use berth_acceptance::{AcmeServer, Actor, Options, Platform, wait_until};
use serde_json::Value;

use super::front::Front;
use super::{PATIENCE, YEAR, certs, host_of, wait_for};

const HOST: &str = "shop.example.com";

#[test]
fn the_account_stays_and_a_renewal_asks_for_it_to_replace_the_certificate_without_insisting() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let server = AcmeServer::start(platform.edge().port(), platform.https().unwrap().port(), YEAR);
    let (_front, port) = Front::renewing(server.address(), &server.certificate(), "other@");
    let (directory, authorities) =
        (format!("https://127.0.0.1:{port}/dir"), server.authorities().display().to_string());
    let set = |email: &str| {
        let settings = ["--directory", &directory, "--authorities", &authorities, "--email", email];
        platform.cli(["certs", "acme"].iter().chain(&settings))
    };
    let refused = set("other@example.com");
    assert!(refused.status == 1 && refused.stderr.contains("no more accounts"), "{}", refused.stderr);
    let _set = set("ops@example.com").ok();
    let _added = shop.verb(&["domains", "add", HOST]).ok();
    let mut held = wait_for(&platform, HOST, "valid")["certificate"].clone();

    let _set_again = set("other@example.com").ok();
    assert_eq!(certs(&platform)["acme"]["email"], "other@example.com");
    for round in ["refused", "not said again"] {
        let _asked = platform.cli(["certs", "renew", HOST]).ok();
        let mut stands = Value::Null;
        let ended = wait_until(PATIENCE, || {
            stands = host_of(&certs(&platform), HOST).clone();
            stands["certificate"] != held || !stands["failure"].is_null()
        });
        assert!(ended && stands["failure"].is_null(), "{round}: {stands}\n{}", platform.log("control"));
        held = stands["certificate"].clone();
    }
}
