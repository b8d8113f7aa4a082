//! What other platforms' files say of an app, taken over: Procfile, app.json, fly.toml, Kamal's deploy.yml, compose.yaml, `.env`.
//!
//! [`import`] is a function of the text alone. It gives pieces of a manifest, variables, secrets, and a list of all that was
//! not taken over with the reason: a key that is silently lost is found out in production. What a later version of another
//! platform adds is told as unknown and does not keep the rest from being read.

mod app_json;
mod compose;
pub(crate) mod document;
mod fly;
mod kamal;

use std::collections::BTreeMap;
use std::fmt;

use berth_spec::manifest::{MANIFEST_MAX, MountPath, Readiness, Strategy, Volume};
use berth_spec::procfile::Procfile;
use berth_spec::{
    AppName, Command, Dotenv, EnvName, Manifest, Millis, Problem, Problems, ProcessName, VolumeName,
};

/// The kinds of files that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Heroku's list of processes.
    Procfile,
    /// Heroku's app.json.
    AppJson,
    /// Fly's fly.toml.
    Fly,
    /// Kamal's config/deploy.yml.
    Kamal,
    /// A compose file.
    Compose,
    /// Variables: `.env`, or what `heroku config -s` prints.
    Env,
}

impl Kind {
    /// Each kind with the word for it and where its file usually lies.
    pub const NAMED: [(Self, &'static str, &'static str); 6] = [
        (Self::Procfile, "procfile", "Procfile"),
        (Self::AppJson, "heroku", "app.json"),
        (Self::Fly, "fly", "fly.toml"),
        (Self::Kamal, "kamal", "config/deploy.yml"),
        (Self::Compose, "compose", "compose.yaml"),
        (Self::Env, "env", ".env"),
    ];

    /// The kind of a file by its name, wherever it lies.
    #[must_use]
    pub fn of_file(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
        match name.as_str() {
            "app.json" => Some(Self::AppJson),
            _ if name.starts_with("procfile") => Some(Self::Procfile),
            _ if name.starts_with("fly.") && name.ends_with(".toml") => Some(Self::Fly),
            _ if yaml && name.starts_with("deploy.") => Some(Self::Kamal),
            _ if yaml && name.contains("compose") => Some(Self::Compose),
            _ if name.starts_with(".env") || name.ends_with(".env") => Some(Self::Env),
            _ => None,
        }
    }
}

/// What a file says of an app.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// What goes into berth.toml; everything else is as by default.
    pub manifest: Manifest,
    /// Variables for the configuration of the app, not for its source.
    pub config: BTreeMap<EnvName, String>,
    /// Secrets that the app has.
    pub secrets: BTreeMap<EnvName, Secret>,
    /// What was taken over otherwise than it stands there.
    pub notes: Vec<String>,
    /// What was not taken over.
    pub left: Vec<Left>,
}

/// Where the value of a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The file has it.
    Given(String),
    /// Any value that nobody can guess.
    Generated,
    /// A person.
    Asked {
        /// What it is for, when the file says so.
        what: Option<String>,
    },
}

/// Values are not shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "given",
            Self::Generated => "generated",
            Self::Asked { .. } => "asked",
        })
    }
}

/// Values of variables are not shown: what a file calls plain may be none.
impl fmt::Debug for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config: Vec<&EnvName> = self.config.keys().collect();
        f.debug_struct("Imported")
            .field("config", &config)
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

/// Something that was not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which key: `mounts`, `env.PORT`.
    pub what: String,
    /// Why, and what to do instead.
    pub why: String,
}

/// Reads `text`, a file of this kind that is called `file`.
///
/// # Errors
/// All [`Problems`] that keep it from being read at all, with their places.
pub fn import(kind: Kind, file: &str, text: &str) -> Result<Imported, Problems> {
    if text.len() > MANIFEST_MAX {
        let what = format!("the file is longer than {} KiB", MANIFEST_MAX / 1024);
        return Err(problem(file, text, (1, 1), what));
    }
    let mut taken = Imported::default();
    match kind {
        Kind::Procfile => {
            let procfile = Procfile::parse(text)?;
            taken.manifest.processes = procfile.processes;
            taken.manifest.deploy.release_command = procfile.release;
        }
        Kind::AppJson => app_json::take(&document::json(file, text)?, &mut taken),
        Kind::Fly => fly::take(&document::toml(file, text)?, &mut taken),
        Kind::Kamal => kamal::take(&document::yaml(file, text)?, &mut taken),
        Kind::Compose => compose::take(&document::yaml(file, text)?, &mut taken),
        Kind::Env => taken.dotenv(Dotenv::parse(file, text)?),
    }
    taken.settle_volumes();
    Ok(taken)
}

