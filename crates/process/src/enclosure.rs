//! A command of a tenant's with all that it may see, and who starts it so that it sees nothing else.
//!
//! What a command may see is known where it is thought of, in a build; how that is put up is known to the runtime. Neither knows the other.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::cgroup::Cgroup;
use crate::identity::Mark;
use crate::launch::{Launch, Limits};
use crate::program::TenantProgram;

/// A command of a tenant's that is run once and waited for, with all that it may see. Paths are absolute, and the same within.
#[derive(Debug)]
pub struct Enclosed {
    /// The program; its ground says where it runs, and as whom.
    pub program: TenantProgram,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, all of it but the mark.
    pub env: BTreeMap<String, String>,
    /// The mark by which its processes are found.
    pub mark: Mark,
    /// The limits of each of its processes.
    pub limits: Limits,
    /// The control group that it is started in, for it to look up its limits.
    pub cgroup: Option<Cgroup>,
    /// What of the machine it may read and run, beside the programs and settings that everybody has.
    pub readable: Vec<PathBuf>,
    /// What it may write to.
    pub writable: Vec<PathBuf>,
    /// A folder that it has as its `/tmp`, where there is a root of its own to have it in.
    pub tmp: PathBuf,
    /// An empty folder, for that root to be mounted over.
    pub root: PathBuf,
    /// Whether it is kept from every network.
    pub offline: bool,
}

/// Puts something up around commands.
pub trait Enclosure: fmt::Debug + Send + Sync {
    /// The start of `command` within it, as a child that ends when and as the command does. What it reads and writes, its control group and
    /// who ends it stay to be said.
    ///
    /// # Errors
    /// When it cannot be had for this command.
    fn enclose(&self, command: &Enclosed) -> Result<Launch, Box<dyn Error + Send + Sync>>;
}
