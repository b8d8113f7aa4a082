//! What is answered from what is stored, and what must not be.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use berth_routing::wire::FromEdge;
use berth_routing::{CacheRoute, Generation, Role, Share, Snapshot};
use berth_spec::{Bytes, ReleaseNumber};

use crate::world::{HANG, Instance, Options, Response, World, shop};

const FRESH: &str = "cache-control: max-age=60\r\n";

fn cached(mut snapshot: Snapshot, release: u64) -> Snapshot {
    for app in snapshot.apps.values_mut() {
        let release = ReleaseNumber(release);
        app.cache = Some(CacheRoute { release, size: Bytes(1 << 20), max_body: Bytes(4 << 10) });
    }
    snapshot
}

/// Answers each request by its head, and passes the heads on.
fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (Instance, Receiver<String>) {
    let (heads, seen) = channel();
    let heads = Mutex::new(heads);
    let instance = Instance::scripted(move |mut call| {
        drop(heads.lock().unwrap().send(call.head.clone()));
        let text = answer(&call.head);
        call.write(&text);
    });
    (instance, seen)
}

/// One that closes its connection.
fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn serving(instance: &Instance) -> World {
    World::serving(&cached(shop(1, &[(instance.addr, Role::Routed)]), 1))
}

fn ask(world: &World, method: &str, path: &str, headers: &str) -> Response {
    world.client().request(&format!("{method} {path} HTTP/1.1\r\nHost: shop.localhost\r\n{headers}\r\n"))
}

fn get(world: &World, path: &str, headers: &str) -> Response {
    ask(world, "GET", path, headers)
}

fn said(response: &Response) -> &str {
    response.header("cache-status").unwrap_or("nothing")
}

#[test]
fn what_is_fresh_is_answered_without_the_app() {
    let tag = "etag: \"a\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let (instance, seen) = answering(move |_| answer("200 OK", &format!("{FRESH}{tag}"), "page"));
    let world = serving(&instance);
    let first = get(&world, "/a?b", "");
    assert_eq!((first.status, &*first.body, said(&first)), (200, "page", "berth; fwd=uri-miss; stored"));
    assert!(first.header("age").is_none());
    let second = get(&world, "/a?b", "cookie: berth=1\r\n");
    assert_eq!(said(&second), "berth; fwd=bypass", "who says who he is gets what the app has for him");
    assert_eq!(seen.try_iter().count(), 2);
    let second = get(&world, "/a?b", "");
    assert_eq!((second.status, &*second.body, second.header("content-length")), (200, "page", Some("4")));
    assert!(said(&second).starts_with("berth; hit; ttl="), "{second:?}");
    let age: u64 = second.header("age").unwrap().parse().unwrap();
    assert!(age < 60 && second.header("date").is_some() && second.header("etag") == Some("\"a\""));
    let head = ask(&world, "HEAD", "/a?b", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    for condition in ["if-none-match: \"b\", W/\"a\"", "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT"] {
        let unchanged = get(&world, "/a?b", &format!("{condition}\r\n"));
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some("\"a\"")));
    }
    assert_eq!(seen.try_iter().count(), 0);
    for (path, headers) in [("/a?c", ""), ("/A?b", ""), ("/a%3fb", ""), ("/a?b", "range: bytes=0-1\r\n")] {
        assert_eq!(get(&world, path, headers).status, 200);
        assert_eq!(seen.try_iter().count(), 1, "{path} {headers}");
    }
    let lines = log_of(world);
    let from_store = lines.lines().filter(|line| line.contains(" cache ")).count();
    assert_eq!(from_store, 4, "{lines}");
}

/// The log of a world that has ended.
fn log_of(mut world: World) -> String {
    world.tell_to_stop();
    world.ended();
    world.log_text()
}

