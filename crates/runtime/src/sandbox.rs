//! What stands between an instance and the rest of its machine: which level of isolation there is here, and what an app sees and may do
//! on each.
//!
//! Everything is decided here, before the start, as plain data; the shim does it ([`berth_shim::sandbox`]). What a machine
//! allows is found out by trying ([`Abilities`]), not by reading settings: there are too many that could forbid it.

mod abilities;
mod policy;
mod seccomp;
mod view;

pub(crate) use abilities::Abilities;
pub(crate) use policy::{Places, Policy, hostname};
