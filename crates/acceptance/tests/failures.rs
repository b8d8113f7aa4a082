//! Failure reports: apps of several languages that fail as apps do, and whether one would know from the report what to do.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and a test that cannot run here says so"
)]

use std::fs;
use std::path::Path;

use berth_acceptance::{Actor, Answer, Options, Platform};
use serde_json::Value;

/// A first release that serves, and a second one with these files that does not.
struct Failing<'p> {
    platform: &'p Platform,
    app: Actor<'p>,
}

impl<'p> Failing<'p> {
    fn new(platform: &'p Platform, name: &str) -> Self {
        let app = Actor::web(platform, name, "serve");
        let _first = app.deploy().ok();
        Self { platform, app }
    }

    /// Deploys what fails; gives what a person is told and what a program is.
    fn fail(&self, files: &[(&str, &str)], manifest: &str) -> (String, Value) {
        for (name, text) in files {
            fs::write(self.app.directory().join(name), text).unwrap();
        }
        self.app.change(manifest);
        let told: Answer = self.platform.cli([Path::new("deploy"), self.app.directory()]);
        assert_eq!(told.status, 1, "{}{}", told.stdout, told.stderr);
        let release = self.app.verb(&["releases", "v2"]).ok().json();
        let failure = release["failure"].clone();
        assert_eq!(self.app.ask("/release"), (200, "v1".to_owned()), "the first release was touched");
        // The same words wherever one asks.
        let why = self.app.verb(&["why", "v2"]).ok().json()["answer"].as_str().unwrap().to_owned();
        for list in ["details", "log", "changed"] {
            for line in failure[list].as_array().into_iter().flatten() {
                let line = line.as_str().unwrap();
                assert!(why.contains(line), "{line}\nis not in\n{why}");
                assert!(told.stderr.contains(line.trim_end()), "{line}\nis not in\n{}", told.stderr);
            }
        }
        println!("{}", told.stderr);
        (told.stderr, failure)
    }
}

fn there_is(program: &str) -> bool {
    let there = Path::new(program).try_exists().unwrap();
    if !there {
        println!("SKIPPED: {program} is not installed");
    }
    there
}

const CRASHED: &str = "crashed_at_start";

#[test]
fn python_that_misses_a_variable() {
    if !there_is("/usr/bin/python3") {
        return;
    }
    let platform = Platform::start(Options::default());
    let app = "import os\n\ndef settings():\n    return os.environ[\"DATABASE_URL\"]\n\nsettings()\n";
    let shop = Failing::new(&platform, "shop");
    let (told, failure) = shop.fail(&[("app.py", app)], "[processes]\nweb = \"/usr/bin/python3 app.py\"\n");
    assert_eq!(failure["code"], CRASHED, "{failure}");
    let log = failure["log"].as_array().unwrap();
    assert_eq!(log.last().unwrap(), "KeyError: 'DATABASE_URL'", "{failure}");
    assert!(log.len() <= 4 && failure["log"].to_string().contains("line 4, in settings"), "{failure}");
    assert!(told.contains("next: set what it misses: `berth config set DATABASE_URL=...`"), "{told}");
    assert!(told.contains("changed since v1: source: 1 changed (berth.toml), 1 new (app.py)"), "{told}");
    assert!(
        told.contains("changed since v1: command of web: `/usr/bin/python3 app.py`, was `./actor serve`"),
        "{told}"
    );
}

