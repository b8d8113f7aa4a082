//! What passes through: streams, upgrades, keep-alive, the odd corners of HTTP/1.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use berth_edge::{ExitReason, Limits, Patience};
use berth_routing::Role;
use berth_routing::wire::FromEdge;

use crate::world::{HANG, Instance, Options, World, app, instance, shop};

const HOST: &str = "Host: shop.localhost\r\n";

fn serving(instance: &Instance) -> World {
    World::serving(&shop(1, &[(instance.addr, Role::Routed)]))
}

#[test]
fn hosts_are_matched_and_unknown_ones_told_so() {
    let (instance, _seen) = Instance::mirror();
    let world = serving(&instance);
    for host in ["shop.localhost", "SHOP.localhost:8080", "shop.example.com", "shop.example.com."] {
        assert_eq!(world.get(host, "/").status, 200, "{host}");
    }
    let plain = world.get("other.localhost", "/");
    assert_eq!(plain.status, 404);
    assert!(plain.body.contains("No app is at this host"), "{}", plain.body);
    assert!(plain.header("server").is_none());
    let html = world.client().request("GET / HTTP/1.1\r\nHost: other\r\nAccept: text/html\r\n\r\n");
    assert!(html.header("content-type").unwrap().starts_with("text/html"));
    assert!(html.body.contains(html.header("x-request-id").unwrap()));
}

