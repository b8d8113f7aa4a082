//! Clients of HTTP/2 and instances that speak HTTP/1: what an answer has there it has here, and what is cut off there never looks whole here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use berth_routing::{ChallengeRoute, Host, Role};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};

use crate::streams::{Caller, collect, edge, whole, within};
use crate::world::{Call, Instance, World, shop, with_hold};

/// An edge whose instance answers each request with what `answer` writes, as long as that says that there may be another, and how many connections
/// the instance had.
fn answering(answer: impl Fn(&mut Call) -> bool + Send + Sync + 'static) -> (World, Arc<AtomicUsize>) {
    let (instance, connections) = Instance::answering(answer);
    (edge(&shop(1, &[(instance.addr, Role::Routed)]), |_| {}), connections)
}

fn says(text: &'static str) -> (World, Arc<AtomicUsize>) {
    answering(move |call| {
        call.write(text);
        true
    })
}

async fn begin(caller: &Caller, method: Method, path: &str) -> h2::client::ResponseFuture {
    let request = Request::builder().method(method).uri(format!("http://shop.localhost{path}"));
    let sender = caller.sender.clone().ready().await;
    sender.unwrap().send_request(request.body(()).unwrap(), true).unwrap().0
}

/// What is answered to a request without a body.
async fn ask(caller: &Caller, method: Method) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    whole(begin(caller, method, "/a?b").await).await
}

#[test]
fn a_request_is_as_an_app_of_http_1_expects_it_and_the_connection_serves_on() {
    let (world, connections) = answering(|call| {
        call.respond(&call.head.clone());
        true
    });
    within(async {
        let caller = Caller::connect(&world).await;
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let (head, body, trailers) = ask(&caller, method.clone()).await;
            let body = String::from_utf8(body).unwrap();
            assert!(body.starts_with(&format!("{method} /a?b HTTP/1.1\r\n")), "{body}");
            assert_eq!(body.matches("\r\nhost: shop.localhost\r\n").count(), 1, "{body}");
            assert_eq!(body.contains("content-length: 0\r\n"), method == Method::POST, "{body}");
            assert!(
                body.contains("x-forwarded-for: 127.0.0.1\r\n") && !body.contains("connection"),
                "{body}"
            );
            assert_eq!(head.headers()["content-length"], body.len().to_string());
            assert!(head.headers().contains_key("date") && trailers.is_none());
        }
        assert_eq!(connections.load(SeqCst), 1);
    });
}

#[test]
fn chunks_and_their_trailer_become_frames() {
    let (world, connections) = says(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: 5\r\ncontent-length: 9\r\n\r\n\
         3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 7\r\nconnection: close\r\n\r\n",
    );
    within(async {
        let caller = Caller::connect(&world).await;
        for _ in 0..2 {
            let (head, body, trailers) = ask(&caller, Method::GET).await;
            assert_eq!(&body[..], b"abcde");
            let trailers = trailers.unwrap();
            assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"7".parse().unwrap()));
            for name in ["content-length", "transfer-encoding", "keep-alive"] {
                assert!(!head.headers().contains_key(name), "{name}");
            }
        }
        assert_eq!(connections.load(SeqCst), 1);
    });
}

#[test]
fn chunks_are_read_however_they_come() {
    let (world, _) = answering(|call| {
        call.stream.set_nodelay(true).unwrap();
        for byte in
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nt: v\r\n\r\n".chars()
        {
            call.write(&byte.to_string());
        }
        true
    });
    within(async {
        let caller = Caller::connect(&world).await;
        for _ in 0..3 {
            let (_, body, trailers) = ask(&caller, Method::GET).await;
            assert_eq!((&body[..], &trailers.unwrap()["t"]), (&b"abcde"[..], &"v".parse().unwrap()));
        }
    });
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    let (world, connections) = answering(|call| {
        call.write("HTTP/1.1 200 OK\r\n\r\nall of it");
        false
    });
    within(async {
        let caller = Caller::connect(&world).await;
        for round in 1..=2 {
            let (_, body, _) = ask(&caller, Method::GET).await;
            assert_eq!((&body[..], connections.load(SeqCst)), (&b"all of it"[..], round));
        }
    });
}