#[test]
fn node_that_listens_where_it_likes_and_node_that_throws() {
    if !there_is("/usr/bin/node") {
        return;
    }
    let platform = Platform::start(Options::default());
    let manifest = "[processes]\nweb = \"/usr/bin/node server.js\"\n";
    let listens = "require('http').createServer((_, reply) => reply.end('hi')).listen(0, '127.0.0.1');\n";
    let (told, failure) = Failing::new(&platform, "port").fail(&[("server.js", listens)], manifest);
    assert_eq!(failure["code"], "listens_elsewhere", "{failure}");
    assert!(told.contains("app.listen(process.env.PORT)"), "{told}");

    let only_six = "require('http').createServer((_, reply) => reply.end('hi')).listen(process.env.PORT, '127.0.0.9');\n";
    let (told, failure) = Failing::new(&platform, "address").fail(&[("server.js", only_six)], manifest);
    assert_eq!(failure["code"], "listens_elsewhere", "{failure}");
    assert!(told.contains("at 127.0.0.9 only, expected 127.0.0.1"), "{told}");

    let throws = "const regions = process.env.REGIONS.split(',');\n";
    let (_, failure) = Failing::new(&platform, "throws").fail(&[("server.js", throws)], manifest);
    let log: Vec<&str> =
        failure["log"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(log.len(), 4, "{log:?}");
    assert!(log[0].ends_with("server.js:1") && log[2].starts_with("TypeError: "), "{log:?}");
}

#[test]
fn rust_that_panics_and_programs_that_are_not_there() {
    let platform = Platform::start(Options::default());
    // A worker has no port, and says so in its way.
    let manifest = "[processes]\nweb = \"./actor serve\"\nworker = \"./actor serve\"\n";
    let (_, failure) = Failing::new(&platform, "panics").fail(&[], manifest);
    assert_eq!(failure["code"], CRASHED, "{failure}");
    let log = failure["log"].to_string();
    assert!(log.contains("panicked at src/main.rs") && log.contains("PORT is given"), "{failure}");

    let (told, failure) =
        Failing::new(&platform, "mistyped").fail(&[], "[processes]\nweb = \"./acter serve\"\n");
    assert_eq!(failure["code"], CRASHED, "{failure}");
    assert!(told.contains("there is no program `./acter`; there is `./actor`"), "{told}");

    let shell = "[processes]\nweb = \"true && actr serve\"\n";
    let (told, failure) = Failing::new(&platform, "shell").fail(&[], shell);
    assert_eq!(failure["code"], CRASHED, "{failure}");
    assert!(told.contains("there is no program `actr`; there is `actor`"), "{told}");
}

#[test]
fn a_secret_does_not_get_into_the_report() {
    let platform = Platform::start(Options::default());
    let shop = Failing::new(&platform, "shop");
    let set = shop.app.verb(&["secrets", "set", "TOKEN=hunter2hunter2"]);
    assert_eq!(set.status, 0, "{set:?}");
    shop.app.change("[processes]\nweb = \"echo Error: $TOKEN is wrong; exit 3\"\n");
    let _failed = shop.platform.cli([Path::new("deploy"), shop.app.directory()]);
    let release = shop.app.verb(&["releases", "v3"]).ok().json();
    let log = release["failure"]["log"].to_string();
    assert!(
        log.contains("Error: [masked] is wrong") && !release.to_string().contains("hunter2"),
        "{release}"
    );
    assert!(release["failure"]["summary"].as_str().unwrap().contains("status 3"), "{release}");
}

/// What was set stays set, for the next release; that the one that serves does not have it is said.
#[test]
fn a_variable_that_a_failed_release_brought_is_told_as_not_in_use() {
    let platform = Platform::start(Options::default());
    let web = r#"web = "test -z \"$BAD\" && exec ./actor serve""#;
    let shop = Actor::new(&platform, "shop", &format!("[processes]\n{web}\n"));
    let _first = shop.deploy().ok();
    let _good = shop.verb(&["config", "set", "A=1"]).ok();
    let unreleased = || shop.verb(&["config"]).ok().json()["unreleased"].clone();
    assert_eq!(unreleased(), Value::Null);
    assert_eq!(shop.verb(&["config", "set", "BAD=1"]).status, 1);
    assert_eq!(unreleased(), serde_json::json!(["BAD"]));
    let told = platform.cli(["config", "-a", "shop"]).ok();
    assert!(told.stderr.contains("v2, which serves, has BAD otherwise"), "{}", told.stderr);
    let _unset = shop.verb(&["config", "unset", "BAD"]).ok();
    assert_eq!(unreleased(), Value::Null);
}
