//! Children under strace: what is on its way to the disk when they acknowledge, and what they do when the
//! disk fails.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::child::{ACK, ONE_BY_ONE, Task, acknowledged, command};
use crate::fixture::{bodies, open};

/// Whether this machine can trace. Says so when it cannot.
#[expect(clippy::disallowed_methods, reason = "berth-process may not be used by this crate")]
fn can_trace(test: &str) -> bool {
    let why = match Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    // Past the harness, which would keep the words of a test that passes to itself.
    let notice = format!("SKIPPED: {test}: cannot run strace: {why}\n");
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
    false
}

/// Runs a child; gives the trace, what it acknowledged, and the rest.
fn trace(task: Task, dir: &Path, options: &[&str]) -> (String, Vec<u64>, Output) {
    let log = dir.join("trace");
    let mut wrapper: Vec<&OsStr> = ["strace", "-f", "-y", "-s", "32", "-o"].map(OsStr::new).to_vec();
    wrapper.push(log.as_os_str());
    wrapper.extend(options.iter().map(OsStr::new));
    let output = command(task, &dir.join("journal"), &wrapper).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let acknowledged = text.lines().filter_map(acknowledged).collect();
    (std::fs::read_to_string(log).unwrap(), acknowledged, output)
}

#[test]
fn the_log_is_synced_before_the_acknowledgement() {
    if !can_trace("the_log_is_synced_before_the_acknowledgement") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (trace, acknowledged, output) =
        trace(Task::OneByOne, dir.path(), &["-e", "trace=fdatasync,fsync,write,pwrite64"]);
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(acknowledged, (1..=ONE_BY_ONE).collect::<Vec<_>>());

    let acknowledgement = format!("\"{ACK}");
    // Calls interrupted in the trace by another thread's end on a line of their own, which does not repeat
    // the file.
    let mut syncing = BTreeMap::new();
    let (mut unsynced, mut syncs, mut seen) = (false, 0, 0);
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let of_log = call.contains("journal.db-wal>");
        assert!(!(call.starts_with("fsync(") && of_log), "fsync where fdatasync would do: {line}");
        if call.starts_with("pwrite64(") && of_log {
            unsynced = true;
        } else if call.starts_with("fdatasync(") && of_log && call.contains("unfinished") {
            syncing.insert(thread, ());
        } else if (call.starts_with("fdatasync(") && of_log)
            || (call.contains("fdatasync resumed") && syncing.remove(thread).is_some())
        {
            assert!(call.ends_with("= 0"), "{line}");
            unsynced = false;
            syncs += 1;
        } else if call.starts_with("write(") && call.contains(&acknowledgement) {
            assert!(!unsynced && syncs > 0, "acknowledged before the log was synced: {line}");
            seen += 1;
            syncs = 0;
        }
    }
    assert_eq!(seen, ONE_BY_ONE);
}

#[test]
fn a_failed_sync_ends_the_process_without_an_acknowledgement() {
    if !can_trace("a_failed_sync_ends_the_process_without_an_acknowledgement") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // strace counts calls by thread. Opening, on the main thread, takes far fewer than thirty; the writer
    // then fails with its thirtieth.
    let inject = "inject=fdatasync:error=EIO:when=30+";
    let (trace, acknowledged, output) =
        trace(Task::OneByOne, dir.path(), &["-e", "trace=fdatasync", "-e", inject]);
    assert!(trace.contains("EIO"), "{trace}");
    assert_ended_itself(&output);
    let last = *acknowledged.last().unwrap();
    assert_eq!(acknowledged, (1..=last).collect::<Vec<_>>());
    assert!(last < 30, "acknowledged {last} with 29 good syncs");
    let journal = open(&dir.path().join("journal"));
    let found = bodies(&journal).len();
    // The one under way may be there or not: nobody was told either.
    assert!([last, last + 1].contains(&u64::try_from(found).unwrap()), "{found} of {last}");
}

#[test]
fn a_failed_sync_while_folding_the_log_ends_the_process_too() {
    if !can_trace("a_failed_sync_while_folding_the_log_ends_the_process_too") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Made here, so that the child syncs the database itself for the first time when it folds the log into it.
    drop(open(&dir.path().join("journal")));
    let database = dir.path().join("journal").join("journal.db");
    let options =
        ["-P", database.to_str().unwrap(), "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let (trace, acknowledged, output) = trace(Task::Stream, dir.path(), &options);
    assert!(trace.contains("EIO"), "{trace}");
    assert_ended_itself(&output);
    let last = *acknowledged.last().unwrap();
    assert_eq!(acknowledged, (1..=last).collect::<Vec<_>>());
    let found = bodies(&open(&dir.path().join("journal"))).len();
    assert!(u64::try_from(found).unwrap() >= last, "{found} of {last}");
}

fn assert_ended_itself(output: &Output) {
    // strace ends as its child did.
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", output.status);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("the journal ends this process: the disk failed to confirm a write"), "{words}");
}
