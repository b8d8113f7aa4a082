//! How each verb is done.

mod apps;
mod backup;
mod certs;
mod cron;
mod deploy;
mod diff;
mod doctor;
mod domains;
mod follow;
mod gate;
mod git;
mod history;
mod launch;
mod logs;
mod platform;
mod registry;
mod releases;
mod run;
mod seen;
mod settings;
mod stack;
mod traffic;
mod upgrade;
mod volumes;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_clock::{Clock, random_bytes};
use berth_contract::client::{Client, IdempotencyKey, Notice, Patience};
use berth_contract::{Code, ExitStatus};
use berth_spec::{AppId, AppName, ProjectId};
use serde::Serialize;
use serde_json::json;

use crate::args::{BackupArgs, CommandLine, Globals, OfApp, Verb};
use crate::completion;
use crate::context::{self, ContextError, Environment, Target};
use crate::failure::Failure;
use crate::figures;
use crate::screen::{Screen, Style, harmless, paint};
use crate::status::Status;
use crate::table::Table;

/// The largest manifest that is looked into for the app's name; the platform has the same bound.
const MANIFEST_MAX: u64 = berth_spec::manifest::MANIFEST_MAX as u64;

/// Where the facts stand, behind what they are about.
const FACT_INDENT: usize = 11;

/// What a verb works with.
struct Session<'s> {
    client: Client,
    project: ProjectId,
    /// The platform's home, when it is known.
    home: Option<PathBuf>,
    environment: &'s Environment,
    clock: &'s dyn Clock,
    screen: &'s mut Screen,
    json: bool,
}

pub(crate) async fn perform(
    line: CommandLine,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    screen: &mut Screen,
) -> Result<Status, Failure> {
    let CommandLine { globals, verb } = line;
    match &verb {
        Verb::Version => return version(globals.json, screen).map(Status::from),
        Verb::Completions(args) => return completions(&args.shell, screen).map(Status::from),
        Verb::Man(args) => return man(&args.directory, globals.json, screen).map(Status::from),
        Verb::Backup(BackupArgs { action: Some(action), .. }) => {
            return backup::local(action, &globals, environment, screen).map(Status::from);
        }
        Verb::Doctor => return doctor::doctor(&globals, environment, clock, screen).await.map(Status::from),
        _ => {}
    }
    let target = match context::find(&globals, environment) {
        Err(ContextError::NoPlatform { home, .. }) if needs_no_platform(&verb) => Target::nobody(&home),
        found => found?,
    };
    let home = target.home.clone();
    let client = client(target, &globals, clock, patience(&verb));
    let project = project(&globals);
    let json = globals.json;
    let mut session = Session { client, project, home, environment, clock: &**clock, screen, json };
    let done = match verb {
        // What it ran ends as it likes.
        Verb::Run(args) => return session.run(args).await,
        Verb::Exec(args) => return session.exec(args).await,
        // The binary keeps `up` for itself; the others were done above.
        Verb::Up(_)
        | Verb::Restore(_)
        | Verb::Version
        | Verb::Doctor
        | Verb::Completions(_)
        | Verb::Man(_) => Ok(ExitStatus::Usage),
        Verb::Backup(args) => session.backup(args).await,
        Verb::Down => session.down().await,
        Verb::Upgrade(args) => session.upgrade(&args).await,
        Verb::Status => session.status().await,
        Verb::Deploy(args) => session.deploy(args).await,
        Verb::Launch(args) => session.launch(args).await,
        Verb::Apps(args) => session.apps(args).await,
        Verb::Releases(args) => session.releases(args).await,
        Verb::Rollback(args) => session.rollback(args).await,
        Verb::Traffic(args) => session.traffic(args).await,
        Verb::Promote(args) => session.promote(args).await,
        Verb::Abort(of) => session.abort(&of).await,
        Verb::Config(args) => session.config(args).await,
        Verb::Secrets(args) => session.secrets(args).await,
        Verb::Domains(args) => session.domains(args).await,
        Verb::Certs(args) => session.certs(args).await,
        Verb::Maintenance(args) => session.maintenance(args).await,
        Verb::Pause(of) => session.gate(&of, berth_spec::Gate::Paused).await,
        Verb::Resume(of) => session.gate(&of, berth_spec::Gate::Open).await,
        Verb::Cron(args) => session.cron(args).await,
        Verb::Volumes(args) => session.volumes(args).await,
        Verb::Stack(args) => session.stack(args).await,
        Verb::Git(args) => session.git(args).await,
        Verb::Registry(args) => session.registry(args).await,
        Verb::Logs(args) => session.logs(args).await,
        Verb::Ps(of) => session.ps(of).await,
        Verb::Scale(args) => session.scale(args).await,
        Verb::Destroy(args) => session.destroy(args).await,
        Verb::Why(args) => session.why(args).await,
        Verb::Timeline(args) => session.timeline(args).await,
    };
    done.map(Status::from)
}

