//! The small static program above each instance, and its wire protocol.
//!
//! This library is what the shim and those who talk to it agree on: the start configuration ([`config`], and [`sandbox`] for what
//! stands around an app, [`way_out`] for the way out of its network, [`mod@check`] for the command that says whether it is well) and the messages ([`wire`]) behind the feature `protocol`, how it is asked to run a command in its instance ([`exec`]), how sockets of an instance's network are asked for ([`dial`])
//! and what a shim in a container is handed over ([`door`]) behind the feature `dial`, how interfaces
//! and routes are made ([`netlink`]) behind the feature `netlink`, with both the network beside an instance's ([`beside`]), the form of a log record ([`record`]), and behind the
//! feature `segment` the reading of the log segments. The program is in `src/bin/berth-shim`.
//!
//! The shim is exempt from the one door to time: it links nothing of Berth's, and asks the kernel itself.
#![warn(missing_docs)]

#[cfg(all(feature = "netlink", feature = "protocol"))]
pub mod beside;
#[cfg(feature = "protocol")]
pub mod check;
#[cfg(feature = "protocol")]
pub mod config;
#[cfg(feature = "dial")]
pub mod dial;
#[cfg(feature = "dial")]
pub mod door;
#[cfg(all(feature = "protocol", feature = "dial"))]
pub mod exec;
#[cfg(feature = "netlink")]
pub mod netlink;
pub mod record;
#[cfg(feature = "protocol")]
pub mod sandbox;
#[cfg(feature = "segment")]
pub mod segment;
#[cfg(feature = "protocol")]
mod tlv;
#[cfg(feature = "protocol")]
pub mod way_out;
#[cfg(feature = "protocol")]
pub mod wire;