#[test]
fn what_the_app_does_not_give_a_time_or_a_client_alone_is_not_stored() {
    let (instance, seen) = answering(|head| match head.split(' ').nth(1).unwrap() {
        "/private" => answer("200 OK", "cache-control: Private, max-age=60\r\n", "x"),
        "/no-store" => answer("200 OK", "cache-control: max-age=60\r\ncache-control: No-Store\r\n", "x"),
        "/cookie" => answer("200 OK", &format!("{FRESH}set-cookie: session=1\r\n"), "x"),
        "/vary" => answer("200 OK", &format!("{FRESH}vary: *\r\n"), "x"),
        "/error" => answer("500 Oh", FRESH, "x"),
        "/account/x.css" if head.contains("session=") => answer("200 OK", FRESH, "secret"),
        "/encoded" => answer("200 OK", &format!("{FRESH}content-encoding: gzip\r\n"), "x"),
        "/id" => answer("200 OK", &format!("{FRESH}vary: x-request-id\r\n"), "x"),
        _ => answer("200 OK", "", "x"),
    });
    let world = serving(&instance);
    for path in ["/", "/private", "/no-store", "/cookie", "/vary", "/error", "/encoded", "/id", "/style.css"]
    {
        for _ in 0..2 {
            assert!(!said(&get(&world, path, "")).contains("hit"));
        }
        assert_eq!(seen.try_iter().count(), 2, "{path}");
    }
    // What a page of one's own is called says nothing of who may see it.
    assert_eq!(get(&world, "/account/x.css", "cookie: session=1\r\n").body, "secret");
    assert_eq!(get(&world, "/account/x.css", "").body, "x");
    assert_eq!(get(&world, "/account/x.css", "authorization: Basic eA==\r\n").body, "x");
}

#[test]
fn what_is_for_everybody_is_given_to_those_who_say_who_they_are() {
    let (instance, seen) = answering(|_| answer("200 OK", "cache-control: public, max-age=60\r\n", "x"));
    let world = serving(&instance);
    for who in ["cookie: a=b\r\n", "authorization: Basic eA==\r\n", ""] {
        assert_eq!(get(&world, "/", who).body, "x");
    }
    assert_eq!(seen.try_iter().count(), 1);
}

