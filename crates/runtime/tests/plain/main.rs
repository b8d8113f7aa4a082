//! The plain backend with real shims and real apps. As root it uses users and control groups, else it does without.
//!
//! Every app is this very test program again, told by `BERTH_TEST_ROLE` what to do; see `roles`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

mod adoption;
mod lives;
mod logs;
mod roles;
mod world;
