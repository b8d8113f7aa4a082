//! A compose file: the service that is built here, with those that are built from the same source as its other processes.

use std::collections::BTreeMap;

use berth_spec::ProcessName;
use serde_json::Value;

use super::Imported;
use super::document::{Table, command, number, plain, texts};

pub(super) fn take(document: &Table, taken: &mut Imported) {
    for (key, value) in document {
        match (key.as_str(), value.as_object()) {
            ("services", Some(all)) => services(all, taken),
            ("name", _) => taken.app(key, value.as_str().unwrap_or_default()),
            ("version", _) => {}
            // Which service has one is said there.
            ("volumes", _) => {}
            ("networks" | "configs" | "secrets", _) => taken.left(key, "not available in this version"),
            (other, _) if other.starts_with("x-") => {}
            (other, _) => taken.unknown(other),
        }
    }
}

fn services(all: &Table, taken: &mut Imported) {
    let built: BTreeMap<&str, &Table> = all
        .iter()
        .filter_map(|(name, it)| Some((name.as_str(), it.as_object().filter(|it| it.contains_key("build"))?)))
        .collect();
    for (name, service) in all {
        if !built.contains_key(name.as_str()) {
            let image = service.get("image").and_then(plain).unwrap_or_default();
            taken.left(format!("services.{name}"), format!("{image} comes with services, which are not available in this version: run it beside Berth and set its address as a secret"));
        }
    }
    let Some((main, service)) = main_service(&built) else {
        taken.left("services", "none has a `build`");
        return;
    };
    let source = context(service);
    if source != "." {
        taken.note(format!("services.{main} is built from {source}: deploy that directory"));
    }
    take_service(main, service, true, taken);
    for (name, other) in built.iter().filter(|(name, _)| **name != main) {
        if context(other) == source {
            take_service(name, other, false, taken);
        } else {
            taken.left(format!("services.{name}"), format!("an app of its own: deploy {}", context(other)));
        }
    }
}

/// The service that gets the requests: called web or app, else the first that opens a port, else the first.
fn main_service<'t>(built: &BTreeMap<&'t str, &'t Table>) -> Option<(&'t str, &'t Table)> {
    let named = ["web", "app"].into_iter().find_map(|name| built.get_key_value(name));
    let open = || built.iter().find(|(_, it)| it.contains_key("ports"));
    named.or_else(open).or_else(|| built.iter().next()).map(|(name, it)| (*name, *it))
}

/// The directory that a service is built from.
fn context(service: &Table) -> String {
    let build = service.get("build");
    let context = build.and_then(|build| plain(build).or_else(|| plain(build.get("context")?)));
    let context = context.unwrap_or_else(|| ".".to_owned());
    let plain = context.trim_start_matches("./").trim_end_matches('/');
    if plain.is_empty() { ".".to_owned() } else { plain.to_owned() }
}

fn take_service(name: &str, service: &Table, main: bool, taken: &mut Imported) {
    for (key, value) in service {
        let full = format!("services.{name}.{key}");
        match key.as_str() {
            "build" if value.get("dockerfile").is_some() => taken.left(
                format!("{full}.dockerfile"),
                "not taken over: name it in `build.dockerfile`, or have `berth stack up` build it",
            ),
            "build" | "restart" | "container_name" | "init" | "tty" | "stdin_open" => {}
            "command" => {
                let process = if main { ProcessName::WEB } else { name };
                if main && name != ProcessName::WEB {
                    taken.note(format!("the service {name} gets the requests, so its process is called web"));
                }
                taken.process(&full, process, command(value));
            }
            "environment" => environment(&full, value, taken),
            "ports" if main => ports(&full, value, taken),
            "env_file" => taken.left(full, "give it with `--from`, or import it with `berth config import`"),
            "depends_on" => {
                taken.left(full, "the order in which services start is theirs to bear: an app tries again")
            }
            "volumes" => volumes(&full, value, if main { ProcessName::WEB } else { name }, taken),
            "healthcheck" => taken.left(
                full,
                "write the path of a check below [[http.checks]], or a command below [healthcheck.NAME]",
            ),
            _ => taken.left(full, "not known here"),
        }
    }
    if !main && !service.contains_key("command") {
        taken.left(format!("services.{name}"), "it has no `command`: the image says what it runs");
    }
}

/// As a table, or as a list of `NAME=VALUE`.
fn environment(key: &str, value: &Value, taken: &mut Imported) {
    let listed = if value.is_array() { texts(value) } else { Vec::new() };
    let listed = listed.iter().map(|line| match line.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (line.clone(), None),
    });
    let table = value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), plain(value)));
    for (name, value) in listed.chain(table) {
        match value {
            Some(value) if value.contains('$') && !value.contains("$$") => {
                taken.left(format!("{key}.{name}"), "it is put together from other variables: set it with `berth config set` or `berth secrets set`");
            }
            Some(value) => taken.env(key, &name, value.replace("$$", "$")),
            None => taken.asked(key, &name, None),
        }
    }
}

/// `data:/data`, `data:/data:ro`, or a table with `source` and `target`.
fn volumes(key: &str, value: &Value, process: &str, taken: &mut Imported) {
    for volume in value.as_array().into_iter().flatten() {
        let text = |key: &str| volume.get(key).and_then(plain).unwrap_or_default();
        let line = plain(volume).unwrap_or_else(|| format!("{}:{}", text("source"), text("target")));
        let mut parts = line.split(':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(path), None | Some("rw")) => taken.volume(key, name, path, Some(process)),
            (Some(name), Some(_), Some(mode)) => {
                taken.left(
                    key,
                    format!("{name} is for {mode}, which no volume is: everybody who has one writes to it"),
                );
            }
            _ => taken
                .left(key, format!("{line} has no name: what an app writes there is gone with its instance")),
        }
    }
}

/// `8080`, `80:8080`, `127.0.0.1:80:8080/tcp`, or a table with `target`.
fn ports(key: &str, value: &Value, taken: &mut Imported) {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let target = |port: &Value| {
        let target = port.get("target").and_then(number);
        target.or_else(|| plain(port)?.split('/').next()?.rsplit(':').next()?.parse().ok())
    };
    taken.port(key, all.first().and_then(target));
    if all.len() > 1 {
        taken.left(key, "only HTTP to one port of web is routed: the first was taken");
    }
}
