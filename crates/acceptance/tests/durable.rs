//! What was answered is on the disk, and what is not on the disk is not answered: seen from the kernel.

use std::io::Write as _;
use std::time::Duration;

use berth_acceptance::{Api, Call, Options, Platform, Source, Tracer, exchange, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_app() -> Platform {
    let platform = Platform::start(Options::default());
    let source = Source::built(&platform);
    let _released = platform.cli(["deploy".as_ref(), source.path().as_os_str()]).ok();
    platform
}

fn set(platform: &Platform, value: &str) {
    let setting = format!("VALUE={value}");
    let _set = platform.cli(["config", "set", &setting, "--app", Source::APP, "--detach"]).ok();
}

/// The variable as it is set now.
fn value(platform: &Platform) -> Option<String> {
    let config = platform.cli(["config", "--app", Source::APP, "--json"]).ok().json();
    config["config"]["VALUE"].as_str().map(str::to_owned)
}

fn control(platform: &Platform) -> u32 {
    let role = platform.role("control");
    assert_eq!(role.len(), 1, "{role:?}");
    role[0]
}

/// Attaches to control; says so where that is not possible.
fn trace(platform: &Platform, test: &str, options: &[&str]) -> Option<Tracer> {
    Tracer::attach(platform, control(platform), options)
        .inspect_err(|why| {
            // Past the harness, which would keep the words of a test that passes to itself.
            let notice = format!("SKIPPED: {test}: {why}\n");
            std::io::stderr().write_all(notice.as_bytes()).expect("there is a standard error");
        })
        .ok()
}

/// How far a change has come, as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Written,
    Syncing,
    Synced,
    Answered,
}

/// Follows the change with `mark` in it through the calls; panics where it is answered before it was synced.
fn follow(calls: &[Call], mark: &str) -> Reached {
    let mut reached = Reached::Nothing;
    for call in calls {
        let (of_log, of_mark) = (call.rest.contains("journal.db-wal>"), call.rest.contains(mark));
        match call.name.as_str() {
            "pwrite64" if of_log && of_mark && call.returned && reached == Reached::Nothing => {
                reached = Reached::Written;
            }
            "fdatasync" if of_log && !call.returned && reached == Reached::Written => {
                reached = Reached::Syncing;
            }
            "fdatasync" if of_log && call.returned && reached == Reached::Syncing => {
                assert!(call.rest.ends_with("= 0"), "{call:?}");
                reached = Reached::Synced;
            }
            "write" | "writev" | "sendto" | "sendmsg"
                if !call.returned && of_mark && call.rest.contains("HTTP/1.1 20") =>
            {
                assert!(reached >= Reached::Synced, "{reached:?} when answered: {call:?}");
                reached = Reached::Answered;
            }
            _ => {}
        }
    }
    reached
}

#[test]
fn fsync_before_answer() {
    let platform = with_app();
    // Whole pages, so that a change is found in them.
    let options = ["-s", "8192", "-e", "trace=write,writev,sendto,sendmsg,pwrite64,fdatasync"];
    let Some(tracer) = trace(&platform, "fsync_before_answer", &options) else { return };
    let marks: Vec<String> = (0..5).map(|number| format!("mark-{number}-of-this-test")).collect();
    marks.iter().for_each(|mark| set(&platform, mark));
    let calls = tracer.detach();
    for mark in &marks {
        assert_eq!(follow(&calls, mark), Reached::Answered, "{mark}");
    }
}

#[test]
fn what_cannot_be_synced_is_not_answered_and_nothing_else_is_lost() {
    let platform = with_app();
    set(&platform, "kept");
    let releases =
        || platform.cli(["releases", "--app", Source::APP, "--json"]).ok().json()["releases"].clone();
    let settled = |state: &serde_json::Value| state == "active" || state == "retired";
    let quiet =
        || releases().as_array().is_some_and(|all| all.iter().all(|release| settled(&release["state"])));
    assert!(wait_until(PATIENCE, quiet), "{}", releases());
    let before = releases();
    let old = control(&platform);
    let options = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let test = "what_cannot_be_synced_is_not_answered_and_nothing_else_is_lost";
    let Some(tracer) = trace(&platform, test, &options) else { return };

    // A client that asks once, so that the next control's answer is not taken for this one's.
    let api = Api::of(&platform);
    let path = format!("/api/v1/tenants/default/projects/default/apps/{}/config", Source::APP);
    let request = api.request("PATCH", path.as_bytes(), br#"{"set":{"VALUE":"lost"}}"#);
    let answer = exchange(api.address(), &request);
    assert!(answer.as_ref().is_err_and(|_none| true), "{answer:?}");
    let calls = tracer.detach();
    assert!(calls.iter().any(|call| call.rest.contains("EIO")), "{calls:?}");

    assert!(wait_until(PATIENCE, || platform.role("control").iter().any(|pid| *pid != old)));
    // Nobody was told whether it was done, so either is right; but all of it or nothing.
    let (now, value) = (releases(), value(&platform));
    let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
    match value.as_deref() {
        Some("kept") => assert_eq!(now, before),
        Some("lost") => assert_eq!(count(&now), count(&before) + 1),
        other => panic!("{other:?}"),
    }
    // Whoever asks again with the same key is answered, and it is done once.
    let answer = exchange(api.address(), &request).expect("control is back");
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    assert_eq!(count(&releases()), count(&before) + 1);
    assert!(wait_until(PATIENCE, quiet), "{}", releases());
}

#[test]
fn a_command_that_meets_a_failing_disk_is_done_by_the_next_control() {
    let platform = with_app();
    let old = control(&platform);
    let options = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let test = "a_command_that_meets_a_failing_disk_is_done_by_the_next_control";
    let Some(tracer) = trace(&platform, test, &options) else { return };
    // The command line asks again with the same key until somebody answers.
    let asking = platform.begin(["config", "set", "VALUE=done", "--app", Source::APP, "--detach"]);
    let failed = || tracer.calls().iter().any(|call| call.rest.contains("EIO"));
    assert!(wait_until(PATIENCE, failed), "nothing was synced");
    let _calls = tracer.detach();
    let _set = asking.wait().ok();
    assert_ne!(control(&platform), old);
    assert_eq!(value(&platform).as_deref(), Some("done"));
    let releases = platform.cli(["releases", "--app", Source::APP, "--json"]).ok().json();
    assert_eq!(releases["releases"].as_array().map(Vec::len), Some(2), "{releases}");
}
