//! Edge follows control: what it applies, refuses, drains, repeats; and how it goes.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use berth_edge::{ExitReason, Limits, handover};
use berth_routing::wire::{FromEdge, ToEdge};
use berth_routing::{Generation, Role};
use berth_spec::Gate;

use crate::world::{Client, HANG, Instance, Options, World, instance, shop};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

/// An instance that answers each request when the test says so, and the test's two ends.
fn gated() -> (Instance, Receiver<()>, Sender<()>) {
    Instance::gated(|mut call| {
        call.respond("done");
        call.read_to_end();
    })
}

#[test]
fn edge_boots_from_the_file_alone() {
    let (mirror, _seen) = Instance::mirror();
    let boot = serde_json::to_vec(&shop(7, &[(mirror.addr, Role::Routed)])).unwrap();
    let mut world = World::start(Options { boot: Some(boot), ..Options::default() });
    assert_eq!(world.get("shop.localhost", "/").status, 200);
    let (applied, _) = world.control.wait(|message| matches!(message, FromEdge::Applied { .. }));
    assert_eq!(applied, FromEdge::Applied { generation: Generation(7) });
}

#[test]
fn without_a_readable_file_requests_wait_for_control() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::start(Options { boot: Some(b"{".to_vec()), ..Options::default() });
    let mut client = world.client();
    client.send(GET);
    world.apply(&shop(1, &[(mirror.addr, Role::Routed)]));
    assert_eq!(client.response(true).unwrap().status, 200);
}

#[test]
fn edge_outlives_its_supervisor() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    drop(world.leash.take());
    world.apply(&shop(2, &[(mirror.addr, Role::Routed)]));
    assert_eq!(world.get("shop.localhost", "/").status, 200);
}

#[test]
fn an_older_snapshot_is_refused_and_the_one_in_use_named() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(5, &[(mirror.addr, Role::Routed)]));
    world.control.send(&ToEdge::Snapshot(shop(4, &[])));
    let (applied, _) = world.control.wait(|message| matches!(message, FromEdge::Applied { .. }));
    assert_eq!(applied, FromEdge::Applied { generation: Generation(5) });
    assert_eq!(world.get("shop.localhost", "/").status, 200);
}

#[test]
fn applied_generations_only_rise_and_the_last_one_is_applied() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    for generation in 2..=50 {
        world.control.send(&ToEdge::Snapshot(shop(generation, &[(mirror.addr, Role::Routed)])));
    }
    let (mut last, mut seen) = (1, 0);
    while last < 50 {
        if let FromEdge::Applied { generation } = world.control.next() {
            assert!(generation.0 > last);
            (last, seen) = (generation.0, seen + 1);
        }
    }
    assert!(seen <= 49, "snapshots coalesce, none is said twice");
}

#[test]
fn drained_is_said_exactly_when_nothing_is_in_flight() {
    let (slow, began, go) = gated();
    let (other, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(slow.addr, Role::Routed)]));
    let mut client = world.client();
    client.send(GET);
    began.recv_timeout(HANG).unwrap();
    world.apply(&shop(2, &[(slow.addr, Role::Parked), (other.addr, Role::Routed)]));
    assert_eq!(world.get("shop.localhost", "/").status, 200, "new requests go to the other one");
    // A further snapshot is applied in between: still no word of a drain.
    world.control.send(&ToEdge::Snapshot(shop(3, &[(slow.addr, Role::Parked), (other.addr, Role::Routed)])));
    let (_, before) =
        world.control.wait(|message| matches!(message, FromEdge::Applied { generation: Generation(3) }));
    assert!(!before.iter().any(|message| matches!(message, FromEdge::Drained { .. })), "{before:?}");
    go.send(()).unwrap();
    assert_eq!(client.response(true).unwrap().body, "done");
    let (generation, before) = world.control.wait_drained(1);
    assert!(generation >= Generation(2));
    assert!(!before.iter().any(|message| matches!(message, FromEdge::Drained { .. })), "{before:?}");

    // Routed again, it serves again, and drains again.
    world.apply(&shop(4, &[(slow.addr, Role::Routed), (other.addr, Role::Parked)]));
    let mut client = world.client();
    client.send(GET);
    began.recv_timeout(HANG).unwrap();
    go.send(()).unwrap();
    assert_eq!(client.response(true).unwrap().body, "done");
    world.apply(&shop(5, &[(slow.addr, Role::Parked), (other.addr, Role::Routed)]));
    assert_eq!(world.control.wait_drained(1).0, Generation(5));
}

