//! Instances that fail what they are sent: others are preferred, as long as there are enough of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use berth_routing::{Role, Share};
use berth_spec::ReleaseNumber;

use crate::world::{Instance, World, nobody, shop};

/// An instance that answers every request with `status`, and how many it got.
fn answering(status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    let instance = Instance::scripted(move |mut call| {
        counter.fetch_add(1, SeqCst);
        call.write(&format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
    });
    (instance.addr, calls)
}

/// Asks until so many answers in a row were 200; how many were not.
fn failures_until_all_is_well(world: &World) -> usize {
    let (mut failures, mut well) = (0, 0);
    while well < 50 {
        if world.get("shop.localhost", "/").status == 200 {
            well += 1;
        } else {
            failures += 1;
            well = 0;
        }
        assert!(failures < 500, "it is never passed over");
    }
    failures
}

#[test]
fn an_instance_that_answers_5xx_over_and_over_is_passed_over() {
    let ((bad, calls), (good, _)) = (answering("500 No"), answering("200 OK"));
    let world = World::serving(&shop(1, &[(bad, Role::Routed), (good, Role::Routed)]));
    let failures = failures_until_all_is_well(&world);
    assert!(failures >= 5, "five in a row, and not fewer");
    assert_eq!(calls.load(SeqCst), failures);
}

#[test]
fn an_instance_that_closes_without_an_answer_is_passed_over() {
    let (good, _) = answering("200 OK");
    let silent = Instance::scripted(drop);
    let world = World::serving(&shop(1, &[(silent.addr, Role::Routed), (good, Role::Routed)]));
    assert!(failures_until_all_is_well(&world) >= 5);
}

#[test]
fn nobody_notices_an_instance_that_takes_no_connections() {
    let ((good, _), (nobody, _held)) = (answering("200 OK"), nobody());
    let world = World::serving(&shop(1, &[(nobody, Role::Routed), (good, Role::Routed)]));
    for _ in 0..50 {
        assert_eq!(world.get("shop.localhost", "/").status, 200);
    }
}

#[test]
fn a_lone_instance_is_never_passed_over() {
    let (bad, calls) = answering("500 No");
    let world = World::serving(&shop(1, &[(bad, Role::Routed)]));
    for _ in 0..30 {
        assert_eq!(world.get("shop.localhost", "/").status, 500);
    }
    assert_eq!(calls.load(SeqCst), 30);
}

#[test]
fn a_new_release_of_which_all_fails_goes_on_getting_its_share() {
    let ((old, _), (new, calls)) = (answering("200 OK"), answering("500 No"));
    let mut shared = shop(1, &[(old, Role::Routed), (new, Role::Routed)]);
    for app in shared.apps.values_mut() {
        let share = |release, instance| Share {
            release: ReleaseNumber(release),
            percent: 50,
            instances: [instance].into(),
        };
        app.shares = vec![share(2, 2), share(1, 1)];
    }
    let world = World::serving(&shared);
    // Or nobody would learn that it fails: whoever compares the two sees what it is sent.
    let mut failures = 0;
    for asked in 0..5_000 {
        failures += usize::from(world.get("shop.localhost", "/").status == 500);
        if failures == 100 {
            assert!((120..400).contains(&asked), "{asked}");
            break;
        }
    }
    assert_eq!((failures, calls.load(SeqCst)), (100, 100));
}

#[test]
fn where_all_fail_none_is_passed_over() {
    let (one, other) = (answering("500 No"), answering("503 Later"));
    let world = World::serving(&shop(1, &[(one.0, Role::Routed), (other.0, Role::Routed)]));
    // Whichever fails five times first is passed over until the other has failed as often; then both are as good as each other.
    let mut asked = 0;
    while one.1.load(SeqCst) < 30 || other.1.load(SeqCst) < 30 {
        assert!(world.get("shop.localhost", "/").status >= 500);
        asked += 1;
        assert!(asked < 5_000, "{one:?} {other:?}");
    }
}
