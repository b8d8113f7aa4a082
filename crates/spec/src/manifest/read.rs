//! Reading berth.toml: every mistake is found and placed, not just the first.
//!
//! serde would stop at the first wrong value and knows no place for a missing or an unknown key, so the table
//! that the TOML parser gives is walked by hand. The types in [`crate::schema`] describe the same keys for the
//! JSON Schema; a test keeps the two equal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Keys};
use super::{
    Alias, Builder, CheckPath, Deploy, ENV_VALUE_MAX, Egress, FILE_NAME, Format, HostName, Http,
    HttpProtocol, MANIFEST_MAX, Manifest, Network, Readiness, Shutdown, Signal, Strategy,
};
use super::{
    build, canary, cron, healthcheck, http_cache, http_route, image_args, rate_limit, request_limits,
    resources, scale, volumes,
};
use crate::command::Command;
use crate::isolation::Isolation;
use crate::name::{EnvName, ProcessName, RELEASE_COMMAND_PROCESS, RUN_PROCESS};
use crate::problem::{Collector, Problems, Wrong, nearest};
use crate::unit::Millis;

pub(super) const SECOND: Millis = Millis::from_secs(1);
pub(super) const HOUR: Millis = Millis::from_secs(3_600);
pub(super) const DAY: Millis = Millis::from_secs(86_400);
/// What browsers' lists of hosts that are HTTPS alone ask for, and nobody more.
const TWO_YEARS: Millis = Millis::from_secs(2 * 365 * 86_400);
/// The longest time between the signal and SIGKILL.
const KILL_AFTER_MAX: Millis = Millis::from_secs(300);
/// The most hosts of one app; each is a route at edge.
const HOSTS_MAX: usize = 100;

/// Reads the text of a berth.toml. `elsewhere` are the processes that another file has for it.
pub(super) fn manifest(text: &str, elsewhere: &BTreeMap<ProcessName, Command>) -> Result<Manifest, Problems> {
    let mut problems = Collector::new(FILE_NAME, text);
    if text.len() > MANIFEST_MAX {
        problems.note(&(0..0), Wrong::new(format!("the file is longer than {} KiB", MANIFEST_MAX / 1024)));
        return Err(Problems(problems.into_problems()));
    }
    let (table, mistakes) = DeTable::parse_recoverable(text);
    for mistake in &mistakes {
        let whole_file = 0..0;
        problems.note(&mistake.span().unwrap_or(whole_file), Wrong::new(mistake.message()));
    }
    // What the parser recovered to after a mistake is a guess; complaints about guesses would only confuse.
    let read = mistakes
        .is_empty()
        .then(|| top(&mut Section::new(&mut problems, table.get_ref(), &keys::TOP), elsewhere));
    match (problems.into_problems(), read) {
        (problems, Some(read)) if problems.is_empty() => Ok(read),
        (problems, _) => Err(Problems(problems)),
    }
}

type Value<'t> = Spanned<DeValue<'t>>;

/// A table of the manifest whose unknown keys were reported already.
pub(super) struct Section<'s, 'p, 't> {
    pub(super) problems: &'s mut Collector<'p>,
    pub(super) table: &'s DeTable<'t>,
    section: &'static str,
}

impl<'s, 'p, 't> Section<'s, 'p, 't> {
    pub(super) fn new(problems: &'s mut Collector<'p>, table: &'s DeTable<'t>, keys: &'static Keys) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !keys.known.contains(&name) {
                problems.note(&key.span(), unknown(name, keys));
            }
        }
        Self { problems, table, section: keys.section }
    }

    /// The value of `key`, if it is there and `read` takes it; else what is wrong is noted.
    pub(super) fn get<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        self.note(value.span(), read(value.get_ref()))
    }

    pub(super) fn note<T>(&mut self, span: Range<usize>, read: Result<T, Wrong>) -> Option<T> {
        read.map_err(|wrong| self.problems.note(&span, wrong)).ok()
    }

    /// The section `key` below this one, read by `read`; nothing when it is missing or not a table.
    pub(super) fn below<T>(
        &mut self,
        key: &str,
        keys: &'static Keys,
        read: impl FnOnce(&mut Section<'_, 'p, 't>) -> T,
    ) -> Option<T> {
        let table = self.table_at(key)?;
        Some(read(&mut Section::new(self.problems, table, keys)))
    }

    pub(super) fn table_at(&mut self, key: &str) -> Option<&'s DeTable<'t>> {
        let value = self.table.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let name =
                if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) };
            let wrong = expected("a table", value.get_ref())
                .instead(format!("write `[{name}]` on a line of its own"));
            self.problems.note(&value.span(), wrong);
        }
        table
    }
}

