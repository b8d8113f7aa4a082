//! How each verb is done.

mod apps;
mod deploy;
mod doctor;
mod domains;
mod follow;
mod history;
mod logs;
mod platform;
mod releases;
mod settings;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use berth_clock::{Clock, random_bytes};
use berth_contract::client::{Client, IdempotencyKey, Notice};
use berth_contract::{Code, ExitStatus};
use berth_spec::{AppId, AppName, ProjectId};
use serde::Serialize;
use serde_json::json;

use crate::args::{CommandLine, Globals, OfApp, Verb};
use crate::context::{self, Environment};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::table::Table;

/// The largest manifest that is looked into for the app's name; the platform has the same bound.
const MANIFEST_MAX: u64 = berth_spec::manifest::MANIFEST_MAX as u64;

/// What a verb works with.
struct Session<'s> {
    client: Client,
    project: ProjectId,
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
) -> Result<ExitStatus, Failure> {
    let CommandLine { globals, verb } = line;
    match &verb {
        Verb::Version => return version(globals.json, screen),
        Verb::Doctor => return doctor::doctor(&globals, environment, clock, screen).await,
        _ => {}
    }
    let client = connect(&globals, environment, clock)?;
    let project = ProjectId {
        tenant: globals.tenant.clone().unwrap_or_else(default_name),
        project: globals.project.clone().unwrap_or_else(default_name),
    };
    let json = globals.json;
    let mut session = Session { client, project, environment, clock: &**clock, screen, json };
    match verb {
        // The binary keeps `up` for itself; the other two were done above.
        Verb::Up(_) | Verb::Version | Verb::Doctor => Ok(ExitStatus::Usage),
        Verb::Down => session.down().await,
        Verb::Status => session.status().await,
        Verb::Deploy(args) => session.deploy(args).await,
        Verb::Apps => session.apps().await,
        Verb::Releases(args) => session.releases(args).await,
        Verb::Rollback(args) => session.rollback(args).await,
        Verb::Config(args) => session.config(args).await,
        Verb::Secrets(args) => session.secrets(args).await,
        Verb::Domains(args) => session.domains(args).await,
        Verb::Logs(args) => session.logs(args).await,
        Verb::Ps(of) => session.ps(of).await,
        Verb::Scale(args) => session.scale(args).await,
        Verb::Destroy(args) => session.destroy(args).await,
        Verb::Why(args) => session.why(args).await,
        Verb::Timeline(args) => session.timeline(args).await,
    }
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

fn default_name<N: std::str::FromStr<Err: std::fmt::Debug>>() -> N {
    "default".parse().expect("it is a name")
}

fn connect(globals: &Globals, environment: &Environment, clock: &Arc<dyn Clock>) -> Result<Client, Failure> {
    let target = context::find(globals, environment)?;
    let clock = Arc::clone(clock);
    let builder = Client::builder(target.endpoint, move || IdempotencyKey::new(random_bytes(&*clock)));
    let builder = match target.token {
        Some(token) => builder.token(token),
        None => builder,
    };
    let json = globals.json;
    Ok(builder.on_notice(move |notice| tell_notice(&notice, json)).build())
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

    /// Says something that is not the result; nothing in JSON.
    fn hint(&mut self, text: &str) -> Result<(), Failure> {
        if !self.json {
            self.screen.aside(text)?;
        }
        Ok(())
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
fn app_of_directory(directory: &Path) -> Result<AppName, Failure> {
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
