//! A compose file as a stack: each of its services becomes an app with a life of its own.
//!
//! [`read`] is a function of the text and of variables. What it does not take over is told with its line: some of it has no meaning
//! here and the rest means the same without it, some of it would change what runs, and then nothing is done.

mod health;
mod node;
mod resources;
mod service;

use std::collections::{BTreeMap, BTreeSet};

use berth_spec::interpolation::interpolated;
use berth_spec::manifest::{Alias, MANIFEST_MAX, VOLUMES_MAX};
use berth_spec::{AppName, Manifest, Problems, ProcessName};

use crate::import::problem;
use node::Node;

/// What a compose file describes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stack {
    /// What it calls itself.
    pub name: Option<String>,
    /// Its services, each after those that it depends on.
    pub services: Vec<Service>,
    /// What was not taken over, in the order of the file.
    pub told: Vec<Told>,
}

impl Stack {
    /// Whether something of it cannot be kept, so that none of it is to be run.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.told.iter().any(|told| told.refused)
    }
}

/// Something that was not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its line, from 1.
    pub line: u32,
    /// Which key: `services.web.networks`.
    pub what: String,
    /// Why, and what to do instead.
    pub why: String,
    /// Whether what runs would be another thing without it.
    pub refused: bool,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name in the form of an app's.
    pub name: AppName,
    /// Its line, from 1.
    pub line: u32,
    /// What the others call it, in the form that names have; none when nothing can be called so.
    pub alias: Option<Alias>,
    /// Its app, of which only the name is missing.
    pub manifest: Manifest,
    /// The directory that it is built from, relative to the file; none when it is an image.
    pub context: Option<String>,
    /// Files of variables, relative to the file; what `environment` says wins over them.
    pub env_files: Vec<EnvFile>,
    /// The services that it starts after, and what they have to have come to.
    pub after: BTreeMap<AppName, Condition>,
    /// How many instances of which process are wanted, when that is not one of each.
    pub replicas: Option<(ProcessName, u32)>,
    /// Whether it runs once to its end, since another waits for that.
    pub is_job: bool,
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// Where it is.
    pub path: String,
    /// Whether it has to be there.
    pub required: bool,
    /// Whether its values are taken as they stand.
    pub raw: bool,
}

/// What a service has to have come to before another starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It is ready. A release that is active is, so that there is no weaker condition.
    Ready,
    /// It ran to its end and succeeded.
    Completed,
}

/// The text of a compose file that is called `file`; `variable` says what a `${NAME}` in it stands for.
///
/// # Errors
/// [`Problems`] that keep it from being read at all, with their places.
pub fn read(file: &str, text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Stack, Problems> {
    if text.len() > MANIFEST_MAX {
        let what = format!("the file is longer than {} KiB", MANIFEST_MAX / 1024);
        return Err(problem(file, text, (1, 1), what));
    }
    let document = node::read(file, text)?;
    let mut reader = Reader { stack: Stack::default(), variable };
    let mut services = BTreeMap::new();
    for (key, value) in document.entries() {
        match key {
            "name" => reader.stack.name = reader.text(value),
            "version" => {}
            "services" => services = reader.services(value),
            // Which service has one is said there.
            "volumes" => reader.volumes(value),
            "networks" => reader.tell(
                value,
                key,
                "each app is in a network of its own, and all of a project reach each other by name",
            ),
            "configs" | "secrets" => {
                reader.refuse(
                    value,
                    key,
                    "not available in this version: `berth secrets set` keeps what is secret",
                );
            }
            "include" => reader.refuse(value, key, "each file is a stack of its own here: name it with -f"),
            key if key.starts_with("x-") => {}
            key => reader.refuse(value, key, "not known here"),
        }
    }
    if services.is_empty() {
        return Err(problem(file, text, (1, 1), "the file has no services"));
    }
    let mut shared = shared_volumes(&services);
    shared.extend(missing(&services));
    shared.extend(silent_jobs(&services));
    let Reader { mut stack, .. } = reader;
    stack.told.extend(shared);
    jobs(&mut services);
    stack.services = in_order(services).map_err(|cycle| {
        problem(file, text, (1, 1), format!("these services wait for each other: {}", cycle.join(", ")))
    })?;
    stack.told.sort_by_key(|told| told.line);
    Ok(stack)
}

/// What is read so far.
struct Reader<'v> {
    stack: Stack,
    variable: &'v dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    /// What has no meaning here, or the same without it.
    fn tell(&mut self, at: &Node, what: &str, why: &str) {
        self.told(at, what, why, false);
    }

    /// What would change what runs.
    fn refuse(&mut self, at: &Node, what: &str, why: &str) {
        self.told(at, what, why, true);
    }

    fn told(&mut self, at: &Node, what: &str, why: &str, refused: bool) {
        let (what, why) = (what.to_owned(), why.to_owned());
        self.stack.told.push(Told { line: at.line, what, why, refused });
    }

    /// Whether it is a table; refused where it is anything else, since what is in it would not be heard.
    fn is_table(&mut self, what: &str, value: &Node) -> bool {
        if !value.is_table() && !value.is_nothing() {
            self.refuse(value, what, "it has to be a table of keys and values");
        }
        value.is_table()
    }

    /// Whether it is a table or a list; refused where it is anything else.
    fn has_parts(&mut self, what: &str, value: &Node) -> bool {
        let has = value.is_table() || value.is_list();
        if !has && !value.is_nothing() {
            self.refuse(value, what, "it has to be a list, or a table of keys and values");
        }
        has
    }

    /// A plain value with its variables put in.
    fn text(&mut self, node: &Node) -> Option<String> {
        let text = node.plain()?;
        match interpolated(&text, self.variable) {
            Ok(text) => Some(text),
            Err(why) => {
                self.refuse(node, &text, &why);
                None
            }
        }
    }

    /// The services, each with the line where it stands.
    fn services(&mut self, all: &Node) -> BTreeMap<AppName, (u32, Service)> {
        let mut services = BTreeMap::new();
        for (name, value) in all.entries() {
            let what = format!("services.{name}");
            match service::app_name(name) {
                Ok(app) => {
                    let mut made = service::read(self, &what, app.clone(), value);
                    made.alias = name.to_ascii_lowercase().parse().ok();
                    if services.insert(app, (value.line, made)).is_some() {
                        self.refuse(value, &what, "another service has the same name as an app");
                    }
                }
                Err(why) => self.refuse(value, &what, &why),
            }
        }
        services
    }

    fn volumes(&mut self, all: &Node) {
        for (name, value) in all.entries() {
            for (key, value) in value.entries() {
                let what = format!("volumes.{name}.{key}");
                match key {
                    "external" if value.plain().as_deref() == Some("true") => {
                        self.refuse(
                            value,
                            &what,
                            "a volume is its app's own: it is made when it is first needed",
                        );
                    }
                    "external" | "labels" => {}
                    "driver" if value.plain().as_deref() == Some("local") => {}
                    "name" => self.tell(value, &what, "a volume is called as the service calls it"),
                    _ => self.refuse(value, &what, "a volume is a directory of the home, and nothing else"),
                }
            }
        }
    }
}

