//! HTTP/2 to instances: calls and their trailers, places on connections, what is taken back, refused, sent again, drained and timed out.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_edge::ExitReason;
use berth_routing::wire::{FromEdge, Health};
use berth_routing::{ProbePath, Role};
use berth_spec::Millis;
use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, StatusCode};
use tokio::sync::{Notify, mpsc};

use crate::streams::{
    Call, Caller, checked, collect, edge, framed, instance, leaving, trailers, whole, within,
};
use crate::world::World;

fn settings() -> h2::server::Builder {
    h2::server::Builder::new()
}

#[test]
fn a_call_has_its_trailers_and_what_the_app_is_promised() {
    let addr = instance(settings(), |mut call: Call| async move {
        let (body, trailers) = call.body().await.unwrap();
        let head = call.request.headers();
        assert_eq!(
            (head["te"].as_bytes(), head["x-forwarded-host"].as_bytes()),
            (&b"trailers"[..], &b"shop.localhost"[..])
        );
        assert_eq!(head["grpc-timeout"], "5S");
        assert_eq!(call.request.uri(), "http://shop.localhost/shop.Orders/Get");
        assert!(!head.contains_key("host") && head.contains_key("traceparent"));
        assert_eq!((&body[..], &trailers.unwrap()["x-sum"]), (&b"order"[..], &"7".parse().unwrap()));
        call.finish(b"paid", "0");
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let request = Request::post("http://shop.localhost/shop.Orders/Get")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .header("grpc-timeout", "5S")
            .body(());
        let (answer, mut body) = caller.sender.clone().send_request(request.unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"order"), false).unwrap();
        body.send_trailers([("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()).unwrap();
        let (head, data, said) = whole(answer).await;
        assert_eq!((head.status(), &data[..]), (StatusCode::OK, &b"paid"[..]));
        assert_eq!(said.unwrap(), trailers("0"));
    });
}

#[test]
fn a_client_of_http_1_reaches_it_too() {
    let addr = instance(settings(), |mut call: Call| async move {
        let (body, _) = call.body().await.unwrap();
        let said =
            format!("{} {} {}", call.request.method(), call.request.uri(), String::from_utf8_lossy(&body));
        let head = Response::builder().header("content-length", said.len()).body(()).unwrap();
        call.respond.send_response(head, false).unwrap().send_data(Bytes::from(said), true).unwrap();
    });
    let world = World::serving(&framed(1, &[(addr, Role::Routed)]));
    let mut client = world.client();
    let answer = client.request("POST /a?b HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!((answer.status, &*answer.body), (200, "POST http://shop.localhost/a?b abc"));
    let answer = client.request(
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    );
    assert_eq!(
        (answer.status, &*answer.body),
        (200, "GET http://shop.localhost/ "),
        "there is nothing to upgrade to"
    );
}

#[test]
fn requests_share_connections_as_far_as_the_instance_takes_them() {
    let (most, under_way) = (Arc::new(Mutex::new([0_usize; 64])), Arc::new(AtomicUsize::new(0)));
    let (seen, counted, go) = (Arc::clone(&most), Arc::clone(&under_way), Arc::new(Notify::new()));
    let gate = Arc::clone(&go);
    let addr = instance(settings().max_concurrent_streams(3).clone(), move |mut call: Call| {
        let (seen, counted, gate) = (Arc::clone(&seen), Arc::clone(&counted), Arc::clone(&gate));
        async move {
            call.body().await.unwrap();
            let held = gate.notified();
            if call.request.uri().path() == "/hold" {
                seen.lock().unwrap()[call.connection] += 1;
                counted.fetch_add(1, SeqCst);
                held.await;
            }
            call.finish(b"", "0");
        }
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        // From here on edge knows what the instance takes.
        caller.unary("/first", Vec::new()).await;
        let mut calls = Vec::new();
        for _ in 0..12 {
            let (answer, mut body) = caller.call("/hold").await;
            body.send_data(Bytes::new(), true).unwrap();
            calls.push(answer);
        }
        while under_way.load(SeqCst) < 12 {
            // wait: for all of them to be there.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let most: Vec<usize> = most.lock().unwrap().iter().copied().filter(|count| *count > 0).collect();
        assert_eq!(most, [3, 3, 3, 3], "no more connections than the requests need, whatever comes at once");
        go.notify_waiters();
        for call in calls {
            assert_eq!(whole(call).await.2.unwrap(), trailers("0"));
        }
    });
}

#[test]
fn a_length_is_said_once_or_not_at_all() {
    let addr = instance(settings(), |mut call: Call| async move {
        call.body().await.unwrap();
        call.finish(b"done", "0");
    });
    let mut world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        for (lengths, status) in [(&["0"][..], 200), (&["0", "0"], 400)] {
            let request = Request::get("http://shop.localhost/");
            let request =
                lengths.iter().fold(request, |request, length| request.header("content-length", *length));
            let (answer, _) = caller.sender.clone().send_request(request.body(()).unwrap(), true).unwrap();
            assert_eq!(whole(answer).await.0.status(), status, "{lengths:?}");
        }
    });
    world.tell_to_stop();
    world.ended();
    let log = world.log_text();
    assert!(log.contains(" 127.0.0.1 shop.localhost GET / HTTP/2 200 "), "{log}");
}

#[test]
fn both_sides_talk_at_once() {
    let addr = instance(settings(), |mut call: Call| async move {
        let mut out = call.begin();
        let body = call.request.body_mut();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            if !piece.is_empty() {
                out.send_data(Bytes::from([b"echo ", &piece[..]].concat()), false).unwrap();
            }
        }
        out.send_trailers(trailers("0")).unwrap();
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (answer, mut out) = caller.call("/talk").await;
        let mut body = answer.await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            out.send_data(Bytes::from(word), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), format!("echo {word}"));
        }
        out.send_data(Bytes::new(), true).unwrap();
        assert_eq!(collect(&mut body).await.unwrap(), (Vec::new(), Some(trailers("0"))));
    });
}

