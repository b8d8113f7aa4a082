//! Another program takes the platform over while apps serve: nobody notices; one that does not come up gives way to the one before it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_acceptance::load::{Activation, Load, Options as LoadOptions};
use berth_acceptance::{Options, Platform, Source, User, berth, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);

/// The program of the tests as another file: what is behind the end of a program changes nothing but its hash.
fn another(platform: &Platform, name: &str) -> PathBuf {
    let path = platform.scratch().join(name);
    fs::copy(berth(), &path).unwrap();
    let mut bytes = fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut bytes, name.as_bytes()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A program that says its version as Berth does, and then does what `rest` says.
fn script(platform: &Platform, name: &str, rest: &str) -> PathBuf {
    let path = platform.scratch().join(name);
    let says = format!(r#"case "$*" in *version*) exec {} version --json;; esac"#, berth().display());
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
            let told = upgrade(&platform, &another(&platform, name)).ok().stdout;
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
    let platform = Platform::start(Options::default());
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
        assert!(wait_until(PATIENCE, || platform.role("edge").len() == 1), "{name}");
        assert_eq!(platform.role("control").len(), 1, "{name}");
    }
    let outcome = load.stop();
    println!("{outcome}");
    outcome.assert_clean(&active(), &[]);
    let _down = platform.cli(["down"]).ok();
}
