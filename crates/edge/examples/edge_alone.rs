//! What `cargo xtask bench edge` measures beside other proxies: an edge without a platform, the app behind all of them, and clients that no other
//! program has.
//!
//! - `certificate DIR` makes a certificate for `localhost`, as each of the proxies wants it.
//! - `app PORT` answers every request: a GET of `/mib` with a mebibyte, all else with a kibibyte.
//! - `edge PORT SECURE_PORT APP DIR ROUTES` serves `localhost` and so many other hosts.
//! - `handshakes ADDRESS SECONDS` makes a request on a new connection of TLS over and over, without resumption, and prints how many.
//! - `idle ADDRESS COUNT plain|tls` makes a request on each of so many connections and then holds them until its input ends.
//! - `changes ROUTES TIMES` hands an edge one snapshot after the other, and prints the milliseconds that each took to be used by all threads.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Clock as _, SystemClock};
use berth_edge::{AccessLog, Config, Http1, Limits};
use berth_routing::wire::{Decoder, FromEdge, PROTOCOL, ToEdge, encode};
use berth_routing::{
    AppRoute, Backend, CertificateRoute, Endpoint, Generation, Host, Https, Probe, ProbePath, Role, Snapshot,
};
use berth_spec::{AppId, Millis};
use mimalloc::MiMalloc;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The one that `berth` has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many connections a client of handshakes has at a time.
const HANDSHAKES_AT_ONCE: usize = 16;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["certificate", dir] => certificate(Path::new(dir)),
        ["app", port] => on_one_thread(app(port.parse().unwrap())),
        ["edge", port, secure, app, dir, routes] => {
            let listeners = [port, secure].map(|port| listener(port.parse().unwrap()));
            let snapshot = snapshot(1, app.parse().unwrap(), routes.parse().unwrap());
            edge(listeners, &snapshot, Path::new(dir));
        }
        ["handshakes", address, seconds] => {
            on_one_thread(handshakes(
                address.parse().unwrap(),
                Duration::from_secs(seconds.parse().unwrap()),
            ));
        }
        ["idle", address, count, kind] => {
            on_one_thread(idle(address.parse().unwrap(), count.parse().unwrap(), kind == "tls"));
        }
        ["changes", routes, times] => changes(routes.parse().unwrap(), times.parse().unwrap()),
        _ => panic!("what it does is said at its beginning"),
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work);
}

fn listener(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).unwrap()
}

fn certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(dir.join("chain.pem"), &chain).unwrap();
    fs::write(dir.join("key.pem"), &key).unwrap();
    fs::write(dir.join("both.pem"), format!("{chain}{key}")).unwrap();
    fs::create_dir_all(dir.join(CertificateRoute::DIRECTORY)).unwrap();
    fs::write(dir.join(CertificateRoute::file("0")), format!("{chain}{key}")).unwrap();
}

async fn app(port: u16) {
    let answer = |length: usize| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        &*[head.into_bytes(), vec![b'a'; length]].concat().leak()
    };
    let (small, large) = (answer(1 << 10), answer(1 << 20));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        tokio::task::spawn_local(async move {
            // Who breaks off is done.
            let _ended = answer_all(socket, small, large).await;
        });
    }
}

async fn answer_all(mut socket: TcpStream, small: &[u8], large: &[u8]) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(64 << 10);
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let is_large = text.starts_with("get /mib ");
        let mut body: usize = length.unwrap_or(0);
        let here = body.min(bytes.len() - head);
        bytes.drain(..head + here);
        body -= here;
        while body > 0 {
            bytes.clear();
            let count = socket.read_buf(&mut bytes).await?;
            if count == 0 {
                return Ok(());
            }
            body = body.saturating_sub(count);
        }
        if here > 0 {
            bytes.clear();
        }
        socket.write_all(if is_large { large } else { small }).await?;
    }
}

/// An app for `localhost` and as many others as are wanted, all with one instance.
fn snapshot(generation: u64, instance: SocketAddr, routes: usize) -> Snapshot {
    let route = |number: usize| {
        let app: AppId = format!("default/default/app-{number}").parse().unwrap();
        let backend = Backend {
            instance: app.instance("web".parse().unwrap(), 1),
            endpoint: Endpoint::Tcp { addr: instance },
            role: Role::Routed,
            probe: Probe {
                path: ProbePath::Guess,
                interval: Millis::from_secs(if number == 0 { 1 } else { 3_600 }),
                timeout: Millis::from_secs(5),
            },
            concurrency: berth_spec::RequestConcurrency::default(),
            request_timeout: None,
            protocol: berth_spec::HttpProtocol::default(),
        };
        let host = if number == 0 { "localhost".to_owned() } else { format!("app-{number}.example.com") };
        let hosts = vec![Host(host)];
        let https = Https { force: false, ..Https::default() };
        let hold = Millis::from_secs(5);
        let route = AppRoute { hosts, backends: vec![backend], hold, https, ..AppRoute::default() };
        (app, route)
    };
    let mut snapshot = Snapshot::new(Generation(generation), (0..routes.max(1)).map(route).collect());
    snapshot.certificates =
        vec![CertificateRoute { id: "0".to_owned(), hosts: vec![Host("localhost".to_owned())] }];
    snapshot
}