#[test]
fn what_a_client_takes_back_the_app_hears_of_and_never_takes_for_complete() {
    let (told, mut heard) = mpsc::channel(64);
    let addr = instance(settings(), move |mut call: Call| {
        let told = told.clone();
        async move {
            let path = call.request.uri().path().to_owned();
            if path == "/answering" {
                let mut out = call.begin();
                out.send_data(Bytes::from_static(b"first"), false).unwrap();
                told.try_send(format!("began {path}")).unwrap();
                let reason = std::future::poll_fn(|cx| out.poll_reset(cx)).await.unwrap();
                told.try_send(format!("reset {reason:?}")).unwrap();
                return;
            }
            call.request.body_mut().data().await.unwrap().unwrap();
            told.try_send(format!("began {path}")).unwrap();
            let end = call.body().await;
            told.try_send(format!("{:?}", end.map(|_| "complete").map_err(|error| error.reason()))).unwrap();
        }
    });
    let mut world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (_answer, mut body) = caller.call("/sending").await;
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        assert_eq!(heard.recv().await.unwrap(), "began /sending");
        body.send_reset(Reason::CANCEL);
        assert_eq!(heard.recv().await.unwrap(), "Err(Some(CANCEL))");

        let (answer, mut body) = caller.call("/answering").await;
        assert_eq!(heard.recv().await.unwrap(), "began /answering");
        let mut taken = answer.await.unwrap().into_body();
        assert_eq!(taken.data().await.unwrap().unwrap(), "first");
        body.send_reset(Reason::CANCEL);
        assert_eq!(heard.recv().await.unwrap(), "reset CANCEL");
    });
    // Nothing of theirs is left.
    world.apply(&framed(2, &[(addr, Role::Parked)]));
    world.control.wait_drained(1);
}

#[test]
fn an_answer_that_the_app_resets_never_looks_complete() {
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        let addr = instance(settings(), move |mut call: Call| async move {
            let mut out = call.begin();
            out.send_data(Bytes::from_static(b"half"), false).unwrap();
            call.body().await.unwrap();
            out.send_reset(reason);
        });
        let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
        within(async {
            let caller = Caller::connect(&world).await;
            let (answer, mut body) = caller.call("/").await;
            let mut taken = answer.await.unwrap().into_body();
            assert_eq!(taken.data().await.unwrap().unwrap(), "half");
            body.send_data(Bytes::new(), true).unwrap();
            let end = collect(&mut taken).await.unwrap_err();
            assert!(end.is_reset() && end.is_remote(), "{reason:?}: {end}");
        });
    }
}

