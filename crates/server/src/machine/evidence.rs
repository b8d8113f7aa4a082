//! What is gathered of an instance whose deployment may fail: its last lines, what was probably meant by a program that is not
//! there, whether the kernel ended it for lack of memory.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use berth_build::Mask;
use berth_control::event::Exit;
use berth_control::report::nearest;
use berth_control::state::{App, Instance, Release};
use berth_control::world::{Check, Verdict};
use berth_runtime::{Observed, Step};
use berth_spec::{Command, InstanceId};

use super::{Machine, environment};

/// How many lines of an instance's log are looked through for those that matter: a stack of most runtimes, thrice.
const TAIL: usize = 200;
/// Where programs lie in an artifact.
const IN_ARTIFACT: [&str; 4] = ["", "bin", ".venv/bin", "node_modules/.bin"];
/// The folders of the system whose programs are suggested. Others may hold names that are none of the app's business.
const OF_SYSTEM: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];
/// The most names that are looked through in a folder.
const NAMES: usize = 20_000;
/// How many lines of what a check wrote are told, its last ones, and how long each is at most, in characters.
const CHECK_LINES: usize = 5;
const CHECK_LINE: usize = 300;
/// What a shell says of a command that it does not find.
const NOT_FOUND: i32 = 127;

impl Machine {
    /// The last lines that an instance printed, without the secrets of its release.
    pub(super) async fn last_lines(&self, app: &App, release: &Release, id: &InstanceId) -> Vec<String> {
        let log = self.runtime.log(id);
        let Ok(Ok(batch)) = tokio::task::spawn_blocking(move || log.tail(TAIL)).await else {
            return Vec::new();
        };
        // Secrets that do not open were given to no instance.
        let secrets = environment::secrets(app, release, &self.vault).unwrap_or_default();
        let mask = Mask::new(&secrets.into_values().collect::<Vec<_>>());
        // How many lines are missing is a number, and no line.
        let records = batch.records.iter().filter(|(_, record)| record.dropped().is_none());
        let lines = records.map(|(_, record)| String::from_utf8_lossy(&record.body).into_owned());
        lines.map(|line| mask.hide(line)).collect()
    }

    /// How an instance stands with its own check, if it has one, and what the last one that did not pass wrote.
    pub(super) fn check_of(&self, app: &App, observed: &Observed) -> Option<Check> {
        let checked = observed.checked.as_ref()?;
        let verdict = match checked.verdict {
            berth_runtime::Verdict::Starting => Verdict::Starting,
            berth_runtime::Verdict::Healthy => Verdict::Healthy,
            berth_runtime::Verdict::Unhealthy => Verdict::Unhealthy,
        };
        let Some(failed) = checked.last.as_ref().filter(|last| !last.passed()) else {
            return Some(Check { verdict, evidence: Vec::new() });
        };
        let release = app.instances.get(&observed.id.ordinal).and_then(|it| app.release(it.release));
        let secrets = release.and_then(|release| environment::secrets(app, release, &self.vault).ok());
        let mask = Mask::new(&secrets.unwrap_or_default().into_values().collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&failed.output).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(CHECK_LINES));
        let last = last.map(|line| mask.hide((*line).to_owned()).chars().take(CHECK_LINE).collect());
        let again = match checked.failures {
            0 | 1 => String::new(),
            times => format!(", {times} times in a row"),
        };
        let first = format!("its health check {failed}{again}");
        Some(Check { verdict, evidence: std::iter::once(first).chain(last).collect() })
    }

    /// Why the instance's program was not started, and what was probably meant; nothing where it was.
    pub(super) async fn not_begun(
        &self,
        app: &App,
        release: &Release,
        instance: &Instance,
        observed: &Observed,
        tail: &[String],
    ) -> Vec<String> {
        let Some(exit) = observed.exits.last() else { return Vec::new() };
        let command = release.processes().and_then(|processes| processes.get(&instance.process));
        // Which program it was is said below, with what was meant.
        let mut told: Vec<String> =
            exit.failure.map(|failure| format!("it was not started: {failure}")).into_iter().collect();
        let Ok(dir) = self.artifact_dir(app, release) else { return told };
        let env = environment::shared(app, release, &dir, &self.vault).unwrap_or_default();
        let wanted = match exit.failure {
            Some(_) => command.and_then(|command| command.argv(&env).ok()?.into_iter().next()),
            None if exit.code == Some(NOT_FOUND) => tail.iter().rev().find_map(|line| not_found(line)),
            None => None,
        };
        let Some(wanted) = wanted else { return told };
        let path = env.get("PATH").cloned().unwrap_or_default();
        let looked = wanted.clone();
        let meant = tokio::task::spawn_blocking(move || suggestion(&looked, &dir, &path)).await;
        match meant.ok().flatten() {
            Some(meant) => told.push(format!("there is no program `{wanted}`; there is `{meant}`")),
            None if exit.code == Some(NOT_FOUND) => told.push(format!(
                "there is no program `{wanted}`: neither in the artifact nor in the folders of PATH, or it needs an interpreter that is not there"
            )),
            None => {}
        }
        told
    }

    /// The exit with what the kernel's count of processes that it killed for lack of memory says of it, where those of its own control
    /// group are not counted.
    pub(super) fn with_oom(&self, id: &InstanceId, exit: Exit) -> Exit {
        if exit.oom.is_some() || exit.signal != Some(9) && exit.status != Some(128 + 9) {
            return exit;
        }
        let mut notes = self.notes();
        let count = oom_kills();
        let before = std::mem::replace(&mut notes.oom_kills, count);
        let oom = before.zip(count).map(|(before, now)| now > before);
        match oom {
            Some(oom) => drop(notes.killed.insert(id.clone(), oom)),
            None => drop(notes.killed.remove(id)),
        }
        Exit { oom, ..exit }
    }
}

