//! What becomes of an app's answers on their way: framing, heads, connections.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use berth_routing::Role;

use crate::world::{Call, HANG, Instance, World, read_until, shop};

const HOST: &str = "Host: shop.localhost\r\n";

/// A world whose instance answers each request with what `answer` makes of its head, and how many connections it had.
fn answering(answer: impl Fn(&mut Call) -> bool + Send + Sync + 'static) -> (World, Arc<AtomicUsize>) {
    let (instance, connections) = Instance::answering(answer);
    (World::serving(&shop(1, &[(instance.addr, Role::Routed)])), connections)
}

fn says(text: &'static str) -> (World, Arc<AtomicUsize>) {
    answering(move |call| {
        call.write(text);
        true
    })
}

#[test]
fn one_connection_to_the_app_serves_one_request_after_the_other() {
    let (world, connections) = says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let mut client = world.client();
    for _ in 0..20 {
        assert_eq!(client.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n")).body, "ok");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[test]
fn an_answer_without_a_length_is_sent_in_chunks_and_ends() {
    let (world, _) = answering(|call| {
        call.write("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it");
        false
    });
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
    let head = read_until(&mut client.stream, "\r\n\r\n").unwrap().to_lowercase();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("connection: close"), "{head}");
    assert_eq!(read_until(&mut client.stream, "0\r\n\r\n").unwrap(), "9\r\nall of it\r\n0\r\n\r\n");
    assert_eq!(client.request(&format!("HEAD / HTTP/1.1\r\n{HOST}\r\n")).status, 200);
}

#[test]
fn an_answer_in_chunks_passes_and_the_connection_serves_on() {
    let (world, connections) =
        says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let mut client = world.client();
    for _ in 0..3 {
        client.send(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
        let head = read_until(&mut client.stream, "\r\n\r\n").unwrap().to_lowercase();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let body = read_until(&mut client.stream, "0\r\n\r\n").unwrap();
        // How it is cut into chunks is nobody's business.
        let sizes: Vec<&str> = body.split("\r\n").collect();
        let text: String = sizes.chunks(2).filter_map(|pair| pair.get(1).copied()).collect();
        assert_eq!(text, "abcde", "{body:?}");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[test]
fn what_comes_before_an_answer_is_not_taken_for_it() {
    let (world, _) =
        says("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let mut client = world.client();
    for _ in 0..2 {
        let response = client.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    }
}

#[test]
fn an_answer_says_since_when_it_is() {
    let (world, _) = says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let date = world.get("shop.localhost", "/").header("date").map(str::to_owned).unwrap();
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    let (world, _) =
        says("HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n");
    let response = world.get("shop.localhost", "/");
    assert_eq!(response.head.to_lowercase().matches("\ndate:").count(), 1, "{}", response.head);
    assert_eq!(response.header("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
}

#[test]
fn what_is_no_answer_is_said_to_be_none_and_the_client_goes_on() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ] {
        let (world, _) = answering(move |call| {
            call.write(nonsense);
            false
        });
        let mut client = world.client();
        for _ in 0..2 {
            let response = client.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
            assert_eq!(response.status, 502, "{nonsense:?}");
            assert!(response.body.contains("app_answer_invalid"), "{nonsense:?}: {response:?}");
        }
    }
}

#[test]
fn what_is_said_in_place_of_an_answer_has_its_length_once_and_to_head_no_body() {
    let (world, _) = says("nonsense\r\n\r\n");
    let mut client = world.client();
    let mut ask = |method: &str| client.request(&format!("{method} / HTTP/1.1\r\n{HOST}\r\n"));
    let (get, head) = (ask("GET"), ask("HEAD"));
    for response in [&get, &head] {
        assert_eq!(response.status, 502);
        assert_eq!(response.header("content-length"), Some(&*get.body.len().to_string()));
        assert_eq!(response.head.to_lowercase().matches("content-length").count(), 1, "{response:?}");
    }
    assert_eq!(ask("GET").status, 502, "nothing stands before the next answer");
}

#[test]
fn a_head_of_the_app_that_does_not_end_is_given_up() {
    let (world, _) = answering(|call| {
        call.write("HTTP/1.1 200 OK\r\n");
        for _ in 0..90 {
            call.write(&format!("x-filler: {}\r\n", "a".repeat(16 << 10)));
        }
        false
    });
    assert_eq!(world.get("shop.localhost", "/").status, 502);
}

#[test]
fn an_upgrade_may_come_after_ordinary_requests() {
    let (world, _) = answering(|call| {
        if call.head.to_lowercase().contains("upgrade: websocket") {
            call.write(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            );
            let said = call.read_until("\n");
            call.write(&said);
            return false;
        }
        call.respond("plain");
        true
    });
    let mut client = world.client();
    for _ in 0..3 {
        assert_eq!(client.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n")).body, "plain");
    }
    client.send(&format!("GET / HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert!(read_until(&mut client.stream, "\r\n\r\n").unwrap().starts_with("HTTP/1.1 101"));
    client.send("echoed\n");
    assert_eq!(read_until(&mut client.stream, "\n").unwrap(), "echoed\n");
}

#[test]
fn a_mebibyte_comes_as_it_was_sent_and_the_connection_serves_on() {
    let (world, connections) = answering(|call| {
        let body: String = (0..1 << 17).map(|number| format!("{number:08}")).collect();
        call.respond(&body);
        true
    });
    let mut client = world.client();
    for _ in 0..3 {
        let body = client.request(&format!("GET / HTTP/1.1\r\n{HOST}\r\n")).body;
        assert_eq!(body.len(), 1 << 20);
        assert!(
            body.as_bytes().chunks(8).enumerate().all(|(at, part)| part == format!("{at:08}").as_bytes())
        );
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[test]
fn a_long_answer_that_breaks_off_does_so_for_its_client_alone() {
    let (mut world, _) = answering(|call| {
        let length = 4 << 20;
        call.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
        let part = call.head.starts_with("GET /part ");
        call.write(&if part { "x" } else { "y" }.repeat(if part { 3 << 20 } else { length }));
        !part
    });
    let mut other = world.client();
    for _ in 0..3 {
        let mut client = world.client();
        client.send(&format!("GET /part HTTP/1.1\r\n{HOST}\r\n"));
        assert!(read_until(&mut client.stream, "\r\n\r\n").unwrap().starts_with("HTTP/1.1 200"));
        let rest = client.rest();
        assert!(rest.len() == 3 << 20 && rest.bytes().all(|byte| byte == b'x'), "{} bytes", rest.len());
        let whole = other.request(&format!("GET /whole HTTP/1.1\r\n{HOST}\r\n")).body;
        assert!(whole.len() == 4 << 20 && whole.bytes().all(|byte| byte == b'y'));
    }
    drop(other);
    world.tell_to_stop();
    world.ended();
    let log = world.log_text();
    let cut = |line: &&str| line.contains(" GET /part ") && line.contains(" 3145728 cut ");
    assert_eq!(log.lines().filter(cut).count(), 3, "{log}");
}

#[test]
fn who_leaves_in_the_middle_of_a_long_answer_ends_it() {
    let (told, ends) = channel();
    let told = Mutex::new(told);
    let (world, _) = answering(move |call| {
        call.write("HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n");
        call.write(&"x".repeat(1_000_000));
        told.lock().unwrap().send(call.read_to_end()).unwrap();
        false
    });
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"));
    client.stream.read_exact(&mut [0; 1_000_000]).unwrap();
    drop(client);
    assert_eq!(ends.recv_timeout(HANG).unwrap(), b"");
}
