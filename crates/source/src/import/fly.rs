//! Fly's fly.toml.

use berth_spec::manifest::{Signal, Strategy};
use berth_spec::{Command, HttpProtocol, Millis, ProcessName};
use serde_json::Value;

use super::document::{Table, command, number, plain, span, tables, texts};
use super::{Imported, bounded};

/// The process that fly.toml means when it names none.
const DEFAULT_PROCESS: &str = "app";

pub(super) fn take(document: &Table, taken: &mut Imported) {
    let web = web_process(document);
    for (key, value) in document {
        match key.as_str() {
            "app" => taken.app(key, value.as_str().unwrap_or_default()),
            "env" => env(value, taken),
            "processes" => processes(value, web.as_deref(), taken),
            "http_service" => http_service(value, taken),
            "services" => services(value, taken),
            "deploy" => deploy(value, taken),
            "kill_signal" => kill_signal(value, taken),
            "kill_timeout" => match bounded(span(value), Millis(0), Millis::from_secs(300)) {
                Some(span) => taken.manifest.shutdown.kill_after = span,
                None => taken.left(key, "Berth waits 300 s at most"),
            },
            "build" => taken
                .left(key, "not used: Berth builds with this machine's own tools and says how it found out"),
            "primary_region" | "regions" => taken.left(key, "everything runs on this machine"),
            "mounts" => mounts(value, taken),
            "vm" | "swap_size_mb" => {
                taken.left(key, "limits of memory and processor are not available in this version")
            }
            "statics" => taken.left(key, "files are served by the app itself, or by `builder = \"static\"`"),
            "checks" => {
                taken.left(key, "checks apart from those of the service are not available in this version")
            }
            "metrics" => taken.left(key, "metrics are not collected in this version"),
            other => taken.unknown(other),
        }
    }
}

/// The process that receives HTTP, when fly.toml says which.
fn web_process(document: &Table) -> Option<String> {
    let service = document.get("http_service").or_else(|| document.get("services"));
    let service = tables(service?).into_iter().next()?;
    let named = texts(service.get("processes").unwrap_or(&Value::Null)).into_iter().next();
    Some(named.unwrap_or_else(|| DEFAULT_PROCESS.to_owned()))
}

/// `source` is the volume's name, `destination` where it is; a single table or several.
fn mounts(value: &Value, taken: &mut Imported) {
    for mount in tables(value) {
        let text = |key: &str| mount.get(key).and_then(plain).unwrap_or_default();
        let processes = mount.get("processes").map(texts).unwrap_or_default();
        let all = if processes.is_empty() { vec![None] } else { processes.iter().map(Some).collect() };
        for process in all {
            let process = process.map(String::as_str);
            taken.volume("mounts", &text("source"), &text("destination"), process);
        }
        for (key, _) in
            mount.iter().filter(|(key, _)| !["source", "destination", "processes"].contains(&key.as_str()))
        {
            taken.left(
                format!("mounts.{key}"),
                "not used: what is in a volume is copied by hand, and its size is not kept to",
            );
        }
    }
}

fn env(value: &Value, taken: &mut Imported) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match plain(value) {
            Some(value) => taken.env("env", name, value),
            None => taken.left(format!("env.{name}"), "not a text"),
        }
    }
}

fn processes(value: &Value, web: Option<&str>, taken: &mut Imported) {
    for (name, line) in value.as_object().into_iter().flatten() {
        let key = format!("processes.{name}");
        if plain(line).is_none_or(|line| line.trim().is_empty()) {
            taken.left(key, "the image says what it runs; Berth finds it out or asks for it");
            continue;
        }
        if web == Some(name) && name != ProcessName::WEB {
            taken.note(format!("the process {name} gets the requests, so it is called web"));
            taken.process(&key, ProcessName::WEB, command(line));
        } else {
            taken.process(&key, name, command(line));
        }
    }
}

fn http_service(value: &Value, taken: &mut Imported) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let full = format!("http_service.{key}");
        match key.as_str() {
            "processes" => {}
            "internal_port" => taken.port(&full, number(value)),
            "checks" => checks(&full, value, taken),
            "http_options" => http_options(&full, value, taken),
            "force_https" => taken.left(full, "TLS is not available in this version"),
            "auto_stop_machines" | "auto_start_machines" | "min_machines_running" => {
                taken.left(full, "instances do not come and go by themselves in this version; `berth scale` sets how many run");
            }
            "concurrency" => taken.left(full, "limits of concurrency are not available in this version"),
            _ => taken.left(full, "not known here"),
        }
    }
}