#[test]
fn a_connection_carries_many_requests_and_closes_when_asked() {
    let (instance, _seen) = Instance::mirror();
    let world = serving(&instance);
    let mut client = world.client();
    for _ in 0..5 {
        assert_eq!(client.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n")).status, 200);
    }
    client.send(&format!("GET /1 HTTP/1.1\r\n{HOST}\r\nGET /2 HTTP/1.1\r\n{HOST}\r\n"));
    for path in ["/1", "/2"] {
        assert!(client.response(true).unwrap().body.contains(path));
    }
    let last = client.request(&format!("GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"));
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn http_1_0_is_served_and_closed_unless_kept_alive() {
    let (instance, _seen) = Instance::mirror();
    let world = serving(&instance);
    let mut client = world.client();
    let kept = client.request(&format!("GET / HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n"));
    assert_eq!(kept.status, 200);
    assert_eq!(client.request(&format!("GET / HTTP/1.0\r\n{HOST}\r\n")).status, 200);
    assert!(client.is_closed());
    assert_eq!(world.client().request("GET / HTTP/1.0\r\n\r\n").status, 404);
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let instance = Instance::scripted(|mut call| {
        call.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            let chunk = call.read_until("\r\n") + &call.read_until("\r\n");
            call.write(&chunk);
        }
        call.read_until("0\r\n\r\n");
        call.write("0\r\n\r\n");
    });
    let world = serving(&instance);
    let mut client = world.client();
    client.send(&format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"));
    assert!(crate::world::read_until(&mut client.stream, "\r\n\r\n").unwrap().contains("200 OK"));
    for word in ["one", "two", "three"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        client.send(&chunk);
        let echo = crate::world::read_until(&mut client.stream, &format!("{word}\r\n")).unwrap();
        assert_eq!(echo.to_lowercase(), chunk, "each chunk comes back before the next is sent");
    }
    client.send("0\r\n\r\n");
    assert_eq!(crate::world::read_until(&mut client.stream, "0\r\n\r\n").unwrap(), "0\r\n\r\n");
}

#[test]
fn a_slow_reader_holds_the_app_back() {
    let (told, written) = channel();
    let told = Mutex::new(told);
    let instance = Instance::scripted(move |mut call| {
        call.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        call.stream.set_nonblocking(true).unwrap();
        let piece = [b'a'; 64 << 10];
        let (mut sent, mut stuck) = (0_u64, 0);
        // Stuck for so many tries in a row, with a yield between, is as good as stuck for ever.
        while stuck < 20_000 && sent < 1_000_000_000 {
            match call.stream.write(&piece) {
                Ok(count) => (sent, stuck) = (sent + count as u64, 0),
                Err(_) => {
                    stuck += 1;
                    std::thread::yield_now();
                }
            }
        }
        told.lock().unwrap().send(sent).unwrap();
    });
    let world = serving(&instance);
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
    let sent = written.recv_timeout(HANG).unwrap();
    assert!(sent < 100_000_000, "edge took {sent} bytes that nobody read");
}

#[test]
fn an_answer_before_the_body_has_ended_goes_through() {
    let instance = Instance::scripted(|mut call| {
        call.write("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
        call.stream.shutdown(Shutdown::Write).unwrap();
        call.read_to_end();
    });
    let world = serving(&instance);
    let mut client = world.client();
    client.send(&format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 100000\r\n\r\n{}", "a".repeat(1000)));
    let response = client.response(true).unwrap();
    assert_eq!((response.status, response.body.as_str()), (413, "no"));
}

#[test]
fn continue_is_answered_when_an_instance_took_the_request() {
    let instance = Instance::scripted(|mut call| {
        assert!(!call.head.contains("expect"), "edge answers for the app: {}", call.head);
        let body = call.read_until("body");
        call.respond(&body);
    });
    let world = serving(&instance);
    let mut client = world.client();
    client.send(&format!("POST / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
    assert_eq!(client.response(false).unwrap().status, 100);
    client.send("body");
    assert_eq!(client.response(true).unwrap().body, "body");
}

#[test]
fn heads_of_bodies_and_trailers_pass() {
    let instance = Instance::scripted(|mut call| {
        if call.head.starts_with("HEAD") {
            call.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 7\r\n\r\n");
            return;
        }
        assert!(call.head.contains("te: trailers") && call.head.contains("trailer: x-sum"), "{}", call.head);
        let body = call.read_until("\r\n\r\n");
        assert!(body.to_lowercase().ends_with("0\r\nx-sum: 1\r\n\r\n"), "{body}");
        call.write("HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-end: 2\r\n\r\n");
    });
    let world = serving(&instance);
    let head = world.client().request(&format!("HEAD / HTTP/1.1\r\n{HOST}\r\n"));
    assert_eq!(head.header("content-length"), Some("7"));
    let mut client = world.client();
    client.send(&format!(
        "POST / HTTP/1.1\r\n{HOST}TE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"
    ));
    let head = crate::world::read_until(&mut client.stream, "\r\n\r\n").unwrap();
    assert!(head.contains("200 OK"), "{head}");
    let body = crate::world::read_until(&mut client.stream, "\r\n\r\n").unwrap();
    assert!(body.to_lowercase().contains("x-end: 2"), "{body}");
}

#[test]
fn a_websocket_passes_both_ways_and_counts_until_both_sides_end() {
    let instance = Instance::scripted(|mut call| {
        assert!(
            call.head.contains("connection: upgrade\r\n") && call.head.contains("upgrade: websocket\r\n")
        );
        call.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ",
        );
        let said = call.read_to_end();
        call.write(&format!("heard {}", String::from_utf8(said).unwrap()));
    });
    let addr = instance.addr;
    let mut world = serving(&instance);
    let mut client = world.client();
    client.send(&format!(
        "GET /ws HTTP/1.1\r\n{HOST}Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ));
    let head = client.response(false).unwrap();
    assert_eq!((head.status, head.header("upgrade")), (101, Some("websocket")));
    assert_eq!(crate::world::read_until(&mut client.stream, "hello ").unwrap(), "hello ");

    world.apply(&shop(2, &[(addr, Role::Parked)]));
    // Bare line feeds and whatever else: this is not HTTP any more.
    client.send("\n\n\0 bytes");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "heard \n\n\0 bytes");
    drop(client);
    let (_, before) = world.control.wait_drained(1);
    assert!(!before.iter().any(|message| matches!(message, FromEdge::Drained { .. })));
    assert!(world.log_text().is_empty() || world.log_text().contains("/ws HTTP/1.1 101"));
}

#[test]
fn an_upgrade_that_the_app_declines_ends_the_connection() {
    let (instance, _seen) = Instance::mirror();
    let world = serving(&instance);
    let mut client = world.client();
    let response =
        client.request(&format!("GET / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(client.is_closed());
}

/// What came through it would be requests that no rule was asked about.
#[test]
fn nobody_is_given_a_tunnel_for_http_2() {
    let (instance, seen) = Instance::mirror();
    let world = serving(&instance);
    for wish in ["h2c", "H2C", "HTTP/2.0", "websocket, h2c"] {
        let asked = format!(
            "GET / HTTP/1.1\r\n{HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {wish}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        assert_eq!(world.client().request(&asked).status, 200);
        let head = seen.recv().unwrap().to_lowercase();
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    }
}

#[test]
fn an_app_that_switches_to_something_else_is_no_tunnel() {
    let instance = Instance::scripted(|mut call| {
        call.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    });
    let world = serving(&instance);
    let asked = format!("GET / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(world.client().request(&asked).status, 502);
}

/// To take the coding's name off and leave the body as it is would be to give bytes that nobody can read.
#[test]
fn a_body_in_a_coding_that_the_client_is_not_told_of_is_no_answer() {
    for coding in ["gzip, chunked", "gzip"] {
        let instance = Instance::scripted(move |mut call| {
            call.write(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n1\r\nx\r\n0\r\n\r\n"));
        });
        let world = serving(&instance);
        // Without a body by one codec, with one by the other.
        for more in ["\r\n", "Content-Length: 1\r\n\r\nx"] {
            let asked = format!("POST / HTTP/1.1\r\n{HOST}{more}");
            assert_eq!(world.client().request(&asked).status, 502, "{coding}");
        }
    }
}

#[test]
fn a_slow_head_is_cut_off() {
    let patience = Patience { head: Duration::from_millis(100), ..Patience::default() };
    let defaults = Options::default();
    let limits = Limits { patience, ..defaults.limits };
    let world = World::start(Options { limits, ..defaults });
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop");
    assert!(client.is_closed());
}

#[test]
fn an_idle_connection_is_ended_and_one_that_waits_for_the_app_is_not() {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let instance = Instance::scripted(move |mut call| {
        gate.lock().unwrap().recv_timeout(HANG).unwrap();
        call.respond("late");
    });
    let patience = Patience { idle: Duration::from_millis(100), ..Patience::default() };
    let defaults = Options::default();
    let mut world = World::start(Options { limits: Limits { patience, ..defaults.limits }, ..defaults });
    world.apply(&shop(1, &[(instance.addr, Role::Routed)]));
    let (mut waits, mut idles) = (world.client(), world.client());
    waits.send(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
    assert_eq!(idles.request("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status, 404);
    assert!(idles.is_closed());
    go.send(()).unwrap();
    assert_eq!(waits.response(true).unwrap().body, "late");
}

#[test]
fn an_upload_that_stalls_is_cut_off() {
    let (told, ends) = channel();
    let told = Mutex::new(told);
    let instance = Instance::scripted(move |mut call| {
        let body = call.read_to_end();
        told.lock().unwrap().send(body).unwrap();
    });
    let patience = Patience { stall: Duration::from_millis(100), ..Patience::default() };
    let defaults = Options::default();
    let mut world = World::start(Options { limits: Limits { patience, ..defaults.limits }, ..defaults });
    world.apply(&shop(1, &[(instance.addr, Role::Routed)]));
    let mut client = world.client();
    client.send(&format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\nabc"));
    assert!(client.is_closed());
    assert_eq!(ends.recv_timeout(HANG).unwrap(), b"abc");
}

#[test]
fn a_full_edge_ends_idle_connections_to_make_room() {
    let (instance, _seen) = Instance::mirror();
    let defaults = Options::default();
    let limits = Limits { connections: 1, ..defaults.limits };
    let mut world = World::start(Options { limits, threads: 1, ..defaults });
    world.apply(&shop(1, &[(instance.addr, Role::Routed)]));
    let mut first = world.client();
    assert_eq!(first.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n")).status, 200);
    assert_eq!(world.get("shop.localhost", "/").status, 200);
    assert!(first.is_closed());
}

#[test]
fn requests_are_counted_and_logged() {
    let (mirror, _seen) = Instance::mirror();
    let mut world = serving(&mirror);
    let head = world.get("shop.localhost", "/path?secret=1").body;
    let id = head.split("x-request-id: ").nth(1).unwrap().split('\r').next().unwrap().to_owned();
    // While a request is under way its app is told of as busy, with nothing counted.
    let is_counted =
        |message: &FromEdge| matches!(message, FromEdge::Counts { apps } if apps[0].by_class != [0; 5]);
    let (counts, _) = world.control.wait(is_counted);
    let FromEdge::Counts { apps } = counts else { unreachable!() };
    assert_eq!((&apps[0].app, apps[0].by_class, apps[0].unserved), (&app("shop"), [0, 1, 0, 0, 0], 0));
    world.tell_to_stop();
    assert_eq!(world.ended(), ExitReason::Drained);
    let log = world.log_text();
    let line = log.lines().find(|line| line.contains("/path")).unwrap();
    assert!(
        line.contains(" 127.0.0.1 shop.localhost GET /path HTTP/1.1 200 ")
            && line.ends_with(&format!("web.1 {id}")),
        "{line}"
    );
    assert!(!log.contains("secret"), "the query may hold anything");
    assert_eq!(instance(1).short(), "web.1");
}

#[test]
fn a_client_that_leaves_takes_its_call_along() {
    let (told, ends) = channel();
    let told = Mutex::new(told);
    let (ready, began) = channel();
    let ready = Mutex::new(ready);
    let instance = Instance::scripted(move |mut call| {
        ready.lock().unwrap().send(()).unwrap();
        let mut byte = [0];
        let ended = matches!(call.stream.read(&mut byte), Ok(0) | Err(_));
        told.lock().unwrap().send(ended).unwrap();
    });
    let world = serving(&instance);
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
    began.recv_timeout(HANG).unwrap();
    drop(client);
    assert!(ends.recv_timeout(HANG).unwrap());
}
