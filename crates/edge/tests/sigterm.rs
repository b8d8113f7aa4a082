//! SIGTERM drains. Alone in its process, since the signal goes to all of it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "edge/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::mpsc::channel;

use berth_edge::ExitReason;
use berth_routing::Role;
use rustix::process::{Signal, getpid, kill_process};

use crate::world::{HANG, Instance, World, shop};

#[test]
fn sigterm_lets_requests_finish() {
    let (told, began) = channel();
    let (go, gate) = channel::<()>();
    let ends = Mutex::new((told, gate));
    let slow = Instance::scripted(move |mut call| {
        let ends = ends.lock().unwrap();
        ends.0.send(()).unwrap();
        ends.1.recv_timeout(HANG).unwrap();
        call.respond("done");
    });
    let mut world = World::serving(&shop(1, &[(slow.addr, Role::Routed)]));
    let (mut busy, mut idle) = (world.client(), world.client());
    busy.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n");
    began.recv_timeout(HANG).unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    assert!(idle.is_closed());
    go.send(()).unwrap();
    assert_eq!(busy.response(true).unwrap().body, "done");
    assert_eq!(world.ended(), ExitReason::Drained);
}
