//! Another program takes the platform over while apps serve: nobody notices; one that does not come up gives way to the one before it, which can
//! read all that was written until somebody says that there is no way back.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_acceptance::load::{Activation, Load, Options as LoadOptions};
use berth_acceptance::{Options, Platform, Source, User, another, berth, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);

/// A program that says its version and the formats that it reads as Berth does, and then does what `rest` says.
fn script(platform: &Platform, name: &str, rest: &str) -> PathBuf {
    let path = platform.scratch().join(name);
    let says = format!(r#"case "$1" in version | __formats) exec {} "$@";; esac"#, berth().display());
    fs::write(&path, format!("#!/bin/sh\n{says}\n{rest}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn upgrade(platform: &Platform, from: &Path) -> berth_acceptance::Answer {
    platform.cli(["upgrade".as_ref(), "--from".as_ref(), from.as_os_str()])
}

fn runs(platform: &Platform) -> String {
    platform.cli(["status", "--json"]).ok().json()["program"].as_str().unwrap().to_owned()
}

/// The process that has the home's lock.
fn holder(platform: &Platform) -> u32 {
    let lock = fs::read_to_string(platform.home().join("lock")).unwrap();
    lock.lines().find_map(|line| line.strip_prefix("pid ")).unwrap().parse().unwrap()
}

fn active() -> [Activation; 1] {
    [Activation { names: vec!["v1".to_owned()], submitted: Duration::ZERO, active: Duration::ZERO }]
}

#[test]
fn nobody_notices_that_the_platform_is_upgraded() {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { user, ..Options::default() });
        let source = Source::built(&platform);
        let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
        let instances = platform.cli(["ps", "--app", Source::APP, "--json"]).ok().json();
        let before = (platform.supervisor(), runs(&platform));
        let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
        for name in ["one", "two", "three"] {
            let enough = load.begun() + 200;
            assert!(wait_until(PATIENCE, || load.begun() >= enough));
            let told = upgrade(&platform, &another(&platform, name, name)).ok().stdout;
            assert!(told.contains(" runs in place of "), "{told}");
        }
        let enough = load.begun() + 200;
        assert!(wait_until(PATIENCE, || load.begun() >= enough));
        let outcome = load.stop();
        println!("{outcome}");
        outcome.assert_clean(&active(), &[]);
        let now = runs(&platform);
        assert!(now != before.1 && now.contains("/bin/berth-"), "{now}");
        assert_eq!(platform.role("control").len(), 1);
        assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1));
        assert_eq!(platform.supervisor(), before.0, "the process is the same");
        let pid = |ps: &serde_json::Value| ps["instances"][0]["pid"].clone();
        let after = platform.cli(["ps", "--app", Source::APP, "--json"]).ok().json();
        assert_eq!(pid(&after), pid(&instances), "apps go on as they were");
        // What does not run any more is not kept, but for the one before.
        let bin = fs::read_dir(platform.home().join("bin")).unwrap();
        let mut kept: Vec<String> = bin.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        kept.sort();
        assert!(kept.len() == 3 && kept[0] == "berth" && kept[2] == "previous", "{kept:?}");
        // The same one again is none.
        let again = upgrade(&platform, &platform.scratch().join("three")).ok().stdout;
        assert!(again.contains("runs already"), "{again}");
    }
}

#[test]
fn a_program_that_does_not_come_up_gives_way_to_the_one_before_it() {
    let mut platform = Platform::start(Options::default());
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    let load = Load::start(LoadOptions::new(platform.edge(), Source::APP));
    // Nothing is begun with what is no Berth.
    let not_berth = platform.scratch().join("not-berth");
    fs::write(&not_berth, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&not_berth, fs::Permissions::from_mode(0o755)).unwrap();
    for from in [not_berth.as_path(), Path::new("/etc/hostname"), Path::new("/nowhere/berth")] {
        let refused = upgrade(&platform, from);
        assert!(refused.status == 4 && refused.stderr.contains("upgrade_refused"), "{refused:?}");
    }
    // One that ends at once, and one that tells an error first: a variable that no supervisor takes.
    let poisoned = format!("BERTH_PUSH_MAX_MIB=none exec {} \"$@\"", berth().display());
    for (name, rest) in [("crashes", "exit 3"), ("errs", poisoned.as_str()), ("crashes-again", "exit 3")] {
        let failed = upgrade(&platform, &script(&platform, name, rest));
        assert!(failed.status == 1 && failed.stderr.contains("upgrade_failed"), "{name}: {failed:?}");
        assert!(failed.stderr.contains("the program before it runs again"), "{name}: {failed:?}");
        let why = if name == "errs" { "BERTH_PUSH_MAX_MIB is to be" } else { "ended without a word" };
        assert!(platform.log("supervisor").contains(why), "{name}: {}", platform.log("supervisor"));
        assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1), "{name}");
        assert_eq!(platform.role("control").len(), 1, "{name}");
    }
    // What runs now is a guard, which nobody watches: whoever starts the platform, a service manager above all, has it.
    let guard = holder(&platform);
    platform.start_again();
    assert_ne!(holder(&platform), guard);
    assert_eq!(holder(&platform), platform.supervisor());
    // Whoever is to take note of its end may be slow, or nobody.
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{guard}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    assert!(wait_until(PATIENCE, gone), "it gave way");
    assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1));
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&active(), &[]);
    let _down = platform.cli(["down"]).ok();
}

