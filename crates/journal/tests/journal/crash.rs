//! Children killed in the middle of their work, and children whose disk is full.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use crate::child::{ONE_BY_ONE, Task, acknowledged, body, command};
use crate::fixture::{bodies, open};

/// The journal is sound and has at least what was acknowledged; gives its head.
fn assert_kept(dir: &Path, last_acknowledged: u64) -> u64 {
    let journal = open(dir);
    let found = bodies(&journal);
    assert!(journal.head().0 >= last_acknowledged, "{} of {last_acknowledged}", journal.head());
    for (position, found) in (1..).zip(&found) {
        assert_eq!(*found, body(position), "event {position}");
    }
    journal.head().0
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut head = 0;
    // Each round dies after another number of acknowledgements, spread over some folds of the write-ahead
    // log; where the writer is at that moment is chance.
    for round in 0..8_u64 {
        let enough = 1 + (round * 2_654_435_761 % 1_500);
        let mut child = command(Task::Stream, dir.path(), &[]).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut last = head;
        let mut count = 0;
        let mut line = String::new();
        while count < enough {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended by itself");
            if let Some(position) = acknowledged(line.trim_end()) {
                assert_eq!(position, last + 1);
                last = position;
                count += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had acknowledged and we had not read. The last line may be torn.
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        for line in rest.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            last = acknowledged(line.trim_end()).unwrap();
        }
        head = assert_kept(dir.path(), last);
    }
}

/// After a loss of power the log may end anywhere behind what was synced, or hold rubbish there.
#[test]
fn a_torn_log_gives_a_prefix_of_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(Task::OneByOne, dir.path(), &[]).stdin(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = lines.map_while(Result::ok).filter_map(|line| acknowledged(&line));
    assert!(acknowledged.any(|position| position == ONE_BY_ONE), "the child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();

    let log = std::fs::read(dir.path().join("journal.db-wal")).unwrap();
    let mut heads = BTreeSet::new();
    for part in 0..=40 {
        let at = log.len() * part / 40;
        let torn = log[..at].to_vec();
        let mut scribbled = log.clone();
        scribbled[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
        for log in [torn, scribbled] {
            let copy = tempfile::tempdir().unwrap();
            std::fs::copy(dir.path().join("journal.db"), copy.path().join("journal.db")).unwrap();
            std::fs::write(copy.path().join("journal.db-wal"), log).unwrap();
            heads.insert(assert_kept(copy.path(), 0));
        }
    }
    assert_eq!((heads.first(), heads.last()), (Some(&0), Some(&ONE_BY_ONE)));
    assert!(heads.len() > 20, "{heads:?}");
}

#[test]
fn a_failed_write_at_commit_loses_only_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(Task::OutOfSpace, dir.path(), &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().filter_map(acknowledged).max().unwrap();
    assert!(last > 10);
    assert_eq!(assert_kept(dir.path(), last), last);
}
