//! What holds for parts of an app alone: how long it may take there, and how many requests there are at a time.

use std::sync::mpsc::channel;

use berth_routing::{Role, Snapshot};
use berth_spec::{HttpRoute, Millis};

use crate::timeouts::within;
use crate::world::{HANG, Instance, World, shop};

fn route(path: &str, methods: &[&str], millis: Option<u64>, concurrency: Option<u32>) -> HttpRoute {
    HttpRoute {
        path: path.parse().unwrap(),
        methods: methods.iter().map(|it| it.parse().unwrap()).collect(),
        request_timeout: millis.map(Millis),
        concurrency,
    }
}

fn with_routes(mut snapshot: Snapshot, routes: &[HttpRoute]) -> Snapshot {
    snapshot.apps.values_mut().for_each(|app| app.routes = routes.to_vec());
    snapshot
}

fn ask(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
}

#[test]
fn a_part_of_an_app_has_a_time_of_its_own() {
    // Answers nothing but what says so.
    let instance = Instance::scripted(|mut call| {
        if call.head.contains("/answered") {
            return call.respond_and_close("here");
        }
        call.read_to_end();
    });
    let backends = [(instance.addr, Role::Routed)];
    let routes =
        [route("/quick", &["GET"], Some(150), None), route("/quick/slow", &[], Some(3_600_000), None)];
    let world = World::serving(&with_routes(within(shop(1, &backends), 400), &routes));
    for path in ["/quick", "/%71uick/x", "/quick/slow/..%2fx", "/QUICK;a/b", "/x"] {
        let refused = world.client().request(&ask("GET", path));
        assert!(refused.status == 504 && refused.body.contains("app_timed_out"), "{path}: {refused:?}");
    }
    assert_eq!(world.client().request(&ask("HEAD", "/quick")).status, 504);
    assert_eq!(world.client().request(&ask("POST", "/quick")).status, 504, "by what holds for the app");
    assert_eq!(world.client().request(&ask("GET", "/quick/answered")).body, "here");
    let mut slow = world.client();
    slow.send(&ask("GET", "/quick/slow"));
    // By then what holds for the app would have ended it, since a request that came later is.
    assert_eq!(world.client().request(&ask("GET", "/x")).status, 504);
    slow.stream.set_nonblocking(true).unwrap();
    assert!(
        std::io::Read::read(&mut slow.stream, &mut [0])
            .is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock)
    );
}

#[test]
fn a_part_of_an_app_has_so_many_requests_at_a_time() {
    let (instance, began, go) = Instance::gated(|mut call| call.respond_and_close("done"));
    let routes = [route("/reports", &[], None, Some(1))];
    let snapshot = |generation| with_routes(shop(generation, &[(instance.addr, Role::Routed)]), &routes);
    let mut world = World::serving(&snapshot(1));
    let mut first = world.client();
    first.send(&ask("GET", "/reports/1"));
    began.recv_timeout(HANG).unwrap();
    let mut other = world.client();
    for path in ["/reports", "//reports", "/Reports/2", "/x/../reports", "/reports%2f3"] {
        let refused = other.request(&ask("GET", path));
        assert!(refused.status == 503 && refused.body.contains("route_busy"), "{path}: {refused:?}");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    world.apply(&snapshot(2));
    assert_eq!(other.request(&ask("GET", "/reports")).status, 503, "another snapshot changes nothing");
    other.send(&ask("GET", "/report"));
    began.recv_timeout(HANG).unwrap();
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(first.response(true).unwrap().body, "done");
    assert_eq!(other.response(true).unwrap().body, "done", "the rule is about another part");
    // That the place is free shows in the next one that is served.
    go.send(()).unwrap();
    assert!((0..10_000).any(|_| world.client().request(&ask("GET", "/reports")).status == 200));
}

#[test]
fn who_leaves_makes_room() {
    let (told, began) = channel();
    let told = std::sync::Mutex::new(told);
    let instance = Instance::scripted(move |mut call| {
        if call.head.starts_with("POST /answered") {
            return call.respond_and_close("here");
        }
        told.lock().unwrap().send(()).unwrap();
        call.read_to_end();
    });
    let routes = [route("/", &["POST"], None, Some(1))];
    let world = World::serving(&with_routes(shop(1, &[(instance.addr, Role::Routed)]), &routes));
    let mut first = world.client();
    first.send(&ask("POST", "/held"));
    began.recv_timeout(HANG).unwrap();
    assert_eq!(world.client().request(&ask("POST", "/answered")).status, 503);
    let mut other = world.client();
    other.send(&ask("GET", "/held"));
    began.recv_timeout(HANG).unwrap();
    drop(first);
    // Edge sees in its own time that the client has left.
    assert!((0..10_000).any(|_| world.client().request(&ask("POST", "/answered")).status == 200));
}
