//! What testssl.sh finds at the platform's HTTPS: docs/https.md has the whole of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;

use berth_acceptance::{Actor, Options, Platform};
use serde_json::Value;

use super::program;

/// What it finds that is as it is meant to be, or is the certificate's of this test and not the server's.
const KNOWN: [&str; 7] = [
    // Its client hangs up before the ticket of TLS 1.3 has come whenever it is the faster one; `resumed` below asks after it.
    "sessionresumption_ticket",
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

/// What `openssl s_client` prints of one request over a connection that is kept until the answer is whole, and so has its ticket.
fn session(https: SocketAddr, more: &[&str]) -> String {
    let mut client = program("openssl")
        .args(["s_client", "-servername", "shop.example.com", "-connect", &https.to_string()])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let request = b"GET /env/APP_NAME HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n";
    let mut stdin = client.stdin.take().expect("it is piped");
    stdin.write_all(request).expect("it reads what is asked");
    let mut printed = Vec::new();
    client.stdout.take().expect("it is piped").read_to_end(&mut printed).expect("it prints to its end");
    drop(stdin);
    let _ended = client.wait().expect("it is our child");
    String::from_utf8_lossy(&printed).into_owned()
}

/// Whether a second connection goes on with the session of the first.
fn resumed(https: SocketAddr, version: &str, file: &str) -> bool {
    let first = session(https, &[version, "-sess_out", file]);
    assert!(first.contains("\nNew, ") && first.contains("200 OK"), "{first}");
    session(https, &[version, "-sess_in", file]).contains("\nReused, ")
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
    assert!(resumed(https, "-tls1_2", &at("session-1.2")), "a ticket of TLS 1.2 is good for a second time");
    assert!(resumed(https, "-tls1_3", &at("session-1.3")), "and one of TLS 1.3");

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
