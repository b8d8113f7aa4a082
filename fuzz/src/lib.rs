//! What each fuzz target does with its input. The ordinary tests of each crate do the same with the files in `seeds`, so that CI, which has no
//! nightly compiler, sees a target that no longer compiles or holds.

// Edge keeps these to itself; they use nothing of the rest of it.
#[path = "../../crates/edge/src/frames.rs"]
mod frames;
#[expect(dead_code, reason = "edge uses more of it than is fuzzed")]
#[path = "../../crates/edge/src/strict.rs"]
mod strict;

pub mod edge;
pub mod routing;
pub mod spec;
