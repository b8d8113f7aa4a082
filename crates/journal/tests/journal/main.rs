//! The journal as its callers see it, through crashes and full disks.
#![expect(
    clippy::unwrap_used,
    reason = "the lint's exception for tests does not reach functions beside them"
)]

mod append;
mod child;
mod crash;
mod fixture;
mod follow;
mod format;
mod keep;
mod model;
mod traced;