/// What is wrong with a key that is not read.
fn unknown(name: &str, keys: &Keys) -> Wrong {
    let shown: String = name.chars().take(40).collect();
    let dotted = |section: &str, key: &str| {
        if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
    };
    if keys.later.contains(&name) {
        return Wrong::new(format!(
            "`{}` is not available in this version of Berth",
            dotted(keys.section, name)
        ));
    }
    let wrong = Wrong::new(format!("unknown key `{}`", dotted(keys.section, &shown)));
    // What others call it; it is no typing error of ours.
    if keys.section.is_empty() && name == "name" {
        return wrong.instead("an app is named by `app`");
    }
    let elsewhere = keys::SECTIONS.iter().find(|other| other.known.contains(&name));
    match (nearest(name, keys.known.iter().chain(keys.later).copied()), elsewhere) {
        (Some(near), _) => wrong.instead(format!("did you mean `{near}`?")),
        (None, Some(other)) if other.section.is_empty() => {
            wrong.instead(format!("`{name}` belongs at the top of the file, before the first section"))
        }
        (None, Some(other)) => wrong.instead(format!("`{name}` is a key of `[{}]`", other.section)),
        (None, None) => wrong.instead(format!("known here: {}", keys.known.join(", "))),
    }
}

fn top(section: &mut Section<'_, '_, '_>, elsewhere: &BTreeMap<ProcessName, Command>) -> Manifest {
    let build = section.below("build", &keys::BUILD, build::read).unwrap_or_default();
    let processes = processes(section);
    let is_image = build.image.is_some() || build.dockerfile.is_some();
    let args = image_args::read(section, &processes, is_image);
    // Those that the files name; where they name none the builder does.
    let own: BTreeSet<ProcessName> = processes.keys().chain(args.keys()).cloned().collect();
    let effective = if own.is_empty() { elsewhere.keys().cloned().collect() } else { own.clone() };
    let manifest = Manifest {
        args,
        resources: resources::read(section, &effective),
        healthcheck: healthcheck::read(section, &effective, is_image),
        format: Format::One,
        app: section.get("app", parsed),
        stack: section.get("stack", parsed),
        volumes: volumes::read(section, &own, build.image.is_some()),
        build,
        processes,
        env: env(section),
        deploy: section.below("deploy", &keys::DEPLOY, deploy).unwrap_or_default(),
        http: section.below("http", &keys::HTTP, http).unwrap_or_default(),
        shutdown: section.below("shutdown", &keys::SHUTDOWN, shutdown).unwrap_or_default(),
        cron: cron::read(section),
        network: section.below("network", &keys::NETWORK, network).unwrap_or_default(),
        scale: scale::read(section),
        isolation: section.below("isolation", &keys::ISOLATION, isolation).flatten(),
    };
    let serves_files = manifest.build.builder == Some(Builder::Static);
    if serves_files && let Some((key, _)) = section.table.get_key_value("processes") {
        let wrong = Wrong::new("a static site has no processes: Berth serves its files itself");
        section
            .problems
            .note(&key.span(), wrong.instead("leave out `[processes]`, or write `builder = \"copy\"`"));
    }
    manifest
}

