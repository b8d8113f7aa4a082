//! What a manifest says of an app's requests, as its users see it: how many at a time.

use std::io::Write;
use std::net::TcpStream;

use berth_acceptance::{Actor, Options, Platform, wait_until};

const HANG: std::time::Duration = std::time::Duration::from_secs(60);

/// The app `shop` with this at the end of its manifest, deployed.
fn shop<'p>(platform: &'p Platform, more: &str) -> Actor<'p> {
    let shop = Actor::new(platform, "shop", &format!("[processes]\nweb = \"./actor serve\"\n{more}"));
    let _deployed = shop.deploy().ok();
    shop
}

/// A request that the app answers when its client has left.
fn held(platform: &Platform) -> TcpStream {
    let mut stream = TcpStream::connect(platform.edge()).expect("edge listens");
    stream.write_all(b"GET /hold HTTP/1.1\r\nhost: shop.localhost\r\n\r\n").expect("edge takes it");
    stream
}

#[test]
fn at_its_hard_limit_an_app_gets_no_more_and_users_are_told_to_try_again() {
    let platform = Platform::start(Options::default());
    let shop = shop(&platform, "[http.concurrency]\nsoft_limit = 1\nhard_limit = 1\n");
    assert_eq!(shop.ask("/release"), (200, "v1".to_owned()));
    let one = held(&platform);
    let full = wait_until(HANG, || {
        let (status, page) = shop.ask("/release");
        status == 503 && page.contains("app_busy")
    });
    assert!(full, "the only place is taken");
    // Who waits has the place as soon as it is free.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait_until(HANG, || shop.ask("/release") == (200, "v1".to_owned())));
        drop(one);
        assert!(waiting.join().unwrap());
    });
    // A release without limits takes what comes.
    shop.change("[processes]\nweb = \"./actor serve\"\n");
    let _deployed = shop.deploy().ok();
    let _two = [held(&platform), held(&platform)];
    assert_eq!(shop.ask("/release"), (200, "v2".to_owned()));
}