/// Why a command was not started, with the program that it was to be. Its variables are not put in: what they hold may be secret.
pub(super) fn unstarted(failure: berth_runtime::Failure, command: Option<&Command>) -> String {
    let program = match command {
        Some(Command::Argv(argv)) => argv.first().cloned(),
        Some(Command::Line(line)) => line.split_whitespace().next().map(str::to_owned),
        Some(Command::Shell(_)) => Some("/bin/sh".to_owned()),
        Some(Command::StaticSite { .. }) | None => None,
    };
    let error = std::io::Error::from_raw_os_error(failure.errno);
    match program.filter(|_| failure.step == Step::Exec) {
        Some(program) if error.kind() == std::io::ErrorKind::NotFound => format!(
            "there is no program `{program}`, neither where it runs nor in the folders of PATH, or it needs an interpreter that is not there"
        ),
        Some(program) => format!("running the program `{program}`: {error}"),
        None => failure.to_string(),
    }
}

/// How many processes the kernel has killed since the machine started because memory ran out; not every kernel counts.
pub(super) fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The command in `sh: 1: gunicron: not found` or `bash: line 1: gunicron: command not found`.
fn not_found(line: &str) -> Option<String> {
    let (before, last) = line.rsplit_once(": ")?;
    let says_so = matches!(last.trim(), "not found" | "command not found");
    let name = before.rsplit(": ").next()?.trim();
    (says_so && !name.is_empty() && !name.contains(char::is_whitespace)).then(|| name.to_owned())
}

/// The program that `wanted` probably means, as one would write it in its place.
fn suggestion(wanted: &str, artifact: &Path, path: &str) -> Option<String> {
    if let Some((folder, name)) = wanted.rsplit_once('/') {
        let relative = Path::new(folder);
        if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        let names = names_in(artifact, relative);
        return nearest(name, names.iter().map(String::as_str)).map(|name| format!("{folder}/{name}"));
    }
    let system = OF_SYSTEM.into_iter().filter(|folder| path.split(':').any(|part| part == *folder));
    let folders = IN_ARTIFACT.into_iter().map(|folder| names_in(artifact, Path::new(folder)));
    let names: BTreeSet<String> =
        folders.chain(system.map(|folder| names_in(Path::new(folder), Path::new("")))).flatten().collect();
    nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The names in a folder below `base`, which no link leads to: the artifact is a tenant's, and its links lead where he likes.
fn names_in(base: &Path, below: &Path) -> Vec<String> {
    let mut dir: PathBuf = base.to_owned();
    for part in below.components() {
        dir.push(part);
        if !std::fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir()) {
            return Vec::new();
        }
    }
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten().take(NAMES);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_program_is_found_where_it_may_be() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["bin", "outside"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("bin/server"), "").unwrap();
        std::fs::write(dir.path().join("outside/secretary"), "").unwrap();
        std::os::unix::fs::symlink("outside", dir.path().join("node_modules")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), dir.path().join("linked")).unwrap();
        let meant = |wanted: &str| suggestion(wanted, dir.path(), "/nowhere");
        assert_eq!(meant("bin/sever").as_deref(), Some("bin/server"));
        assert_eq!(meant("./bin/sever").as_deref(), Some("./bin/server"));
        assert_eq!(meant("servre").as_deref(), Some("server"));
        for none in ["linked/secretery", "../x/sever", "/bin/server", "secretery", "other"] {
            assert_eq!(meant(none), None, "{none}");
        }
    }

    #[test]
    fn a_program_that_was_not_started_is_named() {
        let told =
            |step, errno, command: Command| unstarted(berth_runtime::Failure { step, errno }, Some(&command));
        let argv = |program: &str| Command::from_argv(vec![program.to_owned(), "x".to_owned()]).unwrap();
        let missing = told(Step::Exec, 2, argv("nosuch"));
        assert!(missing.contains("there is no program `nosuch`"), "{missing}");
        let refused = told(Step::Exec, 13, Command::parse("./notes.txt 'a b'").unwrap());
        assert!(refused.contains("running the program `./notes.txt`: Permission denied"), "{refused}");
        let limits = told(Step::Limits, 1, argv("nosuch"));
        assert!(limits.contains("setting limits: Operation not permitted"), "{limits}");
    }

    #[test]
    fn what_a_shell_did_not_find_is_read() {
        assert_eq!(not_found("sh: 1: gunicron: not found").as_deref(), Some("gunicron"));
        assert_eq!(not_found("bash: line 1: rails: command not found").as_deref(), Some("rails"));
        for other in ["key not found: \"A\"", "not found", "GET /x: 404 not found", ""] {
            assert_eq!(not_found(other), None, "{other}");
        }
    }
}