fn edge([plain, secure]: [TcpListener; 2], snapshot: &Snapshot, dir: &Path) {
    fs::write(dir.join("current.json"), serde_json::to_vec(snapshot).unwrap()).unwrap();
    let (_kept, stop) = tokio::sync::oneshot::channel();
    let http1 = match std::env::var("BERTH_EDGE_HTTP1").as_deref() {
        Ok("hyper") => Http1::Hyper,
        _ => Http1::Own,
    };
    let config = Config {
        listeners: vec![plain],
        secure: vec![secure],
        routing_dir: OwnedFd::from(File::open(dir).unwrap()),
        dial_folder: "/nonexistent".into(),
        control_socket: dir.join("control.sock"),
        leash: None,
        handover: None,
        owner_uid: 0,
        h2c: false,
        proxies: berth_spec::Proxies::default(),
        access_log: AccessLog::To(Box::new(File::create(dir.join("edge.log")).unwrap())),
        limits: Limits::default(),
        http1,
        clock: Arc::new(SystemClock::new()),
        allow_root: true,
        ready: None,
        stop,
    };
    berth_edge::run(config).unwrap();
}

/// A client that believes every certificate: what is measured is what it costs the other side.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn connector() -> TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

fn request(closes: bool) -> String {
    let last = if closes { "Connection: close\r\n" } else { "" };
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{last}\r\n")
}

async fn handshakes(address: SocketAddr, span: Duration) {
    let (connector, clock) = (connector(), Arc::new(SystemClock::new()));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..HANDSHAKES_AT_ONCE {
        let (connector, clock) = (connector.clone(), Arc::clone(&clock));
        clients.spawn_local(async move {
            let mut count = 0;
            let mut answer = Vec::new();
            while clock.monotonic() < span {
                let socket = TcpStream::connect(address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = connector.connect(name, socket).await.unwrap();
                stream.write_all(request(true).as_bytes()).await.unwrap();
                answer.clear();
                // Not all proxies say that they close.
                let _how = stream.read_to_end(&mut answer).await;
                assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1 << 10);
                count += 1;
            }
            count
        });
    }
    let counts: Vec<u64> = clients.join_all().await;
    println!("{}", counts.iter().sum::<u64>());
}

async fn idle(address: SocketAddr, count: usize, secure: bool) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let connector = connector();
    let (mut plain, mut tls) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut socket = TcpStream::connect(address).await.unwrap();
        if secure {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, socket).await.unwrap();
            ask(&mut stream).await;
            tls.push(stream);
        } else {
            ask(&mut socket).await;
            plain.push(socket);
        }
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

async fn ask(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    stream.write_all(request(false).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while answer.len() < 1 << 10 || !answer.ends_with(&[b'a'; 64]) {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "an answer is whole");
    }
}

fn changes(routes: usize, times: u64) {
    let dir = tempfile::TempDir::new().unwrap();
    certificate(dir.path());
    let control = UnixListener::bind(dir.path().join("control.sock")).unwrap();
    let at = dir.path().to_owned();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let first = snapshot(1, nobody, routes);
    std::thread::spawn(move || edge([listener(0), listener(0)], &first, &at));
    let (mut stream, _) = control.accept().unwrap();
    stream.write_all(&encode(&ToEdge::Hello { protocol: PROTOCOL }).unwrap()).unwrap();
    let clock = SystemClock::new();
    let mut decoder = Decoder::default();
    let mut took = Vec::new();
    for generation in 2..times + 2 {
        let message = encode(&ToEdge::Snapshot(snapshot(generation, nobody, routes))).unwrap();
        let sent = clock.monotonic();
        stream.write_all(&message).unwrap();
        loop {
            match decoder.message().unwrap() {
                Some(FromEdge::Applied { generation: applied }) if applied == Generation(generation) => break,
                Some(_) => {}
                None => {
                    let mut piece = [0; 64 << 10];
                    let count = stream.read(&mut piece).unwrap();
                    assert!(count > 0, "edge is there");
                    decoder.feed(&piece[..count]);
                }
            }
        }
        took.push((clock.monotonic() - sent).as_secs_f64() * 1_000.0);
    }
    println!("{}", serde_json::json!({ "ms": took }));
    std::io::stdout().flush().unwrap();
}