#[test]
fn what_an_instance_did_nothing_with_is_sent_again_with_its_body() {
    let (told, mut heard) = mpsc::channel(64);
    let then = instance(settings(), move |mut call: Call| {
        let told = told.clone();
        async move {
            told.try_send(call.body().await.unwrap().0).unwrap();
            call.finish(b"done", "0");
        }
    });
    let world = edge(&framed(1, &[(leaving(then), Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (answer, mut body) = caller.call("/buy").await;
        body.send_data(Bytes::from_static(b"one "), false).unwrap();
        body.send_data(Bytes::from_static(b"thing"), true).unwrap();
        let (head, data, said) = whole(answer).await;
        assert_eq!((head.status(), &data[..], said), (StatusCode::OK, &b"done"[..], Some(trailers("0"))));
        assert_eq!(heard.recv().await.unwrap(), b"one thing");
        assert!(heard.try_recv().is_err(), "it came once");
    });
}

#[test]
fn a_stream_that_is_refused_is_sent_again_and_not_for_ever() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let addr = instance(settings(), move |mut call: Call| {
        let tries = counted.fetch_add(1, SeqCst);
        async move {
            if tries < 2 || call.request.uri().path() == "/never" {
                call.respond.send_reset(Reason::REFUSED_STREAM);
                return;
            }
            call.body().await.unwrap();
            call.finish(b"", "0");
        }
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        assert_eq!(caller.unary("/buy", b"x".to_vec()).await.2, Some(trailers("0")));
        assert_eq!(tries.swap(0, SeqCst), 3);
        let (head, ..) = caller.unary("/never", b"x".to_vec()).await;
        assert_eq!(head.headers()["grpc-status"], "14");
        // The budget for repeats, of which a new app has some, bounds what follows after three that are free.
        assert!(tries.load(SeqCst) < 200, "{}", tries.load(SeqCst));
    });
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let addr = instance(settings(), move |mut call: Call| {
        counted.fetch_add(1, SeqCst);
        async move {
            call.body().await.unwrap();
            call.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (head, _, said) = caller.unary("/buy", b"x".to_vec()).await;
        assert_eq!(
            (head.status(), &head.headers()["grpc-status"], said),
            (StatusCode::OK, &"14".parse().unwrap(), None)
        );
        let message = head.headers()["grpc-message"].to_str().unwrap();
        assert!(message.contains("app_gave_no_answer, request "), "{message}");
        assert_eq!(tries.load(SeqCst), 1);
    });
}

#[test]
fn a_client_of_grpc_is_answered_so_that_it_understands() {
    let mut world = edge(&crate::world::with_hold(framed(1, &[]), 0), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (head, data, said) = caller.unary("/buy", b"x".to_vec()).await;
        assert_eq!((head.status(), head.headers()["grpc-status"].as_bytes()), (StatusCode::OK, &b"14"[..]));
        assert_eq!(
            (data, said, head.headers()["content-type"].as_bytes()),
            (Vec::new(), None, &b"application/grpc"[..])
        );
        let other = Request::post("http://blog.localhost/")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, _) = caller.sender.clone().send_request(other, true).unwrap();
        assert_eq!(whole(answer).await.0.headers()["grpc-status"], "12");
        let page = Request::get("http://blog.localhost/").body(()).unwrap();
        let (answer, _) = caller.sender.clone().send_request(page, true).unwrap();
        assert_eq!(
            whole(answer).await.0.status(),
            StatusCode::NOT_FOUND,
            "any other client gets what it knows"
        );
    });
    // The log has what it stands for, and no page that was not sent.
    world.tell_to_stop();
    assert_eq!(world.ended(), ExitReason::Drained);
    let log = world.log_text();
    assert!(log.contains(" shop.localhost POST /buy HTTP/2 503 0 "), "{log}");
    assert!(log.contains(" blog.localhost POST / HTTP/2 404 0 "), "{log}");
}

