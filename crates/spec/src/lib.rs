//! Ids, names, units and the app manifest: parse, validate, JSON Schema.
//!
//! Everything here is pure. Every id is a typed id below its tenant, so that no function can take an
//! app of one tenant where it means another's: see [`id`]. Names are checked once, where they enter
//! ([`name`]), and are plain strings of a known alphabet from there on. What people write in berth.toml and
//! in a Procfile is read by [`manifest`] and [`procfile`] into one normalised [`Manifest`], which can be written
//! again; [`dotenv`] reads files of variables, [`schedule`] says when what is repeated is due. Every mistake is reported with its place ([`problem`]).
#![warn(missing_docs)]

pub mod backend;
pub mod command;
pub mod dotenv;
pub mod gate;
pub mod health;
pub mod host;
mod https;
pub mod id;
pub mod interpolation;
pub mod isolation;
pub mod manifest;
pub mod name;
pub mod problem;
pub mod procfile;
mod proxies;
pub mod schedule;
pub mod schema;
pub mod unit;

pub use backend::Backend;
pub use command::{Command, CommandError, RelativeDir};
pub use dotenv::Dotenv;
pub use gate::Gate;
pub use host::{HostName, InvalidHost};
pub use https::{HttpsAddress, InvalidHttpsAddress};
pub use id::{AppId, InstanceId, ProjectId, ReleaseId, ReleaseNumber, TenantId};
pub use isolation::Isolation;
pub use manifest::{HttpMethod, HttpProtocol, HttpRoute, Manifest, RateLimit, RequestConcurrency};
pub use name::{
    AppName, BranchName, CronName, EnvName, InvalidName, ProcessName, ProjectName, SnapshotName, TenantName,
    VolumeName,
};
pub use problem::{Problem, Problems};
pub use proxies::{InvalidProxies, Proxies};
pub use schedule::{Schedule, Zone};
pub use unit::{Bytes, Millis, Timestamp};