/// Whether the verb has something to say where there is no platform.
fn needs_no_platform(verb: &Verb) -> bool {
    matches!(verb, Verb::Launch(args) if args.dry_run)
}

/// A platform that may be missing is not waited for.
fn patience(verb: &Verb) -> Patience {
    let in_all = if needs_no_platform(verb) { Duration::ZERO } else { Patience::default().in_all };
    Patience { in_all, ..Patience::default() }
}

fn version(json: bool, screen: &mut Screen) -> Result<ExitStatus, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        screen.json(&json!({ "version": version }))?;
    } else {
        screen.line(&format!("berth {version}"))?;
    }
    Ok(ExitStatus::Ok)
}

fn completions(shell: &str, screen: &mut Screen) -> Result<ExitStatus, Failure> {
    screen.line(completion::script(shell)?.trim_end())?;
    Ok(ExitStatus::Ok)
}

fn man(directory: &Path, json: bool, screen: &mut Screen) -> Result<ExitStatus, Failure> {
    completion::man_pages(directory)?;
    if json {
        screen.json(&json!({ "directory": directory }))?;
    } else {
        screen.line(&format!("wrote the pages to {}", directory.display()))?;
    }
    Ok(ExitStatus::Ok)
}

/// The project that is meant.
pub(crate) fn project(globals: &Globals) -> ProjectId {
    ProjectId {
        tenant: globals.tenant.clone().unwrap_or_else(default_name),
        project: globals.project.clone().unwrap_or_else(default_name),
    }
}

fn default_name<N: std::str::FromStr<Err: std::fmt::Debug>>() -> N {
    "default".parse().expect("it is a name")
}

pub(crate) fn connect(
    globals: &Globals,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
) -> Result<Client, Failure> {
    Ok(client(context::find(globals, environment)?, globals, clock, Patience::default()))
}

fn client(target: Target, globals: &Globals, clock: &Arc<dyn Clock>, patience: Patience) -> Client {
    let clock = Arc::clone(clock);
    let builder = Client::builder(target.endpoint, move || IdempotencyKey::new(random_bytes(&*clock)));
    let builder = match target.token {
        Some(token) => builder.token(token),
        None => builder,
    };
    let json = globals.json;
    builder.patience(patience).on_notice(move |notice| tell_notice(&notice, json)).build()
}

/// The client calls this in the middle of a verb, when the screen is in other hands; a notice is a line of its own on standard
/// error and disturbs nothing there.
fn tell_notice(notice: &Notice, json: bool) {
    use std::io::{IsTerminal as _, Write as _};
    let text = match notice {
        _ if json => return,
        // The first attempts follow so quickly that a restart of control often is over before one could read of it.
        Notice::Reconnecting { after, .. } if after.as_millis() < 400 => return,
        Notice::Reconnecting { what, .. } => format!("{what}; trying again"),
        Notice::Reconnected => return,
    };
    let mut err = std::io::stderr();
    // On a terminal a status line may stand there.
    let clear = if err.is_terminal() { "\r\x1b[K" } else { "" };
    drop(writeln!(err, "{clear}{text}"));
}