fn http_options(key: &str, value: &Value, taken: &mut Imported) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match name.as_str() {
            "h2_backend" => {
                let speaks = value.as_bool() == Some(true);
                taken.manifest.http.protocol = if speaks { HttpProtocol::H2c } else { HttpProtocol::Http1 };
            }
            _ => taken.left(format!("{key}.{name}"), "not known here"),
        }
    }
}

/// The older form: the service behind ports 80 and 443 is the one that counts.
fn services(value: &Value, taken: &mut Imported) {
    let mut found = false;
    for service in tables(value) {
        let ports = service.get("ports").map(tables).unwrap_or_default();
        let public = |port: &Table| matches!(port.get("port").and_then(number), Some(80 | 443));
        if found || !ports.iter().any(|port| public(port)) {
            let port = service.get("internal_port").and_then(number).unwrap_or_default();
            taken.left(format!("services ({port})"), "only HTTP to the process web is routed");
            continue;
        }
        found = true;
        taken.port("services.internal_port", service.get("internal_port").and_then(number));
        if let Some(all) = service.get("http_checks") {
            checks("services.http_checks", all, taken);
        }
        for key in ["concurrency", "tcp_checks", "protocol"] {
            if service.get(key).is_some_and(|value| value != "tcp") {
                taken.left(format!("services.{key}"), "not available in this version");
            }
        }
    }
}

fn checks(key: &str, value: &Value, taken: &mut Imported) {
    let all = tables(value);
    let Some(check) = all.first() else { return };
    if all.len() > 1 {
        taken.left(key, "there can be one check: the first was taken");
    }
    match check.get("path").and_then(plain) {
        Some(path) => taken.check_path(key, &path),
        None => taken.left(key, "a check without a path: Berth looks by itself"),
    }
    taken.check_span(key, check.get("interval").and_then(span), |it| &mut it.interval);
    taken.check_span(key, check.get("timeout").and_then(span), |it| &mut it.timeout);
    taken.check_span(key, check.get("grace_period").and_then(span), |it| &mut it.grace);
    for name in ["headers", "protocol", "tls_skip_verify"] {
        if check.contains_key(name) {
            taken.left(format!("{key}.{name}"), "not known here");
        }
    }
    if check.get("method").and_then(Value::as_str).is_some_and(|method| !method.eq_ignore_ascii_case("get")) {
        taken.left(format!("{key}.method"), "checks ask with GET");
    }
}

fn deploy(value: &Value, taken: &mut Imported) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let full = format!("deploy.{key}");
        match (key.as_str(), value.as_str()) {
            ("release_command", Some(line)) => match Command::parse(line) {
                Ok(command) => taken.manifest.deploy.release_command = Some(command),
                Err(bad) => taken.left(full, bad.to_string()),
            },
            ("strategy", Some("rolling")) => taken.manifest.deploy.strategy = Some(Strategy::Rolling),
            ("strategy", Some("bluegreen")) => taken.manifest.deploy.strategy = Some(Strategy::BlueGreen),
            ("strategy", _) => taken.left(full, "not available in this version: bluegreen is used"),
            ("wait_timeout", _) => {
                match bounded(span(value), Millis::from_secs(1), Millis::from_secs(86_400)) {
                    Some(span) => taken.manifest.deploy.timeout = span,
                    None => taken.left(full, "not a span from 1s to 1d"),
                }
            }
            ("release_command_timeout", _) => {
                taken.left(full, "`timeout` below [deploy] holds for the whole activation")
            }
            _ => taken.left(full, "not known here"),
        }
    }
}

fn kill_signal(value: &Value, taken: &mut Imported) {
    let named = Signal::NAMED.iter().find(|(name, _)| value.as_str() == Some(name));
    match named {
        Some((_, signal)) => taken.manifest.shutdown.signal = *signal,
        None => taken.left("kill_signal", "not one of the signals that Berth sends"),
    }
}
