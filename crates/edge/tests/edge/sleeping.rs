//! Apps that sleep: what is said to control, what is held, what keeps awake.

use std::io::{Read as _, Write as _};

use berth_routing::wire::{FromEdge, Health, ToEdge};
use berth_routing::{Generation, Role, Snapshot};

use crate::world::{Instance, Options, World, app, instance, read_until, shop, with_hold};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

/// A WebSocket's, masked and empty.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

fn asleep(mut snapshot: Snapshot, since: u64) -> Snapshot {
    snapshot.apps.values_mut().for_each(|route| route.asleep = Some(Generation(since)));
    snapshot
}

fn wanted(since: u64) -> FromEdge {
    FromEdge::Wanted { app: app("shop"), asleep: Generation(since) }
}

#[test]
fn a_request_for_a_sleeping_app_is_held_and_control_told_once_for_each_sleep() {
    let (mirror, _seen) = Instance::mirror();
    let parked = [(mirror.addr, Role::Parked)];
    let mut world = World::serving(&asleep(shop(2, &parked), 2));
    let mut waiting: Vec<_> = (0..5).map(|_| world.client()).collect();
    for client in &mut waiting {
        client.send(GET);
    }
    let (_, before) = world.control.wait(|message| *message == wanted(2));
    assert!(!before.contains(&wanted(2)));
    world.restart_control();
    world.control.send(&ToEdge::Snapshot(asleep(shop(3, &parked), 2)));
    world.control.wait(|message| *message == wanted(2));
    world.apply(&shop(4, &[(mirror.addr, Role::Routed)]));
    for client in &mut waiting {
        assert_eq!(client.response(true).unwrap().status, 200);
    }
    world.apply(&asleep(shop(5, &parked), 5));
    let mut late = world.client();
    late.send(GET);
    let (_, before) = world.control.wait(|message| matches!(message, FromEdge::Wanted { .. }));
    assert!(!before.contains(&wanted(2)), "{before:?}");
    world.apply(&shop(6, &[(mirror.addr, Role::Routed)]));
    assert_eq!(late.response(true).unwrap().status, 200);
}

#[test]
fn a_control_that_has_sent_no_sleeping_app_is_told_nothing_that_it_may_not_know() {
    let (mirror, _seen) = Instance::mirror();
    let boot = asleep(shop(2, &[(mirror.addr, Role::Parked)]), 2);
    let boot = Some(serde_json::to_vec(&boot).unwrap());
    let mut world = World::start(Options { boot, ..Options::default() });
    let mut client = world.client();
    client.send(GET);
    // It derives its own snapshot, in which nothing sleeps.
    let (_, before) = {
        world.control.wait(|message| matches!(message, FromEdge::Counts { .. }));
        world.control.send(&ToEdge::Snapshot(shop(3, &[(mirror.addr, Role::Routed)])));
        world.control.wait(|message| *message == FromEdge::Applied { generation: Generation(3) })
    };
    assert!(!before.iter().any(|it| matches!(it, FromEdge::Wanted { .. } | FromEdge::Still { .. })));
    assert_eq!(client.response(true).unwrap().status, 200);
}

#[test]
fn an_app_that_does_not_wake_in_time_is_told_of() {
    let (mirror, _seen) = Instance::mirror();
    let world = World::serving(&with_hold(asleep(shop(2, &[(mirror.addr, Role::Parked)]), 2), 50));
    let response = world.get("shop.localhost", "/");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!(response.body.contains("app_did_not_wake"), "{}", response.body);
}

#[test]
fn what_stands_open_is_no_request_and_a_message_on_it_wakes() {
    let websocket = Instance::scripted(|mut call| {
        call.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ",
        );
        // The pong comes back, which says that edge passed it on, and is none of the app's doing either.
        let mut pong = PONG;
        call.stream.read_exact(&mut pong).unwrap();
        call.stream.write_all(&pong).unwrap();
        call.read_to_end();
    });
    let mut world = World::serving(&shop(1, &[(websocket.addr, Role::Routed)]));
    let mut client = world.client();
    client
        .send("GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    read_until(&mut client.stream, "hello ").unwrap();
    world.apply(&asleep(shop(2, &[(websocket.addr, Role::Parked)]), 2));
    let still = FromEdge::Still { instance: instance(1), generation: Generation(2) };
    let (_, before) = world.control.wait(|message| *message == still);
    assert!(!before.iter().any(|it| matches!(it, FromEdge::Drained { .. })), "its connection is open");
    // A pong is none of the client's doing.
    client.stream.write_all(&PONG).unwrap();
    client.stream.read_exact(&mut [0; PONG.len()]).unwrap();
    // What it brought about would be said before or right after edge says that it uses another snapshot.
    for generation in [3, 4] {
        let snapshot = asleep(shop(generation, &[(websocket.addr, Role::Parked)]), 2);
        world.control.send(&ToEdge::Snapshot(snapshot));
        let applied = FromEdge::Applied { generation: Generation(generation) };
        let (_, before) = world.control.wait(|message| *message == applied);
        assert!(!before.iter().any(|it| matches!(it, FromEdge::Wanted { .. })));
    }
    client.stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x']).unwrap();
    world.control.wait(|message| *message == wanted(2));
}

#[test]
fn what_sleeps_is_not_probed_and_is_again_when_it_is_awake() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Routed)]));
    let ready = |message: &FromEdge| matches!(message, FromEdge::Health { health: Health::Ready, .. });
    world.control.wait(ready);
    world.apply(&asleep(shop(2, &[(mirror.addr, Role::Parked)]), 2));
    world.apply(&shop(3, &[(mirror.addr, Role::Routed)]));
    // Said once more, since what was known of it was forgotten with the last probe.
    world.control.wait(ready);
}

/// Says who is busy, each second anew.
fn busy(message: &FromEdge) -> bool {
    matches!(message, FromEdge::Counts { apps } if apps.iter().any(|it| it.app == app("shop") && it.busy))
}

#[test]
fn who_waits_for_an_answer_or_for_the_app_keeps_it_awake_all_the_while() {
    let silent = Instance::scripted(|mut call| drop(call.read_to_end()));
    let mut world = World::serving(&shop(1, &[(silent.addr, Role::Routed)]));
    let mut under_way = world.client();
    under_way.send(GET);
    for _ in 0..3 {
        world.control.wait(busy);
    }
    drop(under_way);
    world.apply(&shop(2, &[]));
    let mut waits = world.client();
    waits.send(GET);
    for _ in 0..3 {
        world.control.wait(busy);
    }
}
