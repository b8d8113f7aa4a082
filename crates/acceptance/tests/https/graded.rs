//! What testssl.sh finds at the platform's HTTPS: docs/https.md has the whole of it.

use std::fs;

use berth_acceptance::{Actor, Options, Platform};
use serde_json::Value;

use super::program;

/// What it finds that is as it is meant to be, or is the certificate's of this test and not the server's.
const KNOWN: [&str; 6] = [
    // A client without hardware for AES does better by its own order, and there is no suite that it should be kept from.
    "cipher_order",
    "cert_revocation",
    "DNS_CAArecord",
    "security_headers",
    // Its own openssl, which cannot be had look.
    "engine_problem",
    "secure_renego",
];

fn openssl(args: &[&str]) {
    let made = program("openssl").args(args).output().expect("openssl runs");
    assert!(made.status.success(), "{args:?}: {}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn testssl_finds_nothing_that_is_not_known() {
    let platform = Platform::start(Options::default());
    let manifest =
        "[processes]\nweb = \"./actor serve\"\n[http]\nhosts = [\"shop.example.com\"]\nhsts = \"8760h\"\n";
    let _deployed = Actor::new(&platform, "shop", manifest).deploy().ok();
    let at = |name: &str| platform.scratch().join(name).display().to_string();
    let (ca, ca_key, request, key, chain) =
        (at("ca.pem"), at("ca.key"), at("request.pem"), at("key.pem"), at("chain.pem"));
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"];
    let subject = |more: &[&str]| openssl(&[&new[..], more].concat());
    subject(&["/CN=the tests", "-x509", "-days", "3", "-keyout", &ca_key, "-out", &ca]);
    subject(&["/CN=shop.example.com", "-keyout", &key, "-out", &request]);
    let extensions =
        "subjectAltName=DNS:shop.example.com\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n";
    fs::write(at("extensions"), extensions).unwrap();
    let sign =
        ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "90"];
    openssl(&[&sign[..], &["-extfile", &at("extensions"), "-out", &chain]].concat());
    let _added = platform.cli(["certs", "add", "--chain", &chain, "--key", &key]).ok();

    let https = platform.https().unwrap();
    let found = at("found.json");
    // Protocols, kinds of suites, forward secrecy, preferences, defaults, headers, vulnerabilities.
    let run = program("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "batch", "-p", "-s", "-f", "-P", "-S", "-h", "-U"])
        .args(["--ip", &https.ip().to_string(), "--add-ca", &ca, "--jsonfile", &found])
        .arg(format!("shop.example.com:{}", https.port()))
        .output()
        .expect("testssl is installed");
    let text = fs::read_to_string(&found).unwrap_or_else(|_missing| panic!("{run:?}"));
    let found: Vec<Value> = serde_json::from_str(&text).expect("it writes JSON");
    let of = |id: &str| {
        let one = found.iter().find(|it| it["id"] == id).unwrap_or_else(|| panic!("{id} is not in {text}"));
        one["finding"].as_str().unwrap_or_default().to_owned()
    };
    let expected = [
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
        ("PFS", "offered"),
        ("cert_chain_of_trust", "passed."),
    ];
    assert_eq!(expected.map(|(id, _)| (id, of(id))), expected.map(|(id, finding)| (id, finding.to_owned())));
    let well = |it: &&Value| matches!(it["severity"].as_str(), Some("OK" | "INFO"));
    let other =
        found.iter().filter(|it| !well(it)).filter(|it| !KNOWN.iter().any(|known| it["id"] == *known));
    assert_eq!(other.collect::<Vec<_>>(), Vec::<&Value>::new());
}
