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
#[path = "../native/logs.rs"]
mod logs;
#[path = "../native/network.rs"]
mod network;
#[path = "../native/roles.rs"]
mod roles;
#[path = "../native/world.rs"]
mod world;

/// The level of isolation that these tests ask for.
const LEVEL: Option<berth_spec::Isolation> = Some(berth_spec::Isolation::Plain);