/// A volume belongs to one app.
fn shared_volumes(services: &BTreeMap<AppName, (u32, Service)>) -> Vec<Told> {
    let mut owners: BTreeMap<&str, &AppName> = BTreeMap::new();
    let mut told = Vec::new();
    for (app, (line, service)) in services {
        for name in service.manifest.volumes.keys() {
            if let Some(owner) = owners.insert(name.as_str(), app) {
                told.push(Told {
                    line: *line,
                    what: format!("services.{app}.volumes"),
                    why: format!("{owner} has the volume {name}, and a volume is one app's alone: make both processes of one app, in its berth.toml"),
                    refused: true,
                });
            }
        }
        if service.manifest.volumes.len() > VOLUMES_MAX {
            let why = format!("an app has at most {VOLUMES_MAX} volumes");
            told.push(Told { line: *line, what: format!("services.{app}.volumes"), why, refused: true });
        }
    }
    told
}

fn refused(line: u32, what: String, why: String) -> Told {
    Told { line, what, why, refused: true }
}

/// Services that wait for one which is not there.
fn missing(services: &BTreeMap<AppName, (u32, Service)>) -> Vec<Told> {
    let mut told = Vec::new();
    for (app, (line, service)) in services {
        for name in service.after.keys().filter(|name| !services.contains_key(*name)) {
            let why = format!("{name} is no service of this file, and each file is a stack of its own");
            told.push(refused(*line, format!("services.{app}.depends_on"), why));
        }
    }
    told
}

/// Services for whose end another waits and that do not say what they run.
fn silent_jobs(services: &BTreeMap<AppName, (u32, Service)>) -> Vec<Told> {
    let waits = services.values().flat_map(|(_, service)| &service.after);
    let ends = waits.filter(|(_, condition)| **condition == Condition::Completed).map(|(name, _)| name);
    let ends: BTreeSet<&AppName> = ends.collect();
    let silent = ends.into_iter().filter_map(|name| services.get(name));
    let silent = silent.filter(|(_, service)| service.manifest.processes.is_empty());
    let why = "another service waits for its end, so it has to say what it runs: write `entrypoint`, or `command` where it is built";
    silent
        .map(|(line, service)| refused(*line, format!("services.{}", service.name), why.to_owned()))
        .collect()
}

/// A service for whose end another waits runs as the release command of its app: once for each release, and its failure is the release's.
fn jobs(services: &mut BTreeMap<AppName, (u32, Service)>) {
    let waits = services.values().flat_map(|(_, service)| &service.after);
    let ends: BTreeSet<AppName> = waits
        .filter(|(_, condition)| **condition == Condition::Completed)
        .map(|(name, _)| name.clone())
        .collect();
    for (_, service) in ends.iter().filter_map(|name| services.get(name)).cloned().collect::<Vec<_>>() {
        let name = service.name.clone();
        if let Some((_, service)) = services.get_mut(&name) {
            service::make_job(service);
        }
    }
}

/// Each after those that it depends on, in the order of their names otherwise; or the names of those that wait for each other.
fn in_order(mut services: BTreeMap<AppName, (u32, Service)>) -> Result<Vec<Service>, Vec<String>> {
    let mut ordered: Vec<Service> = Vec::new();
    while !services.is_empty() {
        let is_free = |service: &Service| !service.after.keys().any(|name| services.contains_key(name));
        let next = services.iter().find(|(_, (_, service))| is_free(service)).map(|(name, _)| name.clone());
        let Some((_, next)) = next.and_then(|name| services.remove(&name)) else {
            return Err(services.keys().map(ToString::to_string).collect());
        };
        ordered.push(next);
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests;
