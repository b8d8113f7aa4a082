//! Route table, endpoints, matching and balancing arithmetic; and the messages between control and edge.
//!
//! Everything here is pure: the edge brings the sockets, control brings the state that a [`Snapshot`] is derived from.
#![warn(missing_docs)]

pub mod balance;
pub mod breaker;
pub mod concurrency;
pub mod health;
pub mod host;
pub mod names;
pub mod path;
pub mod rate;
pub mod retry;
pub mod rules;
pub mod snapshot;
pub mod split;
pub mod table;
pub mod waiting;
pub mod wire;

pub use names::Names;
pub use snapshot::{
    AppRoute, Backend, CacheRoute, CertificateRoute, ChallengeRoute, Endpoint, Generation, Host, Https,
    Probe, ProbePath, Role, Snapshot,
};
pub use split::Share;
pub use table::{Flaw, InvalidSnapshot, Table};
