//! The backend whose instances are in containers, with a real Docker of the tests' own: the same suite, and the same attacks on the network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

#[path = "../native/egress.rs"]
mod egress;
#[path = "../native/network.rs"]
mod network;
#[path = "../native/roles.rs"]
mod roles;
#[path = "../conformance/suite.rs"]
mod suite;
#[path = "../native/world.rs"]
mod world;

use std::sync::{Arc, LazyLock};

use berth_clock::SystemClock;
use berth_docker::Engine;
use berth_docker::testing::Daemon;
use berth_runtime::{InstanceSpec, Layout, PlainRuntime};

/// What the suite calls this backend.
const NAME: &str = "docker";

static DAEMON: LazyLock<Result<Daemon, String>> = LazyLock::new(Daemon::get);

fn daemon() -> &'static Daemon {
    DAEMON.as_ref().expect("the tests have asked whether there is one")
}

/// Why the backend cannot be tried here, if it cannot.
fn absent() -> Option<&'static str> {
    DAEMON.as_ref().err().map(String::as_str)
}

/// The backend with the tests' own daemon.
fn open(layout: Layout) -> PlainRuntime {
    let sockets = [daemon().socket.clone()];
    PlainRuntime::open_in_containers(layout, Arc::new(SystemClock::new()), &sockets).unwrap()
}

/// What the daemon still has of an instance.
fn left_of(_world: &world::World, spec: &InstanceSpec) -> Vec<String> {
    let engine = Engine::connect(&daemon().socket).unwrap();
    let token = spec.token.to_string();
    let found = engine.containers("berth.token", token.get(..12).unwrap()).unwrap();
    found.into_iter().map(|container| container.id).collect()
}

#[test]
fn a_daemon_that_is_not_there_is_told() {
    let world = world::World::new();
    let nowhere = [world.home().join("docker.sock")];
    let refused = PlainRuntime::open_in_containers(world.layout(), Arc::new(SystemClock::new()), &nowhere);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Docker"), "{text}");
}
