//! Edge as its clients, its instances and control see it: real sockets on loopback.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod answers;
mod caching;
mod crowding;
mod dialing;
mod farewell;
mod following;
mod framed;
mod health;
mod https;
mod instances;
mod internal;
mod outliers;
mod passing;
mod rates;
mod routes;
mod sleeping;
mod streams;
mod strictness;
mod timeouts;
mod translated;
mod world;
