//! An ACME server of the tests' own: Pebble, Let's Encrypt's server for tests, with a DNS that says what the test wants.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::platform::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// Pebble and its DNS. Both end with it.
#[derive(Debug)]
pub struct AcmeServer {
    folder: TempDir,
    children: Vec<Child>,
    directory: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness stands outside of the platform and its allow-list"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

/// A port that nobody has. Below those that the kernel gives to whoever connects without asking for one, which other tests do all the while.
fn free() -> SocketAddr {
    loop {
        let port = 20_000 + RandomState::new().build_hasher().finish() % 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("it is small")));
        // Both kinds, since DNS wants both.
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// An authority, and a certificate of it for 127.0.0.1 with its key, as PEM.
fn own_certificate() -> (String, String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the tests");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let own = own.signed_by(&key, &authority).expect("a certificate");
    (authority.pem(), own.pem(), key.serialize_pem())
}

impl AcmeServer {
    /// A server that looks for proofs at these ports of 127.0.0.1, and whose certificates are valid for so many seconds.
    #[must_use]
    pub fn start(http: u16, https: u16, validity: u64) -> Self {
        // A port may be somebody else's by the time that it is asked for, which ends who asked.
        let mut attempts = (0..5).map(|_| Self::attempt(http, https, validity));
        attempts.find_map(|server| server).expect("Pebble comes up")
    }

    fn attempt(http: u16, https: u16, validity: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let [directory, management, dns, dns_management] = [(); 4].map(|()| free());
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (authority, own, key) = own_certificate();
        let both = format!("{own}{key}");
        let files = [("authority.pem", authority), ("cert.pem", own), ("key.pem", key), ("both.pem", both)];
        for (name, pem) in files {
            std::fs::write(folder.path().join(name), pem).expect("it is written");
        }
        let config = serde_json::json!({ "pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": at("cert.pem"),
            "privateKey": at("key.pem"),
            "httpPort": http,
            "tlsPort": https,
            "certificateValidityPeriod": validity,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("it is written");
        let quiet = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it is installed")
        };
        let names = quiet(
            program("pebble-challtestsrv")
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
                .args(["-dns01", &dns.to_string(), "-management", &dns_management.to_string()]),
        );
        let pebble = quiet(
            program("pebble")
                .args(["-config", &at("config.json"), "-dnsserver", &dns.to_string()])
                .env("PEBBLE_VA_NOSLEEP", "1")
                // One nonce of a hundred is refused. The usual five are three in a row often enough for a test to meet them, where a client gives up.
                .env("PEBBLE_WFE_NONCEREJECT", "1"),
        );
        let mut server =
            Self { folder, children: vec![names, pebble], directory, management, dns: dns_management };
        let answers =
            || [directory, management, dns_management].into_iter().all(|at| TcpStream::connect(at).is_ok());
        let waited = wait_until(PATIENCE, || answers() || server.has_ended());
        assert!(waited, "Pebble does not come up");
        (!server.has_ended()).then_some(server)
    }

    /// Whether one of the two has.
    fn has_ended(&mut self) -> bool {
        self.children.iter_mut().any(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The address of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.directory)
    }

    /// The file with the authority that it is itself believed by.
    #[must_use]
    pub fn authorities(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// A file with a certificate for 127.0.0.1, and its key, that the same authority stands for.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("both.pem")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.directory
    }

    /// Where its DNS is told what to say, by HTTP.
    #[must_use]
    pub fn names(&self) -> SocketAddr {
        self.dns
    }

    /// A file with the authority that its certificates are believed by.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let path = self.folder.path().join("root.pem");
        let authorities = self.authorities();
        let got = program("curl")
            .args(["--silent", "--fail", "--cacert"])
            .arg(authorities)
            .arg("--output")
            .arg(&path)
            .arg(format!("https://{}/roots/0", self.management))
            .status()
            .expect("curl runs");
        assert!(got.success());
        path
    }

    /// Has `host` lead to `address`; as every host does, to 127.0.0.1, when none is given.
    pub fn resolve(&self, host: &str, address: Option<&str>) {
        let (path, body) = match address {
            Some(address) => ("add-a", serde_json::json!({ "host": host, "addresses": [address] })),
            None => ("clear-a", serde_json::json!({ "host": host })),
        };
        let told = program("curl")
            .args(["--silent", "--fail", "--data", &body.to_string()])
            .arg(format!("http://{}/{path}", self.dns))
            .status()
            .expect("curl runs");
        assert!(told.success());
    }
}

impl Drop for AcmeServer {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