/// While one program has become the other and has not begun, edge alone has what clients connect to, and may be killed.
#[test]
fn an_edge_that_dies_while_the_program_changes_has_nobody_refused() {
    let platform = Platform::start(Options::default());
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    let (began, go) = (platform.scratch().join("began"), platform.scratch().join("go"));
    let rest = format!(
        "touch {}\nwhile [ ! -e {} ]; do sleep 0.01; done\nexec {} \"$@\"",
        began.display(),
        go.display(),
        berth().display()
    );
    let slow = script(&platform, "slow", &rest);
    let upgrading = platform.begin(["upgrade".as_ref(), "--from".as_ref(), slow.as_os_str()]);
    assert!(wait_until(PATIENCE, || began.try_exists().unwrap()));
    let [edge] = platform.role("edge")[..] else { panic!("one edge serves") };
    platform.kill(edge);
    let mut waiting = TcpStream::connect(platform.edge()).expect("nobody is refused");
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(waiting, "GET / HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n\r\n", Source::APP)
        .unwrap();
    fs::write(&go, "").unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The slow one serves, and is not the file that was staged: that is all the verb can tell.
    assert_eq!(upgrading.wait().status, 1);
    let _down = platform.cli(["down"]).ok();
}

/// Connects to the API again and again, by both of its doors, and counts who is refused.
struct Knocking {
    ends: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    doors: Vec<JoinHandle<Vec<String>>>,
}

impl Knocking {
    fn begin(platform: &Platform) -> Self {
        let (ends, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (api, socket) = (platform.api(), platform.run_dir().join("api.sock"));
        let tcp = Self::knock(&ends, &taken, "TCP", move || TcpStream::connect(api));
        let unix = Self::knock(&ends, &taken, "api.sock", move || UnixStream::connect(&socket));
        Self { ends, taken, doors: vec![tcp, unix] }
    }

    fn knock<S: Read + Write>(
        ends: &Arc<AtomicBool>,
        taken: &Arc<AtomicU64>,
        door: &'static str,
        connect: impl Fn() -> io::Result<S> + Send + 'static,
    ) -> JoinHandle<Vec<String>> {
        let (ends, taken) = (Arc::clone(ends), Arc::clone(taken));
        std::thread::spawn(move || {
            let mut refused = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match connect() {
                    Ok(mut stream) => {
                        // A control that ends takes along what it has begun to answer; that is no refusal.
                        let asked = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                        let mut answer = Vec::new();
                        let whole = stream.write_all(asked).and_then(|()| stream.read_to_end(&mut answer));
                        taken.fetch_add(u64::from(whole.is_ok()), Ordering::Relaxed);
                    }
                    Err(error) => refused.push(format!("{door}: {error}")),
                }
            }
            refused
        })
    }

    /// Waits until some more were let in.
    fn go_on(&self) {
        let enough = self.taken.load(Ordering::Relaxed) + 20;
        assert!(wait_until(PATIENCE, || self.taken.load(Ordering::Relaxed) >= enough));
    }

    fn end(self) -> Vec<String> {
        self.ends.store(true, Ordering::Relaxed);
        self.doors.into_iter().flat_map(|door| door.join().unwrap()).collect()
    }
}

/// At each step in which a program can be slow, end, or be killed, the API's doors are somebody's: whoever connects waits.
#[test]
fn nobody_who_connects_to_the_api_is_refused_during_an_upgrade() {
    for user in [User::Own, User::Ordinary] {
        let platform = Platform::start(Options { user, ..Options::default() });
        let api = platform.api();
        let knocking = Knocking::begin(&platform);
        knocking.go_on();
        let this = berth().display().to_string();
        let programs = [
            ("slow", format!("sleep 1; exec {this} \"$@\"")),
            ("ends", "exit 3".to_owned()),
            ("killed", "kill -9 $$".to_owned()),
            ("slow-to-end", "sleep 1; exit 3".to_owned()),
            ("errs", format!("BERTH_PUSH_MAX_MIB=none exec {this} \"$@\"")),
        ];
        for (name, rest) in &programs {
            // The slow one serves, and is not the file that was staged: that is all the verb can tell.
            let told = upgrade(&platform, &script(&platform, name, rest));
            assert_eq!(told.status, 1, "{name}: {told:?}");
            assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1), "{name}");
            knocking.go_on();
        }
        for name in ["first", "second"] {
            let _told = upgrade(&platform, &another(&platform, name, name)).ok();
            knocking.go_on();
        }
        let refused = knocking.end();
        assert!(refused.is_empty(), "{} were refused: {:?}", refused.len(), refused.first());
        let status = platform.cli(["status", "--json"]).ok().json();
        assert_eq!(status["api"].as_str(), Some(api.to_string().as_str()), "it is where it was");
        let _down = platform.cli(["down"]).ok();
    }
}

