//! Apps that need a registry, an interpreter and a package manager: an npm project and a Flask app, built and served for real, then changed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and what is skipped is said"
)]

use std::fs;
use std::path::PathBuf;

use berth_acceptance::{Options, Platform, exchange};

const PACKAGE: &str = r#"{"name": "npm-app", "version": "1.0.0", "scripts": {"start": "node server.js"}, "dependencies": {"ms": "2.1.3"}}"#;
const LOCK: &str = r#"{"name": "npm-app", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {
  "": {"name": "npm-app", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}},
  "node_modules/ms": {"version": "2.1.3", "resolved": "https://registry.npmjs.org/ms/-/ms-2.1.3.tgz",
    "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA=="}}}"#;
const SERVER: &str = r#"const ms = require("ms");
require("http").createServer((_, answer) => answer.end("one " + ms("2 days"))).listen(process.env.PORT, "127.0.0.1");
"#;
const REQUIREMENTS: &str = "flask==3.0.3\nwerkzeug==3.0.6\ngunicorn==22.0.0\n";
const FLASK: &str = r#"import flask

app = flask.Flask(__name__)


@app.get("/")
def index():
    return "one flask"
"#;

struct App<'a> {
    platform: &'a Platform,
    name: &'static str,
    dir: PathBuf,
}

impl<'a> App<'a> {
    fn new(platform: &'a Platform, name: &'static str, files: &[(&str, &str)]) -> Self {
        let dir = platform.scratch().join(name);
        fs::create_dir(&dir).unwrap();
        for (path, content) in files {
            fs::write(dir.join(path), content).unwrap();
        }
        Self { platform, name, dir }
    }

    /// Deploys, and gives what was printed; nothing where this machine lacks what the app needs.
    fn deploy(&self) -> Option<String> {
        let answer = self.platform.cli(["deploy".as_ref(), self.dir.as_os_str()]);
        let printed = format!("{}{}", answer.stdout, answer.stderr);
        if printed.contains("toolchain_missing") {
            println!("SKIPPED {}: {printed}", self.name);
            return None;
        }
        assert_eq!(answer.status, 0, "{printed}");
        Some(printed)
    }

    fn ask(&self) -> String {
        let request = format!("GET / HTTP/1.1\r\nhost: {}.localhost\r\nconnection: close\r\n\r\n", self.name);
        exchange(self.platform.edge(), request.as_bytes()).expect("edge answers").text()
    }

    fn change(&self, file: &str) {
        let content = fs::read_to_string(self.dir.join(file)).unwrap();
        fs::write(self.dir.join(file), content.replace("one ", "two ")).unwrap();
    }
}

fn journey(app: &App<'_>, main: &str, says: &str) {
    let Some(cold) = app.deploy() else {
        return;
    };
    assert!(
        cold.contains("installing dependencies") && !cold.contains("taken from an earlier build"),
        "{cold}"
    );
    assert_eq!(app.ask(), format!("one {says}"));
    app.change(main);
    let warm = app.deploy().unwrap();
    assert!(warm.contains("unchanged, taken from an earlier build"), "{warm}");
    assert_eq!(app.ask(), format!("two {says}"));
}

#[test]
fn an_npm_app_is_built_served_and_built_again_without_an_install() {
    let platform = Platform::start(Options::default());
    let files = [("package.json", PACKAGE), ("package-lock.json", LOCK), ("server.js", SERVER)];
    journey(&App::new(&platform, "npm-app", &files), "server.js", "172800000");
}

#[test]
fn a_flask_app_is_built_served_and_built_again_without_an_install() {
    let platform = Platform::start(Options::default());
    let files = [("requirements.txt", REQUIREMENTS), ("app.py", FLASK)];
    journey(&App::new(&platform, "flask-app", &files), "app.py", "flask");
}
