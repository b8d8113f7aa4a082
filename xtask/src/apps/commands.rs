//! Running the commands of generators and of peers: in a folder, with caches of their own, what they say in a file, and never for ever.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::program::Program;
use crate::stopwatch::Stopwatch;

/// How long one command may take: a generator that asks a question would wait for ever.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How much of what a failed command said is shown.
const LAST_LINES: usize = 40;

/// Variables that name a folder of downloads, with the folder below the caches.
const CACHES: &[(&str, &str)] = &[
    ("npm_config_cache", "npm"),
    ("npm_config_store_dir", "pnpm"),
    ("YARN_CACHE_FOLDER", "yarn"),
    ("BUN_INSTALL_CACHE_DIR", "bun"),
    ("DENO_DIR", "deno"),
    ("PIP_CACHE_DIR", "pip"),
    ("UV_CACHE_DIR", "uv"),
    ("POETRY_CACHE_DIR", "poetry"),
    ("PIPENV_CACHE_DIR", "pipenv"),
    ("CARGO_HOME", "cargo"),
    ("GOCACHE", "go"),
    ("GOPATH", "gopath"),
    ("MIX_HOME", "mix"),
    ("HEX_HOME", "hex"),
    ("GRADLE_USER_HOME", "gradle"),
    ("COMPOSER_CACHE_DIR", "composer"),
];

/// Variables that a generator or a build asks before it sends reports or asks questions.
const QUIET: &[(&str, &str)] = &[
    ("CI", "1"),
    ("NEXT_TELEMETRY_DISABLED", "1"),
    ("ASTRO_TELEMETRY_DISABLED", "1"),
    ("NUXT_TELEMETRY_DISABLED", "1"),
    ("GATSBY_TELEMETRY_DISABLED", "1"),
    ("NG_CLI_ANALYTICS", "false"),
    ("npm_config_update_notifier", "false"),
    ("npm_config_fund", "false"),
    ("npm_config_audit", "false"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIPENV_VENV_IN_PROJECT", "1"),
    ("POETRY_VIRTUALENVS_IN_PROJECT", "true"),
];

/// Where and with what commands run.
#[derive(Debug, Clone)]
pub(super) struct Surroundings<'a> {
    pub dir: &'a Path,
    /// What the commands say is appended here.
    pub log: &'a Path,
    pub env: Vec<(OsString, OsString)>,
}

/// The variables for commands whose downloads lie in `caches`.
pub(super) fn environment(path: OsString, caches: &Path) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> =
        CACHES.iter().map(|(name, folder)| (name.into(), caches.join(folder).into_os_string())).collect();
    env.extend(QUIET.iter().map(|(name, value)| (name.into(), value.into())));
    env.push(("PATH".into(), path));
    env
}

impl Surroundings<'_> {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// It cannot be started, fails or does not end; with the last it said.
    pub(super) fn run(&self, words: &[String]) -> Result<()> {
        let mut running = self.start(words)?;
        let stopwatch = Stopwatch::start();
        loop {
            if let Some(status) = running.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("`{}` ended with {status}:\n{}", words.join(" "), last_lines(self.log));
            }
            if stopwatch.elapsed() > PATIENCE {
                bail!("`{}` did not end within {PATIENCE:?}:\n{}", words.join(" "), last_lines(self.log));
            }
            rest();
        }
    }

    /// Starts a command, as the leader of a group of processes that ends with what is given.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is watched and ended with its children, which Program cannot"
    )]
    pub(super) fn start(&self, words: &[String]) -> Result<Running> {
        let log = File::options().create(true).append(true).open(self.log)?;
        let [name, args @ ..] = words else { bail!("an empty command") };
        let mut command = Command::new(name);
        command.args(args).current_dir(self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // What cargo says to us is not for another cargo.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO") || text.starts_with("BERTH") {
                command.env_remove(&name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().with_context(|| format!("cannot start `{}`", words.join(" ")))?;
        Ok(Running { child })
    }
}

/// A command that runs; when it is dropped, it and its children end.
pub(super) struct Running {
    pub child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group outlives its leader where that left children behind; without anybody in it kill fails, and all is well.
        let group = format!("-{}", self.child.id());
        drop(Program::new("kill").args(["-KILL", "--", &group]).silent().output());
        drop(self.child.wait());
    }
}

/// Waits for a short while between two looks.
#[expect(clippy::disallowed_methods, reason = "the time that passes is what is measured")]
pub(super) fn rest() {
    std::thread::sleep(LOOK);
}

/// The last that a file of output holds.
pub(super) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_shows_its_last_words() {
        let temp = tempfile::tempdir().unwrap();
        let log = temp.path().join("log");
        let here = Surroundings { dir: temp.path(), log: &log, env: Vec::new() };
        here.run(&["true".to_owned()]).unwrap();
        let error = here.run(&["cat".to_owned(), "/nowhere".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("cat /nowhere") && error.contains("No such file"), "{error}");
        here.run(&[]).unwrap_err();
    }

    #[test]
    fn what_runs_ends_with_its_children() {
        let temp = tempfile::tempdir().unwrap();
        let log = temp.path().join("log");
        let here = Surroundings { dir: temp.path(), log: &log, env: Vec::new() };
        let words = ["sh", "-c", "sleep 1000 & echo $!; wait"].map(str::to_owned);
        let running = here.start(&words).unwrap();
        let child = loop {
            let said = std::fs::read_to_string(&log).unwrap();
            if let Some(pid) = said.strip_suffix('\n') {
                break pid.to_owned();
            }
            rest();
        };
        drop(running);
        let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // A zombie until its new parent has waited for it.
        while !state().is_empty() && !state().contains(") Z ") {
            rest();
        }
    }
}
