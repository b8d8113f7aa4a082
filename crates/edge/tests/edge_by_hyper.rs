//! The same tests as of `edge`, of an edge that reads HTTP/1 by hyper alone.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "edge/answers.rs"]
mod answers;
#[path = "edge/caching.rs"]
mod caching;
#[path = "edge/crowding.rs"]
mod crowding;
#[path = "edge/dialing.rs"]
mod dialing;
#[path = "edge/farewell.rs"]
mod farewell;
#[path = "edge/following.rs"]
mod following;
#[path = "edge/framed.rs"]
mod framed;
#[path = "edge/health.rs"]
mod health;
#[path = "edge/https.rs"]
mod https;
#[path = "edge/instances.rs"]
mod instances;
#[path = "edge/internal.rs"]
mod internal;
#[path = "edge/outliers.rs"]
mod outliers;
#[path = "edge/passing.rs"]
mod passing;
#[path = "edge/rates.rs"]
mod rates;
#[path = "edge/routes.rs"]
mod routes;
#[path = "edge/sleeping.rs"]
mod sleeping;
#[path = "edge/streams.rs"]
mod streams;
#[path = "edge/strictness.rs"]
mod strictness;
#[path = "edge/timeouts.rs"]
mod timeouts;
#[path = "edge/world.rs"]
mod world;
