//! A seeded world in which the control plane is run and broken.
//!
//! The code of `berth-control` runs here as it does in production: the ledger, the decisions, the planner, the routing snapshots, the
//! invariants. Around it everything is simulated and fails: a disk that drops what was not synced, a machine that starts again, instances
//! that crash, listen elsewhere and ignore signals, an edge with several threads that apply snapshots at different times, a clock
//! that jumps, people who ask for everything at once and ask again when they get no answer. A world is made from a seed, and from the
//! seed alone: the same one gives the same trace, bit for bit.
//!
//! [`run`] lets a world run for a number of steps, then lets the faults end and time pass, and looks whether everything has settled
//! as it should. After every step the invariants of `berth_control::invariant` are checked, by their ids:
//!
//! - DUR-1 when an answer is given, and for all answers ever given after each crash
//! - DUR-2 after each crash and at the end
//! - RTE-1 before each stop, and for every request that edge sends
//! - RTE-2 for each decision and each snapshot
//! - RTE-3 for each snapshot that is sent, and for each that a thread of edge takes over
//! - RTE-4 for each routing that is planned and each snapshot
//! - RTE-5 for each snapshot, and for every request that edge sends
//! - RTE-6 for each snapshot
//! - RTE-7 for each decision and each snapshot
//! - DEP-1, DEP-2 for each decision; DEP-3 after each collection of artifacts and each pass of a reconciler
//! - NUM-1 for each decision, and against all numbers that ever became durable
//! - CRON-1 for each decision, and against all moments that a command was ever started for
//! - VOL-1 before each start, and for each start against all instances that live
//! - SLP-1 before each time an instance is had stand still, and for every request that edge sends
//! - SLP-2 for each state, and before each waking
//! - INS-1 at each pass of a reconciler and at the end
//!
//! [`Planted`] bugs show that the checks catch what they are there for.

mod builder;
mod chance;
mod control;
mod disk;
mod edge;
mod fault;
mod machine;
mod perform;
pub mod rollouts;
mod settled;
mod trace;
mod users;
mod world;

pub use fault::{Fault, Planted, Tally};
pub use world::{Failure, Outcome, Setup, run};

#[cfg(test)]
mod tests;
