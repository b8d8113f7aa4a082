//! `healthcheck`: what says that a service is well.

use berth_spec::manifest::{CheckPath, Healthcheck, Readiness};
use berth_spec::{Command, Manifest, Millis, ProcessName};

use super::Reader;
use super::node::Node;
use super::service::{number, span};

/// The longest time that anything here takes.
const LONGEST: Millis = Millis::from_secs(3_600);

pub(super) fn read(reader: &mut Reader<'_>, full: &str, value: &Node) -> Option<Healthcheck> {
    if !reader.is_table(full, value) {
        return None;
    }
    let mut check = Healthcheck::default();
    for (key, value) in value.entries() {
        let full = format!("{full}.{key}");
        let mut time = || {
            let time = span(reader, value, LONGEST);
            if time.is_none() {
                reader.refuse(value, &full, "it is no span of time up to an hour");
            }
            // Nought is what is usual.
            time.filter(|time| time.0 > 0)
        };
        match key {
            "test" => test(reader, &full, value, &mut check),
            "interval" => check.interval = time(),
            "start_interval" => check.start_interval = time(),
            "timeout" => check.timeout = time(),
            "start_period" => check.start_period = time(),
            "retries" => check.retries = number(reader, &full, value).filter(|count| *count > 0),
            "disable" => check.disable |= value.plain().as_deref() == Some("true"),
            _ => reader.refuse(value, &full, "not known here"),
        }
    }
    if check.disable {
        check = Healthcheck { disable: true, ..Healthcheck::default() };
    }
    (check != Healthcheck::default()).then_some(check)
}

/// A line for a shell, or a list that says first what the rest is.
fn test(reader: &mut Reader<'_>, full: &str, value: &Node, check: &mut Healthcheck) {
    let listed = if value.is_list() { value.items() } else { &[] };
    let words: Vec<String> = listed.iter().filter_map(|word| reader.text(word)).collect();
    let command = match words.split_first() {
        None if value.is_list() => return reader.refuse(value, full, HOW),
        None => match reader.text(value) {
            Some(line) => Command::parse(&line),
            None => return,
        },
        Some((first, _)) if first == "NONE" => {
            check.disable = true;
            return;
        }
        Some((first, rest)) if first == "CMD" => Command::from_argv(rest.to_vec()),
        Some((first, rest)) if first == "CMD-SHELL" => Command::parse(&rest.join(" ")),
        Some(_) => return reader.refuse(value, full, HOW),
    };
    match command {
        Ok(command) => check.command = Some(command),
        Err(bad) => reader.refuse(value, full, &bad.to_string()),
    }
}

const HOW: &str = "a test is a line, or a list that begins with CMD, CMD-SHELL or NONE";

/// Has `process` checked. One that asks for an address of the service's own is asked by edge, which needs no program in it.
pub(super) fn finish(
    reader: &mut Reader<'_>,
    (at, what): (&Node, &str),
    check: Healthcheck,
    process: &ProcessName,
    manifest: &mut Manifest,
) {
    let is_image = manifest.build.image.is_some() || manifest.build.dockerfile.is_some();
    if check.command.is_none() && !check.disable && !is_image {
        return reader.tell(at, &format!("{what}.healthcheck"), "it has no `test`: nothing is run");
    }
    let path = check.command.as_ref().filter(|_| process.is_web()).and_then(|command| {
        let words = match command {
            Command::Argv(argv) => argv.join(" "),
            other => other.to_string(),
        };
        berth_spec::health::asked_path(&words, manifest.http.port)?.parse::<CheckPath>().ok()
    });
    if path.is_none() {
        manifest.healthcheck.insert(process.clone(), check);
        return;
    }
    let usual = Readiness::default();
    let interval = check.interval.unwrap_or(Millis::from_secs(30));
    let all = Millis(interval.0.saturating_mul(check.retries.unwrap_or(3).into()));
    manifest.http.readiness = Readiness {
        path,
        interval: check.interval.filter(|it| it.0 >= 100).unwrap_or(usual.interval),
        timeout: check
            .timeout
            .filter(|it| it.0 >= 10)
            .map_or(usual.timeout, |it| it.min(Millis::from_secs(300))),
        // As long as it could fail by Docker.
        grace: Millis(check.start_period.unwrap_or_default().0.saturating_add(all.0))
            .clamp(usual.grace, LONGEST),
    };
}
