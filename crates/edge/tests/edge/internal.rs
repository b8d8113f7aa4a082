//! What instances send to other apps of their project. The test is the shim, and its loopback the network that instances send into: the
//! addresses of apps are some of its.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use berth_routing::names::HTTP_PORT;
use berth_routing::{AppRoute, Backend, Endpoint, Generation, Host, Probe, ProbePath, Role, Snapshot};
use berth_shim::dial;
use berth_spec::{AppId, Millis};

use crate::world::{Client, HANG, Instance, Options, World, nobody};

const NAME: &str = "fedcba987654";
const SHOP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const WEB: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 3);
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 4);

/// The listening sockets of an instance, which outlive every edge.
#[derive(Clone, Default)]
struct Shim(Arc<Mutex<BTreeMap<u16, TcpListener>>>);

impl Shim {
    /// A shim of `instance` that says at which ports it was asked for a listening socket.
    fn of(&self, folder: &Path, instance: &'static str) -> Receiver<u16> {
        let listener = UnixListener::bind(folder.join(format!("{NAME}.sock"))).unwrap();
        let (tell, told) = channel();
        let shim = self.clone();
        std::thread::spawn(move || {
            for line in listener.incoming() {
                let (line, shim, tell) = (line.unwrap(), shim.clone(), tell.clone());
                std::thread::spawn(move || {
                    // The test may be over.
                    shim.answer(line, instance, |port| tell.send(port).unwrap_or_default());
                });
            }
        });
        told
    }

    fn answer(&self, mut line: UnixStream, instance: &str, asked: impl Fn(u16)) {
        let mut question = [0; 3];
        while line.read_exact(&mut question).is_ok() {
            let port = dial::asked_listener(&question).unwrap();
            let listener = (port > 0).then(|| self.listener(port));
            drop(dial::answer_listener(&line, instance, listener.as_ref().map(|it| it.as_fd())));
            asked(port);
        }
    }

    fn listener(&self, port: u16) -> TcpListener {
        let mut listeners = self.0.lock().unwrap();
        let listener = listeners.entry(port).or_insert_with(|| TcpListener::bind("0.0.0.0:0").unwrap());
        listener.try_clone().unwrap()
    }

    /// Where the instance gets to when it connects to `address` at `port`.
    fn way(&self, address: Ipv4Addr, port: u16) -> SocketAddr {
        (address, self.listener(port).local_addr().unwrap().port()).into()
    }
}

fn route(id: &str, address: Ipv4Addr, backends: &[(SocketAddr, Role)]) -> (AppId, AppRoute) {
    let app: AppId = id.parse().unwrap();
    let backends = (1..).zip(backends).map(|(ordinal, (addr, role))| Backend {
        instance: app.instance("web".parse().unwrap(), ordinal),
        endpoint: Endpoint::Tcp { addr: *addr },
        role: *role,
        probe: Probe {
            path: ProbePath::Guess,
            interval: Millis::from_secs(3_600),
            timeout: Millis::from_secs(20),
        },
        concurrency: berth_spec::RequestConcurrency::default(),
        request_timeout: None,
        protocol: berth_spec::HttpProtocol::default(),
    });
    let hosts = vec![Host(format!("{}.{}.example.com", app.app, app.tenant))];
    let backends: Vec<Backend> = backends.collect();
    let hold = if backends.is_empty() { Millis(0) } else { Millis::from_secs(20) };
    (
        app,
        AppRoute {
            hosts,
            backends,
            hold,
            gate: berth_spec::Gate::Open,
            address: Some(address),
            ..AppRoute::default()
        },
    )
}

/// The app `shop` with these instances, `web` beside it, and `shop` of somebody else.
fn snapshot(generation: u64, shop: &[(SocketAddr, Role)], stranger: SocketAddr) -> Snapshot {
    let apps = [
        route("default/default/shop", SHOP, shop),
        route("default/default/web", WEB, &[]),
        route("other/default/shop", STRANGER, &[(stranger, Role::Routed)]),
    ];
    Snapshot::new(Generation(generation), apps.into())
}

