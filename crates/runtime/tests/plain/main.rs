//! The native backend without isolation, with real shims and real apps. As root it uses users and control groups, else it does
//! without.
//!
//! Every app is this very test program again, told by `BERTH_TEST_ROLE` what to do; see `roles`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

#[path = "../native/adoption.rs"]
mod adoption;
#[path = "../native/egress.rs"]
mod egress;
#[path = "../native/lives.rs"]
mod lives;
#[path = "../native/network.rs"]
mod network;
#[path = "../native/roles.rs"]
mod roles;
#[path = "../conformance/suite.rs"]
mod suite;
#[path = "../native/world.rs"]
mod world;

use std::sync::Arc;

use berth_clock::SystemClock;
use berth_runtime::{InstanceSpec, Layout, PlainRuntime};

/// What the suite calls this backend.
const NAME: &str = "plain";

/// The backend without isolation.
fn open(layout: Layout) -> PlainRuntime {
    PlainRuntime::open(layout, Arc::new(SystemClock::new()), Some(berth_spec::Isolation::Plain)).unwrap()
}

/// Why the backend cannot be tried here, if it cannot.
fn absent() -> Option<&'static str> {
    None
}

/// What the machine still has of an instance: its control group.
fn left_of(world: &world::World, spec: &InstanceSpec) -> Vec<String> {
    let groups = berth_process::Cgroups::discover(&format!("berth-{}", world.layout().platform));
    let names = groups.map(|groups| groups.names().unwrap()).unwrap_or_default();
    names.into_iter().filter(|name| spec.token.to_string().starts_with(name.as_str())).collect()
}
