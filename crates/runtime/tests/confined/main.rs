//! The native backend at the level for machines without namespaces: no way to gain rights, few system calls, its own files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

#[path = "../native/adoption.rs"]
mod adoption;
#[path = "../native/egress.rs"]
mod egress;
mod landlock;
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
const NAME: &str = "confined";

/// The backend at that level, which root has as well as anybody.
fn open(layout: Layout) -> PlainRuntime {
    PlainRuntime::open(layout, Arc::new(SystemClock::new()), Some(berth_spec::Isolation::Confined)).unwrap()
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
