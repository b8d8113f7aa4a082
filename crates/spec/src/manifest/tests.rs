//! Tests of the manifest: what is read, every mistake with its place, the schema and the page about it.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::{Strategy, *};
use crate::schema::manifest_schema;

const FULL: &str = r#"
app = "shop"
[build]
command = "make site"
output = "./dist/"
builder = "copy"
network = false
env = ["NPM_TOKEN", "NEXT_PUBLIC_API"]
[processes]
web = "bin/server --port $PORT"
worker = ["bin/worker", "$RAW"]
[env]
LOG_LEVEL = "info"
[deploy]
release_command = "bin/migrate && bin/seed"
strategy = "rolling"
timeout = "5m"
warm = "0s"
[http]
port = 8080
hosts = ["Shop.example.com", "shop.example.com"]
[[http.checks]]
type = "readiness"
path = "/healthz?deep=1"
interval = "500ms"
[shutdown]
signal = "SIGINT"
drain = "1m30s"
kill_after = "5m"
"#;

fn problems(text: &str) -> Vec<String> {
    let problems = Manifest::parse(text).unwrap_err();
    problems
        .0
        .into_iter()
        .map(|p| {
            let instead = p.instead.map(|text| format!(" | {text}")).unwrap_or_default();
            format!("{}:{} {}{instead}", p.line, p.column, p.what)
        })
        .collect()
}

#[test]
fn an_image_is_built_already() {
    let read = Manifest::parse("[build]\nimage = \"ghcr.io/me/shop:1.4\"").unwrap();
    assert_eq!(read.build, Build { image: Some("ghcr.io/me/shop:1.4".to_owned()), ..Build::default() });
    let hint = "write it as `docker pull` takes it, like \"registry.example.com/shop:1.4\"";
    for bad in ["", "a b", "a\\n", "\u{e9}"] {
        let expected = format!("2:9 that does not name an image | {hint}");
        assert_eq!(problems(&format!("[build]\nimage = \"{bad}\"")), [expected]);
    }
    let both = problems("[build]\nimage = \"a\"\ncommand = \"make\"\nbuilder = \"copy\"");
    let not = |place: &str, key: &str| {
        format!("{place} `build.{key}` does not go with `image` | leave it out: an image is built already")
    };
    assert_eq!(both, [not("3:1", "command"), not("4:1", "builder")]);
}

#[test]
fn a_full_manifest_is_read() {
    let read = Manifest::parse(FULL).unwrap();
    assert_eq!(read.app, Some("shop".parse().unwrap()));
    assert_eq!(read.build.builder, Some(Builder::Copy));
    assert_eq!(read.build.output, Some(crate::RelativeDir::new("dist").unwrap()));
    assert!(read.build.offline && !Manifest::parse("[build]\nnetwork = true").unwrap().build.offline);
    assert_eq!(read.build.env, ["NEXT_PUBLIC_API", "NPM_TOKEN"].map(|name| name.parse().unwrap()).into());
    assert_eq!(read.processes["web"], Command::Line("bin/server --port $PORT".into()));
    assert_eq!(read.processes["worker"], Command::Argv(vec!["bin/worker".into(), "$RAW".into()]));
    assert_eq!(read.env["LOG_LEVEL"], "info");
    assert_eq!(read.deploy.release_command, Some(Command::Shell("bin/migrate && bin/seed".into())));
    assert_eq!(read.deploy.strategy, Some(Strategy::Rolling));
    assert_eq!((read.deploy.timeout, read.deploy.warm), (Millis(300_000), Millis(0)));
    assert_eq!(read.http.port, Some(8080));
    assert_eq!(read.http.hosts, ["shop.example.com".parse().unwrap()]);
    assert_eq!(read.http.readiness.path, Some("/healthz?deep=1".parse().unwrap()));
    assert_eq!((read.http.readiness.interval, read.http.readiness.timeout), (Millis(500), Millis(5_000)));
    assert_eq!(
        read.shutdown,
        Shutdown { signal: Signal::Int, drain: Millis(90_000), kill_after: Millis(300_000) }
    );
}

