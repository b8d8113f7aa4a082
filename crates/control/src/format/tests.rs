//! What each format of the journal has, held against `contracts/formats.txt`: something new does not get into an old one unseen.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::event::Reason;
use crate::event::tests::{app_samples, folder, platform_samples, submitted};

/// Places whose keys are names that people give.
const NAMED: [&str; 19] = [
    "config_changed.set",
    "release_built.artifact.env",
    "release_built.artifact.processes",
    "release_submitted.artifact.env",
    "release_submitted.artifact.processes",
    "release_submitted.config",
    "release_submitted.manifest.args",
    "release_submitted.manifest.build.args",
    "release_submitted.manifest.cron",
    "release_submitted.manifest.env",
    "release_submitted.manifest.healthcheck",
    "release_submitted.manifest.network.names",
    "release_submitted.manifest.processes",
    "release_submitted.manifest.resources",
    "release_submitted.manifest.scale",
    "release_submitted.manifest.volumes",
    "release_submitted.secrets",
    "scale_changed.processes",
    "secrets_changed.set",
];

/// The last parts of places where a word is one of a few.
const WORDS: [&str; 18] = [
    "analysis",
    "builder",
    "by",
    "concurrency",
    "depth",
    "egress",
    "gate",
    "isolation",
    "kind",
    "mode",
    "on",
    "origin",
    "proof",
    "signal",
    "strategy",
    "verdict",
    "what",
    "why",
];

/// Keys of a manifest that format 1 has.
const FIRST: &str = r#"app = "shop"
[build]
builder = "copy"
command = "make site"
output = "dist"
network = false
env = ["NPM_TOKEN"]
[processes]
web = "bin/server --port $PORT"
worker = ["bin/worker"]
[env]
LOG_LEVEL = "info"
[deploy]
release_command = "bin/migrate"
strategy = "recreate"
timeout = "5m"
warm = "0s"
[http]
port = 8080
hosts = ["shop.example.com"]
[[http.checks]]
type = "readiness"
path = "/up"
[shutdown]
signal = "SIGINT"
drain = "1m"
kill_after = "5m"
[[cron]]
name = "sweep"
schedule = "@hourly"
timezone = "Europe/Berlin"
command = "bin/sweep"
concurrency = "replace"
timeout = "5m"
catch_up = "0s"
[network]
egress = "internal"
names = { db = "postgres" }
[resources.web]
memory = "512Mi"
cpu = 0.5
processes = 64
tmp = "64Mi"
disk_read = "10Mi"
disk_write = "10Mi"
[isolation]
minimum = "confined"
[[volumes]]
name = "data"
path = "/data"
size = "10Gi"
processes = ["web"]
"#;

/// Every key that format 1 has, and those that came later.
fn manifests() -> Vec<Event> {
    let texts = [
        FIRST,
        "[build]\nimage = \"ghcr.io/me/shop:1.4\"\n",
        "[build]\ndockerfile = \"Dockerfile\"\n",
        "[http]\npublic = false\n",
        "[deploy]\nstrategy = \"rolling\"\n",
        "[deploy]\nstrategy = \"bluegreen\"\n",
        "[deploy]\nstrategy = \"canary\"\n",
        "[deploy]\nstrategy = \"canary\"\n[deploy.canary]\nsteps = [10]\ninterval = \"30s\"\nanalysis = [\"error_rate\"]\n",
        "[http]\nforce_https = false\n",
        "[http]\nhsts = \"30d\"\n",
        "[http]\nrequest_timeout = \"1m\"\n",
        "[http]\nprotocol = \"h2c\"\n",
        "[http.concurrency]\nsoft_limit = 1\nhard_limit = 2\n",
        "[[http.rate_limit]]\nrequests = 10\nper = \"1s\"\nburst = 20\nby = \"ip\"\npath = \"/login\"\nmethods = [\"POST\"]\n",
        "[[http.route]]\npath = \"/reports\"\nmethods = [\"GET\"]\nrequest_timeout = \"5m\"\nconcurrency = 4\n",
        "[http.cache]\nsize = \"64Mi\"\nmax_body = \"2Mi\"\n",
        "stack = \"shop\"\n[build]\ndockerfile = \"Dockerfile\"\ntarget = \"runtime\"\n[build.args]\nVERSION = \"1\"\n[args]\nweb = [\"serve\"]\n",
        "[healthcheck.web]\ncommand = [\"./ok\"]\ninterval = \"5s\"\ntimeout = \"5s\"\nstart_period = \"1m\"\nstart_interval = \"1s\"\nretries = 2\n",
        "[healthcheck.web]\ncommand = \"./ok\"\n[healthcheck.worker]\ndisable = true\n",
        "[scale.web]\nmin = 0\nidle_after = \"1m\"\nstop_after = \"0s\"\n",
    ];
    let event = |text: &&str| {
        let Event::ReleaseSubmitted(release) = submitted(1, Reason::Deploy, None) else {
            unreachable!("it is one");
        };
        let manifest = Manifest::parse(text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
        Event::ReleaseSubmitted(Box::new(ReleaseSubmitted { manifest, ..*release }))
    };
    texts.iter().map(event).collect()
}

/// Everything that is written of `value`, as the places where it stands.
fn places(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = if NAMED.contains(&at) { "*" } else { key };
                places(value, &format!("{at}.{key}"), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| places(item, at, found)),
        Value::String(word) if WORDS.iter().any(|last| at.ends_with(&format!(".{last}"))) => {
            found.insert(format!("{at} = {word}"));
        }
        Value::Null => {}
        Value::String(_) | Value::Number(_) | Value::Bool(_) => drop(found.insert(at.to_owned())),
    }
}

