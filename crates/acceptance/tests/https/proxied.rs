//! A proxy in front that says who its clients are: a real HAProxy, and those who only say to be one.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use berth_acceptance::{Actor, Options, Platform, wait_until};
use rustix::net::{AddressFamily, SocketType};

use super::front::{Front, free_port};
use super::{PATIENCE, program};

/// From where the proxy connects. Nothing else of the tests does.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const REQUEST: &[u8] =
    b"GET /head HTTP/1.1\r\nhost: shop.localhost\r\nx-forwarded-for: 192.0.2.99\r\nconnection: close\r\n\r\n";

/// What curl prints of a request from this address of the machine's: the status, and what the app was told.
fn ask(from: &str, url: &str, more: &[&str]) -> String {
    let curl = program("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--interface",
            from,
            "--write-out",
            "%{http_code}",
        ])
        .args(more)
        .arg(url)
        .output()
        .expect("curl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    format!("{}{}", text(&curl.stdout), text(&curl.stderr))
}

/// What is answered to these bytes at `to`, from this address of the machine's.
fn answer(from: Ipv4Addr, to: SocketAddr, bytes: &[&[u8]]) -> String {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&socket, &SocketAddrV4::new(from, 0)).expect("the address is ours");
    rustix::net::connect(&socket, &to).expect("edge listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("it is a socket");
    // In one piece: what edge refuses by its first bytes it closes, and a second write may find it closed.
    stream.write_all(&bytes.concat()).expect("edge takes it");
    let mut all = Vec::new();
    // One that is reset has not answered either.
    let _end = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).to_ascii_lowercase()
}

/// A head of version 2 for a client at this address.
fn head(command: u8, client: Ipv4Addr) -> Vec<u8> {
    let mut head = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    head.extend([0x20 | command, 0x11, 0, 12]);
    head.extend(client.octets());
    head.extend([127, 0, 0, 1, 0xdb, 0xc4, 0, 80]);
    head
}

fn platform() -> Platform {
    Platform::start(Options { proxies: Some("127.0.0.2,192.0.2.0/24"), ..Options::default() })
}

#[test]
fn behind_haproxy_an_app_is_told_its_clients_addresses() {
    let platform = platform();
    let rule = "[[http.rate_limit]]\nrequests = 2\nper = \"1h\"\nby = \"ip\"\npath = \"/env\"\n";
    let shop = Actor::new(&platform, "shop", &format!("[processes]\nweb = \"./actor serve\"\n{rule}"));
    let _deployed = shop.deploy().ok();
    let (edge, https) = (platform.edge(), platform.https().unwrap());
    let [one, two, tls, stats] = [(); 4].map(|()| free_port());
    let server = |at: SocketAddr, how: &str| format!("  server berth {at} source {PROXY} {how}\n");
    let sections = [
        format!("listen one\n  mode tcp\n  bind 127.0.0.1:{one}\n{}", server(edge, "send-proxy")),
        format!(
            "listen two\n  mode tcp\n  bind 127.0.0.1:{two}\n  option httpchk\n  \
             http-check send meth GET uri /release ver HTTP/1.1 hdr Host shop.localhost\n  http-check expect status 200\n{}",
            server(edge, "send-proxy-v2 check inter 200ms rise 1 fall 1")
        ),
        format!("listen tls\n  mode tcp\n  bind 127.0.0.1:{tls}\n{}", server(https, "send-proxy-v2-ssl")),
        format!("listen stats\n  mode http\n  bind 127.0.0.1:{stats}\n  stats enable\n  stats uri /stats\n"),
    ];
    let _front = Front::start(&sections.concat(), &[one, two, tls, stats]);

    let ca = platform.scratch().join("ca.pem");
    std::fs::write(&ca, platform.cli(["certs", "ca"]).ok().stdout).unwrap();
    let at = |scheme: &str, port: u16, path: &str| format!("{scheme}://shop.localhost:{port}{path}");
    let resolve = |port: u16| format!("shop.localhost:{port}:127.0.0.1");
    let trust = ca.display().to_string();
    for (scheme, port) in [("http", one), ("http", two), ("https", tls)] {
        let forged = ["--resolve", &resolve(port), "--cacert", &trust, "-H", "X-Forwarded-For: 192.0.2.99"];
        let told = ask("127.0.0.5", &at(scheme, port, "/head"), &forged);
        assert!(told.contains("x-forwarded-for: 127.0.0.5\r") && told.ends_with("200"), "{port}: {told}");
    }
    // One address after the other is counted, and not the proxy's.
    let env = |from: &str| ask(from, &at("http", two, "/env/APP_NAME"), &["--resolve", &resolve(two)]);
    assert_eq!((env("127.0.0.6"), env("127.0.0.6")), ("shop200".to_owned(), "shop200".to_owned()));
    assert!(env("127.0.0.6").ends_with("429"));
    assert_eq!(env("127.0.0.7"), "shop200");
    // Its own checks name no client.
    let checked = || {
        let csv = ask("127.0.0.1", &format!("http://127.0.0.1:{stats}/stats;csv"), &[]);
        csv.lines().any(|line| line.starts_with("two,berth,") && line.contains("l7ok"))
    };
    assert!(wait_until(PATIENCE, checked));
}

#[test]
fn a_head_is_taken_from_trusted_proxies_alone_and_wanted_of_them() {
    let mut platform = platform();
    let _deployed = Actor::web(&platform, "shop", "serve").deploy().ok();
    let client = Ipv4Addr::new(198, 51, 100, 7);
    let line = b"PROXY TCP4 198.51.100.7 127.0.0.1 56324 80\r\n";
    for again in [false, true] {
        if again {
            // What was said is kept for the next start.
            platform.kill_everything();
            platform.start_again();
        }
        let edge = platform.edge();
        for told in [&head(1, client), &line[..]] {
            let answered = answer(PROXY, edge, &[told, REQUEST]);
            assert!(
                answered.starts_with("http/1.1 200") && answered.contains("x-forwarded-for: 198.51.100.7\r"),
                "{answered}"
            );
        }
        let local = answer(PROXY, edge, &[&head(0, client), REQUEST]);
        assert!(local.contains("x-forwarded-for: 127.0.0.2\r"), "{local}");
        assert_eq!(answer(PROXY, edge, &[REQUEST]), "", "it has to say who its client is");
        assert_eq!(answer(PROXY, edge, &[&head(3, client), REQUEST]), "");

        let plain = answer(STRANGER, edge, &[REQUEST]);
        assert!(plain.contains("x-forwarded-for: 127.0.0.9\r"), "{plain}");
        for told in [&head(1, client), &line[..]] {
            let refused = answer(STRANGER, edge, &[told, REQUEST]);
            assert!(refused.starts_with("http/1.1 400"), "{refused}");
        }
    }
}