fn asked_at(told: &Receiver<u16>, port: u16) {
    while told.recv_timeout(HANG).expect("edge asks for it") != port {}
}

#[test]
fn the_socket_says_who_calls_and_whom() {
    let (shop, _seen) = Instance::mirror();
    let (stranger, strangers) = Instance::mirror();
    let mut world = World::start(Options::default());
    let shim = Shim::default();
    let told = shim.of(world.dial_folder(), "default/default/web/worker.7");
    world.apply(&snapshot(1, &[(shop.addr, Role::Routed)], stranger.addr));
    asked_at(&told, HTTP_PORT);
    let ask = |address: Ipv4Addr, target: &str, more: &str| {
        Client::connect(shim.way(address, HTTP_PORT)).request(&format!("GET {target} HTTP/1.1\r\n{more}\r\n"))
    };
    let answer = ask(SHOP, "/x", "Host: shop.internal\r\nX-Berth-App: admin\r\nx_berth_app: admin\r\n");
    assert_eq!(answer.status, 200);
    let seen = answer.body.to_lowercase();
    assert!(seen.contains("x-berth-app: web\r\n") && !seen.contains("admin"), "{seen}");
    assert!(seen.contains(&format!("x-forwarded-for: {WEB}\r\n")), "{seen}");
    assert!(seen.contains("host: shop.internal\r\n"), "{seen}");

    // Neither a host of another project's app, nor an absolute target, nor anything else leads to it.
    for (target, host) in [
        ("/", "Host: shop.other.example.com\r\n"),
        ("http://shop.other.example.com/", "Host: shop.other.example.com\r\n"),
        ("/", "Host: shop.internal\r\nX-Forwarded-Host: shop.other.example.com\r\n"),
    ] {
        assert_eq!(ask(SHOP, target, host).status, 200, "{target} {host}");
    }
    // Its address is nobody's here, as any other.
    let known = ask(STRANGER, "/", "Host: shop.other.example.com\r\n");
    let unknown = ask(NOBODY, "/", "Host: shop.internal\r\n");
    assert_eq!((known.status, unknown.status), (404, 404));
    let words = |body: &str| body.lines().nth(1).map(str::to_owned);
    assert_eq!(words(&known.body), words(&unknown.body));
    assert!(strangers.try_iter().next().is_none(), "nothing came to the other project");
    // An app that has nothing to serve with is told as it is to everybody.
    assert_eq!(world.get("web.default.example.com", "/").status, 503);
}

#[test]
fn who_asks_from_outside_is_no_app() {
    let (shop, _seen) = Instance::mirror();
    let mut world = World::start(Options::default());
    world.apply(&snapshot(1, &[(shop.addr, Role::Routed)], shop.addr));
    let mut client = world.client();
    let forged =
        "GET / HTTP/1.1\r\nHost: shop.default.example.com\r\nX-Berth-App: web\r\nX_Berth_App: web\r\n\r\n";
    let seen = client.request(forged).body.to_lowercase();
    assert!(!seen.contains("berth-app") && !seen.contains("berth_app"), "{seen}");
    // The names are those of instances alone.
    assert_eq!(world.get("shop.internal", "/").status, 404);
}

/// An instance that greets, and then says again what it hears.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                drop(stream.write_all(b"hello\n"));
                let mut bytes = [0; 512];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    drop(stream.write_all(&bytes[..count]));
                }
            });
        }
    });
}

