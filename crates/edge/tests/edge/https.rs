//! HTTPS: who is shown which certificate, what is said to who comes without it, and HTTP/2.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use berth_routing::{CertificateRoute, ChallengeRoute, Host, Https, Role, Snapshot};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::world::{HANG, Instance, World, shop};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// What a client that trusts `root` and speaks `protocols` is configured with.
fn config(root: &str, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A connection on which the handshake is over.
fn shake(world: &World, host: &str, root: &str, protocols: &[&[u8]]) -> std::io::Result<Stream> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut tls = ClientConnection::new(config(root, protocols), name).unwrap();
    let mut socket = TcpStream::connect(world.secure).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(tls, socket))
}

fn ask(stream: &mut Stream, host: &str, more: &str) -> String {
    write!(stream, "GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").unwrap();
    let mut answer = String::new();
    // A server need not say goodbye by TLS after `Connection: close`.
    let _ended = stream.read_to_string(&mut answer);
    answer
}

/// `snapshot` with a certificate for `hosts`, and the certificate, which is its own authority.
fn with_certificate(world: &World, mut snapshot: Snapshot, hosts: &[&str]) -> (Snapshot, String) {
    let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
    let id = format!("{:064x}", snapshot.generation.0);
    let folder = world.dial_folder().join("certificates");
    std::fs::create_dir_all(&folder).unwrap();
    let file = format!("{}{}", certificate.pem(), key.serialize_pem());
    std::fs::write(folder.join(format!("{id}.pem")), file).unwrap();
    let hosts: Vec<Host> = names.into_iter().map(Host).collect();
    for app in snapshot.apps.values_mut() {
        let fresh = hosts.iter().filter(|host| !host.0.starts_with("*.") && !app.hosts.contains(host));
        let fresh: Vec<Host> = fresh.cloned().collect();
        app.hosts.extend(fresh);
    }
    snapshot.certificates.push(CertificateRoute { id, hosts });
    (snapshot, certificate.pem())
}

#[test]
fn a_host_below_localhost_has_a_certificate_of_the_machines_own_and_a_stranger_none() {
    let (mirror, _seen) = Instance::mirror();
    let world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let root = world.authority();
    let mut stream = shake(&world, "shop.localhost", &root, &[]).unwrap();
    let answer = ask(&mut stream, "shop.localhost", "X-Forwarded-Proto: http\r\n");
    assert!(answer.contains("x-forwarded-proto: https"), "{answer}");
    assert!(!answer.to_lowercase().contains("strict-transport"), "{answer}");
    for stranger in ["blog.localhost", "shop.example.com"] {
        let error = shake(&world, stranger, &root, &[]).unwrap_err();
        assert!(
            error.to_string().contains("AccessDenied") || error.to_string().contains("UnrecognisedName"),
            "{error}"
        );
    }
    // Nobody is sent to a certificate that browsers do not take.
    assert_eq!(world.get("shop.localhost", "/").status, 200);
}

#[test]
fn who_speaks_http_where_https_is_is_told() {
    let (mirror, seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let mut socket = TcpStream::connect(world.secure).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.write_all(b"POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1\r\n\r\nx").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https://"), "{answer}");
    assert!(seen.try_recv().is_err());
    world.tell_to_stop();
    world.ended();
    let log = world.log_text();
    assert!(log.contains(" 127.0.0.1 - - - HTTP/1.1 400 "), "{log}");
}

#[test]
fn a_part_of_a_record_holds_up_no_end() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let mut stream = shake(&world, "shop.localhost", &world.authority(), &[]).unwrap();
    write!(stream, "GET /x HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The mirror sends back the head, whose last lines it ends by.
    while !answer.ends_with(b"\r\n\r\n") || answer.windows(4).filter(|part| part == b"\r\n\r\n").count() < 2 {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    // The first byte of a record of data: the socket is readable, and nothing comes of it.
    stream.sock.write_all(&[23]).unwrap();
    world.tell_to_stop();
    let mut rest = Vec::new();
    stream.sock.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.first(), Some(&23), "it says goodbye by TLS, in a record like any other");
    assert_eq!(world.ended(), berth_edge::ExitReason::Drained);
}

#[test]
fn a_host_with_a_certificate_is_shown_it_and_sent_there() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let (mut snapshot, root) = with_certificate(
        &world,
        shop(2, &[(mirror.addr, Role::Routed)]),
        &["shop.example.com", "*.example.org"],
    );
    snapshot.apps.values_mut().for_each(|app| app.https = Https { force: true, hsts: 3_600 });
    world.apply(&snapshot);
    let answer = ask(&mut shake(&world, "SHOP.example.com", &root, &[]).unwrap(), "shop.example.com", "");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("strict-transport-security: max-age=3600"),
        "{answer}"
    );

    let sent = world.get("Shop.example.com", "/a%20b?c=d");
    let there = format!("https://shop.example.com:{}/a%20b?c=d", world.secure.port());
    assert_eq!((sent.status, sent.header("location")), (308, Some(&*there)));
    assert!(sent.header("strict-transport-security").is_none(), "a word by plain HTTP is anybody's");
    assert_eq!(sent.header("connection"), None);
    // Nothing is read after such a request as strictly as before it, so nothing may come.
    let mut client = world.client();
    let asked = client
        .request("GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!((asked.status, asked.header("connection")), (308, Some("close")));
    assert!(client.response(true).is_none(), "it is over");
    assert_eq!(world.get("shop.localhost", "/").status, 200);

    snapshot.generation.0 = 3;
    snapshot.apps.values_mut().for_each(|app| app.https = Https { force: false, hsts: 0 });
    world.apply(&snapshot);
    assert_eq!(world.get("shop.example.com", "/").status, 200);
}