#[test]
fn an_answer_has_its_time_and_the_app_hears_when_it_is_over() {
    let (told, mut heard) = mpsc::channel(64);
    let addr = instance(settings(), move |mut call: Call| {
        let told = told.clone();
        async move {
            call.body().await.unwrap();
            let reason = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await;
            told.try_send(reason.unwrap()).unwrap();
        }
    });
    let mut snapshot = framed(1, &[(addr, Role::Routed)]);
    for app in snapshot.apps.values_mut() {
        app.backends.iter_mut().for_each(|backend| backend.request_timeout = Some(Millis(100)));
    }
    let world = edge(&snapshot, |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (head, ..) = caller.unary("/slow", b"x".to_vec()).await;
        assert_eq!(head.headers()["grpc-status"], "14");
        assert!(head.headers()["grpc-message"].to_str().unwrap().contains("app_timed_out"));
        assert_eq!(heard.recv().await.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn a_stream_under_way_holds_up_the_drain_and_nothing_else_of_its_connection_does() {
    let (began, arrived) = channel();
    let began = Mutex::new(began);
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let old = instance(settings(), move |mut call: Call| {
        let gate = Arc::clone(&gate);
        began.lock().unwrap().send(()).unwrap();
        async move {
            let mut out = call.begin();
            gate.notified().await;
            out.send_trailers(trailers("0")).unwrap();
        }
    });
    let new = instance(settings(), |mut call: Call| async move { call.finish(b"new", "0") });
    let mut world = edge(&framed(1, &[(old, Role::Routed), (new, Role::Candidate)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let (answer, _body) = caller.call("/watch").await;
        let mut taken = answer.await.unwrap().into_body();
        arrived.recv().unwrap();
        world.apply(&framed(2, &[(old, Role::Parked), (new, Role::Routed)]));
        assert_eq!(caller.unary("/", Vec::new()).await.1, b"new");
        go.notify_one();
        assert_eq!(collect(&mut taken).await.unwrap().1, Some(trailers("0")));
        let (_, before) = world.control.wait_drained(1);
        assert!(!before.iter().any(|it| matches!(it, FromEdge::Still { .. })), "{before:?}");
    });
}

#[test]
fn health_is_asked_by_http_2_and_by_what_grpc_has_for_it() {
    let serves = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&serves);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        crate::streams::alone(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(
                        (request.method().as_str(), request.uri().path()),
                        ("POST", "/grpc.health.v1.Health/Check")
                    );
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let status = if asked.fetch_add(1, SeqCst) < 3 { 2 } else { 1 };
                    let head =
                        Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut out = respond.send_response(head, false).unwrap();
                    out.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false).unwrap();
                    out.send_trailers(trailers("0")).unwrap();
                }
            }
        });
    });
    let path = ProbePath::Strict("/grpc.health.v1.Health/Check".to_owned());
    let mut world = edge(&checked(1, &[(addr, Role::Candidate)], path), |_| {});
    let (health, _) = world.control.wait(|it| matches!(it, FromEdge::Health { health: Health::Ready, .. }));
    let FromEdge::Health { evidence, .. } = health else { unreachable!() };
    assert!(evidence.iter().any(|line| line.contains("answered 503")), "{evidence:?}");
    assert!(serves.load(SeqCst) >= 4);
}

#[test]
fn an_instance_that_fails_by_its_trailers_is_passed_over() {
    let bad = instance(settings(), |mut call: Call| async move {
        call.body().await.unwrap();
        call.finish(b"", "13");
    });
    let good = instance(settings(), |mut call: Call| async move {
        call.body().await.unwrap();
        call.finish(b"", "0");
    });
    let world = edge(&framed(1, &[(bad, Role::Routed), (good, Role::Routed)]), |_| {});
    within(async {
        let caller = Caller::connect(&world).await;
        let mut well = 0;
        // The thread that decides looks from time to time.
        while well < 50 {
            let said = caller.unary("/", Vec::new()).await.2.unwrap();
            well = if said == trailers("0") { well + 1 } else { 0 };
        }
    });
}

