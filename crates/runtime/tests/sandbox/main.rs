//! The native backend at the best level of isolation that this machine has: what holds for plain instances holds for these, and
//! what an app tries to get out of its sandbox fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

#[path = "../native/adoption.rs"]
mod adoption;
mod attacks;
#[path = "../native/egress.rs"]
mod egress;
mod errands;
mod internal;
#[path = "../native/lives.rs"]
mod lives;
#[path = "../native/network.rs"]
mod network;
#[path = "../native/roles.rs"]
mod roles;
mod slirp;
#[path = "../conformance/suite.rs"]
mod suite;
#[path = "../native/world.rs"]
mod world;

use std::sync::Arc;

use berth_clock::SystemClock;
use berth_runtime::{InstanceSpec, Layout, PlainRuntime};
use berth_spec::Isolation;

/// What the suite calls this backend.
const NAME: &str = "sandbox";

/// The backend at the best level of isolation that there is.
fn open(layout: Layout) -> PlainRuntime {
    open_at(layout, None)
}

/// The backend at a level.
fn open_at(layout: Layout, level: Option<Isolation>) -> PlainRuntime {
    PlainRuntime::open(layout, Arc::new(SystemClock::new()), level).unwrap()
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