#[test]
fn a_connection_for_one_host_is_not_used_for_another_unless_the_certificate_is_for_both() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let routed = [(mirror.addr, Role::Routed)];
    let (one, root) = with_certificate(&world, shop(2, &routed), &["a.example.com", "b.example.com"]);
    world.apply(&one);
    let status = |host: &str| {
        let answer = ask(&mut shake(&world, "a.example.com", &root, &[]).unwrap(), host, "");
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("b.example.com"), "200");
    assert_eq!(status("shop.localhost"), "421");
}

#[test]
fn a_challenge_is_answered_by_http_and_in_the_handshake() {
    let (mirror, seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let mut snapshot = shop(2, &[(mirror.addr, Role::Routed)]);
    let host = Host("new.example.com".to_owned());
    let (token, answer) = ("tok-en_1".to_owned(), "tok-en_1.thumb".to_owned());
    snapshot.challenges.push(ChallengeRoute { host, token, answer });
    world.apply(&snapshot);
    let found = world.get("new.example.com", "/.well-known/acme-challenge/tok-en_1");
    assert_eq!((found.status, found.body.as_str()), (200, "tok-en_1.thumb"));
    assert_eq!(world.get("shop.localhost", "/.well-known/acme-challenge/mine").status, 200, "the app's own");
    assert!(seen.recv_timeout(HANG).unwrap().starts_with("GET /.well-known/acme-challenge/mine "));

    // The proof is signed by itself, so it is enough that its own key is trusted: nobody checks a chain here.
    let error = shake(&world, "new.example.com", &world.authority(), &[b"acme-tls/1"]).unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    let error = shake(&world, "new.example.com", &world.authority(), &[b"http/1.1"]).unwrap_err();
    assert!(!error.to_string().contains("invalid peer certificate"), "{error}");
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let (mirror, _seen) = Instance::mirror();
    let mut options = crate::world::Options::default();
    options.limits.patience.head = std::time::Duration::from_millis(50);
    let mut world = World::start(options);
    world.apply(&shop(1, &[(mirror.addr, Role::Routed)]));
    let mut socket = TcpStream::connect(world.secure).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.write_all(&[0x16, 3, 1]).unwrap();
    assert!(matches!(socket.read(&mut [0; 16]), Ok(0) | Err(_)));
}

/// Runs `talk` with a client of HTTP/2 for `host`.
fn by_frames<F: Future<Output = ()>>(
    world: &World,
    host: &'static str,
    talk: impl FnOnce(hyper::client::conn::http2::SendRequest<Full<Bytes>>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = config(&world.authority(), &[b"h2", b"http/1.1"]);
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(world.secure).await.unwrap();
        let name = ServerName::try_from(host).unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        tokio::time::timeout(HANG, talk(sender)).await.expect("it is answered in time");
    });
}

#[test]
fn http_2_reaches_an_app_with_what_http_1_says_otherwise() {
    let (mirror, _seen) = Instance::mirror();
    let world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    by_frames(&world, "shop.localhost", |mut sender| async move {
        let request = |path: &str| Request::post(format!("https://shop.localhost/{path}"));
        let both = [request("a").header("cookie", "a=1").header("cookie", "b=2"), request("b")];
        let both = both.map(|request| sender.send_request(request.body(Full::default()).unwrap()));
        for answer in futures_of(both).await {
            let (head, body) = answer.into_parts();
            assert_eq!(head.status, StatusCode::OK);
            let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            assert!(
                text.contains("host: shop.localhost\r\n") && text.contains("x-forwarded-proto: https"),
                "{text}"
            );
            if text.starts_with("POST /a ") {
                assert!(text.contains("cookie: a=1; b=2\r\n"), "{text}");
            }
        }
        let two = request("c").header("host", "blog.localhost").body(Full::default()).unwrap();
        assert_eq!(sender.send_request(two).await.unwrap().status(), StatusCode::BAD_REQUEST);
        let other = Request::get("https://blog.localhost/").body(Full::default()).unwrap();
        assert_eq!(sender.send_request(other).await.unwrap().status(), StatusCode::NOT_FOUND);
    });
}

/// The answers of requests that are under way at once.
async fn futures_of<F: Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>>(
    requests: [F; 2],
) -> [http::Response<hyper::body::Incoming>; 2] {
    let [one, other] = requests;
    let (one, other) = tokio::join!(one, other);
    [one.unwrap(), other.unwrap()]
}

#[test]
fn a_drain_lets_streams_end_and_takes_no_more() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (came, arrived) = std::sync::mpsc::channel();
    let came = std::sync::Mutex::new(came);
    let slow = Instance::scripted(move |mut call| {
        came.lock().unwrap().send(()).unwrap();
        held.lock().unwrap().recv().unwrap();
        call.respond("late");
    });
    let mut world = World::serving(&shop(1, &[(slow.addr, Role::Routed)]));
    let (secure, root, stop) = (world.secure, world.authority(), world.stopper());
    let talker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(secure).await.unwrap();
            let name = ServerName::try_from("shop.localhost").unwrap();
            let connector = tokio_rustls::TlsConnector::from(config(&root, &[b"h2"]));
            let stream = connector.connect(name, socket).await.unwrap();
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
            let ended = tokio::spawn(connection);
            let request = Request::get("https://shop.localhost/").body(Full::<Bytes>::default()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            drop(sender);
            ended.await.unwrap().unwrap();
            body
        })
    });
    arrived.recv_timeout(HANG).unwrap();
    stop.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(talker.join().unwrap(), "late");
    assert_eq!(world.ended(), berth_edge::ExitReason::Drained);
}
