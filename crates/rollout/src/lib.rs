//! Whether a new release does worse than the one before, while both serve: the arithmetic of a canary.
//!
//! Edge counts by release, second by second. [`Comparison`] takes in these seconds, each of which holds both releases, and says at any
//! moment what they amount to: [`Evidence`], which renders as sentences. [`course`] says what to do with that: go on, wait, or go back.
//!
//! Everything here is pure. Looking often costs nothing: the tests are sequential ([`odds`]), so that the chance of ever condemning a release
//! that is as good as the one before stays below [`ALPHA`], however long one looks and whatever made one look.
#![warn(missing_docs)]

pub mod comparison;
pub mod evidence;
pub mod latency;
pub mod odds;

pub use comparison::{ALPHA, Comparison, Second, Slice};
pub use evidence::{Difference, Evidence, Move, Side, Verdict, course};
pub use latency::Latencies;
