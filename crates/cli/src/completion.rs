//! Completion on the command line, and man pages.
//!
//! The script that a shell reads asks this program again for each completion, so it never lags behind it, and names of apps and
//! numbers of releases come from the platform. Completion says nothing rather than waiting: a platform that does not answer at
//! once has no names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Clock, SystemClock};
use berth_contract::client::Client;
use berth_spec::{AppId, ProjectId};
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use crate::args::{self, Globals};
use crate::context::Environment;
use crate::verbs;

/// Set by the script, to the shell's name, when it asks for completions.
const ASKED: &str = "BERTH_COMPLETE";
/// How long completion waits for the platform.
const PATIENCE: Duration = Duration::from_millis(500);

/// The script for a shell, which it reads at its start.
///
/// # Errors
/// When the shell is none that is known, or memory ends.
pub(crate) fn script(shell: &str) -> io::Result<String> {
    let mut script = Vec::new();
    completer(shell)?.write_registration(ASKED, "berth", "berth", "berth", &mut script)?;
    String::from_utf8(script).map_err(io::Error::other)
}

/// Answers the script when it asks; none when this is a run like any other.
pub(crate) fn answer(arguments: &[OsString]) -> Option<io::Result<Vec<u8>>> {
    let shell = std::env::var_os(ASKED).filter(|shell| !shell.is_empty())?;
    let begin = arguments.iter().position(|argument| argument == "--")? + 1;
    Some(complete(&shell, arguments.get(begin..).unwrap_or_default()))
}

fn complete(shell: &OsStr, words: &[OsString]) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    let directory = std::env::current_dir().ok();
    let completer = completer(&shell.to_string_lossy())?;
    completer.write_complete(&mut args::definition(), words.to_vec(), directory.as_deref(), &mut found)?;
    Ok(found)
}

fn completer(shell: &str) -> io::Result<&'static dyn clap_complete::env::EnvCompleter> {
    const SHELLS: Shells<'static> = Shells::builtins();
    let all = SHELLS.0;
    let found = all.iter().find(|it| it.is(shell));
    found.copied().ok_or_else(|| io::Error::other(format!("no completions are known for {shell}")))
}

/// Writes a page for the program and one for each verb.
///
/// # Errors
/// When the directory does not take them.
pub(crate) fn man_pages(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(args::definition(), directory)
}

/// The names of the apps.
pub(crate) fn apps() -> Vec<CompletionCandidate> {
    let names = ask(async |client: Client, project: ProjectId| {
        let list = client.apps_page(&project, &Default::default()).await.ok()?;
        Some(list.apps.into_iter().map(|app| CompletionCandidate::new(app.name.as_str())).collect())
    });
    names.unwrap_or_default()
}

/// The app that is meant.
fn app(project: &ProjectId) -> Option<AppId> {
    let app = match said(&["--app", "-a"]) {
        Some(app) => app.parse().ok()?,
        None => verbs::app_of_directory(&Environment::of_process().directory).ok()?,
    };
    Some(project.app(app))
}

/// The app's cron entries.
pub(crate) fn cron_entries() -> Vec<CompletionCandidate> {
    let names = ask(async |client: Client, project: ProjectId| {
        let list = client.cron(&app(&project)?).await.ok()?;
        let shown = list
            .entries
            .into_iter()
            .map(|entry| CompletionCandidate::new(entry.name.as_str()).help(Some(entry.in_words.into())));
        Some(shown.collect())
    });
    names.unwrap_or_default()
}

/// The app's volumes.
pub(crate) fn volumes() -> Vec<CompletionCandidate> {
    let names = ask(async |client: Client, project: ProjectId| {
        let list = client.volumes(&app(&project)?).await.ok()?;
        let shown = list
            .volumes
            .into_iter()
            .map(|volume| CompletionCandidate::new(volume.name.as_str()).help(volume.path.map(Into::into)));
        Some(shown.collect())
    });
    names.unwrap_or_default()
}

/// The numbers of the app's releases, newest first.
pub(crate) fn releases() -> Vec<CompletionCandidate> {
    let numbers = ask(async |client: Client, project: ProjectId| {
        let list = client.releases(&app(&project)?).await.ok()?;
        let shown = list.releases.into_iter().map(|release| {
            let state = release.state.as_str().to_owned();
            CompletionCandidate::new(release.number.to_string()).help(Some(state.into()))
        });
        Some(shown.collect())
    });
    numbers.unwrap_or_default()
}

/// Asks the platform that the words mean.
fn ask<T>(question: impl AsyncFnOnce(Client, ProjectId) -> Option<T>) -> Option<T> {
    let globals = Globals {
        home: said(&["--home"]).map(Into::into),
        context: said(&["--context"]),
        tenant: said(&["--tenant"]).and_then(|name| name.parse().ok()),
        project: said(&["--project"]).and_then(|name| name.parse().ok()),
        ..Globals::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let client = verbs::connect(&globals, &Environment::of_process(), &clock).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let project = verbs::project(&globals);
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question(client, project)).await.ok().flatten() })
}

/// What is said on the line that is being completed: `--home X` or `--home=X`.
fn said(names: &[&str]) -> Option<String> {
    value_of(names, std::env::args().skip_while(|word| word != "--"))
}

fn value_of(names: &[&str], words: impl Iterator<Item = String>) -> Option<String> {
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if names.contains(&word.as_str()) {
            // Bash takes `--app=x` apart at the sign.
            let value = words.next().filter(|value| value != "=").or_else(|| words.next());
            return value.filter(|value| !value.is_empty());
        }
        if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_found() {
        let found = |line: &str| value_of(&["--app", "-a"], line.split_whitespace().map(str::to_owned));
        for line in ["berth logs --app shop", "berth -a shop logs", "berth --app=shop", "berth --app = shop"]
        {
            assert_eq!(found(line).as_deref(), Some("shop"), "{line}");
        }
        assert_eq!(found("berth logs -a"), None);
    }

    #[test]
    fn every_shell_has_its_script() {
        for shell in ["bash", "zsh", "fish"] {
            assert!(script(shell).unwrap().contains(ASKED), "{shell}");
        }
        assert!(script("dos").is_err());
    }

    #[test]
    fn every_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man_pages(directory.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("berth.1").contains(".TH berth 1"));
        assert!(page("berth-config-set.1").contains("NAME=VALUE"));
    }
}
