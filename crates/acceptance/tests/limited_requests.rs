//! What a manifest says of an app's requests, as its users see it: how many at a time, how long, how often.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use berth_acceptance::{Actor, Options, Platform, exchange, wait_until};

const HANG: std::time::Duration = std::time::Duration::from_secs(60);

/// The app `shop` with this at the end of its manifest, deployed.
fn shop<'p>(platform: &'p Platform, more: &str) -> Actor<'p> {
    let shop = Actor::new(platform, "shop", &format!("[processes]\nweb = \"./actor serve\"\n{more}"));
    let _deployed = shop.deploy().ok();
    shop
}

/// A request that is under way until its client leaves: what the app answers has begun, and does not end.
fn under_way(platform: &Platform) -> TcpStream {
    let mut stream = TcpStream::connect(platform.edge()).expect("edge listens");
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: shop.localhost\r\n\r\n").expect("edge takes it");
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).expect("the app answers");
    assert_eq!(&begun, b"HTTP/1.1 200");
    stream
}

#[test]
fn at_its_hard_limit_an_app_gets_no_more_and_users_are_told_to_try_again() {
    let platform = Platform::start(Options::default());
    let shop = shop(&platform, "[http.concurrency]\nsoft_limit = 1\nhard_limit = 1\n");
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
    let one = under_way(&platform);
    let (status, page) = shop.ask("/release");
    assert!(status == 503 && page.contains("app_busy"), "{status} {page}");
    // Who waits has the place as soon as it is free.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait_until(HANG, || shop.ask("/release") == (200, "v1".to_owned())));
        drop(one);
        assert!(waiting.join().unwrap());
    });
    // A release without limits takes what comes.
    shop.change("[processes]\nweb = \"./actor serve\"\n");
    let _deployed = shop.deploy().ok();
    let _two = [under_way(&platform), under_way(&platform)];
    assert_eq!(shop.ask("/release"), (200, "v2".to_owned()));
}

#[test]
fn an_app_that_does_not_answer_in_time_is_given_up_and_says_so() {
    let platform = Platform::start(Options::default());
    let shop = shop(&platform, "[http]\nrequest_timeout = \"500ms\"\n");
    let (status, page) = shop.ask("/hold");
    assert!(status == 504 && page.contains("app_timed_out"), "{status} {page}");
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let platform = Platform::start(Options::default());
    let rule = "[[http.rate_limit]]\nrequests = 2\nper = \"1h\"\nby = \"ip\"\npath = \"/env\"\n";
    let shop = shop(&platform, rule);
    for _ in 0..2 {
        assert_eq!(shop.ask("/env/APP_NAME"), (200, "shop".to_owned()));
    }
    let (status, page) = shop.ask("/%65nv/APP_NAME");
    assert!(status == 429 && page.contains("rate_limited"), "{status} {page}");
    let request = b"GET /env/APP_NAME HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n";
    let refused = exchange(platform.edge(), request).expect("edge answers");
    assert!(
        refused.head.contains("retry-after: ") && refused.head.contains("ratelimit: \"1\";r=0;t="),
        "{}",
        refused.head
    );
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()), "the rule is about a path");
    // A release with the same rules goes on counting.
    let _deployed = shop.deploy().ok();
    assert_eq!(shop.ask("/env/APP_NAME").0, 429);
}

#[test]
fn a_part_of_an_app_has_limits_of_its_own() {
    let platform = Platform::start(Options::default());
    let routes = "[[http.route]]\npath = \"/hold\"\nmethods = [\"GET\"]\nrequest_timeout = \"500ms\"\n\n\
        [[http.route]]\npath = \"/release\"\nconcurrency = 100\n";
    let shop = shop(&platform, routes);
    let (status, page) = shop.ask("/hold");
    assert!(status == 504 && page.contains("app_timed_out"), "{status} {page}");
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
    // Another release, with one place for what is under way, and somebody in it: what it answers has begun.
    shop.change(
        "[processes]\nweb = \"./actor serve\"\n[[http.route]]\npath = \"/events\"\nconcurrency = 1\n",
    );
    let _deployed = shop.deploy().ok();
    let one = under_way(&platform);
    let (status, page) = shop.ask("/%65vents/x");
    assert!(status == 503 && page.contains("route_busy"), "{status} {page}");
    assert_eq!(shop.ask("/release"), (200, "v2".to_owned()));
    drop(one);
    let free = wait_until(HANG, || shop.ask("/%65vents/x") == (200, "here".to_owned()));
    assert!(free, "the place is free when its holder has left");
}
