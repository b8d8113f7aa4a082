//! The fuzz targets of this crate, with the files that they begin from.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../fuzz/src/source.rs"]
pub mod targets;

#[path = "../../../fuzz/seeds.rs"]
mod seeds;

#[test]
fn the_seeds_hold() {
    seeds::replay("compose", targets::compose);
}
