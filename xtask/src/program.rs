//! Starting other programs: cargo, git, apt-get and what a bench measures.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

/// A program with its arguments, not yet started.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    quiet: bool,
}

impl Program {
    #[expect(
        clippy::disallowed_methods,
        reason = "berth-process guards tenants' programs; these are our own tools"
    )]
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(name), quiet: false }
    }

    /// The cargo that runs us, in the workspace's root. Under `CI` it may not change `Cargo.lock`.
    pub(crate) fn cargo(workspace: &Workspace, verb: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let program = Self::new(cargo).args(verb.split(' ')).dir(workspace.root());
        // `cargo fmt` knows no such flag.
        if is_ci() && verb != "fmt" { program.arg("--locked") } else { program }
    }

    /// Git in the workspace's root, also where the clone belongs to another user than the one that tests it.
    pub(crate) fn git(workspace: &Workspace) -> Self {
        let safe = format!("safe.directory={}", workspace.root().display());
        Self::new("git").args(["--no-pager", "-c", &safe]).dir(workspace.root())
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it says on its standard error is dropped, for one whose failure is no news.
    pub(crate) fn silent(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs it to its end, on our own terminal.
    ///
    /// # Errors
    /// It cannot be started, or ends with a status other than 0.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self.command.status().with_context(|| format!("cannot start {}", self.line()))?;
        if !status.success() {
            bail!("`{}` ended with {status}", self.line());
        }
        Ok(())
    }

    /// Runs it to its end and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// It cannot be started, ends with a status other than 0, or writes no UTF-8.
    pub(crate) fn output(mut self) -> Result<String> {
        let errors = if self.quiet { Stdio::null() } else { Stdio::inherit() };
        self.command.stderr(errors).stdin(Stdio::null());
        let output = self.command.output().with_context(|| format!("cannot start {}", self.line()))?;
        if !output.status.success() {
            bail!("`{}` ended with {}", self.line(), output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{}` wrote no UTF-8", self.line()))
    }

    /// Runs it to its end, prints each line it writes to either output and shows it to `see`. Says whether the status was 0.
    ///
    /// # Errors
    /// It cannot be started or read.
    pub(crate) fn watch(mut self, mut see: impl FnMut(&str)) -> Result<bool> {
        let (reader, writer) = std::io::pipe()?;
        self.command.stdout(writer.try_clone()?).stderr(writer).stdin(Stdio::null());
        let mut child = self.command.spawn().with_context(|| format!("cannot start {}", self.line()))?;
        // The command holds the pipe's writing end; reading would never end while it lives.
        drop(self.command);
        let mut lines = BufReader::new(reader);
        let mut bytes = Vec::new();
        // Bytes, not `lines()`: a test may print anything, and one bad byte must not hide the rest.
        while lines.read_until(b'\n', &mut bytes)? > 0 {
            let line = String::from_utf8_lossy(&bytes);
            println!("{}", line.trim_end_matches('\n'));
            see(line.trim_end());
            bytes.clear();
        }
        Ok(child.wait()?.success())
    }

    /// Becomes the program: same process, same terminal, so that Ctrl-C reaches it alone. Returns only when that fails.
    pub(crate) fn become_it(mut self) -> anyhow::Error {
        let error = self.command.exec();
        anyhow::Error::new(error).context(format!("cannot start {}", self.line()))
    }

    /// The command line, for a reader.
    fn line(&self) -> String {
        let mut words =
            vec![Path::new(self.command.get_program()).file_name().unwrap_or_default().to_string_lossy()];
        words.extend(self.command.get_args().map(OsStr::to_string_lossy));
        words.join(" ")
    }
}

/// Whether nobody is watching: no question is asked, nothing but the clone is trusted.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Where `name` is on the search path, with the system folders that an ordinary user's path often lacks.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_seen_line_by_line() {
        let mut seen = Vec::new();
        let ok = Program::new("sh")
            .args(["-c", "echo one; echo two >&2; exit 3"])
            .watch(|line| seen.push(line.to_owned()));
        assert!(!ok.unwrap());
        assert_eq!(seen, ["one", "two"]);
    }

    #[test]
    fn a_failure_names_the_command_line() {
        let error = Program::new("sh").args(["-c", "exit 4"]).run().unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 4` ended with exit status: 4");
    }
}