#[test]
fn what_has_no_body_has_none() {
    for (status, method) in [("200 OK", Method::HEAD), ("304 Not Modified", Method::GET)] {
        let (world, connections) = answering(move |call| {
            call.write(&format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n"));
            true
        });
        within(async {
            let caller = Caller::connect(&world).await;
            for _ in 0..2 {
                let (head, body, _) = ask(&caller, method.clone()).await;
                assert!(body.is_empty() && status.starts_with(head.status().as_str()));
                assert_eq!(head.headers()["content-length"], "5");
            }
            assert_eq!(connections.load(SeqCst), 1, "{status}");
        });
    }
}

#[test]
fn what_edge_answers_itself_to_head_has_no_body_either() {
    let mut snapshot = with_hold(shop(1, &[]), 0);
    let host = Host("new.example.com".to_owned());
    let (token, answer) = ("tok-en_1".to_owned(), "tok-en_1.thumb".to_owned());
    snapshot.challenges.push(ChallengeRoute { host, token, answer });
    let mut world = edge(&snapshot, |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        for (path, status) in [("/", 503), ("/.well-known/acme-challenge/tok-en_1", 200)] {
            let (get, page, _) = whole(begin(&caller, Method::GET, path).await).await;
            let (head, none, _) = whole(begin(&caller, Method::HEAD, path).await).await;
            assert_eq!((get.status().as_u16(), head.status().as_u16()), (status, status));
            assert!(!page.is_empty() && none.is_empty());
            for head in [get, head] {
                assert_eq!(head.headers()["content-length"], page.len().to_string());
            }
        }
    });
    world.tell_to_stop();
    world.ended();
    let log = world.log_text();
    assert!(log.contains(" HEAD / HTTP/2 503 0 "), "{log}");
}

#[test]
fn what_comes_before_an_answer_is_not_taken_for_it() {
    let (world, _) =
        says("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    within(async {
        let (head, body, _) = ask(&Caller::connect(&world).await, Method::GET).await;
        assert_eq!((head.status().as_u16(), &body[..]), (200, &b"ok"[..]));
        assert!(!head.headers().contains_key("link"));
    });
}

#[test]
fn an_answer_that_breaks_off_or_is_framed_wrongly_never_looks_whole() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    ] {
        let (mut world, _) = answering(move |call| {
            call.write(text);
            false
        });
        within(async {
            let answer = begin(&Caller::connect(&world).await, Method::GET, "/").await.await;
            // It may be reset before its head was looked at.
            if let Ok(answer) = answer {
                assert!(collect(&mut answer.into_body()).await.is_err(), "{text:?}");
            }
        });
        // The log says so, too.
        world.tell_to_stop();
        world.ended();
        assert!(world.log_text().contains(" cut "), "{}", world.log_text());
    }
}

#[test]
fn what_is_no_answer_is_said_to_be_none() {
    for text in
        ["nonsense\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-le", ""]
    {
        let (world, _) = answering(move |call| {
            call.write(text);
            false
        });
        within(async {
            let (head, ..) = ask(&Caller::connect(&world).await, Method::POST).await;
            assert_eq!(head.status().as_u16(), 502, "{text:?}");
        });
    }
}

/// What an app says beyond its answer is no answer to the next request.
#[test]
fn what_follows_an_answer_unasked_reaches_nobody() {
    let (world, connections) = says(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    );
    within(async {
        let caller = Caller::connect(&world).await;
        for round in 1..=3 {
            let (_, body, _) = ask(&caller, Method::GET).await;
            assert_eq!((&body[..], connections.load(SeqCst)), (&b"ok"[..], round));
        }
    });
}

/// A connection that the app closed while nobody used it costs a request that may be repeated nothing.
#[test]
fn a_connection_that_was_closed_meanwhile_is_tried_once_and_then_another() {
    let (world, connections) = answering(|call| {
        // The second request on a connection is read and not answered.
        let first = call.head.contains("GET /first ");
        if first {
            call.respond("ok");
        }
        first
    });
    within(async {
        let caller = Caller::connect(&world).await;
        for _ in 0..2 {
            let (_, body, _) = whole(begin(&caller, Method::GET, "/first").await).await;
            assert_eq!(&body[..], b"ok");
        }
        let (head, ..) = whole(begin(&caller, Method::GET, "/second").await).await;
        assert_eq!((head.status().as_u16(), connections.load(SeqCst)), (502, 2), "once more, and no oftener");
    });
}

#[test]
fn a_mebibyte_comes_as_it_was_sent() {
    let text: String = (0..1 << 20).map(|place: u32| char::from(b'a' + (place % 23) as u8)).collect();
    let sent = Bytes::from(text.clone());
    let (world, connections) = answering(move |call| {
        call.respond(&text);
        true
    });
    within(async {
        let caller = Caller::connect(&world).await;
        for _ in 0..2 {
            assert!(ask(&caller, Method::GET).await.1 == sent);
        }
        assert_eq!(connections.load(SeqCst), 1);
    });
}

#[test]
fn a_client_that_takes_its_request_back_ends_it_at_the_app() {
    let (told, left) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let (world, _) = answering(move |call| {
        told.lock().unwrap().send(call.head.clone()).unwrap();
        told.lock().unwrap().send(String::from_utf8(call.read_to_end()).unwrap()).unwrap();
        false
    });
    within(async {
        let caller = Caller::connect(&world).await;
        let answer = begin(&caller, Method::GET, "/slow").await;
        let left = tokio::task::spawn_blocking(move || {
            let head = left.recv().unwrap();
            (head, left)
        });
        let (head, left) = left.await.unwrap();
        assert!(head.starts_with("GET /slow "), "{head}");
        drop(answer);
        let rest = tokio::task::spawn_blocking(move || left.recv().unwrap()).await.unwrap();
        assert_eq!(rest, "");
    });
}
