//! Black-box tests on the real binary: starting it in a home of its own, a strict client, and a search for what it left.
//!
//! Everything here panics with what it found when something is not as it should be: it is called by tests alone.
#![warn(missing_docs)]

mod acme;
mod actor;
mod api;
mod binary;
mod connections;
mod forge;
mod git;
mod leaks;
pub mod load;
mod platform;
mod reach;
mod registry;
mod source;
mod tracer;
mod victims;

pub use acme::AcmeServer;
pub use actor::Actor;
pub use api::{Api, Reply, exchange};
pub use binary::{actor_binary, actor_source, berth, example, example_binary};
pub use forge::{Forge, hmac_sha256};
pub use git::Worktree;
pub use platform::{Answer, Options, Platform, Running, User, another, wait_until};
pub use registry::ImageRegistry;
pub use source::Source;
pub use tracer::{Call, CannotTrace, Tracer};
pub use victims::{Chance, Prey, Victim};
