//! Kamal's config/deploy.yml, of version 2 and of version 1.

use berth_spec::manifest::Readiness;
use berth_spec::{Millis, ProcessName};
use serde_json::Value;

use super::document::{Table, command, number, plain, span, texts};
use super::{Imported, bounded};

/// What a value that Ruby is to fill in holds.
const ERB: &str = "<%";

pub(super) fn take(document: &Table, taken: &mut Imported) {
    for (key, value) in document {
        match key.as_str() {
            "service" => taken.app(key, value.as_str().unwrap_or_default()),
            "servers" => servers(value, taken),
            "env" => env(value, taken),
            "proxy" => proxy(key, value, taken),
            "healthcheck" => healthcheck(key, value, taken),
            "accessories" => accessories(value, taken),
            "deploy_timeout" => match bounded(span(value), Millis::from_secs(1), Millis::from_secs(86_400)) {
                Some(span) => taken.manifest.deploy.timeout = span,
                None => taken.left(key, "not a number of seconds"),
            },
            "drain_timeout" => match bounded(span(value), Millis(0), Millis::from_secs(3_600)) {
                Some(span) => taken.manifest.shutdown.drain = span,
                None => taken.left(key, "not a number of seconds up to an hour"),
            },
            "image" | "registry" | "builder" => {
                taken.left(key, "not used: Berth builds with this machine's own tools and needs no registry")
            }
            "ssh" | "sshkit" | "primary_role" | "allow_empty_roles" => {
                taken.left(key, "everything runs on this machine")
            }
            "volumes" => {
                for volume in texts(value) {
                    let (name, path) = volume.split_once(':').unwrap_or((&volume, ""));
                    let path = path.split(':').next().unwrap_or_default();
                    taken.volume(key, name, path, None);
                }
            }
            "traefik" => taken.left(key, "Berth has its own edge"),
            "hooks_path" => taken.left(key, "Berth runs no hooks"),
            "aliases" => taken.left(key, "commands have no short names here"),
            "readiness_delay"
            | "retain_containers"
            | "asset_path"
            | "boot"
            | "logging"
            | "minimum_version"
            | "require_destination"
            | "run_directory"
            | "secrets_path" => {
                taken.left(key, "has no meaning here");
            }
            other => taken.unknown(other),
        }
    }
}

fn servers(value: &Value, taken: &mut Imported) {
    let Some(roles) = value.as_object() else {
        let count = texts(value).len();
        if count > 1 {
            taken.left("servers", format!("everything runs on this machine, not on {count}"));
        }
        return;
    };
    for (role, said) in roles {
        let key = format!("servers.{role}");
        let hosts = said.as_object().map_or(said, |said| said.get("hosts").unwrap_or(&Value::Null));
        let count = texts(hosts).len();
        if count > 1 {
            let line = format!(
                "everything runs on this machine, not on {count}: `berth scale {role}=N` sets how many run"
            );
            taken.left(&key, line);
        }
        let said = said.as_object();
        match said.and_then(|said| said.get("cmd")) {
            Some(line) => taken.process(&key, role, command(line)),
            None if role == ProcessName::WEB => {}
            None => taken.left(&key, "it has no `cmd`: the image says what it runs"),
        }
        for name in
            ["options", "env", "proxy", "traefik", "labels", "logging", "asset_path", "stop_wait_time"]
        {
            if said.is_some_and(|said| said.contains_key(name)) {
                taken.left(format!("{key}.{name}"), "settings of one role are not available in this version");
            }
        }
    }
}

fn env(value: &Value, taken: &mut Imported) {
    let Some(all) = value.as_object() else { return };
    let sorted = all.contains_key("clear") || all.contains_key("secret") || all.contains_key("tags");
    if !sorted {
        return clear("env", all, taken);
    }
    for (key, value) in all {
        match (key.as_str(), value) {
            ("clear", Value::Object(values)) => clear("env.clear", values, taken),
            ("secret", _) => {
                for name in texts(value) {
                    // `NAME:WHERE` takes it from another variable on the machine that deploys.
                    taken.asked("env.secret", name.split(':').next().unwrap_or_default(), None);
                }
            }
            _ => taken.left(format!("env.{key}"), "not known here"),
        }
    }
}

fn clear(key: &str, values: &Table, taken: &mut Imported) {
    for (name, value) in values {
        match plain(value) {
            Some(value) if value.contains(ERB) => {
                taken.left(format!("{key}.{name}"), "Ruby fills it in: set it with `berth config set`");
            }
            Some(value) => taken.env(key, name, value),
            None => taken.left(format!("{key}.{name}"), "not a text"),
        }
    }
}

fn proxy(key: &str, value: &Value, taken: &mut Imported) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let full = format!("{key}.{name}");
        match name.as_str() {
            "host" | "hosts" => {
                // Version 1 of Kamal's proxy took several in one text.
                for host in texts(value).iter().flat_map(|hosts| hosts.split(',')).map(str::trim) {
                    taken.host(&full, host);
                }
            }
            "app_port" => taken.port(&full, number(value)),
            "healthcheck" => healthcheck(&full, value, taken),
            "ssl" | "ssl_redirect" => taken.left(full, "TLS is not available in this version"),
            "response_timeout" | "buffering" | "logging" | "forward_headers" | "path_prefix"
            | "strip_path_prefix" => {
                taken.left(full, "not available in this version");
            }
            _ => taken.left(full, "not known here"),
        }
    }
}

fn healthcheck(key: &str, value: &Value, taken: &mut Imported) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let full = format!("{key}.{name}");
        match name.as_str() {
            "path" => taken.check_path(&full, &plain(value).unwrap_or_default()),
            "interval" => taken.check_span(&full, span(value), |it: &mut Readiness| &mut it.interval),
            "timeout" => taken.check_span(&full, span(value), |it| &mut it.timeout),
            "port" => taken.port(&full, number(value)),
            _ => taken.left(full, "not known here"),
        }
    }
}

fn accessories(value: &Value, taken: &mut Imported) {
    for (name, said) in value.as_object().into_iter().flatten() {
        let image = said.get("image").and_then(plain).unwrap_or_default();
        let what = if image.is_empty() { name.clone() } else { format!("{name}, {image}") };
        taken.left(
            format!("accessories ({what})"),
            "services are not available in this version: run it beside Berth and set its address as a secret",
        );
    }
}
