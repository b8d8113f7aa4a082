//! Another program takes the platform over while apps serve: nobody notices; one that does not come up gives way to the one before it, which can
//! read all that was written until somebody says that there is no way back.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
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
    let another = upgrade(&platform, &another(&platform, "newer")).ok();
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