/// A program of before formats were told apart: it says its version, and knows no other word.
fn of_long_ago(platform: &Platform, name: &str) -> PathBuf {
    let path = platform.scratch().join(name);
    let says = format!(r#"case "$1" in version) exec {} "$@";; esac"#, berth().display());
    fs::write(&path, format!("#!/bin/sh\n{says}\nexit 2\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Has the journal say the format that the first versions wrote, as it does in a home of theirs. The platform is down.
fn as_of_format_1(platform: &Platform) {
    // The database's header has its `user_version` there, and its log was folded into it.
    let path = platform.home().join("journal/journal.db");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&1_u32.to_be_bytes(), 60).unwrap();
}

fn formats(platform: &Platform) -> (u64, u64) {
    let status = platform.cli(["status", "--json"]).ok().json();
    (status["journal_format"].as_u64().unwrap(), status["newest_format"].as_u64().unwrap())
}

/// A release that only the newest format has words for.
fn deploy_what_sleeps(platform: &Platform, source: &Source) -> berth_acceptance::Answer {
    let manifest = format!("app = \"{}\"\n[scale.web]\nmin = 0\n", Source::APP);
    fs::write(source.path().join("berth.toml"), manifest).unwrap();
    platform.cli(["deploy".as_ref(), source.path().as_os_str()])
}

#[test]
fn nothing_that_is_new_is_written_before_an_upgrade_is_committed() {
    let mut platform = Platform::start(Options::default());
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    let newest = formats(&platform).1;
    assert_eq!(formats(&platform), (newest, newest), "a new home begins with all there is");
    let nothing = platform.cli(["upgrade"]).ok().stdout;
    assert!(nothing.contains("nothing to commit"), "{nothing}");
    let _down = platform.cli(["down"]).ok();
    as_of_format_1(&platform);
    platform.start_again();

    // The home of an older version: it is served as it is, and what that version does not know is refused.
    assert_eq!(formats(&platform), (1, newest));
    for verb in ["status", "upgrade"] {
        let told = platform.cli([verb]).ok().stdout;
        assert!(told.contains("not committed") && told.contains("`berth upgrade commit`"), "{told}");
    }
    let refused = deploy_what_sleeps(&platform, &source);
    assert!(refused.status == 4 && refused.stderr.contains("upgrade_uncommitted"), "{refused:?}");
    assert!(refused.stderr.contains("`[scale]` in berth.toml"), "{refused:?}");
    let another = upgrade(&platform, &another(&platform, "newer", "newer")).ok();
    assert!(another.stderr.contains("not committed"), "{another:?}");
    let _set = platform.cli(["config", "set", "A=1", "--app", Source::APP]).ok();
    let refused = deploy_what_sleeps(&platform, &source);
    assert!(refused.stderr.contains("upgrade_uncommitted"), "{refused:?}");
    // The way back is open: the program of long ago gets its turn, and that it does not come up is not the journal's fault.
    let old = of_long_ago(&platform, "old");
    let failed = upgrade(&platform, &old);
    assert!(failed.status == 1 && failed.stderr.contains("upgrade_failed"), "{failed:?}");
    assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1));
    assert_eq!(formats(&platform), (1, newest));

    let committed = platform.cli(["upgrade", "commit"]).ok().stdout;
    assert!(committed.contains(&format!("committed: the journal has format {newest}")), "{committed}");
    platform.kill(platform.role("control")[0]);
    assert_eq!(formats(&platform), (newest, newest), "it was durable when it was answered");
    let again = platform.cli(["upgrade", "commit", "--json"]).ok().json();
    assert_eq!((again["before"].as_u64(), again["format"].as_u64()), (Some(newest), Some(newest)));
    let _released = deploy_what_sleeps(&platform, &source).ok();

    // The way back is closed, and nothing is replaced to find that out.
    let before = (platform.role("control"), platform.role("edge"), runs(&platform));
    let refused = upgrade(&platform, &old);
    assert!(refused.status == 4 && refused.stderr.contains("upgrade_refused"), "{refused:?}");
    assert!(refused.stderr.contains("reads journals of format 1 alone"), "{refused:?}");
    assert_eq!((platform.role("control"), platform.role("edge"), runs(&platform)), before);
    let _down = platform.cli(["down"]).ok();
}