/// The places of each event, with the oldest format in which they are written.
fn written() -> BTreeMap<String, u32> {
    let mut formats: BTreeMap<String, u32> = BTreeMap::new();
    let samples = platform_samples().into_iter().chain(app_samples()).chain(manifests());
    for event in samples {
        let format = of_event(&event).map_or(OLDEST, |newer| newer.format);
        let mut found = BTreeSet::from([event.kind().to_owned()]);
        let value = serde_json::to_value(&event).unwrap();
        places(&value["data"], event.kind(), &mut found);
        for place in found {
            formats.entry(place).and_modify(|it| *it = format.min(*it)).or_insert(format);
        }
    }
    formats
}

/// Held against the list whatever `BERTH_UPDATE_GOLDENS` says, but for the newest format: the others were released.
#[test]
fn golden_formats_have_what_they_had() {
    let path = folder().join("../formats.txt");
    let mut lines: Vec<(u32, String)> =
        written().into_iter().map(|(place, format)| (format, place)).collect();
    lines.sort();
    let listed = |wanted: &dyn Fn(u32) -> bool| -> String {
        let lines = lines.iter().filter(|(format, _)| wanted(*format));
        lines.map(|(format, place)| format!("{format} {place}\n")).collect()
    };
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let newest = format!("{NEWEST} ");
    let (old, new): (Vec<&str>, Vec<&str>) = golden.lines().partition(|line| !line.starts_with(&newest));
    if !old.is_empty() {
        let now = listed(&|format| format < NEWEST);
        let now: BTreeSet<&str> = now.lines().collect();
        let then: BTreeSet<&str> = old.into_iter().collect();
        let more: Vec<&&str> = now.difference(&then).collect();
        let less: Vec<&&str> = then.difference(&now).collect();
        assert!(
            more.is_empty() && less.is_empty(),
            "a format that programs know is another one now; say in crates/control/src/format.rs that it is of a newer one: \
             more {more:#?}, less {less:#?}"
        );
    }
    if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some_and(|value| value == "1") {
        std::fs::write(&path, listed(&|_| true)).unwrap();
        return;
    }
    let now = listed(&|format| format == NEWEST);
    assert_eq!(
        now.lines().collect::<Vec<_>>(),
        new,
        "format {NEWEST} has something else: begin the next one if it was released, else `cargo xtask goldens --update`"
    );
}

#[test]
fn what_a_journal_of_an_older_format_does_not_take_is_refused_and_named() {
    let beyond = |events: &[Event]| super::beyond(OLDEST, events).map(|newer| newer.what);
    for event in platform_samples().into_iter().chain(app_samples()).chain(manifests()) {
        let newer = of_event(&event);
        assert_eq!(beyond(&[Event::AppCreated { slot: 0 }, event.clone()]), newer.map(|it| it.what));
        assert_eq!(super::beyond(NEWEST, &[event]), None);
    }
    let stopping = |why| Event::InstanceStopping { ordinal: 1, why };
    assert_eq!(beyond(&[stopping(StopReason::Asleep)]), Some("an app that sleeps"));
    assert_eq!(beyond(&[stopping(StopReason::Retired)]), None);
}
