//! Ids, names, units and the app manifest: parse, validate, JSON Schema.
//!
//! Everything here is pure. Every id is a typed id below its tenant, so that no function can take an
//! app of one tenant where it means another's: see [`id`]. Names are checked once, where they enter
//! ([`name`]), and are plain strings of a known alphabet from there on.
#![warn(missing_docs)]

pub mod id;
pub mod name;
pub mod unit;

pub use id::{AppId, InstanceId, ProjectId, ReleaseId, ReleaseNumber, TenantId};
pub use name::{AppName, EnvName, InvalidName, ProcessName, ProjectName, TenantName};
pub use unit::{Millis, Timestamp};