/// The process of that name, of which the manifest says something more. Where no file names one the builder will, and any will do.
pub(super) fn of_process(
    name: &str,
    processes: &BTreeSet<ProcessName>,
    what: &str,
) -> Result<ProcessName, Wrong> {
    let process = ProcessName::new(name).map_err(Wrong::new)?;
    let is_own = [RELEASE_COMMAND_PROCESS, RUN_PROCESS].contains(&name);
    if processes.contains(&process) || (processes.is_empty() && !is_own) {
        return Ok(process);
    }
    let wrong = Wrong::new(format!("there is no process `{process}` that could {what}"));
    let names = processes.iter().map(ProcessName::as_str);
    Err(match nearest(name, names.clone()) {
        Some(near) => wrong.instead(format!("did you mean `{near}`?")),
        None if processes.is_empty() => wrong,
        None => wrong.instead(format!("there are: {}", names.collect::<Vec<_>>().join(", "))),
    })
}

pub(super) fn truth(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

fn processes(section: &mut Section<'_, '_, '_>) -> BTreeMap<ProcessName, Command> {
    let entries = section.table_at("processes").into_iter().flatten();
    let mut processes = BTreeMap::new();
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        if name == "release" || name == RELEASE_COMMAND_PROCESS {
            let wrong = Wrong::new(format!("`{name}` is not a process here"));
            section.problems.note(&key.span(), wrong.instead("write `release_command` below `[deploy]`"));
            continue;
        }
        if name == RUN_PROCESS {
            let wrong = Wrong::new("`run` is what one-off commands are called");
            section.problems.note(&key.span(), wrong.instead("give the process another name"));
            continue;
        }
        let name = section.note(key.span(), ProcessName::new(name).map_err(Wrong::new));
        let command = section.note(value.span(), command(value.get_ref()));
        processes.extend(name.zip(command));
    }
    processes
}

fn env(section: &mut Section<'_, '_, '_>) -> BTreeMap<EnvName, String> {
    let entries = section.table_at("env").into_iter().flatten();
    let mut env = BTreeMap::new();
    for (key, value) in entries {
        let name = section.note(key.span(), EnvName::new(key.get_ref()).map_err(Wrong::new));
        let text = section.note(value.span(), env_value(value.get_ref()));
        env.extend(name.zip(text));
    }
    env
}

pub(super) fn env_value(value: &DeValue<'_>) -> Result<String, Wrong> {
    let bare = match value {
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    };
    if let Some(bare) = bare {
        return Err(expected("a string", value).instead(format!("write \"{bare}\"")));
    }
    let text = text(value)?;
    if text.contains('\0') {
        return Err(Wrong::new("the value holds a NUL byte"));
    }
    if text.len() > ENV_VALUE_MAX {
        return Err(Wrong::new(format!("the value is longer than {} KiB", ENV_VALUE_MAX / 1024)));
    }
    Ok(text.to_owned())
}

fn deploy(section: &mut Section<'_, '_, '_>) -> Deploy {
    let default = Deploy::default();
    let strategy = section.get("strategy", one_of(&Strategy::NAMED));
    let wrong_strategy = strategy.is_none() && section.table.get("strategy").is_some();
    Deploy {
        release_command: section.get("release_command", command),
        strategy,
        timeout: section.get("timeout", span(SECOND, DAY)).unwrap_or(default.timeout),
        warm: section.get("warm", span(Millis(0), DAY)).unwrap_or(default.warm),
        // One whose strategy is wrong has that told, and no more.
        canary: canary::read(section, strategy == Some(Strategy::Canary) || wrong_strategy),
    }
}

fn http(section: &mut Section<'_, '_, '_>) -> Http {
    let internal = section.get("public", truth) == Some(false);
    let hosts = hosts(section);
    if internal
        && !hosts.is_empty()
        && let Some((key, _)) = section.table.get_key_value("hosts")
    {
        let wrong = Wrong::new("an app that is not public has no hosts");
        section.problems.note(&key.span(), wrong.instead("leave out `hosts`, or `public = false`"));
    }
    let concurrency = section.below("concurrency", &keys::HTTP_CONCURRENCY, request_limits::concurrency);
    Http {
        port: section.get("port", port),
        protocol: section.get("protocol", one_of(&HttpProtocol::NAMED)).unwrap_or_default(),
        hosts,
        internal,
        force_https: section.get("force_https", truth),
        hsts: section.get("hsts", span(SECOND, TWO_YEARS)),
        request_timeout: section.get("request_timeout", span(Millis(100), HOUR)),
        concurrency: concurrency.unwrap_or_default(),
        rate_limits: rate_limit::rate_limits(section),
        routes: http_route::routes(section),
        cache: section.below("cache", &keys::HTTP_CACHE, http_cache::cache),
        readiness: checks(section).unwrap_or_default(),
    }
}

