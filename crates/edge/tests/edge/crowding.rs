//! What becomes of requests when instances have as many as they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use berth_routing::{Role, Snapshot};
use berth_spec::RequestConcurrency;

use crate::world::{HANG, Instance, Options, World, app, shop, with_hold};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

pub(crate) fn with_limits(mut snapshot: Snapshot, soft: Option<u32>, hard: Option<u32>) -> Snapshot {
    for backend in snapshot.apps.values_mut().flat_map(|app| &mut app.backends) {
        backend.concurrency = RequestConcurrency { soft_limit: soft, hard_limit: hard };
    }
    snapshot
}

/// An instance that answers its requests one by one, each when the test says so, and the test's two ends.
fn gated() -> (Instance, Receiver<()>, Sender<()>) {
    Instance::gated(|mut call| call.respond_and_close("done"))
}

#[test]
fn an_instance_never_has_more_requests_than_it_may_and_all_are_answered() {
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let instance = Instance::scripted(move |mut call| {
        let count = counts.0.fetch_add(1, SeqCst) + 1;
        counts.1.fetch_max(count, SeqCst);
        std::thread::yield_now();
        counts.0.fetch_sub(1, SeqCst);
        call.respond_and_close("ok");
    });
    let backends = [(instance.addr, Role::Routed)];
    let world = World::serving(&with_limits(shop(1, &backends), None, Some(2)));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = world.client();
                for _ in 0..25 {
                    assert_eq!(client.request(GET).status, 200);
                }
            });
        }
    });
    assert!(most.load(SeqCst) <= 2, "{most:?} at once");
}

#[test]
fn who_came_first_has_its_turn_first() {
    let (order, seen) = channel();
    let (slow, began, go) = gated();
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    world.apply(&with_limits(shop(1, &[(slow.addr, Role::Routed)]), None, Some(1)));
    let mut clients: Vec<_> = (0..5).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send(GET);
        // One thread takes what comes in the order in which it came: once this is answered, the request before it waits.
        assert_eq!(world.get("nobody", "/").status, 404);
    }
    std::thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            let order = order.clone();
            scope.spawn(move || {
                assert_eq!(client.response(true).unwrap().body, "done");
                order.send(number).unwrap();
            });
        }
        for number in 0..5 {
            began.recv_timeout(HANG).unwrap();
            go.send(()).unwrap();
            assert_eq!(seen.recv_timeout(HANG), Ok(number));
        }
    });
}

#[test]
fn who_finds_no_room_in_time_is_told_to_try_again() {
    let (slow, began, go) = gated();
    let backends = [(slow.addr, Role::Routed)];
    let world = World::serving(&with_hold(with_limits(shop(1, &backends), None, Some(1)), 200));
    let mut first = world.client();
    first.send(GET);
    began.recv_timeout(HANG).unwrap();
    let mut second = world.client();
    let refused = second.request(GET);
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("app_busy"), "{}", refused.body);
    assert_eq!(refused.header("retry-after"), Some("1"));
    go.send(()).unwrap();
    assert_eq!(first.response(true).unwrap().body, "done");
    // It is served again as soon as there is room, on the connection on which it was refused.
    second.send(GET);
    began.recv_timeout(HANG).unwrap();
    go.send(()).unwrap();
    assert_eq!(second.response(true).unwrap().body, "done");
}

#[test]
fn who_waits_in_line_waits_no_longer_for_an_app_that_may_take_its_time_to_wake() {
    let (slow, began, go) = gated();
    let backends = [(slow.addr, Role::Routed)];
    // For longer than anything is waited for here.
    let world = World::serving(&with_hold(with_limits(shop(1, &backends), None, Some(1)), 3_600_000));
    let mut first = world.client();
    first.send(GET);
    began.recv_timeout(HANG).unwrap();
    let refused = world.client().request(GET);
    assert!(refused.status == 503 && refused.body.contains("app_busy"), "{refused:?}");
    go.send(()).unwrap();
    assert_eq!(first.response(true).unwrap().body, "done");
}

