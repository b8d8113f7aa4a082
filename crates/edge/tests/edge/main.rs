//! Edge as its clients, its instances and control see it: real sockets on loopback.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod dialing;
mod following;
mod health;
mod instances;
mod internal;
mod passing;
mod sleeping;
mod strictness;
mod world;
