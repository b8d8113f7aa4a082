//! The native backend at the best level of isolation that this machine has: what holds for plain instances holds for these, and
//! what an app tries to get out of its sandbox fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

#[path = "../native/adoption.rs"]
mod adoption;
mod attacks;
#[path = "../native/egress.rs"]
mod egress;
#[path = "../native/lives.rs"]
mod lives;
#[path = "../native/logs.rs"]
mod logs;
#[path = "../native/network.rs"]
mod network;
#[path = "../native/roles.rs"]
mod roles;
#[path = "../native/world.rs"]
mod world;

/// The level of isolation that these tests ask for: the best that there is.
const LEVEL: Option<berth_spec::Isolation> = None;