#[test]
fn nobody_puts_something_of_his_own_into_what_others_get() {
    // An app that believes whatever it reads.
    let (instance, seen) = answering(|head| answer("200 OK", FRESH, &head.to_lowercase()));
    let world = serving(&instance);
    let evil = [
        "x-forwarded-host: evil\r\n",
        "x_forwarded_host: evil\r\n",
        "x-forwarded-scheme: evil\r\n",
        "forwarded: host=evil\r\n",
        "x-host: evil\r\n",
        "x-original-url: /evil\r\n",
        "x-http-method-override: evil\r\n",
        "cookie: evil=evil\r\n",
    ];
    for (number, line) in evil.iter().enumerate() {
        let path = format!("/{number}");
        let _whatever = get(&world, &path, line);
        let clean = get(&world, &path, "");
        assert!(clean.status == 200 && !clean.body.contains("evil"), "{line}: {}", clean.body);
    }
    assert!(seen.try_iter().count() > 0);
    let other = world.client().request("GET /0 HTTP/1.1\r\nHost: shop.example.com\r\n\r\n");
    assert!(other.body.contains("host: shop.example.com"), "another host is another page");
    for host in ["shop.example.com:6666", "SHOP.example.com"] {
        let other = world.client().request(&format!("GET /0 HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(other.body.contains(&format!("host: {}\r\n", host.to_lowercase())));
    }
    let again = world.client().request("GET /0 HTTP/1.1\r\nHost: shop.example.com\r\n\r\n");
    assert!(again.body.contains("host: shop.example.com\r\n"), "{}", again.body);
    let body =
        world.client().request("GET /b HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 4\r\n\r\nevil");
    assert_eq!(said(&body), "berth; fwd=bypass");
}

#[test]
fn an_answer_is_for_those_who_ask_alike() {
    let (instance, seen) = answering(|head| {
        let german = head.contains("accept-language: de");
        answer("200 OK", &format!("{FRESH}vary: Accept-Language\r\n"), if german { "ja" } else { "yes" })
    });
    let world = serving(&instance);
    for _ in 0..2 {
        assert_eq!(get(&world, "/", "accept-language: de\r\n").body, "ja");
        assert_eq!(get(&world, "/", "accept-language: en\r\n").body, "yes");
    }
    assert_eq!(seen.try_iter().count(), 2);
    assert_eq!(said(&get(&world, "/", "")), "berth; fwd=vary-miss; stored");
}

#[test]
fn another_release_never_gives_what_is_of_the_one_before() {
    let (old, _old_seen) = answering(|_| answer("200 OK", FRESH, "v1"));
    let (new, _new_seen) = answering(|_| answer("200 OK", FRESH, "v2"));
    let mut world = serving(&old);
    assert_eq!([get(&world, "/", "").body, get(&world, "/", "").body], ["v1", "v1"]);
    world.apply(&cached(shop(2, &[(old.addr, Role::Routed)]), 1));
    assert!(said(&get(&world, "/", "")).contains("hit"), "the same one goes on with what it has");
    world.apply(&cached(shop(3, &[(old.addr, Role::Parked), (new.addr, Role::Routed)]), 2));
    assert_eq!([get(&world, "/", "").body, get(&world, "/", "").body], ["v2", "v2"]);
    world.apply(&cached(shop(4, &[(old.addr, Role::Routed), (new.addr, Role::Parked)]), 1));
    let back = get(&world, "/", "");
    assert_eq!((&*back.body, said(&back)), ("v1", "berth; fwd=uri-miss; stored"), "nor one that comes back");
    // While requests are shared nothing is stored, whoever asks.
    let mut shared = cached(shop(5, &[(old.addr, Role::Routed), (new.addr, Role::Routed)]), 1);
    for app in shared.apps.values_mut() {
        let share = |release, percent, instance| Share {
            release: ReleaseNumber(release),
            percent,
            instances: [instance].into(),
        };
        app.shares = vec![share(2, 50, 2), share(1, 50, 1)];
    }
    world.apply(&shared);
    for pin in ["v1", "v2"] {
        let pinned = get(&world, "/", &format!("berth-release: {pin}\r\n"));
        assert_eq!((&*pinned.body, pinned.header("cache-status")), (pin, None));
    }
    assert_eq!(get(&world, "/", "").header("cache-status"), None);
    let mut gated = cached(shop(6, &[(old.addr, Role::Routed)]), 1);
    gated.apps.values_mut().for_each(|app| app.gate = berth_spec::Gate::Maintenance);
    world.apply(&gated);
    assert_eq!(get(&world, "/", "").status, 503, "what is under maintenance says so");
}

#[test]
fn of_what_fits_the_newest_is_given() {
    // One that names what its answer depends on where that matters, and not else, as rack-cors does.
    let (instance, _) = answering(|head| match head.to_lowercase().contains("origin: ") {
        true => answer("200 OK", &format!("{FRESH}vary: origin\r\n"), "for one"),
        false => answer("200 OK", FRESH, "for all"),
    });
    let world = serving(&instance);
    let one = "origin: https://one.example\r\n";
    assert_eq!(get(&world, "/", "").body, "for all");
    assert_eq!(get(&world, "/", one).body, "for all", "it says nothing else");
    assert_eq!(get(&world, "/", &format!("{one}cache-control: no-cache\r\n")).body, "for one");
    assert_eq!(get(&world, "/", one).body, "for one");
    assert_eq!(get(&world, "/", "").body, "for all");
}

#[test]
fn what_a_request_changes_is_forgotten() {
    let (instance, seen) = answering(|head| match head.split(' ').next().unwrap() {
        "GET" => answer("200 OK", FRESH, "page"),
        "PATCH" => answer("409 No", "", ""),
        _ => answer("303 See", "location: http://shop.localhost/list?all\r\n", ""),
    });
    let world = serving(&instance);
    let fetched = |path: &str| {
        let _page = get(&world, path, "");
        seen.try_iter().count()
    };
    for path in ["/a", "/list?all", "/b"] {
        assert_eq!([fetched(path), fetched(path)], [1, 0]);
    }
    assert_eq!(said(&ask(&world, "PATCH", "/a", "")), "berth; fwd=method");
    assert_eq!(seen.try_iter().count(), 1);
    assert_eq!(fetched("/a"), 0, "what failed changed nothing");
    let _posted = ask(&world, "POST", "/a", "content-length: 0\r\n");
    assert_eq!(seen.try_iter().count(), 1);
    assert_eq!([fetched("/a"), fetched("/list?all"), fetched("/b")], [1, 1, 0]);
}

#[test]
fn what_changes_while_it_is_fetched_is_not_stored() {
    let (instance, began, go) = Instance::gated(|mut call| {
        let old = answer("200 OK", FRESH, "old");
        call.write(&old);
    });
    let world = serving(&instance);
    let mut first = world.client();
    first.send("GET /a HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
    began.recv_timeout(HANG).unwrap();
    let mut post = world.client();
    post.send("DELETE /a HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
    began.recv_timeout(HANG).unwrap();
    // Whichever of the two comes first: it is forgotten, or not stored.
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(post.response(true).unwrap().status, 200);
    assert_eq!(first.response(true).unwrap().body, "old");
    go.send(()).unwrap();
    assert!(!said(&get(&world, "/a", "")).contains("hit"));
}

#[test]
fn one_asks_for_all_who_wait() {
    let (instance, began, go) = Instance::gated(|mut call| {
        let page = answer("200 OK", FRESH, "page");
        call.write(&page);
    });
    let mut world = World::start(Options { threads: 1, ..Options::default() });
    world.apply(&cached(shop(1, &[(instance.addr, Role::Routed)]), 1));
    let mut clients: Vec<_> = (0..8).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
        // One thread takes what comes in the order in which it came.
        assert_eq!(world.get("nobody", "/").status, 404);
    }
    began.recv_timeout(HANG).unwrap();
    go.send(()).unwrap();
    let answers: Vec<Response> = clients.iter_mut().map(|client| client.response(true).unwrap()).collect();
    assert!(answers.iter().all(|it| it.body == "page"));
    let collapsed = answers.iter().filter(|it| said(it).starts_with("berth; fwd=uri-miss; collapsed"));
    assert_eq!((said(&answers[0]), collapsed.count()), ("berth; fwd=uri-miss; stored", 7));
    assert!(began.try_recv().is_err(), "the app was asked once");
}

#[test]
fn nobody_waits_for_what_is_not_stored() {
    let (instance, began, go) = Instance::gated(|mut call| call.respond_and_close("mine"));
    let world = serving(&instance);
    let send = || {
        let mut client = world.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
        client
    };
    let mut first = send();
    began.recv_timeout(HANG).unwrap();
    let mut second = send();
    go.send(()).unwrap();
    assert_eq!(first.response(true).unwrap().body, "mine");
    began.recv_timeout(HANG).unwrap();
    // From then on it is known, and several are under way at once.
    let mut third = send();
    began.recv_timeout(HANG).unwrap();
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(second.response(true).unwrap().body, "mine");
    assert_eq!(third.response(true).unwrap().body, "mine");
}

#[test]
fn who_fetches_and_leaves_has_another_one_fetch() {
    let (instance, began, go) = Instance::gated(|mut call| {
        let page = answer("200 OK", FRESH, "page");
        call.write(&page);
    });
    let world = serving(&instance);
    let send = || {
        let mut client = world.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
        client
    };
    let first = send();
    began.recv_timeout(HANG).unwrap();
    let mut second = send();
    drop(first);
    began.recv_timeout(HANG).unwrap();
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(second.response(true).unwrap().body, "page");
}

#[test]
fn an_app_that_sleeps_is_not_woken_for_what_is_stored() {
    let (instance, _seen) = answering(|_| answer("200 OK", FRESH, "page"));
    let mut world = serving(&instance);
    assert_eq!(get(&world, "/", "").body, "page");
    let mut asleep = cached(shop(2, &[(instance.addr, Role::Parked)]), 1);
    asleep.apps.values_mut().for_each(|app| app.asleep = Some(Generation(2)));
    world.apply(&asleep);
    let hit = get(&world, "/", "");
    assert!(hit.body == "page" && said(&hit).starts_with("berth; hit"));
    let (_, before) = world.control.wait(|message| matches!(message, FromEdge::Counts { .. }));
    assert!(before.iter().all(|it| !matches!(it, FromEdge::Wanted { .. })));
    let mut other = world.client();
    other.send("GET /other HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
    world.control.wait(|message| matches!(message, FromEdge::Wanted { .. }));
    world.apply(&cached(shop(3, &[(instance.addr, Role::Routed)]), 1));
    assert_eq!(other.response(true).unwrap().body, "page");
}

#[test]
fn what_is_old_is_asked_for_by_its_tag() {
    let (instance, seen) = answering(|head| {
        let tag = format!("{FRESH}etag: \"a\"\r\n");
        match head.contains("if-none-match: \"a\"") {
            true => format!("HTTP/1.1 304 Same\r\nconnection: close\r\n{tag}x-new: 1\r\n\r\n"),
            false => answer("200 OK", &format!("{tag}x-old: 1\r\n"), "page"),
        }
    });
    let world = serving(&instance);
    assert_eq!(get(&world, "/", "").body, "page");
    let again = get(&world, "/", "cache-control: no-cache\r\n");
    assert_eq!((again.status, &*again.body), (200, "page"));
    assert_eq!(said(&again), "berth; fwd=request; fwd-status=304; stored");
    assert_eq!(seen.try_iter().count(), 2);
    let hit = get(&world, "/", "");
    assert!(
        said(&hit).starts_with("berth; hit")
            && hit.header("x-new").is_some()
            && hit.header("x-old").is_some()
    );
    let own = get(&world, "/", "cache-control: no-cache\r\nif-none-match: \"a\"\r\n");
    assert_eq!((own.status, said(&own)), (304, "berth; fwd=request"), "who asks by himself has his answer");
    let other = get(&world, "/", "cache-control: no-cache\r\nif-none-match: \"b\"\r\n");
    assert_eq!((other.status, &*other.body), (200, "page"));
}

#[test]
fn what_the_app_says_to_a_clients_own_condition_is_learned_from() {
    let (instance, seen) = answering(|head| {
        let tag = if head.contains("/other") { "\"b\"" } else { "\"a\"" };
        match head.contains("if-none-match") {
            true => {
                format!("HTTP/1.1 304 Same\r\nconnection: close\r\n{FRESH}etag: {tag}\r\nx-new: 1\r\n\r\n")
            }
            false => answer("200 OK", &format!("{FRESH}etag: \"a\"\r\n"), "page"),
        }
    });
    let world = serving(&instance);
    for (path, learned) in [("/", true), ("/other", false)] {
        assert_eq!(get(&world, path, "").body, "page");
        let own = get(&world, path, "cache-control: no-cache\r\nif-none-match: \"a\"\r\n");
        assert_eq!((own.status, &*own.body, said(&own)), (304, "", "berth; fwd=request"));
        let hit = get(&world, path, "");
        assert_eq!((hit.status, &*hit.body, hit.header("x-new").is_some()), (200, "page", learned));
    }
    assert_eq!(seen.try_iter().count(), 4);
}

#[test]
fn who_wants_nothing_but_what_is_stored_gets_that_or_is_told() {
    let (instance, seen) = answering(|_| answer("200 OK", FRESH, "page"));
    let world = serving(&instance);
    let stored = || get(&world, "/", "cache-control: only-if-cached\r\n");
    let none = stored();
    assert!(none.status == 504 && none.body.contains("not_stored"), "{none:?}");
    assert_eq!(seen.try_iter().count(), 0);
    assert_eq!(get(&world, "/", "").body, "page");
    assert_eq!((stored().status, &*stored().body), (200, "page"));
    assert_eq!(seen.try_iter().count(), 1);
}

#[test]
fn an_app_that_fails_is_stood_in_for_where_it_said_so() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fails = std::sync::Arc::clone(&broken);
    // In a second it is stale.
    let fresh = "age: 59\r\ncache-control: max-age=60, stale-if-error=600\r\n";
    let (instance, _seen) = answering(move |head| match fails.load(std::sync::atomic::Ordering::SeqCst) {
        false => answer("200 OK", fresh, "page"),
        true if head.contains("/gone") => String::new(),
        true => answer("500 Oh", "", "oh"),
    });
    let world = serving(&instance);
    for path in ["/", "/gone"] {
        assert_eq!(get(&world, path, "").body, "page");
    }
    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let stale = |path: &str| loop {
        let response = get(&world, path, "");
        assert_eq!((response.status, &*response.body), (200, "page"));
        if !said(&response).contains("hit") {
            return said(&response).to_owned();
        }
    };
    assert_eq!(stale("/"), "berth; fwd=stale; fwd-status=500");
    assert_eq!(stale("/gone"), "berth; fwd=stale; detail=no-answer");
    assert_eq!(get(&world, "/", "cache-control: no-cache\r\n").status, 500);
}

#[test]
fn what_is_too_long_goes_on_as_it_came() {
    let (instance, seen) = answering(|head| {
        let body = "x".repeat(5 << 10);
        match head.contains("/chunked") {
            false => answer("200 OK", FRESH, &body),
            true => {
                let half = format!("a00\r\n{}\r\n", "y".repeat(0xa00));
                format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\n{FRESH}transfer-encoding: chunked\r\n\r\n{half}{half}0\r\n\r\n"
                )
            }
        }
    });
    let world = serving(&instance);
    for _ in 0..2 {
        assert_eq!(get(&world, "/", "").body.len(), 5 << 10);
        let chunked = get(&world, "/chunked", "");
        assert_eq!(chunked.body.matches('y').count(), 2 * 0xa00);
        assert_eq!(said(&chunked), "berth; fwd=uri-miss");
        assert_eq!(seen.try_iter().count(), 2);
    }
}

#[test]
fn what_breaks_off_is_not_stored_and_does_not_look_whole() {
    let (instance, seen) = answering(|_| {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{FRESH}content-length: 9\r\n\r\npage")
    });
    let world = serving(&instance);
    for _ in 0..2 {
        let mut client = world.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
        assert!(client.response(true).is_none(), "five bytes are missing");
        assert_eq!(seen.try_iter().count(), 1);
    }
}