fn port(value: &DeValue<'_>) -> Result<u16, Wrong> {
    let number = value.as_integer().ok_or_else(|| expected("a port number", value))?;
    match u16::from_str_radix(number.as_str(), number.radix()) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Wrong::new("a port is a number from 1 to 65535")),
    }
}

pub(super) fn array<'s, 't>(section: &mut Section<'s, '_, 't>, key: &str, of: &str) -> &'s [Value<'t>] {
    let Some(value) = section.table.get(key) else {
        return &[];
    };
    match value.get_ref() {
        DeValue::Array(values) => values,
        other => {
            section.problems.note(&value.span(), expected(of, other));
            &[]
        }
    }
}

fn hosts(section: &mut Section<'_, '_, '_>) -> Vec<HostName> {
    let mut hosts: Vec<HostName> = Vec::new();
    for (index, value) in array(section, "hosts", "an array of host names").iter().enumerate() {
        let host = section.note(value.span(), host(value.get_ref()));
        if index >= HOSTS_MAX {
            section.problems.note(&value.span(), Wrong::new(format!("an app has at most {HOSTS_MAX} hosts")));
            break;
        }
        hosts.extend(host.filter(|host| !hosts.contains(host)));
    }
    hosts
}

fn host(value: &DeValue<'_>) -> Result<HostName, Wrong> {
    let text = text(value)?;
    let bare = text.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.split(['/', ':']).next().unwrap_or_default();
    text.parse().map_err(|bad| match bare.parse::<HostName>() {
        Ok(host) => Wrong::new(bad).instead(format!("write \"{host}\": no scheme, port or path")),
        Err(_) => Wrong::new(bad).instead("write a name like \"shop.example.com\""),
    })
}

/// The one readiness check, when there is one.
fn checks(section: &mut Section<'_, '_, '_>) -> Option<Readiness> {
    let mut readiness = None;
    for value in array(section, "checks", "an array of tables: `[[http.checks]]`") {
        let Some(table) = value.get_ref().as_table() else {
            section.problems.note(&value.span(), expected("a table", value.get_ref()));
            continue;
        };
        let check = check(&mut Section::new(section.problems, table, &keys::CHECK), value.span());
        if readiness.replace(check).is_some() {
            let wrong = Wrong::new("an app has at most one check in this version of Berth");
            section.problems.note(&value.span(), wrong);
        }
    }
    readiness
}

fn check(section: &mut Section<'_, '_, '_>, span_of_table: Range<usize>) -> Readiness {
    let default = Readiness::default();
    let kind = section.get("type", |value| match text(value)? {
        "readiness" => Ok(()),
        later @ ("startup" | "liveness") => {
            Err(Wrong::new(format!("a {later} check is not available in this version of Berth")))
        }
        _ => Err(Wrong::new("unknown type of check").instead("write \"readiness\"")),
    });
    if kind.is_none() && section.table.get("type").is_none() {
        let wrong = Wrong::new(format!("`{}` has no `type`", section.section));
        section.problems.note(&span_of_table, wrong.instead("write type = \"readiness\""));
    }
    Readiness {
        path: section.get("path", |value| {
            let text = text(value)?;
            text.parse::<CheckPath>().map_err(|bad| {
                let slashed = format!("/{text}").parse::<CheckPath>();
                match slashed {
                    Ok(path) if !text.starts_with('/') => {
                        Wrong::new(bad).instead(format!("write \"{path}\""))
                    }
                    _ => Wrong::new(bad).instead("write a path like \"/healthz\""),
                }
            })
        }),
        interval: section.get("interval", span(Millis(100), HOUR)).unwrap_or(default.interval),
        timeout: section.get("timeout", span(Millis(10), KILL_AFTER_MAX)).unwrap_or(default.timeout),
        grace: section.get("grace", span(Millis(0), HOUR)).unwrap_or(default.grace),
    }
}

fn shutdown(section: &mut Section<'_, '_, '_>) -> Shutdown {
    let default = Shutdown::default();
    Shutdown {
        signal: section.get("signal", one_of(&Signal::NAMED)).unwrap_or(default.signal),
        drain: section.get("drain", span(Millis(0), HOUR)).unwrap_or(default.drain),
        kill_after: section.get("kill_after", span(Millis(0), KILL_AFTER_MAX)).unwrap_or(default.kill_after),
    }
}

fn network(section: &mut Section<'_, '_, '_>) -> Network {
    let egress: Egress = section.get("egress", one_of(&Egress::NAMED)).unwrap_or_default();
    let mut names = BTreeMap::new();
    for (key, value) in section.table_at("names").into_iter().flatten() {
        let hint = "write a word like `db`: a-z, 0-9, `-` and `_`";
        let alias = key.get_ref().parse::<Alias>().map_err(|bad| Wrong::new(bad).instead(hint));
        let alias = section.note(key.span(), alias);
        let app = section.note(value.span(), parsed(value.get_ref()));
        names.extend(alias.zip(app));
    }
    if names.len() > NAMES_MAX
        && let Some((key, _)) = section.table.get_key_value("names")
    {
        section
            .problems
            .note(&key.span(), Wrong::new(format!("an app has at most {NAMES_MAX} names for others")));
    }
    Network { egress, names }
}

/// So many names fit into what a small file takes.
const NAMES_MAX: usize = 100;

fn isolation(section: &mut Section<'_, '_, '_>) -> Option<Isolation> {
    section.get("minimum", one_of(&Isolation::NAMED))
}

pub(super) fn expected(what: &str, found: &DeValue<'_>) -> Wrong {
    Wrong::new(format!("expected {what}, found {}", found.type_str()))
}

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| expected("a string", value))
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(value: &DeValue<'_>) -> Result<T, Wrong> {
    text(value)?.parse().map_err(Wrong::new)
}

