//! How often one may ask, and how many connections one address has.

use std::net::{SocketAddr, TcpStream};

use berth_routing::{Role, Snapshot};
use berth_spec::{Millis, RateLimit};

use crate::world::{Client, HANG, Instance, Options, World, shop};

fn limited(mut snapshot: Snapshot, by: &str, path: Option<&str>) -> Snapshot {
    for app in snapshot.apps.values_mut() {
        app.rate_limits = vec![RateLimit {
            requests: 3,
            per: Millis::from_secs(3_600),
            burst: 3,
            by: by.parse().unwrap(),
            path: path.map(|path| path.parse().unwrap()),
            methods: Vec::new(),
        }];
    }
    snapshot
}

/// A client that connects from this address.
fn from(source: &str, world: &World) -> Client {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    connect(&fd, &world.addr).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(HANG)).unwrap();
    Client { stream }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
}

#[test]
fn a_limit_is_exact_over_all_threads_and_lasts_over_deploys() {
    let (mirror, seen) = Instance::mirror();
    let backends = [(mirror.addr, Role::Routed)];
    let mut world = World::start(Options { threads: 4, ..Options::default() });
    world.apply(&limited(shop(1, &backends), "ip", None));
    // Each on a connection of its own, which any thread may have.
    let answers: Vec<u16> = (0..12).map(|_| world.get("shop.localhost", "/").status).collect();
    assert_eq!(answers, [[200; 3].as_slice(), &[429; 9]].concat());
    assert_eq!(seen.try_iter().count(), 3, "what is refused does not reach the app");
    let refused = world.get("shop.localhost", "/");
    let header = |name| refused.header(name).unwrap_or_default().to_owned();
    assert_eq!(header("ratelimit-policy"), "\"1\";q=3;w=3600");
    let after: u64 = header("retry-after").parse().unwrap();
    assert!((1_190..=1_200).contains(&after), "{after}");
    assert_eq!(header("ratelimit"), format!("\"1\";r=0;t={after}"));
    assert!(refused.body.contains("rate_limited"), "{}", refused.body);
    world.apply(&limited(shop(2, &backends), "ip", None));
    assert_eq!(world.get("shop.localhost", "/").status, 429, "another snapshot changes nothing");
    assert_eq!(from("127.0.0.2", &world).request(&get("/")).status, 200, "another address is another matter");
    world.apply(&shop(3, &backends));
    assert_eq!(world.get("shop.localhost", "/").status, 200);
}

#[test]
fn a_limit_on_a_path_is_not_got_around() {
    let (mirror, _seen) = Instance::mirror();
    let world = World::serving(&limited(shop(1, &[(mirror.addr, Role::Routed)]), "ip", Some("/login")));
    let mut client = world.client();
    for path in ["/login", "/%6Cogin", "//login/"] {
        assert_eq!(client.request(&get(path)).status, 200);
    }
    for path in ["/login", "/LOGIN/../login", "/./login", "/x/..%2Flogin?a=b"] {
        assert_eq!(client.request(&get(path)).status, 429, "{path}");
    }
    assert_eq!(client.request(&get("/logins")).status, 200);
}

#[test]
fn a_limit_by_a_header_counts_each_value() {
    let (mirror, _seen) = Instance::mirror();
    let world = World::serving(&limited(shop(1, &[(mirror.addr, Role::Routed)]), "header:X-Api-Key", None));
    let ask = |key: &str| {
        world
            .client()
            .request(&format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Api-Key: {key}\r\n\r\n"))
            .status
    };
    assert_eq!([ask("a"), ask("a"), ask("a"), ask("a")], [200, 200, 200, 429]);
    assert_eq!(ask("b"), 200);
}

#[test]
fn one_address_cannot_have_all_connections() {
    let (mirror, _seen) = Instance::mirror();
    let mut options = Options { threads: 1, ..Options::default() };
    options.limits.connections = 16;
    let mut world = World::start(options);
    world.apply(&shop(1, &[(mirror.addr, Role::Routed)]));
    let mut held: Vec<Client> = (0..8).map(|_| world.client()).collect();
    for client in &mut held {
        assert_eq!(client.request(&get("/")).status, 200);
    }
    assert!(world.client().is_closed(), "one address has half of them at most");
    assert_eq!(from("127.0.0.2", &world).request(&get("/")).status, 200);
    // Who leaves makes room; that edge has seen it shows in the next one that is served.
    held.pop();
    assert!((0..10_000).any(|_| {
        let mut client = world.client();
        client.send(&get("/"));
        client.response(true).is_some()
    }));
}