#[test]
fn an_app_that_is_full_takes_nothing_from_another() {
    let (slow, began, go) = gated();
    let (mirror, _seen) = Instance::mirror();
    let mut snapshot = with_limits(shop(1, &[(slow.addr, Role::Routed)]), None, Some(1));
    let mut other = shop(1, &[(mirror.addr, Role::Routed)]).apps.remove(&app("shop")).unwrap();
    other.hosts = vec![berth_routing::Host("other.*".to_owned())];
    for backend in &mut other.backends {
        backend.instance = app("other").instance("web".parse().unwrap(), 1);
    }
    snapshot.apps.insert(app("other"), other);
    let world = World::serving(&snapshot);
    let mut waiting: Vec<_> = (0..32).map(|_| world.client()).collect();
    waiting.iter_mut().for_each(|client| client.send(GET));
    began.recv_timeout(HANG).unwrap();
    for _ in 0..32 {
        assert_eq!(world.get("other.localhost", "/").status, 200);
    }
    // The one in flight and those that wait are answered, each at its turn.
    for turn in 0..32 {
        if turn > 0 {
            began.recv_timeout(HANG).unwrap();
        }
        go.send(()).unwrap();
    }
    for client in &mut waiting {
        assert_eq!(client.response(true).unwrap().body, "done");
    }
}

#[test]
fn who_leaves_the_line_lets_the_next_one_have_its_turn() {
    let (slow, began, go) = gated();
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    world.apply(&with_limits(shop(1, &[(slow.addr, Role::Routed)]), None, Some(1)));
    let (mut first, mut gone, mut last) = (world.client(), world.client(), world.client());
    first.send(GET);
    began.recv_timeout(HANG).unwrap();
    gone.send(GET);
    assert_eq!(world.get("nobody", "/").status, 404);
    last.send(GET);
    assert_eq!(world.get("nobody", "/").status, 404);
    drop(gone);
    go.send(()).unwrap();
    assert_eq!(first.response(true).unwrap().body, "done");
    began.recv_timeout(HANG).unwrap();
    go.send(()).unwrap();
    assert_eq!(last.response(true).unwrap().body, "done");
}

#[test]
fn a_new_instance_takes_those_that_wait_for_another() {
    let (slow, began, go) = gated();
    let (mirror, _seen) = Instance::mirror();
    let one = with_limits(shop(1, &[(slow.addr, Role::Routed)]), None, Some(1));
    let mut world = World::serving(&one);
    let (mut first, mut second) = (world.client(), world.client());
    first.send(GET);
    began.recv_timeout(HANG).unwrap();
    second.send(GET);
    let both = [(slow.addr, Role::Routed), (mirror.addr, Role::Routed)];
    world.apply(&with_limits(shop(2, &both), None, Some(1)));
    assert!(second.response(true).unwrap().body.contains("host: shop.localhost"));
    go.send(()).unwrap();
    assert_eq!(first.response(true).unwrap().body, "done");
}

#[test]
fn above_its_soft_limit_an_instance_gets_only_what_others_cannot_take() {
    let (slow, began, go) = gated();
    let (mirror, seen) = Instance::mirror();
    let backends = [(slow.addr, Role::Routed)];
    // Two, since a client has its answer a moment before edge has counted that.
    let mut world = World::serving(&with_limits(shop(1, &backends), Some(2), None));
    let mut held = [world.client(), world.client()];
    for client in &mut held {
        client.send(GET);
        began.recv_timeout(HANG).unwrap();
    }
    let both = [(slow.addr, Role::Routed), (mirror.addr, Role::Routed)];
    world.apply(&with_limits(shop(2, &both), Some(2), None));
    for _ in 0..20 {
        assert_eq!(world.get("shop.localhost", "/").status, 200);
    }
    assert_eq!(seen.try_iter().count(), 20);
    held.iter().for_each(|_| go.send(()).unwrap());
    for client in &mut held {
        assert_eq!(client.response(true).unwrap().body, "done");
    }
}