#[test]
fn http_2_without_tls_is_taken_from_outside_only_where_edge_was_told_so() {
    let addr = instance(settings(), |mut call: Call| async move { call.finish(b"", "0") });
    let world = World::serving(&framed(1, &[(addr, Role::Routed)]));
    let mut client = world.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let said = client.rest();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");

    let world = edge(&framed(1, &[(addr, Role::Routed)]), |_| {});
    // In pieces, and with what begins alike.
    let mut client = world.client();
    for piece in ["P", "OST /x HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0\r\n\r\n"] {
        client.send(piece);
        std::thread::yield_now();
    }
    assert_eq!(client.response(true).unwrap().status, 200);
    let mut client = world.client();
    for piece in ["PRI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n"] {
        client.send(piece);
        std::thread::yield_now();
    }
    client.stream.set_read_timeout(Some(crate::world::HANG)).unwrap();
    let mut frame = [0; 9];
    std::io::Read::read_exact(&mut client.stream, &mut frame).unwrap();
    assert_eq!(frame[3], 4, "its own settings: {frame:?}");
}

#[test]
fn a_stream_whose_client_takes_nothing_is_ended_while_others_move() {
    let (told, mut heard) = mpsc::channel(64);
    let addr = instance(settings(), move |mut call: Call| {
        let told = told.clone();
        async move {
            if call.request.uri().path() == "/quick" {
                return call.finish(b"here", "0");
            }
            let mut out = call.begin();
            out.reserve_capacity(1 << 20);
            loop {
                match std::future::poll_fn(|cx| match out.poll_reset(cx) {
                    std::task::Poll::Ready(reason) => std::task::Poll::Ready(Err(reason.unwrap())),
                    std::task::Poll::Pending => out.poll_capacity(cx).map(Ok),
                })
                .await
                {
                    Err(reason) => {
                        told.try_send(reason).unwrap();
                        return;
                    }
                    Ok(Some(Ok(room))) => {
                        out.send_data(Bytes::from(vec![7; room]), false).unwrap();
                        out.reserve_capacity(1 << 20);
                    }
                    Ok(_) => return,
                }
            }
        }
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |options| {
        options.limits.patience.stall = Duration::from_millis(400);
    });
    within(async {
        let mut settings = h2::client::Builder::new();
        settings.initial_window_size(64 << 10).initial_connection_window_size(8 << 20);
        let caller = Caller::with(&world, &settings).await;
        let (answer, _body) = caller.call("/endless").await;
        let mut taken = answer.await.unwrap().into_body();
        // It reads nothing of the one, and the others on the same connection move all the while.
        let ended = async {
            loop {
                assert_eq!(caller.unary("/quick", Vec::new()).await.1, b"here");
                if let Ok(reason) = heard.try_recv() {
                    return reason;
                }
            }
        };
        assert_eq!(ended.await, Reason::CANCEL);
        let error = loop {
            match taken.data().await {
                Some(Ok(_piece)) => {}
                Some(Err(error)) => break error,
                None => panic!("it looks complete"),
            }
        };
        assert!(error.is_reset(), "{error}");
        assert_eq!(caller.unary("/quick", Vec::new()).await.1, b"here", "the connection lives on");
    });
}

#[test]
fn a_stream_that_waits_for_its_app_or_is_read_slowly_lives_on() {
    let addr = instance(settings(), |mut call: Call| async move {
        let mut out = call.begin();
        out.send_data(Bytes::from(vec![7; 60_000]), false).unwrap();
        // wait: for longer than a client has to take something.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        out.send_trailers(trailers("0")).unwrap();
    });
    let world = edge(&framed(1, &[(addr, Role::Routed)]), |options| {
        options.limits.patience.stall = Duration::from_secs(2);
    });
    within(async {
        let mut settings = h2::client::Builder::new();
        settings.initial_window_size(8 << 10);
        let caller = Caller::with(&world, &settings).await;
        let (answer, _body) = caller.call("/slow").await;
        let mut taken = answer.await.unwrap().into_body();
        let mut all = 0;
        while let Some(piece) = taken.data().await {
            all += piece.as_ref().unwrap().len();
            // wait: as a slow reader does.
            tokio::time::sleep(Duration::from_millis(40)).await;
            taken.flow_control().release_capacity(piece.unwrap().len()).unwrap();
        }
        assert_eq!((all, taken.trailers().await.unwrap()), (60_000, Some(trailers("0"))));
    });
}
