//! Maintenance and pause: requests are turned away or wait, at once and without a release; deploys go on behind it.

use berth_acceptance::{Actor, Options, Platform, User, exchange};

fn visit(platform: &Platform) -> (u16, String) {
    let request = b"GET /env/APP_NAME HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n";
    let reply = exchange(platform.edge(), request).expect("edge answers");
    (reply.status, reply.text())
}

#[test]
fn requests_are_turned_away_while_a_release_is_deployed_behind_it() {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { user, ..Options::default() });
        let shop = Actor::web(&platform, "shop", "serve");
        let _deployed = shop.deploy().ok();
        let on = shop.verb(&["maintenance", "on"]).ok().json();
        assert_eq!((&on["gate"], &on["applied"]), (&"maintenance".into(), &true.into()), "{on}");
        let (status, page) = visit(&platform);
        assert!(status == 503 && page.contains("app_in_maintenance"), "{status} {page}");
        let listed = platform.cli(["apps"]).ok().stdout;
        assert!(listed.contains("running, maintenance"), "{listed}");
        // A release gets ready, is activated and rolled back, and nobody sees it.
        let _changed = shop.verb(&["config", "set", "A=1"]).ok();
        assert_eq!(visit(&platform).0, 503);
        // It is kept over a kill of control.
        let before = platform.role("control");
        before.iter().for_each(|pid| platform.kill(*pid));
        assert!(berth_acceptance::wait_until(std::time::Duration::from_secs(60), || {
            platform.role("control").iter().any(|pid| !before.contains(pid))
        }));
        assert_eq!(shop.verb(&["maintenance"]).ok().json()["gate"], "maintenance");
        assert_eq!(visit(&platform).0, 503);
        let _off = shop.verb(&["maintenance", "off"]).ok();
        assert_eq!(visit(&platform), (200, "shop".to_owned()));
        let told = shop.verb(&["timeline"]).ok().stdout;
        assert!(
            told.contains("turned requests away: under maintenance") && told.contains("let requests through"),
            "{told}"
        );
    }
}

#[test]
fn requests_wait_while_an_app_is_paused_and_none_fails() {
    let platform = Platform::start(Options::default());
    let shop = Actor::web(&platform, "shop", "serve");
    let _deployed = shop.deploy().ok();
    let _paused = shop.verb(&["pause"]).ok();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| visit(&platform))).collect();
        let _resumed = shop.verb(&["resume"]).ok();
        for visit in waiting {
            assert_eq!(visit.join().unwrap(), (200, "shop".to_owned()));
        }
    });
    // What is as it is asked for is no event.
    let _again = shop.verb(&["resume"]).ok();
    let told = shop.verb(&["timeline"]).ok().stdout;
    assert_eq!(told.matches("let requests through").count(), 1, "{told}");
}
