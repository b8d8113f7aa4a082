//! What `[http.cache]` stores, as the app's users see it: over deploys and back.

use berth_acceptance::{Actor, Options, Platform, exchange};

/// What the app `shop` answers at `/fresh`, and what is said of where that came from.
fn fresh(platform: &Platform) -> (String, String) {
    let request = b"GET /fresh HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n";
    let reply = exchange(platform.edge(), request).expect("edge answers");
    let said = reply.head.lines().find_map(|line| line.strip_prefix("cache-status: "));
    (reply.text(), said.unwrap_or_default().to_owned())
}

#[test]
fn what_is_stored_is_of_the_release_that_serves() {
    let platform = Platform::start(Options::default());
    let manifest = "[processes]\nweb = \"./actor serve\"\n[http.cache]\n";
    let shop = Actor::new(&platform, "shop", manifest);
    let _deployed = shop.deploy().ok();
    assert_eq!(fresh(&platform), ("v1".to_owned(), "berth; fwd=uri-miss; stored".to_owned()));
    let (text, said) = fresh(&platform);
    assert!(text == "v1" && said.starts_with("berth; hit; ttl="), "{text} {said}");
    let _deployed = shop.deploy().ok();
    assert_eq!(fresh(&platform), ("v2".to_owned(), "berth; fwd=uri-miss; stored".to_owned()));
    assert!(fresh(&platform).1.starts_with("berth; hit"));
    let _back = shop.verb(&["rollback"]).ok();
    let (text, said) = fresh(&platform);
    assert_eq!((200, text), shop.ask("/release"), "what the release before stored is gone");
    assert_eq!(said, "berth; fwd=uri-miss; stored");
    // Without the section nothing is stored, and nothing said.
    shop.change("[processes]\nweb = \"./actor serve\"\n");
    let _deployed = shop.deploy().ok();
    for _ in 0..2 {
        assert_eq!(fresh(&platform), ("v4".to_owned(), String::new()));
    }
}
