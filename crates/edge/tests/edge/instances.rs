//! Instances that are slow, gone, restarting or cut off in the middle.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

use berth_routing::Role;

use crate::world::{HANG, Instance, World, listen, nobody, read_until, shop, with_hold};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_request_is_held_while_the_only_instance_restarts() {
    let (addr, fd) = nobody();
    let world = World::serving(&shop(1, &[(addr, Role::Routed)]));
    let (mut gets, mut posts) = (world.client(), world.client());
    gets.send(GET);
    posts.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 4\r\n\r\nbody");
    Instance::on(listen(fd), |mut call| {
        let body = if call.head.starts_with("POST") { call.read_until("body") } else { "back".to_owned() };
        call.respond_and_close(&body);
    });
    assert_eq!(gets.response(true).unwrap().body, "back");
    assert_eq!(posts.response(true).unwrap().body, "body");
}

#[test]
fn a_request_is_held_until_an_instance_is_routed() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = World::serving(&shop(1, &[(mirror.addr, Role::Candidate)]));
    let mut client = world.client();
    client.send(GET);
    world.apply(&shop(2, &[(mirror.addr, Role::Routed)]));
    assert_eq!(client.response(true).unwrap().status, 200);
}

#[test]
fn a_hold_ends_with_503_and_says_when_to_come_back() {
    let (addr, _fd) = nobody();
    let world = World::serving(&with_hold(shop(1, &[(addr, Role::Routed)]), 30));
    let response = world.get("shop.localhost", "/");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!(response.body.contains("app_not_ready"));
}

#[test]
fn an_app_that_was_scaled_to_nothing_answers_at_once() {
    let world = World::serving(&with_hold(shop(1, &[]), 0));
    assert_eq!(world.get("shop.localhost", "/").status, 503);
}

#[test]
fn an_instance_that_refuses_is_passed_over() {
    let (addr, _fd) = nobody();
    let (mirror, _seen) = Instance::mirror();
    let world = World::serving(&shop(1, &[(addr, Role::Routed), (mirror.addr, Role::Routed)]));
    for _ in 0..20 {
        assert_eq!(world.client().request(POST).status, 200);
    }
}

/// An instance that answers the first request on each connection, and closes on the second without an answer.
fn closes_on_reuse() -> (Instance, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    let instance = Instance::scripted(move |mut call| {
        counter.fetch_add(1, SeqCst);
        call.respond("first");
        // The request has arrived and is dropped: what a server looks like that closed at the same moment.
        read_until(&mut call.stream, "\r\n\r\n");
    });
    (instance, calls)
}

#[test]
fn a_get_on_a_stale_connection_is_repeated_once_on_a_fresh_one() {
    let (instance, calls) = closes_on_reuse();
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let mut client = world.client();
    for _ in 0..4 {
        assert_eq!(client.request(GET).body, "first");
    }
    assert_eq!(calls.load(SeqCst), 4);
}

#[test]
fn a_get_goes_out_twice_at_most_however_many_connections_are_stale() {
    let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counter, counted, both) = (Arc::clone(&connections), Arc::clone(&requests), Barrier::new(2));
    let instance = Instance::scripted(move |mut call| {
        counted.fetch_add(1, SeqCst);
        // Two that are under way at once have a connection each, and leave them to those after them.
        if counter.fetch_add(1, SeqCst) < 2 {
            both.wait();
        }
        call.respond("first");
        if read_until(&mut call.stream, "\r\n\r\n").is_some() {
            counted.fetch_add(1, SeqCst);
        }
    });
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let (mut one, mut other) = (world.client(), world.client());
    one.send(GET);
    other.send(GET);
    assert_eq!(one.response(true).unwrap().body, "first");
    assert_eq!(other.response(true).unwrap().body, "first");
    assert_eq!(one.request(GET).body, "first");
    assert_eq!((connections.load(SeqCst), requests.load(SeqCst)), (3, 4));
}

#[test]
fn a_post_on_a_stale_connection_is_not_repeated() {
    let (instance, calls) = closes_on_reuse();
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let mut client = world.client();
    assert_eq!(client.request(POST).status, 200);
    let second = client.request(POST);
    assert_eq!(second.status, 502);
    assert!(second.body.contains("app_gave_no_answer"));
    assert_eq!(calls.load(SeqCst), 1);
}

#[test]
fn a_request_that_ends_its_instance_is_not_carried_to_the_next() {
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    let instance = Instance::scripted(move |_call| {
        counter.fetch_add(1, SeqCst);
    });
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    assert_eq!(world.client().request(GET).status, 502);
    assert_eq!(calls.load(SeqCst), 1);
}

#[test]
fn a_response_that_is_cut_is_cut_for_the_client_too() {
    for head in ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let instance = Instance::scripted(move |mut call| call.write(&format!("HTTP/1.1 200 OK\r\n{head}")));
        let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
        let mut client = world.client();
        client.send(GET);
        let all = client.rest();
        assert!(all.contains("200 OK") && all.contains("abc"), "{all}");
        assert!(!all.ends_with("0\r\n\r\n"), "it must not look complete: {all}");
    }
}

#[test]
fn an_unfinished_upload_does_not_hold_up_the_next_request() {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let instance = Instance::scripted(move |mut call| {
        let early = call.head.contains("/early");
        call.respond_and_close("ok");
        if early {
            gate.lock().unwrap().recv_timeout(HANG).unwrap();
        }
    });
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let mut early = world.client();
    early.send("POST /early HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(early.response(true).unwrap().status, 200);
    for _ in 0..4 {
        assert_eq!(world.get("shop.localhost", "/").status, 200);
    }
    go.send(()).unwrap();
}

#[test]
fn a_length_beside_chunks_is_not_believed() {
    let instance = Instance::scripted(|mut call| {
        call.write(
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
    });
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let response = world.get("shop.localhost", "/");
    assert_eq!(response.header("content-length"), None);
    assert!(response.body.contains("abc"));
}
