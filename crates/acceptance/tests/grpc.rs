//! gRPC from end to end: an app that is a server of gRPC's own library for Python, and a client that is the same library's.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and what is skipped is said"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use berth_acceptance::{Options, Platform};

const REQUIREMENTS: &str = "grpcio==1.85.3\n";
const MANIFEST: &str = r#"[processes]
web = "python server.py"

[http]
protocol = "h2c"

[[http.checks]]
type = "readiness"
path = "/grpc.health.v1.Health/Check"
"#;
const SERVER: &str = include_str!("grpc/server.py");
const CLIENT: &str = include_str!("grpc/client.py");

#[expect(
    clippy::disallowed_methods,
    reason = "the harness stands outside of the platform and its allow-list"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

/// The app `rpc` and what its clients need.
struct App<'p> {
    platform: &'p Platform,
    source: PathBuf,
    client: PathBuf,
    root: PathBuf,
    library: PathBuf,
}

impl<'p> App<'p> {
    /// Deployed; nothing where this machine has no Python that can install packages.
    fn deployed(platform: &'p Platform) -> Option<Self> {
        let place = |name: &str| platform.scratch().join(name);
        let (source, library, root) = (place("rpc"), place("library"), place("root.pem"));
        fs::create_dir(&source).unwrap();
        for (name, content) in [
            ("requirements.txt", REQUIREMENTS),
            ("berth.toml", MANIFEST),
            ("server.py", SERVER),
            ("client.py", CLIENT),
        ] {
            fs::write(source.join(name), content).unwrap();
        }
        let authority = fs::read_to_string(platform.home().join("routing/authority.pem")).unwrap();
        fs::write(&root, authority).unwrap();
        let app = Self { platform, client: source.join("client.py"), source, root, library };
        if !app.deploy() {
            return None;
        }
        let installed = program("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&app.library)
            .arg(REQUIREMENTS.trim())
            .output()
            .expect("Python runs");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        Some(app)
    }

    fn deploy(&self) -> bool {
        let answer = self.platform.cli(["deploy".as_ref(), self.source.as_os_str()]);
        let printed = format!("{}{}", answer.stdout, answer.stderr);
        if printed.contains("toolchain_missing") {
            println!("SKIPPED: {printed}");
            return false;
        }
        assert_eq!(answer.status, 0, "{printed}");
        true
    }

    /// A client that does `what`, by HTTPS from outside.
    fn client(&self, what: &str) -> Talker {
        let https = self.platform.https().expect("it serves HTTPS");
        let mut child = program("python3")
            .arg(&self.client)
            .arg(what)
            .arg(https.to_string())
            .arg(&self.root)
            .env("PYTHONPATH", &self.library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Talker { child, to, from }
    }
}

/// A client that says line by line how far it is.
struct Talker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Talker {
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn go_on(&mut self) {
        self.to.write_all(b"go on\n").unwrap();
    }

    /// All that it has yet to say.
    fn rest(mut self) -> Vec<String> {
        drop(self.to);
        let lines: Vec<String> = self.from.lines().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success(), "{lines:?}");
        lines
    }
}

#[test]
fn calls_of_every_kind_reach_an_app_and_come_back_whole() {
    let platform = Platform::start(Options::default());
    let Some(app) = App::deployed(&platform) else { return };
    let expected = [
        "unary: one order, trailer 7",
        "failed: NOT_FOUND no such order: 100% é",
        "server streaming: one 0, one 1, one 2, one 3, one 4",
        "client streaming: one abc",
        "both: one x, one y, one z",
        "large: 4000000",
        "deadline: DEADLINE_EXCEEDED",
        "unknown: UNIMPLEMENTED",
        "taken back: the app has seen 1",
    ];
    assert_eq!(app.client("every").rest(), expected);
    // From within the project it is the same, without TLS.
    let inside =
        platform.cli(["run", "--app", "rpc", "--", "python", "client.py", "every", "rpc.internal:80"]);
    assert_eq!(inside.status, 0, "{}{}", inside.stdout, inside.stderr);
    let said: Vec<&str> = inside.stdout.lines().take(expected.len() - 1).collect();
    assert_eq!(said, expected[..expected.len() - 1], "{}", inside.stdout);
    // What edge says itself a client of gRPC understands.
    let _off = platform.cli(["maintenance", "on", "--app", "rpc"]).ok();
    let said = app.client("one").rest();
    assert!(
        said[0].starts_with("UNAVAILABLE The app is under maintenance and will be back. app_in_maintenance"),
        "{said:?}"
    );
}

#[test]
fn a_stream_goes_on_through_a_deploy_and_the_next_call_reaches_the_new_release() {
    let platform = Platform::start(Options::default());
    let Some(app) = App::deployed(&platform) else { return };
    let mut talker = app.client("through");
    assert_eq!(talker.hear(), "one before");
    let changed = SERVER.replace("RELEASE = \"one\"", "RELEASE = \"two\"");
    assert_ne!(changed, SERVER);
    fs::write(app.source.join("server.py"), changed).unwrap();
    assert!(app.deploy());
    talker.go_on();
    assert_eq!(talker.rest(), ["one after", "ended: OK", "two next"]);
}
