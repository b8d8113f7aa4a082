//! Another program in this process.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Becomes the program at `path`, which its caller has chosen and checked, with these arguments and this environment. The process keeps its number, its
/// parent and its children; threads end, and descriptors close but those that are left open on purpose. Returns when that fails alone.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is started here: the process becomes what it is told to"
)]
pub fn become_program(
    path: &Path,
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> io::Error {
    Command::new(path).arg0(name).args(arguments).env_clear().envs(environment).exec()
}