fn connect(way: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(way).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn reads(stream: &mut TcpStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn bytes_pass_both_ways_at_an_apps_own_port_and_at_no_other() {
    let instance = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, port) = (instance.local_addr().unwrap(), instance.local_addr().unwrap().port());
    echo(instance);
    let (stranger, _seen) = Instance::mirror();
    let mut world = World::start(Options::default());
    let shim = Shim::default();
    let told = shim.of(world.dial_folder(), "default/default/web/run.1");
    world.apply(&snapshot(1, &[(addr, Role::Routed)], stranger.addr));
    asked_at(&told, port);
    let mut stream = connect(shim.way(SHOP, port));
    // It speaks first.
    reads(&mut stream, "hello\n");
    stream.write_all(b"GET this is no HTTP\n").unwrap();
    reads(&mut stream, "GET this is no HTTP\n");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end passes as well");
    for address in [WEB, STRANGER, NOBODY] {
        assert!(matches!(connect(shim.way(address, port)).read(&mut [0]), Ok(0) | Err(_)), "{address}");
    }
    // Nobody was asked for the port of another project's app.
    assert!(told.try_iter().all(|asked| asked != stranger.addr.port()));
}

#[test]
fn a_connection_waits_for_an_instance_and_ends_when_it_is_not_used_and_that_goes() {
    let (addr, held) = nobody();
    let mut world = World::start(Options::default());
    let shim = Shim::default();
    let told = shim.of(world.dial_folder(), "default/default/web/web.1");
    world.apply(&snapshot(1, &[(addr, Role::Routed)], addr));
    asked_at(&told, addr.port());
    let mut stream = connect(shim.way(SHOP, addr.port()));
    echo(crate::world::listen(held));
    reads(&mut stream, "hello\n");
    world.apply(&snapshot(2, &[(addr, Role::Parked)], addr));
    // Nothing passes on it: it does not hold up the drain.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    world.control.wait_drained(1);
}

#[test]
fn what_waits_while_one_edge_goes_is_served_by_the_next() {
    let (shop, _seen) = Instance::mirror();
    let shim = Shim::default();
    let apps = snapshot(1, &[(shop.addr, Role::Routed)], shop.addr);
    let mut first = World::start(Options::default());
    let told = shim.of(first.dial_folder(), "default/default/web/web.1");
    first.apply(&apps);
    asked_at(&told, HTTP_PORT);
    let request = "GET / HTTP/1.1\r\nHost: shop.internal\r\nConnection: close\r\n\r\n";
    assert_eq!(Client::connect(shim.way(SHOP, HTTP_PORT)).request(request).status, 200);
    first.tell_to_stop();
    first.ended();
    // Nobody accepts it, and it is not refused.
    let mut waiting = Client::connect(shim.way(SHOP, HTTP_PORT));
    waiting.send(request);
    let mut second = World::start(Options::default());
    let _told = shim.of(second.dial_folder(), "default/default/web/web.1");
    second.apply(&apps);
    assert_eq!(waiting.response(true).unwrap().status, 200);
}

/// The kernel tells of a socket's name before anybody listens at it.
#[test]
fn a_shim_that_does_not_listen_yet_is_asked_again() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let (shop, _seen) = Instance::mirror();
    let mut world = World::start(Options::default());
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let path = world.dial_folder().join(format!("{NAME}.sock"));
    bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    // Long enough for edge to have tried.
    for generation in 1..20 {
        world.apply(&snapshot(generation, &[(shop.addr, Role::Routed)], shop.addr));
    }
    listen(&socket, 8).unwrap();
    let (line, _) = UnixListener::from(socket).accept().unwrap();
    let mut question = [0; 3];
    (&line).read_exact(&mut question).unwrap();
    assert_eq!(dial::asked_listener(&question), Some(0));
}

#[test]
fn a_shim_that_does_not_know_the_question_is_left_alone() {
    let (shop, _seen) = Instance::mirror();
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    let listener = UnixListener::bind(world.dial_folder().join(format!("{NAME}.sock"))).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in listener.incoming() {
            drop((line, tell.send(())));
        }
    });
    world.apply(&snapshot(1, &[(shop.addr, Role::Routed)], shop.addr));
    told.recv_timeout(HANG).unwrap();
    for generation in 2..20 {
        world.apply(&snapshot(generation, &[(shop.addr, Role::Routed)], shop.addr));
        assert_eq!(world.get("shop.default.example.com", "/").status, 200);
    }
    assert!(told.try_recv().is_err(), "it is asked once");
}