#[test]
fn pooled_connections_to_what_is_not_routed_are_closed() {
    let (told, ended) = channel();
    let told = Mutex::new(told);
    let pooled = Instance::scripted(move |mut call| {
        call.respond("ok");
        call.read_to_end();
        told.lock().unwrap().send(()).unwrap();
    });
    let mut world = World::serving(&shop(1, &[(pooled.addr, Role::Routed)]));
    assert_eq!(world.get("shop.localhost", "/").status, 200);
    world.control.send(&ToEdge::Snapshot(shop(2, &[])));
    let (generation, before) = world.control.wait_drained(1);
    assert_eq!(generation, Generation(2));
    assert!(before.contains(&FromEdge::Applied { generation: Generation(2) }), "{before:?}");
    ended.recv_timeout(HANG).unwrap();
}

#[test]
fn a_control_that_restarts_disturbs_nobody_and_hears_everything_again() {
    let (slow, began, go) = gated();
    let (parked, _seen) = Instance::mirror();
    let snapshot = shop(3, &[(slow.addr, Role::Routed), (parked.addr, Role::Parked)]);
    let mut world = World::serving(&snapshot);
    world.control.wait_drained(2);
    let mut client = world.client();
    client.send(GET);
    began.recv_timeout(HANG).unwrap();
    world.restart_control();
    let (_, mut said) = world.control.wait_drained(2);
    said.retain(|message| !matches!(message, FromEdge::Counts { .. }));
    assert!(said.contains(&FromEdge::Applied { generation: Generation(3) }), "{said:?}");
    go.send(()).unwrap();
    assert_eq!(client.response(true).unwrap().body, "done");
    world.control.send(&ToEdge::Snapshot(snapshot));
    let again = |message: &FromEdge| matches!(message, FromEdge::Applied { generation: Generation(3) });
    world.control.wait(again);
    // Both are probed, so both have a health by now or soon.
    world.restart_control();
    for ordinal in [1, 2] {
        let wanted = instance(ordinal);
        world
            .control
            .wait(|message| matches!(message, FromEdge::Health { instance, .. } if *instance == wanted));
    }
}

#[test]
fn told_to_stop_it_lets_requests_finish_and_takes_no_new_connection() {
    let (slow, began, go) = gated();
    let mut world = World::serving(&shop(1, &[(slow.addr, Role::Routed)]));
    let (mut busy, mut idle) = (world.client(), world.client());
    assert_eq!(idle.request("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status, 404);
    busy.send(GET);
    began.recv_timeout(HANG).unwrap();
    world.tell_to_stop();
    assert!(idle.is_closed(), "an idle connection ends");
    go.send(()).unwrap();
    let response = busy.response(true).unwrap();
    assert_eq!((response.body.as_str(), response.header("connection")), ("done", Some("close")));
    assert_eq!(world.ended(), ExitReason::Drained);
    assert!(std::net::TcpStream::connect(world.addr).is_err(), "nothing listens any more");
}

#[test]
fn a_request_that_has_begun_to_come_when_it_is_told_to_stop_is_answered() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let (mut half, mut idle) = (world.client(), world.client());
    for client in [&mut half, &mut idle] {
        assert_eq!(client.request(GET).status, 200);
    }
    half.send("GET /late HTTP/1.1\r\nHost: shop.localhost\r\n");
    world.tell_to_stop();
    assert!(idle.is_closed(), "the time is over in which an idle connection may bring one more");
    // One that needs hyper: what came of it was read by somebody else.
    let response = half.request("Connection: keep-alive, x-inner\r\nX-Inner: 1\r\n\r\n");
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(
        response.body.contains("/late") && !response.body.to_lowercase().contains("inner"),
        "{}",
        response.body
    );
    assert_eq!(world.ended(), ExitReason::Drained);
}

#[test]
fn a_drain_that_takes_too_long_is_cut_and_counted() {
    let (slow, began, _go) = gated();
    let mut options = Options::default();
    options.limits.drain = std::time::Duration::from_millis(100);
    let mut world = World::start(options);
    world.apply(&shop(1, &[(slow.addr, Role::Routed)]));
    let mut client = world.client();
    client.send(GET);
    began.recv_timeout(HANG).unwrap();
    world.tell_to_stop();
    assert_eq!(world.ended(), ExitReason::DeadlinePassed { cut: 1 });
    assert!(client.is_closed());
}

#[test]
fn the_listeners_are_handed_over_and_serve_on() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let listeners = handover::receive(&UnixStream::connect(&world.handover).unwrap()).unwrap();
    assert_eq!((listeners.plain.len(), listeners.secure.len()), (2, 2));
    assert!(listeners.secure.iter().all(|listener| listener.local_addr().unwrap() == world.secure));
    let listeners = listeners.plain;
    for listener in &listeners {
        assert_eq!(listener.local_addr().unwrap(), world.addr);
    }
    assert_eq!(world.get("shop.localhost", "/").status, 200, "edge serves on");
    world.tell_to_stop();
    world.ended();
    // The queue lives on: a connection that comes now is for whoever holds the listeners.
    let client = Client::connect(world.addr);
    let expected = client.stream.local_addr().unwrap();
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
    }
    let accepted = listeners.iter().find_map(|listener| listener.accept().ok()).unwrap();
    assert_eq!(accepted.1, expected);
}