pub(super) fn one_of<T: Copy>(named: &[(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let given = text(value)?;
        if let Some((_, known)) = named.iter().find(|(name, _)| *name == given) {
            return Ok(*known);
        }
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let shown: String = given.chars().take(40).collect();
        let wrong = Wrong::new(format!("{shown:?} is not one of {}", names.join(", ")));
        let upper = given.to_ascii_uppercase();
        let near = nearest(given, names.iter().copied()).or_else(|| {
            names.iter().copied().find(|name| *name == upper || name.strip_prefix("SIG") == Some(&upper))
        });
        Err(match near {
            Some(near) => wrong.instead(format!("did you mean \"{near}\"?")),
            None => wrong,
        })
    }
}

pub(super) fn span(least: Millis, most: Millis) -> impl Fn(&DeValue<'_>) -> Result<Millis, Wrong> {
    move |value| {
        if let Some(number) = value.as_integer() {
            return Err(expected("a span of time", value).instead(format!("write \"{}s\"", number.as_str())));
        }
        let span: Millis = text(value)?
            .parse()
            .map_err(|bad| Wrong::new(bad).instead("write it like \"250ms\", \"30s\" or \"1h30m\""))?;
        if span < least || span > most {
            return Err(Wrong::new(format!("{span} is not within {least} to {most}")));
        }
        Ok(span)
    }
}

pub(super) fn command(value: &DeValue<'_>) -> Result<Command, Wrong> {
    match value {
        DeValue::String(line) => Command::parse(line).map_err(Wrong::new),
        DeValue::Array(words) => {
            let words: Result<Vec<String>, Wrong> =
                words.iter().map(|word| text(word.get_ref()).map(str::to_owned)).collect();
            Command::from_argv(words?).map_err(Wrong::new)
        }
        other => Err(expected("a command, as a string or an array of strings", other)),
    }
}
