//! Start, adopt, watch and stop instances.
//!
//! [`Runtime`] is what control knows: plain structs in and out. [`PlainRuntime`] is the backend without isolation: a process
//! tree per instance under a shim of its own, which outlives control. What the backend knows of an instance it reads again
//! from the world: `start.json`, written before anything else is made, and the shim, which answers on its socket with the
//! instance's token. So control may be killed between any two steps, and [`Runtime::adopt_all`] finds what there is.
#![warn(missing_docs)]

mod attach;
mod egress;
mod error;
mod hosts;
mod instance;
mod layout;
mod listener;
mod logs;
mod namespace;
mod plain;
mod port;
mod record;
mod sandbox;

pub use attach::{Attach, Attached, End, Ends, Size};
pub use berth_process::{CgroupKind, Identity, Limits, Mark, User};
pub use berth_shim::check::{Check, CheckRun, Checked, Verdict};
pub use berth_shim::config::{Backoff, Network, Restart};
pub use berth_shim::exec::Exec;
pub use berth_shim::record::{Record, Stream};
pub use berth_shim::segment::{Batch, Cursor};
pub use berth_shim::wire::{Exit, Failure, Step};
pub use berth_spec::manifest::Resources;
pub use egress::resolv_conf;
pub use error::RuntimeError;
pub use instance::{
    Answer, Capabilities, Finished, Frozen, InstanceSpec, InstanceState, Listener, Mount, OWN_PORT, Observed,
    PortWish, Root, Runtime, RuntimeEvent, Stop,
};
pub use layout::{Layout, dial_folder};
pub use logs::{Follow, InstanceLog};
pub use plain::{CommandSandbox, Executing, PlainRuntime, check_daemon, daemon_sockets};
pub use port::PORTS;