#[test]
fn an_empty_manifest_has_the_defaults() {
    let read = Manifest::parse("").unwrap();
    assert_eq!(read, Manifest::default());
    // The normalised form is persisted in events: its names and defaults are pinned here.
    assert_eq!(
        serde_json::to_value(&read).unwrap(),
        serde_json::json!({
            "format": 1, "app": null, "processes": {}, "env": {},
            "build": {"builder": null, "command": null, "output": null},
            "deploy": {"release_command": null, "strategy": null, "timeout": 600_000, "warm": 600_000},
            "http": {"port": null, "hosts": [],
                     "readiness": {"path": null, "interval": 1_000, "timeout": 5_000, "grace": 10_000}},
            "shutdown": {"signal": "SIGTERM", "drain": 30_000, "kill_after": 30_000},
        })
    );
}

#[test]
fn the_stored_form_comes_back_and_is_strict() {
    let read = Manifest::parse(FULL).unwrap();
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), read);
    for (from, to) in [
        ("\"format\":1", "\"format\":2"),
        ("\"app\":", "\"apq\":"),
        ("\"SIGINT\"", "\"SIGSTOP\""),
        ("\"shop\"", "\"../shop\""),
        ("/healthz", "healthz"),
    ] {
        assert!(json.contains(from), "{from}");
        assert!(serde_json::from_str::<Manifest>(&json.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places() {
    let text = r#"app = "Shop"
port = 1
timeout = "1m"
[deploy]
release-command = "x"
strategy = "blue-green"
timeout = "10 minutes"
warm = 30
[env]
PORT = "1"
DEBUG = true
[http]
hosts = ["https://shop.example.com/", "*.com"]
port = 70000
[[http.checks]]
path = "healthz"
[shutdown]
kill_after = "6m"
signal = "TERM"
"#;
    assert_eq!(
        problems(text),
        [
            "1:7 app name \"Shop\" may hold only a-z, 0-9 and -",
            "2:1 unknown key `port` | `port` is a key of `[http]`",
            "3:1 unknown key `timeout` | `timeout` is a key of `[deploy]`",
            "5:1 unknown key `deploy.release-command` | did you mean `release_command`?",
            "6:12 \"blue-green\" is not one of rolling, bluegreen, canary, recreate | did you mean \"bluegreen\"?",
            "7:11 \"10 minutes\" is not a span of time | write it like \"250ms\", \"30s\" or \"1h30m\"",
            "8:8 expected a span of time, found integer | write \"30s\"",
            "10:1 environment variable name \"PORT\" is reserved: Berth sets it for every instance",
            "11:9 expected a string, found boolean | write \"true\"",
            "13:10 \"https://shop.example.com/\" is not a host name | write \"shop.example.com\": no scheme, port or path",
            "13:39 \"*.com\" is not a wildcard that a host may have: write one like \"*.example.com\" | write a name like \"shop.example.com\"",
            "14:8 a port is a number from 1 to 65535",
            "15:1 `http.checks` has no `type` | write type = \"readiness\"",
            "16:8 \"healthz\" is not the path of a check | write \"/healthz\"",
            "18:14 6m is not within 0s to 5m",
            "19:10 \"TERM\" is not one of SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 | did you mean \"SIGTERM\"?",
        ]
    );
}

#[test]
fn a_name_as_other_platforms_have_it_leads_to_ours() {
    assert_eq!(problems("name = \"shop\"\n"), ["1:1 unknown key `name` | an app is named by `app`"]);
}

#[test]
fn keys_of_features_that_have_not_landed_say_so() {
    let text = r#"
[[http.checks]]
type = "liveness"
[scale.web]
min = 0
max = 10
[[services]]
type = "postgres"
[slo]
availability = 99.9
"#;
    let found = problems(text);
    assert_eq!(found.len(), 4, "{found:#?}");
    for problem in &found {
        assert!(problem.contains("not available in this version of Berth"), "{problem}");
    }
    assert!(found.iter().any(|problem| problem.contains("3 `services` is not available")), "{found:#?}");
}

#[test]
fn wrong_shapes_are_mistakes() {
    let table = [
        ("app = 1", "1:7 expected a string, found integer"),
        ("build = 1", "1:9 expected a table, found integer | write `[build]` on a line of its own"),
        ("[processes]\nweb = 1", "2:7 expected a command, as a string or an array of strings, found integer"),
        ("[processes]\nweb = [\"a\", 1]", "2:7 expected a string, found integer"),
        ("[processes]\nweb = []", "2:7 the command is empty"),
        (
            "[processes]\nrelease = \"a\"",
            "2:1 `release` is not a process here | write `release_command` below `[deploy]`",
        ),
        ("[http]\nhosts = \"a.b\"", "2:9 expected an array of host names, found string"),
        (
            "[http]\nhosts = [\"127.0.0.1\"]",
            "2:10 \"127.0.0.1\" is not a host name | write a name like \"shop.example.com\"",
        ),
        ("[http]\nchecks = [1]", "2:11 expected a table, found integer"),
        (
            "[build]\nbuilder = \"dockerfile\"",
            "2:11 a Dockerfile is no builder | write `dockerfile = \"Dockerfile\"`",
        ),
        (
            "[build]\ndockerfile = \"../Dockerfile\"",
            "2:14 that is no file of the source | write a path like \"Dockerfile\" or \"docker/Dockerfile\"",
        ),
        (
            "[build]\ndockerfile = \"Dockerfile\"\noutput = \"dist\"",
            "3:1 `build.output` does not go with `dockerfile` | leave it out: the Dockerfile says how to build",
        ),
        (
            "[build]\nbuilder = \"cargo\"\ncommand = \"x\"",
            "3:1 `build.command` does not go with `builder = \"cargo\"` | run `cargo build` in it and use `builder = \"copy\"`",
        ),
        (
            "[build]\nbuilder = \"static\"\n[processes]\nweb = \"x\"",
            "3:2 a static site has no processes: Berth serves its files itself | leave out `[processes]`, or write `builder = \"copy\"`",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(problems(text), [expected], "{text}");
    }
    assert_eq!(problems("[build]\noutput = \"../x\"").len(), 1);
    let two = "[[http.checks]]\ntype = \"readiness\"\n[[http.checks]]\ntype = \"readiness\"";
    assert_eq!(problems(two), ["3:1 an app has at most one check in this version of Berth"]);
}

#[test]
fn volumes_have_a_name_and_a_path_of_their_own() {
    let text = r#"
[processes]
web = "bin/server"
clock = "bin/clock"
[[volumes]]
name = "data"
path = "/data/"
size = "10Gi"
processes = ["web"]
[[volumes]]
name = "all-of-us"
path = "/srv/shared"
"#;
    let read = Manifest::parse(text).unwrap();
    let volume = &read.volumes["data"];
    assert_eq!((volume.path.as_str(), volume.size), ("/data", Some(crate::unit::Bytes(10 << 30))));
    let of = |process: &str| {
        let process = process.parse().unwrap();
        read.volumes_of(&process).map(|(name, _)| name.variable()).collect::<Vec<String>>()
    };
    assert_eq!(
        (of("web"), of("clock")),
        (vec!["VOLUME_ALL_OF_US".into(), "VOLUME_DATA".into()], vec!["VOLUME_ALL_OF_US".into()])
    );
}

#[test]
fn mistakes_in_volumes_have_their_places() {
    let text = r#"
[processes]
web = "x"
[[volumes]]
name = "Data"
path = "data"
[[volumes]]
name = "a"
path = "/proc/1"
[[volumes]]
name = "b"
path = "/usr/share/x"
[[volumes]]
name = "c"
path = "/c"
size = "10gb"
processes = ["wbe"]
[[volumes]]
name = "c"
path = "/d"
[[volumes]]
name = "d"
path = "/c/deeper"
[[volumes]]
"#;
    assert_eq!(
        problems(text),
        [
            "5:8 volume name \"Data\" may hold only a-z, 0-9 and -",
            "6:8 \"data\" is not where a volume can be | write an absolute path like \"/data\", outside of /proc, /sys and /dev",
            "9:8 \"/proc/1\" is not where a volume can be | write an absolute path like \"/data\", outside of /proc, /sys and /dev",
            "12:8 nothing can be mounted within /usr: it is the machine's | write a path like \"/data\", which the app also finds in its environment",
            "16:8 \"10gb\" is not a size | write it like \"500Mi\", \"10Gi\" or \"1Ti\"",
            "17:14 there is no process wbe below [processes] | did you mean \"web\"?",
            "18:1 there is a volume c already | give each a name and a path of its own",
            "21:1 the volumes c and d lie one within the other | give each a name and a path of its own",
            "24:1 `volumes` has no `name` | write name = \"data\"",
            "24:1 `volumes` has no `path` | write path = \"/data\"",
        ]
    );
    // An image has files of its own everywhere.
    let image = "[build]\nimage = \"x\"\n[[volumes]]\nname = \"b\"\npath = \"/usr/share/x\"";
    assert_eq!(Manifest::parse(image).unwrap().volumes.len(), 1);
    for bad in [
        "",
        "/",
        "relative",
        "/a/../b",
        "/a//b",
        "/./a",
        "/dev",
        "/sys/x",
        "/a\u{7}",
        &format!("/{}", "a".repeat(255)),
    ] {
        assert!(bad.parse::<MountPath>().is_err(), "{bad:?}");
    }
    assert_eq!("/process".parse::<MountPath>().unwrap().as_str(), "/process");
}

#[test]
fn cron_entries_have_names_defaults_and_mistakes_with_places() {
    let text = r#"
[[cron]]
schedule = "@daily"
command = "python manage.py clearsessions"
[[cron]]
schedule = "5 4 * * sun"
timezone = "europe/berlin"
command = "python manage.py clearsessions"
concurrency = "replace"
timeout = "10m"
catch_up = "7d"
"#;
    let read = Manifest::parse(text).unwrap();
    let names: Vec<&str> = read.cron.keys().map(crate::CronName::as_str).collect();
    assert_eq!(names, ["python-manage-py-clearsessions", "python-manage-py-clearsessions-2"]);
    let [first, second] = read.cron.values().collect::<Vec<_>>()[..] else { panic!("{read:#?}") };
    let command = Command::Line("python manage.py clearsessions".into());
    assert_eq!(*first, super::CronEntry::new("@daily".parse().unwrap(), command));
    assert_eq!((second.timezone.as_str(), second.catch_up), ("Europe/Berlin", Millis::from_secs(604_800)));

    let text = r#"
[[cron]]
schedule = "61 * * * *"
command = "a"
[[cron]]
schedule = "0 0 31 2 *"
timezone = "Mars"
concurrency = "forbit"
timeout = "2d"
[[cron]]
name = "b"
command = "b"
[[cron]]
name = "c"
schedule = "@daily"
command = "c"
every = "day"
[[cron]]
name = "c"
schedule = "@daily"
command = "c"
"#;
    let like = "write it like \"0 3 * * *\" for every day at 03:00, or \"*/15 9-17 * * mon-fri\"";
    assert_eq!(
        problems(text),
        [
            format!("3:12 the minute \"61\" is not within 0 to 59 | {like}"),
            "5:1 `cron` has no `command` | write command = \"bin/nightly\"".to_owned(),
            format!("6:12 no month that it names has such a day, so it would never be due | {like}"),
            "7:12 there is no time zone \"Mars\" | write its name as in \"Europe/Berlin\", or leave it out for UTC"
                .to_owned(),
            "8:15 \"forbit\" is not one of forbid, allow, replace | did you mean \"forbid\"?".to_owned(),
            "9:11 48h is not within 1s to 24h".to_owned(),
            "10:1 `cron` has no `schedule` | write schedule = \"@daily\"".to_owned(),
            "17:1 unknown key `cron.every` | known here: name, schedule, timezone, command, concurrency, timeout, catch_up".to_owned(),
            "19:8 there is a cron entry c already | give each a name of its own".to_owned(),
        ]
    );
    assert_eq!(
        problems("[cron]\nschedule = \"@daily\""),
        ["1:1 expected an array of tables: `[[cron]]`, found table"]
    );
}

#[test]
fn syntax_errors_have_places_and_are_all_reported() {
    let found = problems("app = \n[deploy\nwarm = \"1m\"\n");
    assert!(found.iter().any(|problem| problem.starts_with("1:")), "{found:?}");
    assert!(found.iter().any(|problem| problem.starts_with("2:")), "{found:?}");
    assert!(!problems("app = \"a\"\napp = \"b\"").is_empty());
    assert_eq!(problems(&" ".repeat(MANIFEST_MAX + 1)), ["1:1 the file is longer than 256 KiB"]);
}

#[test]
fn the_manifest_wins_over_the_procfile() {
    let procfile = Some("web: a\nrelease: b");
    let read = Manifest::read(None, procfile).unwrap();
    assert_eq!(read.processes["web"], Command::Line("a".into()));
    assert_eq!(read.deploy.release_command, Some(Command::Line("b".into())));
    let read = Manifest::read(Some("[deploy]\nrelease_command = \"c\""), procfile).unwrap();
    assert_eq!(read.deploy.release_command, Some(Command::Line("c".into())));
    let read = Manifest::read(Some("[processes]\nweb = \"d\""), procfile).unwrap();
    assert_eq!(read.processes["web"], Command::Line("d".into()));
    assert_eq!(read.deploy.release_command, None);
    let both = Manifest::read(Some("x = 1"), Some("y")).unwrap_err();
    assert_eq!(both.0.iter().map(|p| p.file.as_str()).collect::<Vec<_>>(), ["berth.toml", "Procfile"]);
}

fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Objects with their keys in order, whichever map serde_json was built with.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<_, _> =
                map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            ordered.into_iter().collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_schema_is_its_golden() {
    let path = repository_file("contracts/manifest.schema.json");
    let text = serde_json::to_string_pretty(&sorted(&manifest_schema())).unwrap() + "\n";
    if std::env::var_os("BERTH_UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == text, "{} differs; run the tests with BERTH_UPDATE_GOLDENS=1", path.display());
}

#[test]
fn egress_is_a_policy_that_is_there() {
    let read = |policy: &str| Manifest::parse(&format!("[network]\negress = \"{policy}\"\n"));
    assert_eq!(read("none").unwrap().network.egress, Egress::None);
    // Nothing is written of the default, so that a version before this one reads it.
    let default = read("internet").unwrap();
    assert_eq!(default, Manifest::default());
    assert!(!serde_json::to_string(&default).unwrap().contains("network"));
    assert_eq!(read("internal").unwrap().network.egress, Egress::Internal);
    let problems = read("all").unwrap_err().to_string();
    assert!(problems.contains("internet, internal, none"), "{problems}");
}

#[test]
fn an_app_that_is_not_public_has_no_hosts() {
    let manifest = Manifest::parse("[http]\npublic = false\n").unwrap();
    assert!(manifest.http.internal);
    assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
    let public = Manifest::parse("[http]\npublic = true\n").unwrap();
    assert_eq!(public, Manifest::default());
    assert!(!serde_json::to_string(&public).unwrap().contains("internal"), "the version before reads it");
    let problems =
        Manifest::parse("[http]\npublic = false\nhosts = [\"a.example.com\"]\n").unwrap_err().to_string();
    assert!(problems.contains("an app that is not public has no hosts"), "{problems}");
}

#[test]
fn other_apps_are_called_as_the_file_says() {
    let text = "[network]\negress = \"internal\"\n\n[network.names]\ndb = \"shop-db\"\nmy_cache-2 = \"shop-cache\"\n";
    let manifest = Manifest::parse(text).unwrap();
    let names: Vec<(&str, &str)> =
        manifest.network.names.iter().map(|(alias, app)| (alias.as_str(), app.as_str())).collect();
    assert_eq!(names, [("db", "shop-db"), ("my_cache-2", "shop-cache")]);
    assert_eq!(Manifest::parse(&manifest.write(&[], &[])).unwrap(), manifest);
    assert_eq!(
        serde_json::from_str::<Manifest>(&serde_json::to_string(&manifest).unwrap()).unwrap(),
        manifest
    );
    let long = "a".repeat(64);
    for bad in ["localhost", "Db", "db.internal", "-db", "db_", "\"d b\"", "\"\"", "\"10\"", &long] {
        let text = format!("[network.names]\n{bad} = \"shop-db\"\n");
        assert!(Manifest::parse(&text).is_err(), "{bad}");
    }
    assert!(Manifest::parse("[network.names]\ndb = \"Shop\"\n").is_err());
    let many: String = (0..101).map(|number| format!("n{number} = \"shop\"\n")).collect();
    let problems = Manifest::parse(&format!("[network.names]\n{many}")).unwrap_err().to_string();
    assert!(problems.contains("at most 100"), "{problems}");
}

#[test]
fn the_schema_has_the_keys_that_are_read_and_the_page_explains_them() {
    let schema = manifest_schema();
    let page = std::fs::read_to_string(repository_file("docs/manifest.md")).unwrap();
    let defs = [
        ("build", "Build"),
        ("deploy", "Deploy"),
        ("deploy.canary", "Canary"),
        ("http", "Http"),
        ("http.concurrency", "HttpConcurrency"),
        ("http.rate_limit", "RateLimit"),
        ("http.route", "HttpRoute"),
        ("http.cache", "HttpCache"),
        ("http.checks", "Check"),
        ("shutdown", "Shutdown"),
        ("cron", "Cron"),
        ("network", "Network"),
        ("resources.NAME", "Resources"),
        ("isolation", "Isolation"),
        ("volumes", "Volume"),
        ("scale.NAME", "Scale"),
        ("healthcheck.NAME", "Healthcheck"),
    ];
    for keys in keys::SECTIONS {
        let at = defs.iter().find(|(section, _)| *section == keys.section);
        let object = at.map_or(&schema, |(_, name)| &schema["$defs"][name]);
        let mut described: Vec<&str> =
            object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = keys.known.to_vec();
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(described, known, "[{}]", keys.section);
        assert_eq!(object["additionalProperties"], Value::Bool(false));
        for key in keys.known.iter().chain(keys.later) {
            let heading =
                if keys.section.is_empty() { (*key).to_owned() } else { format!("{}.{key}", keys.section) };
            assert!(page.contains(&format!("`{heading}`")), "docs/manifest.md does not explain `{heading}`");
        }
    }
}

#[test]
fn every_example_on_the_page_is_read() {
    let page = std::fs::read_to_string(repository_file("docs/manifest.md")).unwrap();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 5);
    for example in examples {
        if let Err(problems) = Manifest::parse(example) {
            panic!("{problems}\n{example}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        if let Err(problems) = Manifest::parse(&text) {
            prop_assert!(!problems.0.is_empty());
            prop_assert!(problems.0.iter().all(|problem| problem.line > 0 && problem.column > 0));
            drop(problems.to_string());
        }
    }

    #[test]
    fn any_mutation_of_a_manifest_is_read_or_refused(at in 0..FULL.len(), cut in 0..20_usize, put in "[\\[\\]=\".a0\n'{},é\0-]{0,6}") {
        let end = (at + cut).min(FULL.len());
        let text = format!("{}{put}{}", FULL.get(..at).unwrap(), FULL.get(end..).unwrap());
        match Manifest::parse(&text) {
            Ok(read) => {
                let json = serde_json::to_string(&read).unwrap();
                prop_assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), read);
            }
            Err(problems) => prop_assert!(!problems.0.is_empty()),
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_overflown(depth in 0..100_000_usize) {
        drop(Manifest::parse(&format!("a = {}", "[".repeat(depth))));
    }
}
