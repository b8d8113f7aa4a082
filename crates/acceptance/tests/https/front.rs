//! An HAProxy of the tests' own: what stands before a server, or before the platform.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use berth_acceptance::wait_until;
use tempfile::TempDir;

use super::{PATIENCE, program};

/// An HAProxy. It ends with it.
#[derive(Debug)]
pub(crate) struct Front {
    child: Child,
    _folder: TempDir,
}

/// A port of 127.0.0.1 that nobody has.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    listener.local_addr().expect("it has an address").port()
}

impl Front {
    /// Starts one with these sections of a configuration, and waits until it answers at `ports` of 127.0.0.1.
    pub(crate) fn start(sections: &str, ports: &[u16]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("haproxy.cfg");
        let usual = "global\n  maxconn 200\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n";
        std::fs::write(&config, format!("{usual}{sections}")).expect("it is written");
        let child = program("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let front = Self { child, _folder: folder };
        let answers = || ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok());
        assert!(wait_until(PATIENCE, answers), "HAProxy does not come up:\n{sections}");
        front
    }

    /// One that gives everything to the ACME server at `server`, but has the first order refused: it is to come again after an hour.
    pub(crate) fn limiting(server: std::net::SocketAddr, certificate: &Path) -> (Self, u16) {
        let port = free_port();
        let problem =
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many new orders recently"}"#;
        let sections = format!(
            "frontend acme\n  mode http\n  bind 127.0.0.1:{port} ssl crt {}\n  \
             stick-table type string len 64 size 100 expire 1h store gpc0\n  http-request track-sc0 path\n  \
             http-request return status 429 content-type application/problem+json hdr Retry-After 3600 string '{problem}' \
             if {{ path /order-plz }} {{ sc0_inc_gpc0 le 1 }}\n  default_backend pebble\n\
             backend pebble\n  mode http\n  server pebble {server} ssl verify none\n",
            certificate.display()
        );
        (Self::start(&sections, &[port]), port)
    }

    /// One that gives everything to the ACME server at `server`, which has no renewal information, but says that there is some. It has the first order that says what it replaces refused,
    /// as Let's Encrypt does where another account had that; from the next one's answer it is missing. A new account for `stranger` is refused.
    pub(crate) fn renewing(server: std::net::SocketAddr, certificate: &Path, stranger: &str) -> (Self, u16) {
        let port = free_port();
        let at = |path: &str| format!("https://127.0.0.1:{port}/{path}");
        let directory = serde_json::json!({
            "newNonce": at("nonce-plz"), "newAccount": at("sign-me-up"), "newOrder": at("order-plz"),
            "revokeCert": at("revoke-cert"), "keyChange": at("rollover-account-key"), "renewalInfo": at("renewals"),
        });
        let refused = |detail: &str| {
            let problem =
                serde_json::json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": detail });
            format!("http-request return status 403 content-type application/problem+json string '{problem}'")
        };
        let says = |text: &str| format!("{{ req.body,json_query('$.payload'),ub64dec -m sub {text} }}");
        let sections = format!(
            "frontend acme\n  mode http\n  option http-buffer-request\n  bind 127.0.0.1:{port} ssl crt {}\n  \
             stick-table type string len 64 size 100 expire 1h store gpc0\n  http-request track-sc0 path\n  \
             http-request return status 200 content-type application/json string '{directory}' if {{ path /dir }}\n  \
             {} if {{ path /sign-me-up }} {}\n  {} if {{ path /order-plz }} {} {{ sc0_inc_gpc0 le 1 }}\n  \
             default_backend pebble\nbackend pebble\n  mode http\n  server pebble {server} ssl verify none\n",
            certificate.display(),
            refused("no more accounts"),
            says(stranger),
            refused("requester account did not request the certificate being replaced by this order"),
            says("replaces"),
        );
        (Self::start(&sections, &[port]), port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
