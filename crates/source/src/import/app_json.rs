//! Heroku's app.json, with what Dokku adds to it.

use berth_spec::Schedule;
use berth_spec::manifest::{Concurrency, CronEntry, made_name};
use serde_json::Value;

use super::document::{Table, command, number, plain, span, tables};
use super::{Imported, Secret};

pub(super) fn take(document: &Table, taken: &mut Imported) {
    for (key, value) in document {
        match key.as_str() {
            // For people and shop windows.
            "name" | "description" | "keywords" | "website" | "repository" | "logo" | "success_url" | "$schema" => {}
            "env" => env(value, taken),
            "scripts" => scripts(value, taken),
            "formation" => formation(value, taken),
            "healthchecks" => checks(value, taken),
            "cron" => cron(value, taken),
            "addons" => taken.left(key, "databases and other services are not available in this version; set their addresses as secrets"),
            "buildpacks" | "stack" | "image" => taken.left(key, "not used: Berth builds with this machine's own tools and says how it found out"),
            "environments" => taken.left(key, "Berth has no review apps"),
            other => taken.unknown(other),
        }
    }
}

fn env(value: &Value, taken: &mut Imported) {
    for (name, said) in value.as_object().into_iter().flatten() {
        let key = format!("env.{name}");
        if let Some(value) = plain(said) {
            if let Some(name) = taken.variable("env", name) {
                taken.config.insert(name, value);
            }
            continue;
        }
        let said = said.as_object();
        let get = |of: &str| said.and_then(|said| said.get(of));
        let generated = get("generator").and_then(Value::as_str) == Some("secret");
        // Heroku takes a variable for required unless it says otherwise.
        let required = get("required").is_none_or(|required| required != &Value::Bool(false));
        match get("value").and_then(plain) {
            _ if generated => {
                if let Some(name) = taken.variable("env", name) {
                    taken.secrets.insert(name, Secret::Generated);
                }
            }
            Some(value) => {
                if let Some(name) = taken.variable("env", name) {
                    taken.config.insert(name, value);
                }
            }
            None if required => taken.asked("env", name, get("description").and_then(plain)),
            None => taken.left(key, "optional and without a value"),
        }
    }
}

fn scripts(value: &Value, taken: &mut Imported) {
    for (name, script) in value.as_object().into_iter().flatten() {
        let key = format!("scripts.{name}");
        match (name.as_str(), script.as_str()) {
            ("release", Some(line)) => taken.release_command(&key, line),
            ("postdeploy", Some(line)) => {
                taken.left(
                    key,
                    format!(
                        "Heroku runs it once, after an app is made: run `{line}` yourself when the app is up"
                    ),
                );
            }
            ("dokku", _) => dokku(script, taken),
            _ => taken.left(key, "not run by Berth"),
        }
    }
}

/// Dokku runs `postdeploy` after every deployment, `predeploy` in the image before it.
fn dokku(value: &Value, taken: &mut Imported) {
    for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
        taken.left(
            format!("scripts.dokku.{name}"),
            "write what has to run before a release serves as `release_command` below [deploy]",
        );
    }
}

/// Dokku's, as its `app.json` has them.
fn cron(value: &Value, taken: &mut Imported) {
    for (index, said) in tables(value).into_iter().enumerate() {
        let key = format!("cron.{}", index + 1);
        let schedule = said.get("schedule").and_then(plain).unwrap_or_default();
        let entry = match (schedule.parse::<Schedule>(), said.get("command").map(command)) {
            (Ok(schedule), Some(Ok(command))) => CronEntry::new(schedule, command),
            (Err(wrong), _) => {
                taken.left(key, wrong.to_string());
                continue;
            }
            (_, Some(Err(wrong))) => {
                taken.left(key, wrong.to_string());
                continue;
            }
            (_, None) => {
                taken.left(key, "it has no command");
                continue;
            }
        };
        // Dokku lets runs of one entry overlap unless it is told otherwise.
        let policy = said.get("concurrency_policy").and_then(plain).unwrap_or_else(|| "allow".to_owned());
        let known = Concurrency::NAMED.iter().find(|(name, _)| *name == policy).map(|(_, it)| *it);
        let entry = CronEntry { concurrency: known.unwrap_or_default(), ..entry };
        let entries = &mut taken.manifest.cron;
        entries.insert(made_name(&entry.command, entries), entry);
    }
    if !taken.manifest.cron.is_empty() {
        taken.note("cron entries are due by UTC; `timezone` in their [[cron]] names another place");
    }
}

fn formation(value: &Value, taken: &mut Imported) {
    for (process, said) in value.as_object().into_iter().flatten() {
        let said = said.as_object();
        let quantity = said.and_then(|said| number(said.get("quantity")?));
        if let Some(quantity) = quantity.filter(|quantity| *quantity != 1) {
            let line = format!("`berth scale {process}={quantity}` once it runs");
            taken.left(format!("formation.{process}.quantity"), line);
        }
        if said.is_some_and(|said| said.contains_key("size")) {
            taken.left(
                format!("formation.{process}.size"),
                "limits of memory and processor are not available in this version",
            );
        }
    }
}

/// Dokku's health checks; the first of web that asks for a path decides.
fn checks(value: &Value, taken: &mut Imported) {
    for (process, all) in value.as_object().into_iter().flatten() {
        for check in tables(all) {
            let kind = check.get("type").and_then(plain).unwrap_or_default();
            let key = format!("healthchecks.{process}.{kind}");
            let path = check.get("path").and_then(plain);
            let free = taken.manifest.http.readiness.path.is_none();
            match path
                .filter(|_| process == "web" && free && matches!(kind.as_str(), "startup" | "readiness"))
            {
                Some(path) => {
                    taken.check_path(&key, &path);
                    taken.check_span(&key, check.get("timeout").and_then(span), |it| &mut it.timeout);
                }
                None if check.get("command").is_some_and(|line| command(line).is_ok()) => {
                    taken.left(key, "a check that is a command is not available in this version");
                }
                None => taken
                    .left(key, "the one check that there can be asks a path of web before it gets requests"),
            }
        }
    }
}
