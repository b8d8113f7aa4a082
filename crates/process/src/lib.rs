//! The only place that starts programs: argument vectors, limits, kill of whole trees.
//!
//! [`Program`] is the allow-list: what is not named there cannot be started. What a tenant brings (its commands,
//! and compilers, which run its build scripts) can only be started on a [`Ground`], which as root demands a uid of
//! the tenant's own. [`Launch`] gives the child what it was told and nothing else: a cleared environment, no
//! descriptor beyond 0, 1, 2 and those named, its own session or process group, limits. There is no way to
//! build a command line as one string.
//!
//! Where a command of a tenant's shall see its own things alone, an [`Enclosure`] gives the launch of what puts that up around it.
//!
//! [`Tree::kill`] ends a program with everything it started, through its cgroup where there is one and through
//! `/proc` where there is none. [`Identity`] names a process so that a reused pid does not fool anybody.
//!
//! With the feature `tokio` a [`Child`] can be awaited and its pipes read without blocking.
#![warn(missing_docs)]

#[cfg(feature = "tokio")]
mod async_child;
mod cgroup;
mod child;
mod enclosure;
mod ground;
mod identity;
mod image;
mod launch;
mod offline;
mod page_out;
pub mod procfs;
mod program;
mod quota;
mod replace;
mod spawner;
mod stage;
mod tree;

#[cfg(feature = "tokio")]
pub use async_child::{AsyncPipes, exited};
pub use cgroup::{Cgroup, CgroupKind, Cgroups};
pub use child::{Child, reap_orphans};
pub use enclosure::{Enclosed, Enclosure};
pub use ground::{Ground, GroundError, User};
pub use identity::{BootId, Identity, Mark};
pub use image::SealedImage;
pub use launch::{Group, Launch, LaunchError, Limits, Stdio};
pub use page_out::{page_out, swap_is_there};
pub use program::{Program, TenantProgram};
pub use quota::{Controller, Disk, DiskSpeed, Quota};
pub use replace::become_program;
pub use rustix::process::Signal;
pub use tree::{KillError, Tree};