impl Session<'_> {
    /// Prints a document as it came, or as people read it.
    fn show<T: Serialize>(
        &mut self,
        value: &T,
        people: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<ExitStatus, Failure> {
        if self.json {
            self.screen.json(value)?;
        } else {
            people(self)?;
        }
        Ok(ExitStatus::Ok)
    }

    fn print(&mut self, table: &Table) -> Result<(), Failure> {
        for line in table.render(self.screen.width, self.screen.colour) {
            self.screen.line(&line)?;
        }
        Ok(())
    }

    /// Prints facts, each after what it is about, wrapped where the terminal ends.
    fn facts(&mut self, facts: &[(&str, String)]) -> Result<(), Failure> {
        let room = self.screen.width.map(|columns| columns.saturating_sub(FACT_INDENT).max(20));
        for (name, value) in facts {
            for (index, line) in figures::wrapped(&harmless(value), room).iter().enumerate() {
                let name = if index == 0 { *name } else { "" };
                let name = paint(&format!("{name:<FACT_INDENT$}"), Style::Dim, self.screen.colour);
                self.screen.line(&format!("{name}{line}"))?;
            }
        }
        Ok(())
    }

    /// Prints one point of a list, wrapped where the terminal ends.
    fn point(&mut self, text: &str) -> Result<(), Failure> {
        let room = self.screen.width.map(|columns| columns.saturating_sub(4).max(20));
        for (index, line) in figures::wrapped(&harmless(text), room).iter().enumerate() {
            self.screen.line(&format!("{}{line}", if index == 0 { "  " } else { "    " }))?;
        }
        Ok(())
    }

    /// Says something that is not the result; nothing in JSON.
    fn hint(&mut self, text: &str) -> Result<(), Failure> {
        if !self.json {
            self.screen.aside(text)?;
        }
        Ok(())
    }

    /// The directory of the source that a path means.
    fn source_directory(&self, path: &Path) -> Result<PathBuf, Failure> {
        let path = self.environment.directory.join(path);
        if path.is_dir() {
            return Ok(path);
        }
        let detail = format!("{} is not a directory", path.display());
        Err(Failure::local(Code::SourceUnreadable, detail, "name the directory that holds the source"))
    }

    fn app_id(&self, of: &OfApp) -> Result<AppId, Failure> {
        let directory = &self.environment.directory;
        match &of.app {
            Some(app) => Ok(self.project.app(app.clone())),
            None => Ok(self.project.app(app_of_directory(directory)?)),
        }
    }
}

/// The app that a directory is the source of: what its berth.toml says, else its own name made valid.
pub(crate) fn app_of_directory(directory: &Path) -> Result<AppName, Failure> {
    let nameless = |detail: String| {
        Failure::local(
            Code::UsageInvalid,
            detail,
            "give --app NAME, or write `app = \"NAME\"` into berth.toml",
        )
    };
    if let Some(text) = read_file(directory, berth_spec::manifest::FILE_NAME)? {
        // Only the name is read: a manifest with errors elsewhere must not keep `logs` from working.
        let table: Option<toml::Table> = text.parse().ok();
        if let Some(name) = table.as_ref().and_then(|table| table.get("app")?.as_str()) {
            return name.parse().map_err(|problem| nameless(format!("berth.toml: {problem}")));
        }
    }
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    valid_name(&name)
        .ok_or_else(|| nameless(format!("no app's name can be made of the directory's, {name:?}")))
}

/// A file of the source as text; none when it is not there.
fn read_file(directory: &Path, name: &str) -> Result<Option<String>, Failure> {
    use std::io::Read as _;
    let path = directory.join(name);
    let unreadable = |problem: std::io::Error| {
        let detail = format!("{} cannot be read: {problem}", path.display());
        Failure::local(Code::SourceUnreadable, detail, "correct the file or its permissions")
    };
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(unreadable(problem)),
    };
    let mut text = String::new();
    file.take(MANIFEST_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Some(text))
}

/// `My Shop_2` as `my-shop-2`; none when nothing of it can stay.
fn valid_name(text: &str) -> Option<AppName> {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' => name.push(c),
            '0'..='9' if !name.is_empty() => name.push(c),
            _ if name.ends_with('-') || name.is_empty() => {}
            _ => name.push('-'),
        }
    }
    name.truncate(40);
    name.trim_end_matches('-').parse().ok()
}