/// One problem at a line and a column, both from 1.
pub(crate) fn problem(
    file: &str,
    text: &str,
    (line, column): (usize, usize),
    what: impl Into<String>,
) -> Problems {
    let context = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    Problems(vec![Problem {
        file: file.to_owned(),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
        context: context.chars().take(120).collect(),
        what: what.into(),
        instead: None,
    }])
}

impl Imported {
    fn left(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left.push(Left { what: what.into(), why: why.into() });
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// `key` is one that this version does not know.
    fn unknown(&mut self, key: &str) {
        self.left(key, "not known here");
    }

    fn app(&mut self, key: &str, name: &str) {
        match AppName::new(name) {
            Ok(name) => self.manifest.app = Some(name),
            Err(bad) => self.left(key, bad.to_string()),
        }
    }

    /// The variable's name; what is wrong with it is told.
    fn variable(&mut self, key: &str, name: &str) -> Option<EnvName> {
        match EnvName::new(name) {
            Ok(name) => Some(name),
            Err(_) if berth_spec::name::RESERVED_ENV.contains(&name) => {
                self.left(format!("{key}.{name}"), "Berth sets it for every instance");
                None
            }
            Err(bad) => {
                self.left(format!("{key}.{name}"), bad.to_string());
                None
            }
        }
    }

    /// A plain variable, which berth.toml keeps as its own file did.
    fn env(&mut self, key: &str, name: &str, value: String) {
        if let Some(name) = self.variable(key, name) {
            self.manifest.env.insert(name, value);
        }
    }

    fn asked(&mut self, key: &str, name: &str, what: Option<String>) {
        if let Some(name) = self.variable(key, name) {
            self.secrets.insert(name, Secret::Asked { what });
        }
    }

    /// Sorts variables into configuration and secrets, by their names and their looks.
    fn dotenv(&mut self, read: Dotenv) {
        for name in read.reserved {
            self.left(name, "Berth sets it for every instance");
        }
        for (name, value) in read.variables {
            if looks_secret(name.as_str(), &value) {
                self.secrets.insert(name, Secret::Given(value));
            } else {
                self.config.insert(name, value);
            }
        }
    }

    fn process(&mut self, key: &str, name: &str, command: Result<Command, berth_spec::CommandError>) {
        let near = name.to_ascii_lowercase().replace(['_', '.'], "-");
        match (ProcessName::new(&near), command) {
            (Ok(process), Ok(command)) => {
                if near != name {
                    self.note(format!("the process {name} is called {near}"));
                }
                self.manifest.processes.insert(process, command);
            }
            (Err(bad), _) => self.left(key, bad.to_string()),
            (_, Err(bad)) => self.left(key, bad.to_string()),
        }
    }

    /// A named volume that this process has at `path`; what cannot be one is told.
    fn volume(&mut self, key: &str, name: &str, path: &str, process: Option<&str>) {
        if name.starts_with(['/', '.', '~']) {
            return self.left(
                key,
                format!("{name} is a directory of the machine, of which apps see nothing: put its files into a volume"),
            );
        }
        let near = name.to_ascii_lowercase().replace(['_', '.'], "-");
        let path: Result<MountPath, _> = path.parse();
        match (VolumeName::new(&near), path) {
            (Err(bad), _) => self.left(key, bad.to_string()),
            (_, Err(bad)) => self.left(key, bad.to_string()),
            (Ok(_), Ok(path)) if path.within_machine().is_some() => {
                let advice = "write [[volumes]] with a path like \"/data\"";
                self.left(key, format!("nothing can be mounted at {path}, which is the machine's: {advice}"));
            }
            (Ok(name), Ok(path)) => {
                let process = process.map(|it| it.to_ascii_lowercase().replace(['_', '.'], "-"));
                let process = process.and_then(|process| ProcessName::new(&process).ok());
                let made = Volume { path, size: None, processes: process.into_iter().collect() };
                match self.manifest.volumes.get_mut(&name) {
                    Some(there) if there.path != made.path => {
                        let why = format!("{name} has one path for all processes, which is {}", there.path);
                        self.left(key, why);
                    }
                    Some(there) if there.processes.is_empty() || made.processes.is_empty() => {
                        there.processes.clear();
                    }
                    Some(there) => there.processes.extend(made.processes),
                    None => drop(self.manifest.volumes.insert(name, made)),
                }
            }
        }
    }

    /// Volumes are of processes that were taken over, and the strategy is one that goes with them.
    fn settle_volumes(&mut self) {
        let Manifest { volumes, processes, deploy, .. } = &mut self.manifest;
        let known = |process: &ProcessName| {
            process.is_web() || processes.is_empty() || processes.contains_key(process)
        };
        let mut nobodys = Vec::new();
        volumes.retain(|name, volume| {
            let was_of_some = !volume.processes.is_empty();
            volume.processes.retain(known);
            let has_some = !was_of_some || !volume.processes.is_empty();
            nobodys.extend((!has_some).then(|| name.to_string()));
            has_some
        });
        let of_web = volumes
            .values()
            .any(|volume| volume.processes.is_empty() || volume.processes.iter().any(ProcessName::is_web));
        if of_web && deploy.strategy.is_some_and(|strategy| strategy != Strategy::Recreate) {
            deploy.strategy = None;
            self.note("web has a volume, so its old instance stops before the new one starts: other strategies do not go with it");
        }
        for name in nobodys {
            self.left(format!("volumes.{name}"), "no process that was taken over has it");
        }
    }

    fn release_command(&mut self, key: &str, line: &str) {
        match Command::parse(line) {
            Ok(command) => self.manifest.deploy.release_command = Some(command),
            Err(bad) => self.left(key, bad.to_string()),
        }
    }

    fn host(&mut self, key: &str, host: &str) {
        match host.parse() {
            Ok(host) if self.manifest.http.hosts.contains(&host) => {}
            Ok(host) => self.manifest.http.hosts.push(host),
            Err(_) => self.left(key, format!("{host:?} is not a host name")),
        }
    }

    fn check_path(&mut self, key: &str, path: &str) {
        match path.parse() {
            Ok(path) => self.manifest.http.readiness.path = Some(path),
            Err(_) => self.left(key, format!("{path:?} is not the path of a check")),
        }
    }

    /// A span of the check, kept within what berth.toml takes.
    fn check_span(&mut self, key: &str, span: Option<Millis>, of: impl Fn(&mut Readiness) -> &mut Millis) {
        let readiness = &mut self.manifest.http.readiness;
        // Interval, timeout and grace have bounds of their own; this span lies within all of them.
        match bounded(span, Millis(100), Millis::from_secs(300)) {
            Some(span) => *of(readiness) = span,
            None if span.is_some() => self.left(key, "not between 100ms and 5m"),
            None => {}
        }
    }

    fn port(&mut self, key: &str, port: Option<u64>) {
        match port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
            Some(port) => {
                self.manifest.http.port = Some(port);
                self.note(format!(
                    "PORT says where the app has to listen; {port} counts only in a network of its own"
                ));
            }
            None => self.left(key, "not a port"),
        }
    }
}

/// A span within bounds, as berth.toml takes it.
fn bounded(span: Option<Millis>, least: Millis, most: Millis) -> Option<Millis> {
    span.filter(|span| (least..=most).contains(span))
}

/// Whether a variable is better kept as a secret: by the words in its name, or because its value is an address with a password.
#[must_use]
pub fn looks_secret(name: &str, value: &str) -> bool {
    const WORDS: [&str; 14] = [
        "SECRET",
        "TOKEN",
        "PASSWORD",
        "PASSWD",
        "PASS",
        "PWD",
        "KEY",
        "CREDENTIAL",
        "CREDENTIALS",
        "PRIVATE",
        "DSN",
        "AUTH",
        "SIGNING",
        "SALT",
    ];
    let upper = name.to_ascii_uppercase();
    let by_name = upper.split('_').any(|word| WORDS.contains(&word));
    let after_scheme = value.split_once("://").map(|(_, rest)| rest);
    let authority = after_scheme.and_then(|rest| rest.split(['/', '?', '#']).next());
    let by_value = authority
        .is_some_and(|authority| authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')));
    by_name || by_value || value.starts_with("-----BEGIN ")
}

#[cfg(test)]
mod tests;
