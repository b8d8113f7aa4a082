//! Requests that two parsers could read in two ways are refused, and forged headers go no further.

use std::sync::mpsc::TryRecvError;

use berth_routing::Role;

use crate::world::{Instance, Response, World, shop};

const HOST: &str = "Host: shop.localhost\r\n";

/// Sends `text` to an edge with one mirroring instance; gives the answer and whether anything reached the instance.
fn exchange(text: &str) -> (Response, bool) {
    let (instance, seen) = Instance::mirror();
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let response = world.client().request(text);
    (response, seen.try_recv() != Err(TryRecvError::Empty))
}

#[test]
fn ambiguous_requests_are_refused_before_anything_is_sent_on() {
    let (instance, seen) = Instance::mirror();
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    for (what, request) in [
        (
            "length and chunked",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "chunked and length",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "two equal lengths",
            format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
        ),
        ("two lengths", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ("a list of lengths", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 1, 1\r\n\r\na")),
        ("a signed length", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: +1\r\n\r\na")),
        (
            "gzip before chunked",
            format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "an unknown coding",
            format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        ("chunked in 1.0", format!("POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("two hosts", format!("GET / HTTP/1.1\r\n{HOST}Host: evil.localhost\r\n\r\n")),
        ("two equal hosts", format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: shop.localhost/x\r\n\r\n".to_owned()),
        ("a host with a user", "GET / HTTP/1.1\r\nHost: a@shop.localhost\r\n\r\n".to_owned()),
        ("two names in a host", "GET / HTTP/1.1\r\nHost: shop.localhost, evil\r\n\r\n".to_owned()),
        ("a folded line", format!("GET / HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n")),
        ("a blank before the colon", format!("GET / HTTP/1.1\r\n{HOST}Content-Length : 1\r\n\r\na")),
        ("a bare line feed after the request line", format!("GET / HTTP/1.1\n{HOST}\r\n")),
        ("a bare line feed after a header", "GET / HTTP/1.1\r\nHost: shop.localhost\n\r\n".to_owned()),
        ("a bare line feed at the end", format!("GET / HTTP/1.1\r\n{HOST}\n")),
        ("a bare carriage return", format!("GET / HTTP/1.1\r\n{HOST}X: a\rb\r\n\r\n")),
        ("a NUL", format!("GET / HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n")),
        ("a blank in the target", format!("GET /a b HTTP/1.1\r\n{HOST}\r\n")),
        ("no version", "GET /\r\n\r\n".to_owned()),
        ("an asterisk of another method", format!("GET * HTTP/1.1\r\n{HOST}\r\n")),
        ("another scheme", format!("GET ftp://shop.localhost/ HTTP/1.1\r\n{HOST}\r\n")),
        ("a user in the target", format!("GET http://a@shop.localhost/ HTTP/1.1\r\n{HOST}\r\n")),
    ] {
        let mut client = world.client();
        let response = client.request(&request);
        assert_eq!(response.status, 400, "{what}: {response:?}");
        assert!(client.is_closed(), "{what}: the connection must end");
        assert_eq!(seen.try_recv(), Err(TryRecvError::Empty), "{what}");
    }
}

#[test]
fn a_refused_head_is_noticed_however_it_arrives() {
    let (instance, _seen) = Instance::mirror();
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    let mut client = world.client();
    let good = format!("GET / HTTP/1.1\r\n{HOST}\r\n");
    for byte in
        format!("{good}POST / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\nX").chars()
    {
        client.send(&byte.to_string());
    }
    assert_eq!(client.response(true).unwrap().status, 200, "the request before is answered");
    assert_eq!(client.response(true).unwrap().status, 400);
    assert!(client.is_closed());
}

#[test]
fn a_smuggled_second_request_is_never_one() {
    let (response, reached) = exchange(&format!(
        "POST / HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n{HOST}\r\n"
    ));
    assert_eq!((response.status, reached), (400, false));
}

#[test]
fn a_bad_chunk_is_the_clients_fault_and_ends_the_call() {
    let (told, ends) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let instance = Instance::scripted(move |mut call| {
        drop(told.lock().unwrap().send(call.read_to_end()));
    });
    let world = World::serving(&shop(1, &[(instance.addr, Role::Routed)]));
    for bad in ["zz\r\n", "2\r\nabc\r\n", "2\nab\r\n", "-1\r\n", "\r\n"] {
        let response = world
            .client()
            .request(&format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n{bad}"));
        assert_eq!(response.status, 400, "{bad:?}");
        assert!(response.body.contains("bad_request_body"), "{bad:?}: {}", response.body);
        let seen = ends.recv_timeout(crate::world::HANG).unwrap();
        assert!(!seen.ends_with(b"0\r\n\r\n"), "{bad:?}: the instance must not take it for complete");
    }
}

#[test]
fn the_target_wins_over_the_host_header() {
    let (response, _) =
        exchange("GET http://shop.localhost:80/a?b HTTP/1.1\r\nHost: nowhere.localhost\r\n\r\n");
    assert_eq!(response.status, 200);
    assert!(response.body.starts_with("GET /a?b HTTP/1.1\r\n"), "{}", response.body);
    assert!(response.body.contains("host: shop.localhost:80\r\n"), "{}", response.body);
    assert!(!response.body.contains("nowhere"));
}

#[test]
fn what_is_wrong_is_said() {
    for (request, text) in [
        (format!("GET * HTTP/1.1\r\n{HOST}\r\n"), "neither a path nor"),
        (format!("GET ftp://shop.localhost/ HTTP/1.1\r\n{HOST}\r\n"), "neither a path nor"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), "exactly one valid host"),
    ] {
        let (response, reached) = exchange(&request);
        assert!(!reached && response.body.contains(text), "{request:?}: {response:?}");
    }
    // What edge says itself is logged with its length.
    let mut world = World::serving(&shop(1, &[]));
    let none = world.get("blog.localhost", "/");
    world.tell_to_stop();
    world.ended();
    let log = world.log_text();
    assert!(log.contains(&format!(" blog.localhost GET / HTTP/1.1 404 {} ", none.body.len())), "{log}");
    assert_eq!(
        exchange(&format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n")).0.status,
        200,
        "of a server as a whole"
    );
}

#[test]
fn connect_is_refused() {
    let (response, reached) = exchange(&format!("CONNECT shop.localhost:443 HTTP/1.1\r\n{HOST}\r\n"));
    assert_eq!((response.status, reached), (405, false));
}

#[test]
fn heads_and_targets_are_limited() {
    let (long, _) = exchange(&format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(9_000)));
    assert_eq!(long.status, 414);
    let (big, _) = exchange(&format!("GET / HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "a".repeat(40_000)));
    assert_eq!(big.status, 431);
    let (many, _) = exchange(&format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "X: a\r\n".repeat(120)));
    assert_eq!(many.status, 431);
}

#[test]
fn forged_headers_are_replaced_and_hop_by_hop_ones_end_here() {
    let (response, _) = exchange(&format!(
        "GET / HTTP/1.1\r\n{HOST}X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Request-Id: evil\r\nConnection: keep-alive\r\n\
         Connection: X-Secret, X-Forwarded-For\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: evil\r\n\
         traceparent: evil\r\nX-Kept: yes\r\n\r\n"
    ));
    let head = &response.body;
    for gone in ["6.6.6.6", "evil", "https", "x-secret", "keep-alive", "forwarded: for", "x_forwarded"] {
        assert!(!head.to_lowercase().contains(gone), "{gone} in {head}");
    }
    for there in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: shop.localhost\r\n",
        "x-kept: yes\r\n",
        "traceparent: 00-",
    ] {
        assert!(head.contains(there), "{there} in {head}");
    }
    let id = head.split("x-request-id: ").nth(1).unwrap().split('\r').next().unwrap();
    assert_eq!(id.len(), 32, "{id}");
}