#[test]
fn one_edge_takes_over_from_another_without_a_failed_request() {
    let (mirror, _seen) = Instance::mirror();
    let snapshot = shop(1, &[(mirror.addr, Role::Routed)]);
    // Time enough for every client to bring a last request, however busy the machine is.
    let limits = Limits { drain_idle: HANG, drain: HANG, ..Options::default().limits };
    let mut before = World::start(Options { limits, ..Options::default() });
    before.apply(&snapshot);
    let addr = before.addr;
    // Outlives the clients, so that it does not drain under the last of them.
    let mut after = None;
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for method in ["GET", "POST", "GET", "POST"] {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || {
                let request =
                    format!("{method} / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0\r\n\r\n");
                while !stop.load(SeqCst) {
                    let mut client = Client::connect(addr);
                    loop {
                        let response = client.request(&request);
                        assert_eq!(response.status, 200, "{response:?}");
                        served.fetch_add(1, SeqCst);
                        if response.header("connection") == Some("close") || stop.load(SeqCst) {
                            break;
                        }
                    }
                }
            });
        }
        let serves_on = || {
            let enough = served.load(SeqCst) + 200;
            while served.load(SeqCst) < enough {
                std::thread::yield_now();
            }
        };
        serves_on();
        let listeners = handover::receive(&UnixStream::connect(&before.handover).unwrap()).unwrap();
        let boot = Some(serde_json::to_vec(&snapshot).unwrap());
        after = Some(World::start(Options { boot, listeners: Some(listeners.plain), ..Options::default() }));
        before.tell_to_stop();
        assert_eq!(before.ended(), ExitReason::Drained);
        serves_on();
        stop.store(true, SeqCst);
    });
    drop(after);
}

/// The same routes with the gate as given.
fn with_gate(mut snapshot: berth_routing::Snapshot, gate: Gate) -> berth_routing::Snapshot {
    snapshot.apps.values_mut().for_each(|app| app.gate = gate);
    snapshot
}

#[test]
fn requests_for_a_paused_app_wait_until_they_are_let_through() {
    let (mirror, _seen) = Instance::mirror();
    let routed = [(mirror.addr, Role::Routed)];
    let mut world = World::serving(&with_gate(shop(1, &routed), Gate::Paused));
    let mut clients: Vec<Client> = (0..3).map(|_| world.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    world.apply(&with_gate(shop(2, &routed), Gate::Open));
    for client in &mut clients {
        assert_eq!(client.response(true).unwrap().status, 200);
    }
}

#[test]
fn an_app_under_maintenance_answers_nobody_and_is_told_when_to_come_back() {
    let (mirror, seen) = Instance::mirror();
    let routed = [(mirror.addr, Role::Routed)];
    let mut world = World::serving(&with_gate(shop(1, &routed), Gate::Maintenance));
    let answer = world.get("shop.localhost", "/");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("60")));
    assert!(answer.body.contains("app_in_maintenance"), "{}", answer.body);
    assert!(
        seen.try_iter().all(|request| !request.contains("shop.localhost")),
        "but for probes it was not asked"
    );
    world.apply(&with_gate(shop(2, &routed), Gate::Open));
    assert_eq!(world.get("shop.localhost", "/").status, 200);
}

/// What is being answered when the gate closes is answered.
#[test]
fn a_gate_that_closes_cuts_nothing_off() {
    let (instance, began, go) = gated();
    let routed = [(instance.addr, Role::Routed)];
    let mut world = World::serving(&shop(1, &routed));
    let mut client = world.client();
    client.send(GET);
    began.recv_timeout(HANG).unwrap();
    world.apply(&with_gate(shop(2, &routed), Gate::Maintenance));
    assert_eq!(world.get("shop.localhost", "/").status, 503);
    go.send(()).unwrap();
    assert_eq!(client.response(true).unwrap().status, 200);
}
